"""Tiers, fractions, losses and returns on a cluster of several nodes."""

import random
import time
from contextlib import suppress

import psutil
import pytest

from storage import keys
from storage.jobs import Job, JobStatus
from tests.multinode.rig import CHECKPOINT_STEPS, LARGE, MultiNode

pytestmark = pytest.mark.timeout(300)

MIDDLE = {"size": "128x128", "num_frames": 16, "num_inference_steps": 30}
LONG = {"num_inference_steps": 150}
SLOW = MIDDLE | {"num_inference_steps": 100}  # seconds, on any machine
ONE_TIER = LARGE | {"num_inference_steps": 60}  # whatever was learned of the tiers' rates


def resumed_steps(job: Job) -> list[int]:
    return [int(e.detail.split()[-1]) for e in job.events if e.kind == "resumed"]


def test_replicas_stand_on_the_tiers_and_fractions_asked_for(fleet: MultiNode) -> None:
    # Two halves of the one card that the node has.
    assert fleet.nodes_of("Denoiser-a100") == [fleet.nodes["a100"].node_id] * 2
    assert fleet.nodes_of("Denoiser-rtx4090") == []  # at rest


def test_api_replicas_of_several_nodes_share_one_table(fleet: MultiNode) -> None:
    assert len(set(fleet.nodes_of("VideoAPI"))) == 2
    job_id = fleet.create()
    fleet.completed(job_id)
    with fleet.client() as client:
        seen = [client.get(job_id) for _ in range(20)]
    assert seen == [seen[0]] * 20


def test_a_tier_at_rest_is_woken_by_a_backlog_and_goes_to_rest_again(fleet: MultiNode) -> None:
    jobs = [fleet.create(seed=n, **MIDDLE) for n in range(12)]
    fleet.until(lambda: fleet.replicas()["Denoiser-rtx4090"] == 1, 60, fleet.replicas)
    assert fleet.nodes_of("Denoiser-rtx4090") == [fleet.nodes["rtx4090"].node_id]
    assert {job.tier for job in fleet.completed(*jobs)} == {"a100", "rtx4090"}
    fleet.until(lambda: fleet.replicas()["Denoiser-rtx4090"] == 0, 90, fleet.replicas)


def test_a_large_clip_never_goes_to_a_small_tier(fleet: MultiNode) -> None:
    """Not even behind a backlog that wakes the other tier."""
    jobs = [fleet.create(seed=n, num_inference_steps=12, **LARGE) for n in range(6)]
    jobs += [fleet.create(seed=100 + n, **MIDDLE) for n in range(8)]
    done = fleet.completed(*jobs)
    assert {job.tier for job in done[:6]} == {"a100"}
    assert {job.tier for job in done[6:]} == {"a100", "rtx4090"}


def test_a_killed_denoiser_loses_no_more_than_a_checkpoint_interval(fleet: MultiNode) -> None:
    job_id = fleet.create(**SLOW)
    fleet.step_reached(job_id, 4 * CHECKPOINT_STEPS)
    # The tier that the test before has woken may not be at rest yet, and take the clip.
    for process in fleet.processes(f"Denoiser-{fleet.job(job_id).tier}"):
        process.kill()
    at_kill = fleet.job(job_id).step
    (job,) = fleet.completed(job_id)
    resumed = resumed_steps(job)[0]
    # Progress is written once a second, so the kill was at least at this step.
    assert resumed >= at_kill - CHECKPOINT_STEPS - 1
    assert resumed % CHECKPOINT_STEPS == 0
    fleet.until(lambda: fleet.replicas()["Denoiser-a100"] == 2, 60, fleet.replicas)


def test_cancel_reaches_the_unet_within_a_step(fleet: MultiNode) -> None:
    def steps() -> int:
        asked = fleet.handle("Denoiser-a100").broadcast("steps_done")
        return sum(asked.results(timeout_s=10))

    job_id = fleet.create(**LONG, **LARGE)
    fleet.step_reached(job_id, 3)
    fleet.jobs.cancel("default", job_id)
    fleet.handle("Dispatcher").stop.remote(job_id).result(timeout_s=10)
    at_cancel = steps()
    time.sleep(3)
    assert steps() - at_cancel <= 1
    assert fleet.job(job_id).status == "cancelled"


