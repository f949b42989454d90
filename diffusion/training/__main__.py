"""`python -m diffusion.training`: make the embedded model, or go on where a run was stopped."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from diffusion.model_folder import EMBEDDED
from diffusion.training.curves import draw, read, write
from diffusion.training.recipe import Recipe, make_embedded_model


def main(
    wheel: Annotated[
        Path, typer.Argument(help="open_clip_torch-*.whl: CLIP's vocabulary is in it.")
    ],
    out: Annotated[Path, typer.Option(help="Where the weights go.")] = EMBEDDED,
    work: Annotated[Path, typer.Option(help="State and losses of the run.")] = Path(
        "build/embedded-model"
    ),
    steps: Annotated[
        int | None, typer.Option(help="Of the denoiser; more than default for a GPU.")
    ] = None,
    cut_at: Annotated[
        int | None, typer.Option(help="End the denoiser after so many of its steps.")
    ] = None,
    rows: Annotated[int | None, typer.Option(help="Clips in a step of the denoiser.")] = None,
    threads: Annotated[int | None, typer.Option(help="Of the CPU; default: all.")] = None,
    pause_file: Annotated[Path | None, typer.Option(help="Wait while this file exists.")] = None,
    curves: Annotated[
        Path | None, typer.Option(help="Folder for the loss curves, JSON, PNG.")
    ] = None,
) -> None:
    """Make the embedded model."""
    if threads is not None:
        torch.set_num_threads(threads)
    recipe = Recipe()
    recipe = replace(recipe, denoiser=replace(recipe.denoiser, cut_at=cut_at))
    if steps is not None:
        recipe = replace(recipe, denoiser=replace(recipe.denoiser, steps=steps))
    if rows is not None:
        recipe = replace(recipe, clips=replace(recipe.clips, rows=rows))
    make_embedded_model(out, wheel, work, recipe, pause_file=pause_file, report=typer.echo)
    if curves is not None:
        losses = read(work)
        write(losses, curves / "embedded-model-loss.json")
        draw(losses, curves / "embedded-model-loss.png")


if __name__ == "__main__":
    typer.run(main)
