"""The durable record of one video: its parameters, its states and the legal ways between them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter, ValidationError

from diffusion.params import Priority, Sampler, SamplingParams, TimestepSpacing
from storage.errors import IllegalTransition, ResultDamaged
from video.camera.move import CameraMove, Ease, Move, Speed
from video.quality import Quality

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

PIPELINE_VERSION = "1"
"""Part of every result id: raised when the same parameters begin to give other pixels."""

NOTHING_GENERATED = "camera move, nothing generated"
"""What is said of a clip that no model had a part in, wherever its making is told."""

Select = Literal["best", "all"]
"""Which of several candidates are kept: the one with the highest score, or every one."""

SEEDS = 2**63


class JobStatus(StrEnum):
    """What a caller sees; `queued` until the Dispatcher leases the job."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return not _TRANSITIONS[self]


_TRANSITIONS: Mapping[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: frozenset(
        {JobStatus.IN_PROGRESS, JobStatus.FAILED, JobStatus.CANCELLED}  # failed: its deadline
    ),
    JobStatus.IN_PROGRESS: frozenset(
        {JobStatus.QUEUED, JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED}
    ),
    JobStatus.COMPLETED: frozenset(),
    JobStatus.FAILED: frozenset(),
    JobStatus.CANCELLED: frozenset(),
}


def check_transition(job_id: str, current: JobStatus, target: JobStatus) -> None:
    """Raises IllegalTransition unless a job may go from `current` to `target`."""
    if target not in _TRANSITIONS[current]:
        raise IllegalTransition(job_id, current, target)


class Stage(StrEnum):
    """Where an in_progress job is on its way; the values are the HTTP contract's."""

    ENCODING = "encoding"
    WAITING_DENOISER = "waiting_denoiser"  # its conditions are there; others have the UNet
    RENDERING = "rendering"  # of a camera move without a model
    DENOISING = "denoising"
    DECODING = "decoding"
    ENCODING_VIDEO = "encoding_video"
    STORING = "storing"
    WAITING_STORAGE = "waiting_storage"


