"""Every metric, declared once. Ray exports them on each node with the prefix `ray_`, and adds the
labels NodeAddress, WorkerId and SessionName.

Names follow Prometheus: base units, `_total` on counters, labels with few values (never a job id).
A job is what is run: each candidate of a video counts as one.
"""

from monitoring.instruments import Counter, Gauge, Histogram, Metric, Values, begin

__all__ = ["ALL", "METHODS", "NO_TIER", "OTHER_METHOD", "begin"]  # and the metrics

NO_TIER = "none"
"""The `tier` of a job that ended without one: its result stood already, or it never began."""

OTHER_METHOD = "other"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", OTHER_METHOD)

_TIER: Values = None
_PRIORITY = ("interactive", "batch")
_STORE_OPS = ("put", "put_if_absent", "get", "stat", "delete", "list")

_REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_STAGE_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300)
_STEP_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2.5, 5, 10, 30)
_FRAME_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2.5, 5, 10, 30)
_JOB_SECONDS = (
    *(0.5, 1, 2.5, 5, 10, 20, 30, 45, 60, 90, 120, 180, 300, 600),
    *(1200, 3600, 7200, 21600, 86400),
)
_WAIT_SECONDS = (0.1, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 21600, 86400)

# What callers see.

HTTP_REQUESTS = Counter(
    "shopreel_http_requests_total",
    "Answers of the API, by route template; `none` where no route has the path. `shed`: a 503 that"
    " sends load away on purpose, not one for a store that does not answer. Probes of health are"
    " left out.",
    route=None,
    method=METHODS,
    code=None,
    shed=("yes", "no"),
)
HTTP_SECONDS = Histogram(
    "shopreel_http_request_duration_seconds",
    "Until the answer begins; requests that asked to wait for a video are left out.",
    _REQUEST_SECONDS,
    route=None,
    method=METHODS,
)
JOBS_CREATED = Counter(
    "shopreel_jobs_created_total", "Jobs accepted, repeats left out.", priority=_PRIORITY
)
JOBS_REFUSED = Counter(
    "shopreel_jobs_refused_total",
    "Creations answered with 429 or 503, by the error code of the answer.",
    reason=(
        *("rate_limit_exceeded", "quota_exceeded", "too_many_failed_authentications"),
        *("queue_full", "overloaded", "server_busy", "store_unavailable", "store_misconfigured"),
    ),
)
JOBS = Counter(
    "shopreel_jobs_total",
    "Jobs that ended, as the job table has it; seconds after the end.",
    tier=_TIER,
    outcome=("completed", "failed", "cancelled"),
)
JOB_FAILURES = Counter(
    "shopreel_job_failures_total",
    "Jobs that failed, by the error code that their caller sees.",
    code=(
        *("out_of_memory", "does_not_fit", "deadline_exceeded", "worker_lost", "internal"),
        *("encode_failed", "store_unavailable", "no_space", "server_busy", "preempted"),
        *("image_unsupported", "image_undecodable", "image_too_small", "image_too_large"),
    ),
)
JOB_SECONDS = Histogram(
    "shopreel_job_duration_seconds",
    "Of completed jobs, from accepted to visible.",
    _JOB_SECONDS,
    tier=_TIER,
    priority=_PRIORITY,
)
JOB_WAIT_SECONDS = Histogram(
    "shopreel_job_queue_wait_seconds",
    "From accepted to the first attempt.",
    _WAIT_SECONDS,
    tier=_TIER,
    priority=_PRIORITY,
)
WEBHOOK_DELIVERIES = Counter(
    "shopreel_webhook_deliveries_total",
    "Tries at webhooks: delivered, to be retried, given up, or the endpoint disabled.",
    outcome=("delivered", "retried", "given_up", "disabled"),
)

# The queue and who works it off.

QUEUE_DEPTH = Gauge("shopreel_queue_depth", "Jobs that wait.", priority=_PRIORITY)
QUEUE_AGE = Gauge(
    "shopreel_queue_oldest_age_seconds",
    "Since the first job in the queue was accepted; 0: none waits.",
    priority=_PRIORITY,
)
IN_FLIGHT = Gauge("shopreel_jobs_in_flight", "Jobs under way, in any stage.", tier=_TIER)
BACKLOG = Gauge(
    "shopreel_backlog_gpu_seconds",
    "Foreseen seconds of one replica for the denoising that is left, running and queued; of the"
    " tier camera, for its rendering.",
    tier=_TIER,
)
REPLICAS = Gauge(
    "shopreel_tier_replicas", "Denoisers that run; of the tier camera, renderers.", tier=_TIER
)
REPLICAS_STARTING = Gauge(
    "shopreel_replicas_starting",
    "Replicas that Serve wants and that do not run yet, those that no node has room for included.",
    deployment=None,
)
LEASE_EXPIRATIONS = Counter(
    "shopreel_lease_expirations_total",
    "Jobs begun again, or found done, after the lease of an attempt had run out.",
)
ATTEMPTS = Counter(
    "shopreel_job_attempts_total",
    "Tries at jobs, by how they ended.",
    outcome=("completed", "reused", "adopted", "released", "failed", "stale", "unrecorded"),
)
JOB_EVENTS = Counter(
    "shopreel_job_events_total",
    "What went otherwise than planned on a job's way: rungs of the memory ladder, preemptions,"
    " resumptions.",
    kind=(
        *("chunked_unet", "fewer_rows", "solo_rows", "safe_precision", "decode_chunk"),
        *("other_tier", "smaller_size", "fewer_frames", "camera_move"),
        *("preempted", "resumed", "checkpoint_refused", "worker_lost", "store_unavailable"),
        *("result_purged", "encode_failed", "server_busy", "internal"),
    ),
)
ETA_ERROR = Histogram(
    "shopreel_eta_error_ratio",
    "|real - foreseen| / real seconds from lease to end, foreseen at the lease.",
    (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 5),
)

