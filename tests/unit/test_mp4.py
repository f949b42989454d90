"""The MP4 that is published: its pixels, its tags, its bytes."""

import re
import resource
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from video.errors import EncodeFailed
from video.mp4 import Mp4Config, choose_codec, probe_mp4, read_frames, write_mp4

CONFIG = Mp4Config()
Pixels = NDArray[np.uint8]


def clip(count: int = 8, height: int = 64, width: int = 96) -> Pixels:
    """Smooth colours with a dark bar that wanders."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    still = np.dstack([60 + 160 * x, 60 + 160 * y, 220 - 150 * x]).astype(np.uint8)
    frames = np.repeat(still[None], count, axis=0)
    for index, frame in enumerate(frames):
        frame[:, 3 * index : 3 * index + 8] //= 3
    return frames


def write(
    path: Path, frames: Pixels, fps: float = 8.0, metadata: Mapping[str, str] | None = None
) -> Path:
    write_mp4(path, frames, fps, "libx264", CONFIG, metadata or {})
    return path


def boxes(data: bytes) -> list[tuple[str, int]]:
    """(type, offset) of the top-level boxes."""
    found, offset = [], 0
    while offset < len(data):
        size, kind = struct.unpack_from(">I4s", data, offset)
        found.append((kind.decode(), offset))
        offset += size
    return found


def test_a_written_file_is_publishable(tmp_path: Path) -> None:
    info = probe_mp4(write(tmp_path / "a.mp4", clip(16)))
    assert info.problems(width=96, height=64, fps=8, frames=16) == []
    assert (info.codec, info.pix_fmt, info.seconds) == ("h264", "yuv420p", 2.0)
    colors = (info.color_space, info.color_primaries, info.color_transfer, info.color_range)
    assert colors == (1, 1, 1, 1)


def test_the_index_comes_first(tmp_path: Path) -> None:
    kinds = [kind for kind, _ in boxes(write(tmp_path / "a.mp4", clip()).read_bytes())]
    assert kinds.index("moov") < kinds.index("mdat")


def test_the_pixels_come_back(tmp_path: Path) -> None:
    frames = clip(12, 128, 192)
    back = read_frames(write(tmp_path / "a.mp4", frames))
    assert back.dtype == np.uint8
    assert back.shape == frames.shape
    error = (back.astype(float) - frames) ** 2
    assert (
        10 * np.log10(255**2 / error.mean(axis=(1, 2, 3)))
    ).min() > 36  # each frame in its place


SATURATED = [
    (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255),
    (255, 255, 255), (0, 0, 0), (128, 128, 128), (200, 100, 50), (30, 60, 90), (250, 240, 230),
]  # fmt: skip


def patch_errors(frames: Pixels) -> list[int]:
    middles = frames[:, 16:48, 16::64].astype(int)
    return [int(np.abs(middles[:, :, k] - color).max()) for k, color in enumerate(SATURATED)]


def test_saturated_colours_come_back_in_bt709(tmp_path: Path) -> None:
    patches = np.repeat(np.array(SATURATED, np.uint8), 64, axis=0)
    frames = np.broadcast_to(patches, (3, 64, len(patches), 3))
    path = write(tmp_path / "a.mp4", np.ascontiguousarray(frames))
    assert max(patch_errors(read_frames(path))) <= 3
    with av.open(str(path)) as container:  # a foreign decoder that goes by the tags
        tagged = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert max(patch_errors(np.stack(tagged))) <= 3
    with av.open(str(path)) as container:  # and the measure does tell the matrices apart
        wrong = [
            frame.reformat(format="rgb24", src_colorspace="ITU601").to_ndarray()
            for frame in container.decode(video=0)
        ]
    assert max(patch_errors(np.stack(wrong))) > 15


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    # 96 and 320 px are widths at which x264 with its macroblock tree differs from run to run.
    for width in (96, 320):
        frames = clip(8, 64, width)
        mug, jug = {"title": "Mug"}, {"title": "Jug"}
        first = write(tmp_path / "a.mp4", frames, metadata=mug).read_bytes()
        for _ in range(20):
            assert write(tmp_path / "b.mp4", frames, metadata=mug).read_bytes() == first
            np.random.default_rng().bytes(300_000)  # other rubbish in the memory x264 is given
        assert write(tmp_path / "c.mp4", frames, metadata=jug).read_bytes() != first
    header = first.index(b"mvhd") + 8
    assert first[header : header + 8] == bytes(8)  # neither creation nor modification time


def test_pictures_do_not_refer_beyond_their_group_of_two_seconds(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", clip(20), fps=4)
    assert b"open_gop=0" in path.read_bytes()  # x264 writes its settings into the stream
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    starts = [packet.pts * packet.time_base for packet in packets if packet.is_keyframe]
    assert starts == [0, 2, 4]


@pytest.mark.parametrize("fps", [8.0, 7.5, 24000 / 1001, 29.97, 60.0, 0.5])
def test_fractional_rates_are_kept(tmp_path: Path, fps: float) -> None:
    info = probe_mp4(write(tmp_path / "a.mp4", clip(6), fps))
    assert info.fps == pytest.approx(fps, rel=1e-9)
    assert info.problems(96, 64, fps, 6) == []


@pytest.mark.parametrize(
    "metadata",
    [
        {"AIGC": '{"Label":"1","ContentProducer":"shop"}', "title": "Mug"},
        {"com.example.sku": "A=1;B#2\nnext line", "comment": "杯子, tasse à café"},
        {"long": "x" * 70_000},
    ],
)
def test_every_metadata_key_survives(tmp_path: Path, metadata: dict[str, str]) -> None:
    info = probe_mp4(write(tmp_path / "a.mp4", clip(2), metadata=metadata))
    assert metadata.items() <= dict(info.metadata).items()
    assert info.faststart


@pytest.mark.parametrize("shape", [(2, 63, 96, 3), (2, 64, 95, 3), (0, 64, 96, 3)])
def test_what_yuv420p_cannot_hold_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(EncodeFailed, match=f"{shape[2]}x{shape[1]}"):
        write(tmp_path / "a.mp4", np.zeros(shape, np.uint8))
    assert not (tmp_path / "a.mp4").exists()


def test_what_the_encoder_refuses_is_a_failed_encode(tmp_path: Path) -> None:
    with pytest.raises(EncodeFailed, match="libx264 refused"):  # H.264 ends at 16384 px
        write(tmp_path / "a.mp4", np.zeros((1, 2, 16_386, 3), np.uint8))


def test_one_small_frame_is_a_video(tmp_path: Path) -> None:
    info = probe_mp4(write(tmp_path / "a.mp4", clip(1, 16, 16)))
    assert info.problems(16, 16, 8, 1) == []


def test_quality_and_preset_reach_the_encoder(tmp_path: Path) -> None:
    config = Mp4Config(crf=40, preset="medium", threads=2)
    write_mp4(tmp_path / "a.mp4", clip(8, 256, 96), 8, "libx264", config, {})
    settings = (tmp_path / "a.mp4").read_bytes()
    assert b"crf=40.0" in settings
    assert b"subme=7" in settings  # medium
    assert b" threads=2 " in settings


def test_a_full_disk_is_an_oserror_not_a_failed_encode(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 128, 128, 3), dtype=np.uint8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            write(tmp_path / "a.mp4", noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_missing_folder_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "missing" / "a.mp4", clip(2))


def test_problems_name_every_deviation(tmp_path: Path) -> None:
    path = tmp_path / "bad.mp4"
    with av.open(str(path), "w", format="mp4") as container:  # untagged, index last, 4:4:4
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv444p"
        for rgb in clip(5, 32, 48):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode(None))
    info = probe_mp4(path)
    assert not info.faststart
    problems = "\n".join(info.problems(width=96, height=64, fps=8, frames=16))
    for name in ("pixel format", "width", "height", "frame rate", "frame count", "duration",
                 "matrix", "faststart"):  # fmt: skip
        assert re.search(f"^{name}", problems, re.MULTILINE), name
    assert "codec" not in problems
    assert "width is 48, not 96" in problems


@pytest.mark.parametrize("keep", [0, 40, 500])
def test_a_broken_file_holds_no_readable_video(tmp_path: Path, keep: int) -> None:
    path = write(tmp_path / "a.mp4", clip(16))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(EncodeFailed, match=r"a\.mp4"):
        probe_mp4(path)


def test_a_file_cut_short_is_found_out_when_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", clip(16))
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(EncodeFailed):
        read_frames(path)


class Device:
    """Stands for PyAV's CodecContext on a machine where NVENC works, or does not."""

    def __init__(self, works: bool) -> None:
        self.works, self.sent = works, 0

    def create(self, codec: str, mode: str) -> Any:
        assert (codec, mode) == ("h264_nvenc", "w")
        if not self.works:
            raise av.error.PermissionError(1, "Operation not permitted")
        context = av.CodecContext.create("libx264", "w")
        device = self

        class Counting:
            def encode(self, frame: object) -> Any:
                device.sent += frame is not None
                return context.encode(frame)

            def __setattr__(self, name: str, value: object) -> None:
                if name != "options":  # they are NVENC's
                    setattr(context, name, value)

        return Counting()


