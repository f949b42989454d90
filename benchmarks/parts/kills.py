"""What a killed denoiser costs: steps done again, and seconds until the clip moves on.

One clip of 100 steps at a time on a one-machine cluster, whose denoiser gets a SIGKILL on the way.
"""

import random
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from benchmarks.machine import spread
from benchmarks.processes import name_of
from cluster.tiers import TierConfig
from serve.client import Client
from serve.commands import EXAMPLES, LOCAL_CONFIG
from serve.commands.up import cluster_up
from storage.job_store import JobStoreConfig, SqlJobStore
from storage.jobs import Job

STEPS, KILLS = 100, 5
_PATIENCE_S = 120.0


def measure() -> dict[str, Any]:
    with (
        TemporaryDirectory() as data,
        cluster_up(None, None, Path(data), None, None, lambda _: None) as (running, _),
        Client(running.base_url) as client,
    ):
        from serve.config import load

        tier = load(LOCAL_CONFIG).app.tiers[0]
        jobs = SqlJobStore(JobStoreConfig(url=f"sqlite:///{Path(data).resolve() / 'jobs.sqlite'}"))
        draw = random.Random(0)
        part = STEPS // KILLS  # a random step of every fifth of the clip
        steps = [draw.randrange(max(5, n * part), (n + 1) * part) for n in range(KILLS)]
        kills = [
            _kill(client, jobs, tier, running.dashboard_url, seed, step)
            for seed, step in enumerate(steps)
        ]
    return {
        "clip": f"128x128, 16 frames, {STEPS} steps",
        "checkpoint_steps": tier.engine.checkpoint_steps,
        "kills": kills,
        "steps_done_again": spread([kill["steps_done_again"] for kill in kills]),
        "without_checkpoints": spread([kill["killed_after_step"] for kill in kills]),
        "seconds": {
            name: spread([kill["seconds"][name] for kill in kills]) for name in kills[0]["seconds"]
        },
    }


def _kill(
    client: Client, jobs: SqlJobStore, tier: TierConfig, dashboard: str, seed: int, step: int
) -> dict[str, Any]:
    """Make a clip, end its denoiser at about `step`, and see it through."""
    video = client.create(
        EXAMPLES / "watch-steel.jpg",
        model="tiny-random",
        prompt="a watch turns",
        size="128x128",
        num_frames=16,
        num_inference_steps=STEPS,
        seed=seed,
    )
    replica = _replica(tier)
    before = _steps_done(tier)
    while (done := _steps_done(tier) - before) < step:
        time.sleep(0.02)
    killed_at = time.time()
    replica.kill()
    ready_s, first_step_s = _comes_back(tier, killed_at)
    client.wait(video["id"], lambda _: None, poll_s=0.5)
    job = jobs.get("default", video["id"])
    if job.result is None or job.attempt != 2:
        raise RuntimeError(f"{job.status} in attempt {job.attempt}: {job.error_message}")
    resumed = [event for event in job.events if event.kind == "resumed"]
    resumed_after = int(resumed[0].detail.split()[-1]) if resumed else 0
    started_s = _started_at(tier, dashboard) - killed_at
    seconds = {
        "until the Dispatcher knows": _lost_at(job) - killed_at,
        "until Serve starts another replica": started_s,
        "its process starts and loads the UNet": ready_s - started_s,
        "from then to its first step": first_step_s - ready_s,
        "from the kill to the first new step": first_step_s,
    }
    return {
        "killed_after_step": done,
        "resumed_after_step": resumed_after,
        "steps_done_again": done - resumed_after,
        "seconds": {name: round(s, 3) for name, s in seconds.items()},
    }


def _comes_back(tier: TierConfig, killed_at: float) -> tuple[float, float]:
    """Seconds until a replica answers, and until it has done a step."""
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    ready_s = None
    while time.time() < killed_at + _PATIENCE_S:
        try:
            steps = _steps_done(tier)
        except (RayError, RayServeException):  # the old one, for as long as Serve believes in it
            time.sleep(0.02)
            continue
        now_s = time.time() - killed_at
        ready_s = ready_s or now_s
        if steps > 0:
            return ready_s, now_s
        time.sleep(0.01)
    raise RuntimeError(f"no step {_PATIENCE_S:.0f} s after the kill")


def _steps_done(tier: TierConfig) -> int:
    """Of the replica since it started."""
    from ray.serve import get_deployment_handle

    denoiser = get_deployment_handle(tier.deployment_name, "shopreel")
    steps: int = denoiser.steps_done.remote().result(timeout_s=_PATIENCE_S)
    return steps


def _replica(tier: TierConfig) -> psutil.Process:
    (found,) = (
        process
        for process in psutil.Process().children(recursive=True)
        if name_of(process) == tier.deployment_name
    )
    return found


def _started_at(tier: TierConfig, dashboard: str) -> float:
    """When Serve's controller asked for the replica that runs now, in Unix seconds."""
    from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

    application = ServeSubmissionClient(dashboard).get_serve_details()["applications"]["shopreel"]
    (replica,) = application["deployments"][tier.deployment_name]["replicas"]
    started_at: float = replica["start_time_s"]
    return started_at


def _lost_at(job: Job) -> float:
    """When the Dispatcher noted it, in Unix seconds."""
    times: Sequence[float] = [event.at for event in job.events if event.kind == "worker_lost"]
    return times[0]
