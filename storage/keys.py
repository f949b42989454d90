"""The bucket's layout. Every key of the system is made here, and only from checked parts.

inputs/<tenant>/<sha256>             a photo as it was uploaded
jobs/<job>/request.json              what was asked: the job table can be rebuilt from these
           end.json                  how it ended
attempts/<job>/<n>/video.mp4         what one try made; garbage unless a result names it
                   poster.webp
                   spritesheet.webp
                   manifest.json
checkpoints/<job>/<n>.safetensors    how far one try's denoising got: one per try, so that a zombie
                                     overwrites nobody's; who resumes takes the furthest, and the
                                     commit deletes them all
results/<tenant>/<result_id>.json    the commit: names the files of the one attempt that won
calibration/<tier>.json              seconds measured on that class of card
batches/<tenant>/<batch>/            a batch's manifest, and its results unless they go elsewhere
"""

import re
from datetime import UTC, datetime

from storage.jobs import Attempt

_PART = re.compile(r"[A-Za-z0-9_-]{1,128}")
_SKU_CHARS = 40
_SHORT_ID_CHARS = 12


def input_key(tenant: str, sha256: str) -> str:
    return f"inputs/{_checked(tenant)}/{_checked(sha256)}"


def request_key(job_id: str) -> str:
    return f"jobs/{_checked(job_id)}/request.json"


def end_key(job_id: str) -> str:
    return f"{job_prefix(job_id)}end.json"


def job_prefix(job_id: str) -> str:
    """What stands of a job beside its files."""
    return f"jobs/{_checked(job_id)}/"


def inputs_prefix(tenant: str) -> str:
    return f"inputs/{_checked(tenant)}/"


def results_prefix(tenant: str) -> str:
    return f"results/{_checked(tenant)}/"


def attempts_prefix(job_id: str) -> str:
    """Everything any try at this job has written."""
    return f"attempts/{_checked(job_id)}/"


def attempt_prefix(attempt: Attempt) -> str:
    return f"{attempts_prefix(attempt.job_id)}{attempt.number}/"


def video_key(attempt: Attempt) -> str:
    return attempt_prefix(attempt) + "video.mp4"


def poster_key(attempt: Attempt) -> str:
    return attempt_prefix(attempt) + "poster.webp"


def spritesheet_key(attempt: Attempt) -> str:
    return attempt_prefix(attempt) + "spritesheet.webp"


def manifest_key(attempt: Attempt) -> str:
    return attempt_prefix(attempt) + "manifest.json"


def checkpoints_prefix(job_id: str) -> str:
    """The checkpoints of every try at this job."""
    return f"checkpoints/{_checked(job_id)}/"


def checkpoint_key(attempt: Attempt) -> str:
    return f"{checkpoints_prefix(attempt.job_id)}{attempt.number}.safetensors"


def result_key(tenant: str, result_id: str) -> str:
    return f"results/{_checked(tenant)}/{_checked(result_id)}.json"


def batches_prefix(tenant: str) -> str:
    return f"batches/{_checked(tenant)}/"


def batch_folder(tenant: str, batch_id: str) -> str:
    """Without a slash behind it."""
    return batches_prefix(tenant) + _checked(batch_id)


def calibration_key(tier: str) -> str:
    return f"calibration/{_checked(tier)}.json"


def download_name(created_at: float, job_id: str, sku: str | None) -> str:
    """A file name people can read: when (UTC), which product, which job.

    `created_at` is in Unix seconds. The time alone would collide between jobs of one second, so
    the end of the job id follows (its random part, where ids begin with a time).
    """
    at = datetime.fromtimestamp(created_at, UTC).strftime("%Y%m%dT%H%M%SZ")
    # A SKU is anybody's text, so unlike a key it is rewritten, not refused.
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", sku or "")[:_SKU_CHARS].strip("-")
    short_id = _checked(job_id)[-_SHORT_ID_CHARS:]
    return "_".join(filter(None, ("shopreel", at, readable, short_id))) + ".mp4"


def _checked(part: str) -> str:
    """Raises ValueError on what could leave its place in the tree: `/`, `..`, NUL, non-ASCII."""
    if not _PART.fullmatch(part):
        raise ValueError(f"not usable in an object key: {part[:80]!r}")
    return part
