"""Which words ask for a camera move, and which only look as if they did."""

import pytest

from video.camera.move import CameraMove, Move, Speed
from video.camera.words import Heard, find_move
from video.errors import CameraConflict

ASKS = {
    "static camera": Move.STATIC,
    "the camera does not move": Move.STATIC,
    "固定镜头": Move.STATIC,
    "zoom in": Move.ZOOM_IN,
    "a steel watch on a table, zooming in on the dial": Move.ZOOM_IN,
    "camera moves towards the watch": Move.ZOOM_IN,
    "镜头推近": Move.ZOOM_IN,
    "手表静置桌面镜头推近": Move.ZOOM_IN,
    "不锈钢手表，拉近": Move.ZOOM_IN,
    "zoom-out": Move.ZOOM_OUT,
    "the camera pulls back to reveal the room": Move.ZOOM_OUT,
    "镜头拉远": Move.ZOOM_OUT,
    "pan left": Move.PAN_LEFT,
    "the camera moves to the left": Move.PAN_LEFT,
    "pan left to reveal the logo": Move.PAN_LEFT,
    "向左平移": Move.PAN_LEFT,
    "pan right": Move.PAN_RIGHT,
    "pan left to right": Move.PAN_RIGHT,
    "camera pans from left to right": Move.PAN_RIGHT,
    "镜头从左向右平移": Move.PAN_RIGHT,
    "tilt up": Move.TILT_UP,
    "the camera rises": Move.TILT_UP,
    "镜头向上移动": Move.TILT_UP,
    "tilting down along the bottle": Move.TILT_DOWN,
    "镜头向下摇": Move.TILT_DOWN,
    "roll counter-clockwise": Move.ROLL_LEFT,
    "镜头逆时针旋转": Move.ROLL_LEFT,
    "the camera rotates clockwise": Move.ROLL_RIGHT,
    "镜头顺时针旋转": Move.ROLL_RIGHT,
    "orbit": Move.ORBIT_LEFT,
    "环绕": Move.ORBIT_LEFT,
    "camera circles the watch": Move.ORBIT_LEFT,
    "镜头围绕产品旋转": Move.ORBIT_LEFT,
    "camera orbits around the perfume bottle to the right": Move.ORBIT_RIGHT,
    "镜头向右环绕": Move.ORBIT_RIGHT,
}

ASKS_FOR_NOTHING = [
    "",
    "a panda",
    "a zoom lens on a white table",
    "a frying pan left on the stove",
    "a compact camera with 10x zoom in black",
    "sushi roll left on a plate",
    "a steel watch turns slowly to the left",
    "the bottle tilts up",
    "the car moves left",
    "do not zoom in",
    "the camera never pans left",
    "a satellite orbits the earth",
    "环绕立体声音箱",
    "鲜花环绕的蛋糕",
    "推荐的推进器",
    "推拉门向左移动",
    "手表向左旋转",
    "不要推近",
    "镜头不要推近",
    "变焦镜头",
    "熊猫",
]


@pytest.mark.parametrize(("prompt", "move"), ASKS.items())
def test_asks_for_a_move(prompt: str, move: Move) -> None:
    heard = find_move(prompt)
    assert heard is not None
    assert heard.camera == CameraMove(move)
    assert all(word in prompt for word in heard.words)


@pytest.mark.parametrize("prompt", ASKS_FOR_NOTHING)
def test_asks_for_none(prompt: str) -> None:
    assert find_move(prompt) is None


@pytest.mark.parametrize(
    ("prompt", "words", "speed"),
    [
        ("a ring on silk, slow zoom in", "slow zoom in", Speed.SLOW),
        ("the camera slowly pans to the left", "the camera slowly pans to the left", Speed.SLOW),
        ("zoom in gently", "zoom in gently", Speed.SLOW),
        ("镜头缓慢推近", "镜头缓慢推近", Speed.SLOW),
        ("快速向左平移", "快速向左平移", Speed.FAST),
        ("a quick zoom out", "a quick zoom out", Speed.FAST),
        ("the watch turns slowly, zoom in", "zoom in", Speed.NORMAL),  # of the watch, not the move
    ],
)
def test_words_and_speed_are_told(prompt: str, words: str, speed: Speed) -> None:
    heard = find_move(prompt)
    assert heard is not None
    assert (heard.words, heard.camera.speed) == ((words,), speed)


def test_the_same_move_twice_is_one() -> None:
    heard = find_move("zoom in, 镜头推近")
    assert heard == Heard(CameraMove(Move.ZOOM_IN), ("zoom in", "镜头推近"))


@pytest.mark.parametrize(
    "prompt",
    [
        "zoom in and out",
        "zoom in, then pan left",
        "镜头推近，然后向左平移",
        "slow zoom in, fast zoom in",
    ],
)
def test_two_moves_are_refused(prompt: str) -> None:
    with pytest.raises(CameraConflict) as refused:
        find_move(prompt)
    assert len(refused.value.named) == 2
    assert "camera_motion" in str(refused.value)