# The stages.

STAGE_SECONDS = Histogram(
    "shopreel_stage_duration_seconds",
    "Work of one stage on one clip, without waiting.",
    _STAGE_SECONDS,
    stage=(
        *("text_encoding", "rendering", "image_encoding", "frames_encoding"),
        *("denoising", "decoding"),
        *("quality", "interpolation", "video_encoding", "storing"),
    ),
)
PROMPT_CACHE = Counter(
    "shopreel_prompt_cache_requests_total",
    "Prompt embeddings asked for, by whether they were in the cache.",
    result=("hit", "miss"),
)
DENOISE_STEPS = Counter("shopreel_denoise_steps_total", "UNet steps of clips done.", tier=_TIER)
DENOISE_STEP_SECONDS = Histogram(
    "shopreel_denoise_step_duration_seconds",
    "One UNet call, however many clips share it.",
    _STEP_SECONDS,
    tier=_TIER,
)
FRAMES = Counter(
    "shopreel_frames_generated_total",
    "Frames that the model made for completed attempts, without those interpolated between them.",
    tier=_TIER,
)
FRAME_SECONDS = Histogram(
    "shopreel_frame_generation_seconds",
    "Denoising and decoding of a clip made in one go, shares of shared calls, per frame.",
    _FRAME_SECONDS,
    tier=_TIER,
)
CHECKPOINTS = Counter(
    "shopreel_checkpoints_total",
    "Checkpoints of running clips, by whether they could be stored.",
    outcome=("stored", "failed"),
)
CHECKPOINT_BYTES = Counter("shopreel_checkpoint_bytes_total", "Bytes of stored checkpoints.")
CHECKPOINT_AGE = Gauge(
    "shopreel_checkpoint_age_seconds",
    "Age of the oldest UNet step in flight that no stored checkpoint has, of each replica.",
    tier=_TIER,
)
RESULTS_ADOPTED = Counter(
    "shopreel_duplicate_commits_suppressed_total",
    "Finished attempts that found the same result already committed.",
)

# Promises: both must be 0.

LOST_RESULTS = Gauge(
    "shopreel_lost_results",
    "Completed, unexpired jobs whose commit or video is not in the object store, of those that the"
    " audit has looked at: each at its end, and again by chance for a day; 1000 at most.",
)
DUPLICATE_RESULTS = Gauge(
    "shopreel_duplicate_results",
    "Completed jobs that show another video than the one committed for them, of the same.",
)
AUDIT_LAG = Gauge(
    "shopreel_audit_lag_seconds",
    "Since the end of the last job that the audit has looked at; 0: no newer one waits for it.",
)
AUDITED_AT = Gauge(
    "shopreel_audit_last_success_timestamp_seconds",
    "Unix time at which the audit had last looked at all that had ended.",
)

# Cards and money. Replicas that share a card tell the same of it: aggregate by max, not by sum.

GPU_UTILIZATION = Gauge(
    "shopreel_gpu_utilization_ratio", "Share of time in which a kernel ran, by NVML.", gpu=None
)
GPU_MEMORY_USED = Gauge("shopreel_gpu_memory_used_bytes", "Of the whole card, by NVML.", gpu=None)
GPU_MEMORY_TOTAL = Gauge("shopreel_gpu_memory_total_bytes", "Of the card, by NVML.", gpu=None)
GPU_TEMPERATURE = Gauge("shopreel_gpu_temperature_celsius", "Of the chip, by NVML.", gpu=None)
GPU_ENERGY = Counter(
    "shopreel_gpu_energy_joules_total",
    "Drawn by the card since the replica began to look, by NVML.",
    gpu=None,
)
GPU_MEMORY_RESERVED = Gauge(
    "shopreel_gpu_memory_reserved_bytes",
    "What torch holds of the card, of each replica.",
    tier=_TIER,
)
GPU_SECONDS = Counter(
    "shopreel_gpu_seconds_total",
    "Seconds of UNet calls, those of attempts that came to nothing included; of a CPU where the"
    " tier has no card.",
    tier=_TIER,
)
COST = Counter(
    "shopreel_cost_total",
    "Of replicas that run, busy or not, by the tier's cost_per_hour, in the config's currency.",
    tier=_TIER,
)

# Stores.

STORE_SECONDS = Histogram(
    "shopreel_storage_operation_duration_seconds",
    "Calls of the object store, the client's own retries included.",
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 90),
    op=_STORE_OPS,
)
STORE_ERRORS = Counter(
    "shopreel_storage_errors_total",
    "Calls of the object store that failed after all retries; that nothing is there is no failure.",
    op=_STORE_OPS,
    kind=("unavailable", "misconfigured", "other"),
)
STORE_BYTES = Counter("shopreel_storage_bytes_total", "Content of objects moved.", op=_STORE_OPS)

# Batches.

BATCH_ROWS = Counter(
    "shopreel_batch_rows_total", "Rows of batches that ended.", outcome=("ok", "failed")
)
BATCH_REMAINING = Gauge(
    "shopreel_batch_rows_remaining", "Rows of unfinished batches that have not ended."
)
BATCH_PROGRESS_AT = Gauge(
    "shopreel_batch_last_progress_timestamp_seconds",
    "Unix time at which a row of a batch was last seen to end, or a batch to begin.",
)

# What runs.

BUILD = Gauge("shopreel_build_info", "1; the release is the label.", version=None)
MODEL = Gauge(
    "shopreel_model_info", "1; what is served is in the labels.", model=None, revision=None
)

ALL: tuple[Metric, ...] = tuple(m for m in list(globals().values()) if isinstance(m, Metric))
