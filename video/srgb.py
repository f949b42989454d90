"""Any colour mode a JPEG, PNG or WebP can have, as 8-bit sRGB on white."""

import io

import numpy as np
from PIL import Image, ImageCms

_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def to_srgb(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """An RGB image in sRGB, and sentences on what could not be kept.

    Transparent pixels are laid over white; an embedded ICC profile is applied, with perceptual
    intent; a damaged or mismatched one is ignored and said.
    """
    if image.mode == "I;16":
        image = _scale_grey16(image)
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    rgb, notes = _apply_profile(_without_alpha(image), image.info.get("icc_profile"))
    if alpha is not None:
        rgb = Image.composite(rgb, Image.new("RGB", rgb.size, "white"), alpha)
    return rgb, notes


def _scale_grey16(image: Image.Image) -> Image.Image:
    """Pillow 12.3 converts I;16 by clipping at 255, which turns nearly every photo white."""
    grey16 = np.asarray(image, dtype=np.uint32)
    grey = Image.fromarray(((grey16 + 128) // 257).astype(np.uint8))
    transparent = image.info.get("transparency")  # a grey level, or absent
    if transparent is not None:
        alpha = Image.fromarray(np.where(grey16 == transparent, 0, 255).astype(np.uint8))
        grey = Image.merge("LA", (grey, alpha))
    if profile := image.info.get("icc_profile"):
        grey.info["icc_profile"] = profile
    return grey


def _without_alpha(image: Image.Image) -> Image.Image:
    """The colours as L, RGB or CMYK: the modes for which a profile can be meant."""
    if image.mode in ("L", "RGB", "CMYK"):
        return image
    return image.convert("L" if image.mode in ("LA", "1") else "RGB")


def _apply_profile(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, list[str]]:
    if profile:
        try:
            converted = ImageCms.profileToProfile(
                image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), _SRGB, outputMode="RGB"
            )
        except (OSError, ImageCms.PyCMSError):
            note = "the photo's colour profile is damaged and was ignored; colours may differ"
            return image.convert("RGB"), [note]
        assert converted is not None  # None only with inPlace
        return converted, []
    if image.mode == "CMYK":
        note = "the photo is CMYK without a colour profile; send sRGB to be sure of its colours"
        return image.convert("RGB"), [note]
    return image.convert("RGB"), []
