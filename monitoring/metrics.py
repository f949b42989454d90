"""Every metric, declared once. Ray exports them on each node with the prefix `ray_`.

Names follow Prometheus: base units, `_total` on counters, labels with few values (never a job id).
"""

from ray.util.metrics import Counter, Histogram

_STAGE_SECONDS = [0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300]

ATTEMPTS = Counter(
    "shopreel_job_attempts_total",
    description="Tries at jobs, by how they ended.",
    tag_keys=("outcome",),
)
STAGE_SECONDS = Histogram(
    "shopreel_stage_duration_seconds",
    description="Work of one stage on one clip, without waiting.",
    boundaries=_STAGE_SECONDS,
    tag_keys=("stage",),
)
DENOISE_STEPS = Counter(
    "shopreel_denoise_steps_total",
    description="UNet steps done.",
    tag_keys=("tier",),
)
PROMPT_CACHE = Counter(
    "shopreel_prompt_cache_requests_total",
    description="Prompt embeddings asked for, by whether they were in the cache.",
    tag_keys=("result",),
)
RESULTS_ADOPTED = Counter(
    "shopreel_duplicate_commits_suppressed_total",
    description="Finished attempts that found the same result already committed.",
)
ETA_ERROR = Histogram(
    "shopreel_eta_error_ratio",
    description="|real - foreseen| / real seconds from lease to end, foreseen at the lease.",
    boundaries=[0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 5],
)
CHECKPOINTS = Counter(
    "shopreel_checkpoints_total",
    description="Checkpoints of running clips, by whether they could be stored.",
    tag_keys=("outcome",),
)
CHECKPOINT_BYTES = Counter(
    "shopreel_checkpoint_bytes_total",
    description="Bytes of stored checkpoints.",
)
JOB_EVENTS = Counter(
    "shopreel_job_events_total",
    description="What went otherwise than planned on a job's way: rungs of the memory ladder,"
    " preemptions, resumptions.",
    tag_keys=("kind",),
)
WEBHOOK_DELIVERIES = Counter(
    "shopreel_webhook_deliveries_total",
    description="Tries at webhooks: delivered, to be retried, given up, or the endpoint disabled.",
    tag_keys=("outcome",),
)
