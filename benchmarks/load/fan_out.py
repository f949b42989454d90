"""How soon a state that is committed reaches those who watch: 200 videos, one listener each.

As the Dispatcher's beat does, one transaction changes all of them.
"""

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.load.generator import LoadFailed, percentile
from storage.job_store import Progress, SqlJobStore
from storage.jobs import Job, Stage

STATES = 20
_BETWEEN_S = (0.8, 1.2)  # drawn, so that commits keep no step with the API's polls


def fan_out(
    url: str, store: SqlJobStore, epoch: int, tier: str, ids: list[str], folder: Path
) -> dict[str, Any]:
    """Leases these jobs, lets them make progress before their listeners, and fails them.

    `heard`: the share of the states that arrived; of two between two polls only the newer one does.
    Raises LoadFailed where a listener did not hear the end.
    """
    leased = store.lease(epoch, dict.fromkeys(ids, tier))
    if len(leased) != len(ids):
        raise LoadFailed(f"{len(leased)} of {len(ids)} jobs could be leased")
    path = folder / "watched.txt"
    path.write_text("\n".join(ids))
    command = [sys.executable, "-m", "benchmarks.load.listeners", url, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as listeners:
        assert listeners.stdout is not None
        if listeners.stdout.readline() != "ready\n":
            raise LoadFailed("the listeners did not all hear a first event")
        committed_at = _advance(store, epoch, leased)
        for job in leased:
            store.fail(job.current_attempt, "benchmark_over", "nobody works on it")
        heard, _ = listeners.communicate()
    events = [(rev, at) for _, rev, at in json.loads(heard)]
    held = sum(rev > max(committed_at) for rev, _ in events)
    if held != len(ids):
        raise LoadFailed(f"{held} of {len(ids)} listeners heard the end")
    late_ms = sorted(1e3 * (at - committed_at[rev]) for rev, at in events if rev in committed_at)
    return {
        "connections_held": held,
        "heard": len(late_ms) / (len(ids) * STATES),
        "p50_ms": percentile(late_ms, 0.5),
        "p95_ms": percentile(late_ms, 0.95),
    }


def _advance(store: SqlJobStore, epoch: int, leased: list[Job]) -> dict[int, float]:
    """When each state was committed (Unix seconds), by the rev that it gave every job."""
    committed_at = {}
    for step in range(1, STATES + 1):
        time.sleep(random.uniform(*_BETWEEN_S))
        reports = [Progress(job.current_attempt, Stage.DENOISING, step) for job in leased]
        store.record_progress(reports, epoch)
        now = time.time()
        (rev,) = set(store.revisions([job.id for job in leased]).values())
        committed_at[rev] = now
    return committed_at
