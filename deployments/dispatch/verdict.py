"""What the end of an attempt means: the contract's error code, the words, and whether to go on."""

import errno
import re
from dataclasses import dataclass
from enum import Enum

import ray.exceptions
from ray.serve.exceptions import DeploymentUnavailableError, RayServeException

from deployments.handover import HandoverLost, ReplicaSilent
from diffusion.errors import (
    DeadlineExceeded,
    DiffusionError,
    EngineBroken,
    OutOfMemory,
    Preempted,
)
from storage.errors import StorageError, StoreMisconfigured, StoreUnavailable
from video.errors import VideoError

INFRASTRUCTURE = (StoreUnavailable, StoreMisconfigured, DeploymentUnavailableError)
"""Nothing is wrong with the job: it waits, uncharged, until the cluster is well again."""

WORKER_LOST = (ray.exceptions.RayActorError,)
"""The replica that ran a stage died; what it was given is still there."""

_FRAME = re.compile(r'^\s*File "(.+?)", line', re.MULTILINE)
_CALLS_STAGES = "ray/serve/_private/replica.py"  # Serve 2.60: `UserCallableWrapper`

_ATTEMPT_LOST = (*WORKER_LOST, ray.exceptions.ObjectLostError, RayServeException)


class Retry(Enum):
    NO = "no"  # the job fails
    CHARGED = "charged"  # again, and it counts against the job's attempts
    AT_ONCE = "at_once"  # again, uncharged: it was only moved
    LATER = "later"  # again after a pause, uncharged: the cluster is unwell


@dataclass(frozen=True, slots=True)
class Verdict:
    code: str
    message: str
    retry: Retry


def judge(error: Exception) -> Verdict:
    """Codes are those of the HTTP contract; text of unknown errors stays in the log."""
    # Ray wraps what a replica raised in a class of its own that is also an instance of ours.
    said = str(getattr(error, "cause", error)).partition("\n")[0]
    if isinstance(error, INFRASTRUCTURE):
        return Verdict("store_unavailable", said, Retry.LATER)
    if _call_failed(error):
        message = "a call between two deployments failed; they may be of different releases"
        return Verdict("internal", message, Retry.LATER)
    if isinstance(error, OutOfMemory):
        return Verdict("out_of_memory", said, Retry.NO)
    if isinstance(error, VideoError):
        code = getattr(error, "code", "encode_failed")
        return Verdict(code, said, Retry.CHARGED if error.retryable else Retry.NO)
    if isinstance(error, HandoverLost | ReplicaSilent):
        return Verdict("worker_lost", said, Retry.CHARGED)
    if isinstance(error, Preempted):
        return Verdict("preempted", said, Retry.AT_ONCE)
    if isinstance(error, DeadlineExceeded):
        return Verdict("deadline_exceeded", said, Retry.NO)
    if isinstance(error, EngineBroken):
        return Verdict("worker_lost", said, Retry.CHARGED)
    if isinstance(error, DiffusionError) and error.retryable:
        return Verdict("internal", said, Retry.CHARGED)
    if isinstance(error, _ATTEMPT_LOST):
        return Verdict("worker_lost", "the machine at work on it was lost", Retry.CHARGED)
    if isinstance(error, MemoryError):
        return Verdict("worker_lost", "the machine at work on it has no memory left", Retry.CHARGED)
    if isinstance(error, OSError) and getattr(error, "cause", error).errno == errno.ENOSPC:
        return Verdict("no_space", "a worker's disk is full", Retry.NO)
    if isinstance(error, StorageError):
        return Verdict("internal", said, Retry.NO)
    return Verdict("internal", "the server failed; its log has the reason", Retry.NO)


def _call_failed(error: Exception) -> bool:
    """Whether it is the call that failed, and not the stage: Ray cannot read what was sent, here or
    there, or Serve finds that the method does not take it or does not answer in this way. So it is
    where two releases meet, until one is gone."""
    if isinstance(error, ray.exceptions.RaySystemError):
        return True
    if not (isinstance(error, TypeError) and isinstance(error, ray.exceptions.RayTaskError)):
        return False
    raised_in = _FRAME.findall(str(error))[-1:]  # of a call that does not fit: the caller's frame
    return any(file.endswith(_CALLS_STAGES) for file in raised_in)
