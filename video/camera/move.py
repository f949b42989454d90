"""Which move the camera makes, how far and with what ease. Names are the field's."""

from dataclasses import dataclass
from enum import StrEnum


class Move(StrEnum):
    """What the camera does; the picture moves the other way."""

    STATIC = "static"
    ZOOM_IN = "zoom_in"
    ZOOM_OUT = "zoom_out"
    PAN_LEFT = "pan_left"
    PAN_RIGHT = "pan_right"
    TILT_UP = "tilt_up"
    TILT_DOWN = "tilt_down"
    ROLL_LEFT = "roll_left"  # the camera turns anticlockwise: the picture clockwise
    ROLL_RIGHT = "roll_right"  # the camera turns clockwise: the picture anticlockwise
    ORBIT_LEFT = "orbit_left"  # the camera goes left about the product: what is behind it follows
    ORBIT_RIGHT = "orbit_right"

    @property
    def is_orbit(self) -> bool:
        return self in (Move.ORBIT_LEFT, Move.ORBIT_RIGHT)


class Speed(StrEnum):
    """How far the camera gets during the clip."""

    SLOW = "slow"
    NORMAL = "normal"
    FAST = "fast"

    @property
    def factor(self) -> float:
        return {Speed.SLOW: 0.5, Speed.NORMAL: 1.0, Speed.FAST: 2.0}[self]


class Ease(StrEnum):
    """How the move begins and ends, as in CSS."""

    LINEAR = "linear"
    EASE_IN = "ease_in"
    EASE_OUT = "ease_out"
    EASE_IN_OUT = "ease_in_out"

    def __call__(self, time: float) -> float:
        """The share of the way that is done at `time`, both from 0 to 1. Monotonic."""
        match self:
            case Ease.LINEAR:
                return time
            case Ease.EASE_IN:
                return time * time
            case Ease.EASE_OUT:
                return time * (2 - time)
            case Ease.EASE_IN_OUT:
                return time * time * (3 - 2 * time)


@dataclass(frozen=True, slots=True)
class CameraMove:
    """What a caller asks for."""

    move: Move
    speed: Speed = Speed.NORMAL
    ease: Ease = Ease.EASE_IN_OUT
