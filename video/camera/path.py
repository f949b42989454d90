"""Where the virtual camera is at every moment, in closed form: the true motion of every pixel
follows from it.

The camera looks at a plane, the stage, whose unit is a pixel of the frame at scale 1 and whose
origin is its own centre; x goes right, y down.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from video.camera.move import CameraMove, Move

# What a move of normal speed covers.
_ZOOM = 1.25  # last scale over first
_PAN = 0.2  # of the frame's width, or height for tilt
_ROLL = math.radians(8)
_ORBIT = 0.12  # of the frame's width, by what is behind the product


@dataclass(frozen=True, slots=True)
class View:
    """The camera at one moment."""

    x: float  # its centre on the stage
    y: float
    scale: float = 1.0  # frame pixels per unit of the stage, 1 or more
    angle: float = 0.0  # radians by which the camera is turned clockwise

    def to_stage(self, width: int, height: int) -> NDArray[np.float64]:
        """[2, 3]: a pixel (x, y, 1) of a frame of this size, centres at integers, to the stage."""
        cos, sin = math.cos(self.angle) / self.scale, math.sin(self.angle) / self.scale
        turn = np.array([[cos, -sin], [sin, cos]])
        centre = np.array([(width - 1) / 2, (height - 1) / 2])
        return np.column_stack((turn, np.array([self.x, self.y]) - turn @ centre))


@dataclass(frozen=True, slots=True)
class CameraPath:
    """A move over a clip. `num_frames` of at least one, `width` and `height` in px."""

    camera: CameraMove
    width: int
    height: int
    num_frames: int

    def view(self, time: float, parallax: float = 1.0) -> View:
        """The camera at `time`, 0 to 1, as a layer sees it by whose `parallax` shifts count."""
        travel, done = self.camera.speed.factor, self.camera.ease(time)
        shift = (0.5 - done) * travel  # from the far side of the centre to the near one
        pan, tilt = shift * _PAN * self.width, shift * _PAN * self.height
        orbit = shift * _ORBIT * self.width * parallax
        match self.camera.move:
            case Move.STATIC:
                return View(0, 0)
            case Move.ZOOM_IN:
                return View(0, 0, _ZOOM ** (travel * done))
            case Move.ZOOM_OUT:
                return View(0, 0, _ZOOM ** (travel * (1 - done)))
            case Move.PAN_LEFT:
                return View(pan * parallax, 0)
            case Move.PAN_RIGHT:
                return View(-pan * parallax, 0)
            case Move.TILT_UP:
                return View(0, tilt * parallax)
            case Move.TILT_DOWN:
                return View(0, -tilt * parallax)
            case Move.ROLL_LEFT:
                return View(0, 0, angle=-_ROLL * travel * done)
            case Move.ROLL_RIGHT:
                return View(0, 0, angle=_ROLL * travel * done)
            case Move.ORBIT_LEFT:
                return View(orbit, 0)
            case Move.ORBIT_RIGHT:
                return View(-orbit, 0)

    def views(self, parallax: float = 1.0) -> list[View]:
        """One for each frame, the first at time 0 and the last at time 1."""
        last = max(1, self.num_frames - 1)
        return [self.view(index / last, parallax) for index in range(self.num_frames)]

    @property
    def extent(self) -> tuple[float, float]:
        """(width, height) of the stage about its centre that the views see, a frame or more."""
        edges = ((-0.5, self.width - 0.5), (-0.5, self.height - 0.5))  # of the outermost pixels
        corners = np.array([[x, y, 1.0] for x in edges[0] for y in edges[1]])
        seen = [view.to_stage(self.width, self.height) for view in self.views()]
        half_width, half_height = np.abs([corners @ view.T for view in seen]).max(axis=(0, 1))
        return max(2 * float(half_width), self.width), max(2 * float(half_height), self.height)

    @property
    def kept(self) -> tuple[float, float]:
        """What share of the stage's width and height a frame of scale 1 shows; the rest is the
        margin in which the camera moves."""
        width, height = self.extent
        return self.width / width, self.height / height

    @property
    def max_scale(self) -> float:
        return max(self.view(time).scale for time in (0.0, 1.0))

    def flow(self, first: int, second: int, parallax: float = 1.0) -> NDArray[np.float32]:
        """[H, W, 2] px, x before y: how far what each pixel of frame `first` shows has moved in
        frame `second`."""
        views = self.views(parallax)
        there, back = (views[i].to_stage(self.width, self.height) for i in (first, second))
        x, y = np.meshgrid(np.arange(self.width), np.arange(self.height))
        pixels = np.stack((x, y, np.ones_like(x)), axis=-1)
        stage = pixels @ there.T
        moved = (stage - back[:, 2]) @ np.linalg.inv(back[:, :2]).T
        return (moved - pixels[..., :2]).astype(np.float32)
