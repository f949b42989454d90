"""What an error code means to whoever runs a catalogue, and what to do about it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class FirstStep(StrEnum):
    """Where to begin."""

    PHOTO = "mend the photo"
    MANIFEST = "mend the manifest"
    RUN_AGAIN = "run again"
    OPERATOR = "mend the cluster"


@dataclass(frozen=True, slots=True)
class Advice:
    first_step: FirstStep
    meaning: str
    remedy: str


UNKNOWN = Advice(
    FirstStep.OPERATOR,
    "A code that this version of the report does not know.",
    "Read the message; the service's log has more under the video's id.",
)

_SEE_MESSAGE = "The message says what the column takes, and what stands there."
_AGAIN = (
    "Try the failed rows again (--retry-failed; by HTTP, retry_of): those that have their videos"
    " keep them."
)

ADVICE: Mapping[str, Advice] = {
    "image_unsupported": Advice(
        FirstStep.PHOTO,
        "The file is no JPEG, PNG or WebP, whatever its name says.",
        "Export the photo in one of these formats.",
    ),
    "image_undecodable": Advice(
        FirstStep.PHOTO,
        "The file is damaged or cut short.",
        "Upload it again from the original.",
    ),
    "image_too_small": Advice(
        FirstStep.PHOTO,
        "The photo has too few pixels to make a sharp video.",
        "Take a larger original: enlarging this one adds nothing.",
    ),
    "image_too_large": Advice(
        FirstStep.PHOTO,
        "The file or its pixels exceed what the service takes.",
        "Scale the photo down; 2,000 px on the longer side are plenty.",
    ),
    "fetch_failed": Advice(
        FirstStep.MANIFEST,
        "The photo's address did not answer with a photo.",
        "Open image_uri: has it moved, or does it ask for a login?",
    ),
    "fetch_blocked": Advice(
        FirstStep.MANIFEST,
        "The photo's address is not one that the service may fetch from.",
        "Have the host allowed in the service's configuration, or put the photos into S3.",
    ),
    "image_not_found": Advice(
        FirstStep.MANIFEST,
        "There is no file where image_uri points.",
        "Upload it, or correct the address: names are case-sensitive.",
    ),
    "image_not_readable": Advice(
        FirstStep.OPERATOR,
        "The store or disk that image_uri names does not give the photo away.",
        "The message has its words: most often the run's credentials lack read access.",
    ),
    "image_uri_unusable": Advice(
        FirstStep.MANIFEST,
        "No photo can have this address.",
        "Correct it: s3://BUCKET/KEY with a bucket's real name, https:// or a path.",
    ),
    "missing_sku": Advice(
        FirstStep.MANIFEST, "The row has no sku.", "Results are told apart by it: fill it in."
    ),
    "missing_image": Advice(
        FirstStep.MANIFEST, "The row has no image_uri.", "Say where its photo lies."
    ),
    "duplicate_sku": Advice(
        FirstStep.MANIFEST,
        "An earlier row has the same sku; that one was used.",
        "Remove the row, or give each photo an sku of its own.",
    ),
    "bad_encoding": Advice(
        FirstStep.MANIFEST, "The row is not UTF-8.", "Export the manifest as UTF-8."
    ),
    "broken_row": Advice(
        FirstStep.MANIFEST,
        "The row cannot be read as a row at all.",
        "Look at the line it names: a quote or a comma too many, or a line cut short.",
    ),
    **{
        f"bad_{column}": Advice(
            FirstStep.MANIFEST, f"{what} cannot be used as it stands.", _SEE_MESSAGE
        )
        for column, what in (
            ("image_uri", "The photo's address"),
            ("text", "A text"),
            ("seconds", "The length"),
            ("seed", "The seed"),
            ("n", "The number of candidates"),
            ("camera_motion", "The camera move"),
            ("motion_strength", "The strength of the model beside a camera move"),
            ("priority", "The priority"),
            ("metadata", "The metadata"),
        )
    },
    "camera_conflict": Advice(
        FirstStep.MANIFEST,
        "The prompt asks for more than one camera move, and a clip is one.",
        "Keep one of them, or name it in camera_motion.",
    ),
    "quality_gate_failed": Advice(
        FirstStep.PHOTO,
        "Videos were made, but none scored what the run asks for.",
        "Look at the photo: a plain background and one whole product do best. "
        "Or ask for less, or for more seeds.",
    ),
    "invalid_parameter": Advice(
        FirstStep.MANIFEST,
        "A value of the row is out of range or of the wrong kind.",
        "The message names the column and what it takes.",
    ),
    "missing_parameter": Advice(
        FirstStep.MANIFEST, "The row lacks a value that is needed.", "Fill the column it names."
    ),
    "unknown_parameter": Advice(
        FirstStep.MANIFEST,
        "The row asks for something that this version of the service does not have.",
        "Remove the column, or bring the service up to date.",
    ),
    "unsupported_size": Advice(
        FirstStep.MANIFEST,
        "The model does not make videos of this size.",
        "Choose a preset, or a size from GET /v1/models.",
    ),
    "does_not_fit": Advice(
        FirstStep.MANIFEST,
        "No GPU of the cluster has the memory for a clip this large.",
        "Choose a smaller preset, or have a larger class of GPU added.",
    ),
    "out_of_memory": Advice(
        FirstStep.MANIFEST,
        "The clip ran out of GPU memory, and so did all that was tried to make do.",
        "Choose a smaller preset for these rows, or let them be downgraded.",
    ),
    "deadline_exceeded": Advice(
        FirstStep.RUN_AGAIN, "The time given to the row ran out.", f"Give it more. {_AGAIN}"
    ),
    "worker_lost": Advice(
        FirstStep.RUN_AGAIN,
        "Machines were lost while at work on the row, as often as it may be retried.",
        f"{_AGAIN} The same rows again point at the photo.",
    ),
    "encode_failed": Advice(
        FirstStep.OPERATOR,
        "The frames could not be made into a file.",
        "Look at the video encoder's log.",
    ),
    "internal": Advice(
        FirstStep.OPERATOR,
        "The service failed for a reason of its own.",
        "Its log has the reason under the video's id.",
    ),
    "no_space": Advice(
        FirstStep.OPERATOR, "A worker's disk is full.", f"Free it, or add a larger one. {_AGAIN}"
    ),
    "store_unavailable": Advice(
        FirstStep.RUN_AGAIN, "The object store or database did not answer.", _AGAIN
    ),
    "store_misconfigured": Advice(
        FirstStep.OPERATOR,
        "The object store refuses the service's requests.",
        "Run `shopreel doctor`: it names what is wrong.",
    ),
    "server_busy": Advice(FirstStep.RUN_AGAIN, "Too many photos were waiting to be read.", _AGAIN),
    "queue_full": Advice(FirstStep.RUN_AGAIN, "The queue was full for too long.", _AGAIN),
    "quota_exceeded": Advice(
        FirstStep.OPERATOR,
        "The tenant's quota is used up.",
        f"Have it raised, or wait until it renews. {_AGAIN}",
    ),
    "content_missing": Advice(
        FirstStep.RUN_AGAIN,
        "The video's file is not where the service said it is.",
        f"Somebody may have deleted it from the bucket. {_AGAIN}",
    ),
    "content_unreadable": Advice(
        FirstStep.OPERATOR,
        "The object store does not give the finished video away.",
        f"The message has its words: clocks or keys of service and store differ. {_AGAIN}",
    ),
    "idempotency_conflict": Advice(
        FirstStep.MANIFEST,
        "The row's photo was replaced again and again while the run was at it.",
        f"Leave it as it is. {_AGAIN}",
    ),
    "video_not_found": Advice(
        FirstStep.OPERATOR,
        "The video was deleted again and again before the run had it.",
        f"Find out who deletes videos of this run. {_AGAIN}",
    ),
    "content_expired": Advice(
        FirstStep.RUN_AGAIN,
        "The video was deleted by the retention rule before it was collected.",
        f"Have videos kept for longer. {_AGAIN}",
    ),
}


def advice_on(code: str) -> Advice:
    return ADVICE.get(code, UNKNOWN)
