"""What can go wrong between a photo and a file.

VideoError
├── PhotoError                    the photo cannot become frame 0   do not retry: send another
│   ├── UnsupportedPhotoType      not a JPEG, PNG or WebP
│   ├── UndecodablePhoto          empty, truncated or damaged
│   ├── PhotoTooSmall             a side under the limit
│   └── PhotoTooLarge             too many bytes or pixels, or far too long for its width
├── CameraConflict                the prompt names two camera moves do not retry: name one
├── PhotoPoolBusy                 too many photos wait for a decoder  retry in a second
└── EncodeFailed                  frames did not become a file      do not retry: change the frames
                                                                    or the configuration
A full disk stays the OSError it is: what to do about it is not this package's to say.
Constructors take positional arguments only: keyword-only ones lose their type over a Ray handle.
"""

from typing import ClassVar


class VideoError(Exception):
    """Root of what this package raises. `retryable`: whether the same call may succeed later."""

    retryable: ClassVar[bool] = False
    code: ClassVar[str]  # stable name for machines; the message is for people


class PhotoError(VideoError):
    """The message says what is wrong with the photo, what is allowed and what to send instead."""


class UnsupportedPhotoType(PhotoError):
    code = "image_unsupported"

    def __init__(self, found: str) -> None:
        super().__init__(found)
        self.found = found

    def __str__(self) -> str:
        return f"the file is {self.found}; send the photo as JPEG, PNG or WebP"


class UndecodablePhoto(PhotoError):
    code = "image_undecodable"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the photo cannot be read ({self.reason}); export it again and send the new file"


class PhotoTooSmall(PhotoError):
    code = "image_too_small"

    def __init__(self, width: int, height: int, min_side_px: int) -> None:
        super().__init__(width, height, min_side_px)
        self.width, self.height, self.min_side_px = width, height, min_side_px

    def __str__(self) -> str:
        return (
            f"the photo is {self.width}x{self.height} px; each side must have at least "
            f"{self.min_side_px} px: send a larger original"
        )


class PhotoTooLarge(PhotoError):
    code = "image_too_large"

    def __init__(self, found: str, allowed: str, remedy: str) -> None:
        super().__init__(found, allowed, remedy)
        self.found, self.allowed, self.remedy = found, allowed, remedy

    def __str__(self) -> str:
        return f"the photo is {self.found}; at most {self.allowed} is allowed: {self.remedy}"


class PhotoPoolBusy(VideoError):
    """The photo may be good: nobody has looked at it."""

    retryable = True
    code = "server_busy"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the photo was not looked at ({self.reason}); send it again in a second"


class CameraConflict(VideoError):
    """A clip is one move at one speed."""

    code = "camera_conflict"

    def __init__(self, words: tuple[str, ...], named: tuple[str, ...]) -> None:
        super().__init__(words, named)
        self.words, self.named = words, named

    def __str__(self) -> str:
        said = ", ".join(f"'{word}'" for word in self.words)
        return (
            f"the prompt asks for more than one camera move or speed, {' and '.join(self.named)}"
            f" ({said}): keep one, or say it in camera_motion"
        )


class EncodeFailed(VideoError):
    """The message says which codec or property stood in the way."""

    code = "encode_failed"
