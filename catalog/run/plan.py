"""The plan of a run: fixed by its first driver, adopted by every later one."""

import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from pydantic import ValidationError

from catalog.manifest.pinned import PinnedManifest, Shard
from catalog.report.summary import RunPlan
from catalog.results.output import RunOutput
from catalog.run.errors import PlanChanged
from catalog.run.options import RunOptions

NAME = "plan.json"


def adopted_plan(
    output: RunOutput, options: RunOptions, manifest: PinnedManifest, currency: str | None
) -> RunPlan:
    """Raises PlanChanged where this folder's run was begun to make something else."""
    rows = min(manifest.rows, options.limit or manifest.rows)
    plan = RunPlan(
        manifest_uri=options.manifest_uri,
        fingerprint=manifest.fingerprint,
        rows=rows,
        shards=len(shards_of(manifest, rows)),
        options=options.of_the_rows(),
        versions={"shopreel": version("shopreel")},
        currency=currency,
        created_at=time.time(),
    )
    key = output.key(NAME)
    if output.objects.put_if_absent(key, plan.model_dump_json().encode(), "application/json"):
        return plan
    standing = read_plan(output)
    if standing is None:
        raise PlanChanged(output.uri, "its plan.json was deleted meanwhile")
    asked, found = _identity(plan), _identity(standing)
    for name in {**asked, **found}:
        was, now = found.get(name), asked.get(name)
        if was != now:
            raise PlanChanged(output.uri, f"{name} was {was!r}, now it is {now!r}")
    return standing


def read_plan(output: RunOutput) -> RunPlan | None:
    """None: nothing was ever begun here. Raises PlanChanged for a file that is no plan."""
    info = output.objects.stat(output.key(NAME))
    if info is None:
        return None
    try:
        return RunPlan.model_validate_json(output.objects.get(output.key(NAME)))
    except ValidationError as e:
        raise PlanChanged(output.uri, "its plan.json is no plan of a run") from e


def shards_of(manifest: PinnedManifest, rows: int) -> tuple[Shard, ...]:
    """The first so many rows' shards; the last one may be cut short."""
    return tuple(
        Shard(shard.id, shard.first_row, min(shard.rows, rows - shard.first_row))
        for shard in manifest.shards
        if shard.first_row < rows
    )


def _identity(plan: RunPlan) -> Mapping[str, Any]:
    return {
        "manifest": plan.manifest_uri,
        "fingerprint": plan.fingerprint,
        "rows": plan.rows,
        **plan.options,
    }