def test_libx264_is_taken_without_a_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(works=True)
    monkeypatch.setattr("video.mp4.CodecContext", device)
    assert choose_codec(Mp4Config(codec="libx264")) == "libx264"
    assert device.sent == 0


def test_nvenc_is_taken_once_two_frames_went_through(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(works=True)
    monkeypatch.setattr("video.mp4.CodecContext", device)
    assert choose_codec(CONFIG) == "h264_nvenc"
    assert device.sent == 2


def test_without_nvenc_auto_falls_back_and_a_demand_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("video.mp4.CodecContext", Device(works=False))
    assert choose_codec(CONFIG) == "libx264"
    with pytest.raises(EncodeFailed, match="NVENC"):
        choose_codec(Mp4Config(codec="h264_nvenc"))


def test_the_chosen_codec_writes_a_publishable_file_on_this_machine(tmp_path: Path) -> None:
    codec = choose_codec(CONFIG)
    write_mp4(tmp_path / "a.mp4", clip(4, 256, 256), 8, codec, CONFIG, {})
    assert probe_mp4(tmp_path / "a.mp4").problems(256, 256, 8, 4) == []


def test_the_configuration_is_frozen_and_closed() -> None:
    with pytest.raises(ValidationError):
        Mp4Config.model_validate({"quality": 1})
    with pytest.raises(ValidationError):
        Mp4Config.model_validate({"codec": "libx265"})
