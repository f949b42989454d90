"""Frames to an H.264 MP4 that browsers and marketplaces take; what a file really is; and back."""

import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av import CodecContext, Packet, VideoFrame, VideoStream
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from video.errors import EncodeFailed

_log = logging.getLogger(__name__)

_BT709 = 1  # ITU-T H.273: the same code point for matrix, primaries and transfer
_LIMITED_RANGE = 1  # AVCOL_RANGE_MPEG: luma 16..235
# Rounds accurately and uses all chroma, which quarters the error, and alike on every CPU.
_EXACT = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.BITEXACT
)
_KEYFRAME_SECONDS = 2.0  # so that scrubbing in a player stays quick
_PROBE_SIDE = 256  # px; NVENC refuses frames under 145 x 49


class Mp4Config(BaseModel):
    """How frames are compressed. By default 16 frames of 512 x 512 px take 0.2 s on one core."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    codec: Literal["auto", "libx264", "h264_nvenc"] = "auto"
    crf: int = Field(default=18, ge=0, le=51)  # lower is better; 18 is hard to tell from the source
    preset: Literal["ultrafast", "veryfast", "fast", "medium", "slow"] = "veryfast"  # of libx264
    threads: int = Field(default=1, ge=1)  # part of x264's output: another count, other bytes


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a file says of its first video stream. Colour fields are code points of ITU-T H.273."""

    codec: str
    pix_fmt: str
    width: int  # px
    height: int  # px
    fps: float
    frames: int
    seconds: float
    color_space: int  # matrix coefficients; 1 is BT.709
    color_primaries: int  # 1 is BT.709
    color_transfer: int  # 1 is BT.709
    color_range: int  # 1 is limited, 2 is full
    faststart: bool  # the index stands before the pictures, so playback starts while loading
    metadata: Mapping[str, str] = field(default_factory=dict)

    def problems(self, width: int, height: int, fps: float, frames: int) -> list[str]:
        """How the file differs from a publishable one of this size, rate and length; [] if it
        does not."""
        colors = (self.color_space, self.color_primaries, self.color_transfer, self.color_range)
        checks = (
            ("codec", self.codec, "h264", self.codec == "h264"),
            ("pixel format", self.pix_fmt, "yuv420p", self.pix_fmt == "yuv420p"),
            ("width", self.width, width, self.width == width),
            ("height", self.height, height, self.height == height),
            ("frame rate", self.fps, fps, math.isclose(self.fps, fps, rel_tol=1e-3)),
            ("frame count", self.frames, frames, self.frames == frames),
            (
                "duration",
                f"{self.seconds:.3f} s",
                f"{frames / fps:.3f} s",
                abs(self.seconds - frames / fps) < 0.5 / fps,
            ),
            (
                "matrix, primaries, transfer, range",
                colors,
                "BT.709, limited",
                colors == (_BT709, _BT709, _BT709, _LIMITED_RANGE),
            ),
            ("faststart", self.faststart, True, self.faststart),
        )
        return [
            f"{what} is {found}, not {wanted}" for what, found, wanted, good in checks if not good
        ]


def choose_codec(config: Mp4Config) -> str:
    """libx264 | h264_nvenc. NVENC is tried with two frames: many GPUs (A100, H100, H200) have no
    such unit, and the codec being listed says nothing.

    Raises EncodeFailed where `h264_nvenc` is demanded and does not work.
    """
    if config.codec == "libx264":
        return "libx264"
    try:
        context = CodecContext.create("h264_nvenc", "w")
        _configure(context, _PROBE_SIDE, _PROBE_SIDE, Fraction(8), "h264_nvenc", config)
        black = np.zeros((2, _PROBE_SIDE, _PROBE_SIDE, 3), dtype=np.uint8)
        for frame in (*_yuv_frames(black, Fraction(8)), None):
            context.encode(frame)
    except (av.FFmpegError, ValueError) as error:  # ValueError: this build of PyAV lacks the codec
        if config.codec == "h264_nvenc":
            raise EncodeFailed(
                f"h264_nvenc does not work here ({error}); use a GPU with an NVENC unit and its "
                "driver, or set codec to auto or libx264"
            ) from error
        _log.info("NVENC does not work here, using libx264: %s", error)
        return "libx264"
    return "h264_nvenc"