def test_a_spot_notice_loses_no_step(fleet: MultiNode) -> None:
    job_id = fleet.create(**ONE_TIER)
    fleet.step_reached(job_id, 7)
    fleet.drain_node("a100", seconds=20)
    fleet.until(lambda: len(fleet.job(job_id).events) > 0, 20, lambda: fleet.job(job_id))
    preempted = fleet.job(job_id).events[0]
    assert preempted.kind == "preempted"
    fleet.remove_node("a100")
    fleet.add_node("a100")
    (job,) = fleet.completed(job_id)
    assert resumed_steps(job)[0] == int(preempted.detail.split()[-1])
    fleet.until(lambda: fleet.replicas()["Denoiser-a100"] == 2, 90, fleet.replicas)


def test_a_lost_node_costs_its_jobs_an_attempt_and_comes_back(fleet: MultiNode) -> None:
    jobs = [fleet.create(seed=n, **ONE_TIER) for n in range(3)]

    def under_way() -> list[str]:
        return [
            job.id
            for job in fleet.jobs.get_many(jobs)
            if job.status is JobStatus.IN_PROGRESS and job.step >= CHECKPOINT_STEPS + 2
        ]

    fleet.until(lambda: len(under_way()) >= 2, 60, lambda: fleet.jobs.get_many(jobs))
    lost = under_way()
    fleet.remove_node("a100")
    time.sleep(1)
    fleet.add_node("a100")
    fleet.completed(*jobs, patience_s=180)
    for job in map(fleet.job, lost):
        assert job.attempt >= 2
        assert max(resumed_steps(job)) >= CHECKPOINT_STEPS
    fleet.until(lambda: fleet.replicas()["Denoiser-a100"] == 2, 90, fleet.replicas)


def test_a_clip_outlives_its_dispatcher_only_until_the_next_one_takes_it(
    fleet: MultiNode,
) -> None:
    job_id = fleet.create(**LONG, **LARGE)
    fleet.step_reached(job_id, 8)
    (dispatcher,) = fleet.processes("Dispatcher")
    dispatcher.kill()
    (job,) = fleet.completed(job_id)
    assert job.attempt == 2
    assert resumed_steps(job)[0] >= 5

    def clips() -> int:
        asked = fleet.handle("Denoiser-a100").broadcast("clips_in_flight")
        return sum(asked.results(timeout_s=10))

    fleet.until(lambda: clips() == 0, 30, clips)  # no zombie


def test_fifty_mixed_jobs_under_random_kills_have_one_result_each(fleet: MultiNode) -> None:
    chance = random.Random(7)
    before = len(list(fleet.store.iter_objects("results/default/")))
    jobs = [
        fleet.create(
            seed=1000 + n,
            num_inference_steps=chance.choice([10, 20, 40]),
            priority=chance.choice(["interactive", "batch"]),
            size=chance.choice(["64x64", "96x64", "64x96"]),
            guidance_scale=chance.choice([1, 9]),
        )
        for n in range(50)
    ]
    victims = ["Denoiser-a100", "Decoder", "VideoEncoder", "Dispatcher", "TextEncoder"]
    deadline = time.monotonic() + 240
    kills, ended = 0, 0
    while ended < len(jobs) and time.monotonic() < deadline:
        ended = sum(job.status.is_terminal for job in fleet.jobs.get_many(jobs))
        due = 1 + ended // 6  # spread over the work, however fast the machine is
        if kills < due and (found := fleet.processes(chance.choice(victims))):
            with suppress(psutil.NoSuchProcess):
                chance.choice(found).kill()
                kills += 1
        time.sleep(0.2)
    done = fleet.completed(*jobs, patience_s=5)
    assert kills >= 6
    results = [info.key for info in fleet.store.iter_objects("results/default/")]
    for job in done:
        assert job.result is not None
        assert keys.result_key("default", job.request.result_id) in results
        assert fleet.store.stat(job.result.video_key) is not None
    assert len(results) - before == len({job.request.result_id for job in done}) == 50
