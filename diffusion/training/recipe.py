"""The whole way from nothing to a folder of weights, and how much of each step."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import I2VGenXLPipeline

from diffusion.training.codec import PatchCode, make_vae
from diffusion.training.components import (
    make_feature_extractor,
    make_image_encoder,
    make_scheduler,
    make_text_encoder,
    make_tokenizer,
    make_unet,
)
from diffusion.training.decoder import Crops, train_decoder
from diffusion.training.denoiser import ClipShape, Denoiser, train_denoiser
from diffusion.training.loop import Schedule, Workplace
from diffusion.training.pictures import Pictures


@dataclass(frozen=True, slots=True)
class Recipe:
    """The packaged weights are of these defaults."""

    seed: int = 0
    pictures: int = 600
    decoder_pictures: int = 320  # of them
    code_pictures: int = 64  # that scale and offset of the latents are taken from
    decoder: Schedule = Schedule(2200, 2e-3)
    decoder_crops: Crops = Crops(16, 64)
    # Group norms take their statistics over a whole picture, and bfloat16 shifts the tone: both are
    # put right at the end.
    finish: Schedule = Schedule(300, 8e-4, full_precision=True)
    finish_crops: Crops = Crops(2, 256)
    denoiser: Schedule = Schedule(2400, 1.5e-3)
    clips: ClipShape = ClipShape()


def make_embedded_model(
    folder: Path,
    wheel: Path,
    work: Path,
    recipe: Recipe,
    *,
    pause_file: Path | None = None,
    report: Callable[[str], None],
) -> None:
    """Write the seven components below `folder`, in float16.

    `work` keeps what is needed to go on after a stop; `wheel` is that of open_clip_torch.
    """
    torch.manual_seed(recipe.seed)
    report(f"drawing {recipe.pictures} pictures")
    endless = Pictures(recipe.seed)
    pictures = [endless[index] for index in range(recipe.pictures)]
    sample = torch.stack([torch.from_numpy(p) for p in pictures[: recipe.code_pictures]])
    code = PatchCode.fit(sample.permute(0, 3, 1, 2).float() / 127.5 - 1)
    stills = pictures[: recipe.decoder_pictures]
    vae = make_vae(code)
    tokenizer, extractor, scheduler = (
        make_tokenizer(wheel),
        make_feature_extractor(),
        make_scheduler(),
    )
    denoiser = Denoiser(make_unet(), make_text_encoder(tokenizer), make_image_encoder())
    if torch.cuda.is_available():
        denoiser.cuda()
        vae.cuda()

    def place(name: str) -> Workplace:
        report(f"training: {name}")
        return Workplace(work / name, pause_file)

    train_decoder(
        vae,
        code,
        stills,
        recipe.decoder,
        place("decoder"),
        seed=recipe.seed,
        shape=recipe.decoder_crops,
    )
    train_decoder(
        vae,
        code,
        stills,
        recipe.finish,
        place("decoder-finish"),
        seed=recipe.seed + 1,
        shape=recipe.finish_crops,
    )
    train_denoiser(
        denoiser,
        tokenizer,
        extractor,
        scheduler,
        code,
        pictures,
        recipe.denoiser,
        place("denoiser"),
        seed=recipe.seed,
        shape=recipe.clips,
    )
    pipeline = I2VGenXLPipeline(
        vae=vae.half(),
        text_encoder=denoiser.text_encoder.half(),
        tokenizer=tokenizer,
        image_encoder=denoiser.image_encoder.half(),
        feature_extractor=extractor,
        unet=denoiser.unet.half(),
        scheduler=scheduler,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    _on_one_line(folder / "tokenizer" / "tokenizer.json")
    report(f"wrote {folder}")


def _on_one_line(path: Path) -> None:
    """Written for people it has a line for each of CLIP's 49,408 tokens and their merges."""
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n")