def write_mp4(
    path: Path,
    frames: NDArray[np.uint8],
    fps: float,
    codec: str,
    config: Mp4Config,
    metadata: Mapping[str, str],
) -> None:
    """`frames`, uint8 sRGB [N, H, W, 3] of even sides, as an H.264 MP4 at `path`.

    yuv420p in limited BT.709, tagged so; closed groups of pictures; the index first; every key of
    `metadata` kept. With libx264, equal arguments give equal bytes. `codec` is choose_codec's.

    Raises EncodeFailed for frames or a codec that cannot be encoded, and OSError, a full disk
    included, as the file system raised it; what then lies at `path` is not a video.
    """
    height, width = frames.shape[1:3]
    if not len(frames) or height % 2 or width % 2:
        raise EncodeFailed(
            f"{len(frames)} frames of {width}x{height} px cannot be encoded: yuv420p needs even "
            "sides and at least one frame; crop or pad the frames"
        )
    rate = Fraction(fps).limit_denominator(1001)  # 1001 keeps 24000/1001 and its kin exact
    # faststart rewrites the finished file, so it needs a real path; without use_metadata_tags
    # FFmpeg keeps only the keys that it knows.
    options = {"movflags": "+faststart+use_metadata_tags"}
    with av.open(str(path), "w", format="mp4", options=options) as container:
        container.metadata.update(metadata)
        stream = container.add_stream(codec, rate=rate)
        _configure(stream.codec_context, width, height, rate, codec, config)
        for packet in _packets(stream, _yuv_frames(frames, rate), codec):
            container.mux(packet)


def probe_mp4(path: Path) -> VideoInfo:
    """Raises EncodeFailed for a file that holds no readable video."""
    with _open_video(path) as (container, stream):
        context = stream.codec_context
        return VideoInfo(
            codec=context.name,
            pix_fmt=context.pix_fmt,
            width=context.width,
            height=context.height,
            fps=float(stream.average_rate),
            frames=stream.frames,
            seconds=float(stream.duration * stream.time_base),
            color_space=context.colorspace,
            color_primaries=context.color_primaries,
            color_transfer=context.color_trc,
            color_range=context.color_range,
            faststart=_index_comes_first(path),
            metadata=dict(container.metadata),
        )


def read_frames(path: Path) -> NDArray[np.uint8]:
    """All frames, uint8 sRGB [N, H, W, 3], decoded as limited BT.709 whatever the tags say.

    Raises EncodeFailed for a file that holds no readable video.
    """
    with _open_video(path) as (container, stream):
        return np.stack(
            [
                frame.reformat(
                    format="rgb24",
                    src_colorspace=Colorspace.ITU709,
                    src_color_range=ColorRange.MPEG,
                    dst_color_range=ColorRange.JPEG,
                    interpolation=_EXACT,
                ).to_ndarray()
                for frame in container.decode(stream)
            ]
        )


def _configure(
    context: VideoCodecContext,
    width: int,
    height: int,
    rate: Fraction,
    codec: str,
    config: Mp4Config,
) -> None:
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.framerate, context.time_base = rate, 1 / rate
    context.gop_size = math.ceil(_KEYFRAME_SECONDS * rate)
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = _LIMITED_RANGE
    if codec == "h264_nvenc":
        quality = {"preset": "p5", "rc": "constqp", "qp": str(config.crf)}
    else:
        quality = {
            "preset": config.preset,
            "crf": str(config.crf),
            "threads": str(config.threads),
            # The macroblock tree of x264 core 165 reads beyond rows that are no multiple of 128 px
            # (576 among them), and what it finds there changes the stream from run to run.
            "mbtree": "0",
        }
    context.options = {"flags": "+cgop", **quality}


def _yuv_frames(frames: NDArray[np.uint8], rate: Fraction) -> Iterator[VideoFrame]:
    for index, rgb in enumerate(frames):
        frame = VideoFrame.from_ndarray(rgb, format="rgb24").reformat(
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,  # left out, swscale converts as BT.601
            dst_color_range=ColorRange.MPEG,
            interpolation=_EXACT,
        )
        frame.pts, frame.time_base = index, 1 / rate
        yield frame


def _packets(stream: VideoStream, frames: Iterable[VideoFrame], codec: str) -> Iterator[Packet]:
    # Encoders' errors are OSErrors too: caught here, before the muxer's can mix with them.
    for frame in (*frames, None):
        try:
            packets = stream.encode(frame)
        except av.FFmpegError as error:
            raise EncodeFailed(
                f"{codec} refused the frames ({error}); try codec libx264 or smaller frames"
            ) from error
        yield from packets


@contextmanager
def _open_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    try:
        with av.open(str(path), format="mp4") as container:
            yield container, container.streams.video[0]
    except (av.FFmpegError, IndexError) as error:
        raise EncodeFailed(f"{path.name} holds no readable video ({error})") from error


def _index_comes_first(path: Path) -> bool:
    """Whether `moov` precedes `mdat` among the top-level boxes (ISO/IEC 14496-12, 4.2)."""
    with path.open("rb") as file:
        while len(header := file.read(8)) == 8:
            size, kind = int.from_bytes(header[:4]), header[4:]
            if kind in (b"moov", b"mdat"):
                return kind == b"moov"
            if size < 8:  # a 64-bit size, or "to the end of the file": neither stands before moov
                return False
            file.seek(size - 8, os.SEEK_CUR)
    return False
