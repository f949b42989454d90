"""A camera's move as a caller names it and gets it back."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Json
from pydantic_core import from_json

from video.camera.move import CameraMove, Ease, Move, Speed


class CameraMotion(BaseModel):
    """A move over the photo; the product goes the other way."""

    model_config = ConfigDict(extra="forbid")

    move: Move
    speed: Speed = Field(Speed.NORMAL, description="how far the camera gets during the clip")
    ease: Ease = Field(Ease.EASE_IN_OUT, description="how the move begins and ends, as in CSS")

    @classmethod
    def of(cls, camera: CameraMove) -> "CameraMotion":
        return cls(move=camera.move, speed=camera.speed, ease=camera.ease)

    @property
    def camera(self) -> CameraMove:
        return CameraMove(self.move, self.speed, self.ease)


def _spelled_out(given: Any) -> Any:
    """The name of a move stands for that move as it usually is."""
    return {"move": given} if isinstance(given, str) else given


def _read(text: str) -> Any:
    """A form has texts only: the name of a move, or an object as JSON."""
    return from_json(text) if text.startswith("{") else _spelled_out(text)


GivenCameraMotion = Annotated[
    CameraMotion, BeforeValidator(_spelled_out, json_schema_input_type=Move | CameraMotion)
]
FormCameraMotion = Annotated[
    CameraMotion, BeforeValidator(_read, json_schema_input_type=Move | Json[CameraMotion])
]
