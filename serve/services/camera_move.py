"""Which camera move a request asks for, and by which words."""

from dataclasses import dataclass

from serve.schemas import CreateVideo
from video.camera.move import CameraMove, Move, Speed
from video.camera.words import find_move

USUAL_MOVE = CameraMove(Move.ZOOM_IN, Speed.SLOW)
"""Where neither camera_motion nor the prompt says which; the caller is told."""


@dataclass(frozen=True, slots=True)
class Chosen:
    move: CameraMove
    words: tuple[str, ...] = ()  # of the prompt, that asked for it
    told: tuple[str, ...] = ()  # what the caller should know


def choose_move(create: CreateVideo) -> Chosen:
    """Explicit value > words of the caller's own prompt > server default. Raises CameraConflict
    where the prompt names two."""
    if create.camera_motion is not None:
        return Chosen(create.camera_motion.camera)
    if create.prompt is not None and (heard := find_move(create.prompt)):
        return Chosen(heard.camera, heard.words)
    told = "neither camera_motion nor the prompt names a camera move: a slow zoom in was chosen"
    return Chosen(USUAL_MOVE, told=(told,))
