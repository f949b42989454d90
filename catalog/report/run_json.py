"""run.json: the run for machines; what report.html says, without the pictures."""

import json

from catalog.report.summary import RunSummary
from catalog.results.row import RowStatus


def run_json(summary: RunSummary, written_at: float) -> bytes:
    """Times are Unix seconds; seconds of stages and GPUs are sums over the rows."""
    plan, tally = summary.plan, summary.tally
    document = {
        "object": "catalog.run",
        "id": summary.run_id,
        "status": summary.status,
        "stopped_because": summary.stopped,
        "manifest": {"uri": plan.manifest_uri, "fingerprint": plan.fingerprint},
        "options": dict(plan.options),
        "versions": dict(plan.versions),
        "rows": {
            "total": plan.rows,
            "done": tally.rows,
            **{status.value: tally.count(status) for status in RowStatus},
        },
        "shards": {"total": plan.shards, "done": summary.shards_done},
        "failures": {code: failure.count for code, failure in tally.failures.items()},
        "videos": {
            "bytes": tally.video_bytes,
            "seconds": tally.video_seconds,
            "shared": tally.shared,
            "retried": tally.retried,
            "downgrades": dict(tally.downgrades),
        },
        "stages": {name: stage.model_dump() for name, stage in tally.stages.items()},
        "tiers": {name: tier.model_dump() for name, tier in tally.tiers.items()},
        "currency": plan.currency,
        "score": {
            "p10": tally.scores.quantile(0.1),
            "median": tally.scores.quantile(0.5),
            "p90": tally.scores.quantile(0.9),
            "histogram": tally.scores.counts,
        },
        "created_at": plan.created_at,
        "started_at": tally.started_at,
        "finished_at": tally.finished_at,
        "written_at": written_at,
    }
    return json.dumps(document, indent=1, ensure_ascii=False).encode()