@dataclass(frozen=True, slots=True)
class OutputParams:
    """How frames become a file, and how the photo becomes frame 0."""

    fit: str  # video.photo.Fit
    fps: float  # playback rate of the generated frames, frames/s
    inbetweens: int  # interpolated between neighbours; the file plays at fps * (inbetweens + 1)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a job. Every write and stage call carries it: a stale try changes nothing."""

    job_id: str
    number: int  # 1, 2, ... within the job
    epoch: int  # of the Dispatcher that leased it


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Something out of the ordinary on a job's way: a preemption, a smaller clip, another tier."""

    at: float  # Unix seconds
    kind: str  # a short word for programs: chunked_unet, other_tier, resumed, preempted, ...
    detail: str  # for people


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a person thinks of the video."""

    rating: int  # -1, 0, 1
    tags: tuple[str, ...] = ()
    at: float = 0.0  # Unix seconds
    candidate: int | None = None  # the one it is about, counted from 0; None: the video as it is


@dataclass(frozen=True, slots=True)
class VideoFile:
    """A committed result, as it stands in results/<tenant>/<result_id>.json."""

    result_id: str
    video_key: str
    poster_key: str
    spritesheet_key: str
    manifest_key: str  # sidecar JSON: every parameter, seed, model revision, timings
    sha256: str  # of the MP4
    size_bytes: int
    width: int  # px
    height: int  # px
    frames: int
    fps: float
    seconds: float
    timings: dict[str, float] = field(default_factory=dict)  # stage -> seconds
    peak_vram_bytes: int | None = None  # of the denoiser during its steps; None: no GPU
    quality: Quality | None = None  # None: made by a release that did not measure
    camera_layers: int | None = None  # of a rendered camera move; None: it was denoised

    @property
    def is_rendered(self) -> bool:
        """Whether no model had a part in it."""
        return self.camera_layers is not None

    @property
    def made_by(self) -> str:
        """The job one of whose tries this is: attempts/<job>/<number>/video.mp4."""
        return self.video_key.removeprefix("attempts/").partition("/")[0]

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True, indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "VideoFile":
        """Of any release: fields that this one does not know are left out. Raises ResultDamaged."""
        try:
            return _VIDEO_FILE.validate_json(data, strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the whole"
            raise ResultDamaged(f"{where}: {first['msg']}") from error


_VIDEO_FILE = TypeAdapter(VideoFile)


def _without_defaults(sampling: SamplingParams) -> dict[str, object]:
    """A parameter that a release adds leaves the ids of those who do not use it as they were."""
    defaults = {f.name: f.default for f in fields(sampling) if f.default is not MISSING}
    return {
        name: value
        for name, value in asdict(sampling).items()
        if name not in defaults or value != defaults[name]
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """What the caller asked for, with every default filled in. Never changes after creation, but
    for a retry, which has no deadline."""

    id: str
    tenant: str
    model: str  # the name the caller sees
    model_revision: str  # sha256 of the weights
    photo_key: str
    photo_sha256: str
    sampling: SamplingParams
    output: OutputParams
    preset: str
    priority: Priority = Priority.INTERACTIVE
    deadline_at: float | None = None  # Unix seconds; later than this nobody wants the video
    may_downgrade: bool = False  # to a smaller clip, where memory does not suffice for this one
    sku: str | None = None
    batch_id: str | None = None  # of the catalogue run, or whatever the caller groups by
    title: str | None = None
    category: str | None = None
    prompt_template: str | None = None  # the prompt was made in it; None: the caller's own words
    metadata: Mapping[str, str] = field(default_factory=dict)
    candidates: int = 1  # clips to make, each of a seed of its own
    select: Select = "best"
    # Whose frames the clip begins at, or is where the sampling is of no step; None: no move.
    camera_motion: CameraMove | None = None
    camera_words: tuple[str, ...] = ()  # of the prompt, that asked for it; no part of the result
    # Whose frames the clip is where memory suffices for nothing else; None: then there is no clip.
    last_resort: CameraMove | None = None
    webhook: str | None = None  # https URL that hears of the end
    warnings: tuple[str, ...] = ()  # about photo and prompt, for the caller; no part of the result
    request_id: str | None = None  # X-Request-Id of the HTTP request that created it
    traceparent: str | None = None  # W3C Trace Context of that request; None: it is not traced

    @property
    def result_id(self) -> str:
        """Content address of the result: who, which photo, parameters, weights and code."""
        identity: dict[str, object] = {
            "tenant": self.tenant,
            "photo": self.photo_sha256,
            "sampling": _without_defaults(self.sampling),
            "output": asdict(self.output),
            "model": self.model_revision,
            "pipeline": PIPELINE_VERSION,
        }
        if self.camera_motion is not None:
            identity["camera_motion"] = asdict(self.camera_motion)
        if self.may_downgrade:  # the clip may be another one
            identity["may_downgrade"] = True
        if self.last_resort is not None:
            identity["last_resort"] = asdict(self.last_resort)
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def camera(self, is_rendered: bool) -> CameraMove | None:
        """The move of its clip: of one that is rendered where memory did not suffice, another."""
        return (is_rendered and self.last_resort) or self.camera_motion

    @property
    def last_clip(self) -> SamplingParams | None:
        """What is made where memory suffices for nothing else."""
        return None if self.last_resort is None else self.sampling.rendered()

    @property
    def parts(self) -> tuple["JobRequest", ...]:
        """What is run for it: the request itself, or one for each of its candidates."""
        if self.candidates == 1:
            return (self,)
        return tuple(self._candidate(number) for number in range(self.candidates))

    def _candidate(self, number: int) -> "JobRequest":
        seed = (self.sampling.seed + number) % SEEDS
        return replace(
            self,
            id=f"{self.id}_c{number}",
            sampling=replace(self.sampling, seed=seed),
            candidates=1,
            select="best",
            sku=None,
            webhook=None,
        )

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "JobRequest":
        """Of any release: fields that this one does not know are left out, so that old and new
        processes may share a table while one replaces the other. Raises ValueError and TypeError.
        Numbers stay as they were given, 8 or 8.0: they are a part of `result_id`."""
        given = json.loads(data)
        sampling = SamplingParams(**_known(SamplingParams, given["sampling"]))
        given["sampling"] = replace(
            sampling,
            sampler=Sampler(sampling.sampler),
            timestep_spacing=TimestepSpacing(sampling.timestep_spacing),
        )
        given["output"] = OutputParams(**_known(OutputParams, given["output"]))
        for name in ("camera_motion", "last_resort"):
            if camera := given.get(name):
                given[name] = CameraMove(
                    Move(camera["move"]), Speed(camera["speed"]), Ease(camera["ease"])
                )
        given["priority"] = Priority(given.get("priority", Priority.INTERACTIVE))
        given["warnings"] = tuple(given.get("warnings", ()))
        given["camera_words"] = tuple(given.get("camera_words", ()))
        return cls(**_known(cls, given))


def _known(cls: type["DataclassInstance"], given: Mapping[str, Any]) -> dict[str, Any]:
    names = {f.name for f in fields(cls)}
    return {name: value for name, value in given.items() if name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A row of the job table. Times are Unix seconds."""

    request: JobRequest
    status: JobStatus
    created_at: float
    started_at: float | None = None
    completed_at: float | None = None
    stage: Stage | None = None
    step: int = 0  # denoising steps done, of unet_steps
    tier: str | None = None  # of the attempt in progress, or of the one that ended the job
    attempt: int = 0  # tries begun
    epoch: int = 0  # of the Dispatcher that holds or held the lease
    lease_until: float | None = None
    result: VideoFile | None = None
    error_code: str | None = None
    error_message: str | None = None
    events: tuple[JobEvent, ...] = ()  # oldest first, of all attempts; the store keeps the last 50
    rev: int = 0  # goes up with every change of the row
    predicted_at: float | None = None  # when it should end, as foreseen when it was leased
    expired: bool = False  # completed, but its files are gone: retention
    feedback: Feedback | None = None
    parent_id: str | None = None  # the job whose candidate this is
    children: tuple["Job", ...] = ()  # a job's candidates, where it has more than itself

    @property
    def id(self) -> str:
        return self.request.id

    @property
    def parts(self) -> tuple["Job", ...]:
        """Those that are run: its candidates, or the job itself."""
        return self.children or (self,)

    @property
    def unet_steps(self) -> int:
        """To be run for it, or that were run; its candidates apart."""
        is_rendered = self.result is not None and self.result.is_rendered
        return 0 if is_rendered else self.request.sampling.unet_steps

    @property
    def chosen(self) -> int | None:
        """Which of `parts` its result is."""
        if self.result is None:
            return None
        made = [part.result and part.result.result_id for part in self.parts]
        return made.index(self.result.result_id)

    @property
    def made_its_result(self) -> bool:
        """Whether it has one and paid for it, itself or a candidate; else an earlier job did."""
        return self.result is not None and self.result.made_by in {part.id for part in self.parts}

    @property
    def timings(self) -> dict[str, float]:
        """Seconds queued, then of each stage; none where its result is an earlier job's."""
        if not self.made_its_result or self.result is None:
            return {}
        queued = {} if self.started_at is None else {"queued": self.started_at - self.created_at}
        return queued | self.result.timings

    @property
    def current_attempt(self) -> Attempt:
        return Attempt(self.request.id, self.attempt, self.epoch)
