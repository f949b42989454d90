"""How the embedded model is made: the codec in closed form, and training that can be stopped."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from benchmarks.quality.takes import HELD_OUT
from diffusion.model_folder import ModelFolder
from diffusion.training.clips import MOVES, Window, film, sample_clips
from diffusion.training.codec import PatchCode, make_vae
from diffusion.training.components import (
    make_feature_extractor,
    make_image_encoder,
    make_scheduler,
    make_text_encoder,
    make_unet,
)
from diffusion.training.curves import draw, read, write
from diffusion.training.decoder import Crops, train_decoder
from diffusion.training.denoiser import ClipShape, Denoiser, train_denoiser
from diffusion.training.loop import Schedule, Workplace
from diffusion.training.pictures import PHOTOS, TEXTURES, Picture, Pictures
from diffusion.weights import load_text_model


@pytest.fixture(scope="module")
def pictures() -> list[Picture]:
    endless = Pictures(seed=5, side=192)
    return [endless[index] for index in range(6)]


@pytest.fixture(scope="module")
def code(pictures: list[Picture]) -> PatchCode:
    return PatchCode.fit(_pixels(pictures))


def test_the_stock_encoder_computes_the_patch_code_and_nothing_random(
    code: PatchCode, pictures: list[Picture]
) -> None:
    pixels = _pixels(pictures)[:, :, :96, :128]
    with torch.no_grad():
        posterior = make_vae(code).encode(pixels).latent_dist
    exact = code.encode(pixels)
    assert posterior.mode().shape == (6, 4, 24, 32)
    assert torch.allclose(posterior.mode(), exact, atol=2e-3)
    assert torch.allclose(posterior.sample(), posterior.mode(), atol=1e-5)


def test_the_axes_of_the_code_are_orthonormal_and_its_latents_of_unit_power(
    code: PatchCode, pictures: list[Picture]
) -> None:
    rows = code.axes.flatten(1)
    assert torch.allclose(rows @ rows.T, torch.eye(4), atol=1e-6)
    latents = code.encode(_pixels(pictures))
    assert latents.pow(2).mean().item() == pytest.approx(1, abs=1e-4)
    assert latents.mean((0, 2, 3)).abs().max().item() < 1e-4


def test_an_untrained_decoder_paints_each_patch_in_about_its_colour(
    code: PatchCode, pictures: list[Picture]
) -> None:
    pixels = _pixels(pictures)
    with torch.no_grad():
        decoded = make_vae(code).decode(code.encode(pixels)).sample
    error = torch.nn.functional.avg_pool2d(decoded - pixels, 4)
    assert error.abs().mean().item() < 0.1 * pixels.std().item()


def test_pictures_are_endless_and_the_same_again() -> None:
    first, again = Pictures(seed=1, side=64), Pictures(seed=1, side=64)
    assert np.array_equal(first[7], again[7])
    assert not np.array_equal(first[7], first[8])
    assert not np.array_equal(first[7], Pictures(seed=2, side=64)[7])
    assert {first[i].shape for i in range(30)} == {(64, 64, 3)}


def test_nothing_that_results_are_measured_on_is_trained_on() -> None:
    trained_on = {*PHOTOS, *TEXTURES}
    assert not trained_on & {path.name for path in HELD_OUT.values()}
    assert all(path.is_file() for path in HELD_OUT.values())


@pytest.mark.parametrize(("name", "column", "row"), [("pan right", 8, 0), ("tilt down", 0, 8)])
def test_a_move_shifts_the_picture_as_far_as_it_says(name: str, column: int, row: int) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (160, 160, 3), np.uint8)
    move = next(move for move in MOVES if move.name == name)
    window = Window(side=64, scale=1.0, middle=(80.5, 80.5), pivot=(32, 32))
    frames = film(picture, move, speed=8 / 5, num_frames=2, window=window)
    overlap = frames[0][row:, column:]
    assert np.array_equal(frames[1][: 64 - row, : 64 - column], overlap)


def test_a_batch_of_clips_depends_on_its_seed_alone(pictures: list[Picture]) -> None:
    first, again = (sample_clips(pictures, 3, 4, 64, np.random.default_rng(9)) for _ in range(2))
    assert first.pixels.shape == (3, 4, 3, 64, 64)
    assert torch.equal(first.pixels, again.pixels)
    assert (first.prompts, first.fps.tolist()) == (again.prompts, again.fps.tolist())


def test_a_decoder_that_was_stopped_ends_with_the_weights_of_one_that_was_not(
    code: PatchCode, pictures: list[Picture], tmp_path: Path
) -> None:
    def run(folder: str, *stops: int | None) -> tuple[list[bool], bytes]:
        torch.manual_seed(0)
        ends, weights = [], b""
        for stop in stops:
            vae = make_vae(code)  # as a new process would make it
            ends.append(
                train_decoder(
                    vae,
                    code,
                    pictures,
                    Schedule(6, 1e-3, warmup_steps=2),
                    Workplace(tmp_path / folder),
                    shape=Crops(2, 32),
                    stop_after=stop,
                )
            )
            weights = save(vae.decoder.state_dict())
        return ends, weights

    through, weights = run("through", None)
    assert through == [True]
    assert run("stopped", 2, 5, None) == ([False, False, True], weights)
    lines = [json.loads(line) for line in (tmp_path / "stopped/loss.jsonl").open()]
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4, 5]


def test_a_run_that_is_cut_has_the_average_of_the_steps_that_it_had(
    code: PatchCode, pictures: list[Picture], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    vae = make_vae(code)
    begun = save(vae.decoder.state_dict())
    place, shape = Workplace(tmp_path / "cut"), Crops(1, 32)
    assert train_decoder(vae, code, pictures, Schedule(6, 1e-3, cut_at=3), place, shape=shape)
    assert save(vae.decoder.state_dict()) != begun
    steps = [json.loads(line)["step"] for line in (tmp_path / "cut/loss.jsonl").open()]
    assert steps == [0, 1, 2]


def test_a_denoiser_that_was_stopped_ends_with_the_weights_of_one_that_was_not(
    code: PatchCode, pictures: list[Picture], tiny: ModelFolder, tmp_path: Path
) -> None:
    tokenizer = load_text_model(tiny, torch.device("cpu"), torch.float32).tokenizer

    def run(folder: str, *stops: int | None) -> bytes:
        for stop in stops:
            torch.manual_seed(0)
            denoiser = Denoiser(make_unet(), make_text_encoder(tokenizer), make_image_encoder())
            train_denoiser(
                denoiser,
                tokenizer,
                make_feature_extractor(),
                make_scheduler(),
                code,
                pictures,
                Schedule(5, 1e-3, warmup_steps=1, save_every_steps=2),
                Workplace(tmp_path / folder),
                shape=ClipShape(rows=2, num_frames=2, side=32),
                stop_after=stop,
            )
        return save(denoiser.state_dict())

    assert run("through", None) == run("stopped", 3, None)


def test_what_comes_after_the_saved_state_is_done_again(
    code: PatchCode, pictures: list[Picture], tmp_path: Path
) -> None:
    """As after a kill: steps were logged that no saved state knows of."""

    def run(steps: int, stop: int | None) -> None:
        torch.manual_seed(0)
        train_decoder(
            make_vae(code),
            code,
            pictures,
            Schedule(steps, 1e-3),
            Workplace(tmp_path / "killed"),
            shape=Crops(1, 32),
            stop_after=stop,
        )

    run(4, 2)
    log = tmp_path / "killed/loss.jsonl"
    kept = log.read_text().splitlines()
    log.write_text("\n".join([*kept, '{"step": 2, "loss": 9, "seconds": 1}']) + "\n")
    run(4, None)
    lines = [json.loads(line) for line in log.open()]
    assert [line["step"] for line in lines] == [0, 1, 2, 3]
    assert lines[2]["loss"] < 9


def test_curves_are_kept_as_numbers_and_as_a_picture(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    lines = [{"step": step, "loss": 1 / (step + 1), "seconds": 0.5} for step in range(120)]
    (tmp_path / "run/loss.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    curves = read(tmp_path)
    assert [curve.name for curve in curves] == ["run"]
    assert curves[0].steps[-1] == 120
    assert curves[0].seconds == 60
    assert list(curves[0].loss) == sorted(curves[0].loss, reverse=True)
    write(curves, tmp_path / "loss.json")
    draw(curves, tmp_path / "loss.png")
    assert json.loads((tmp_path / "loss.json").read_text())[0]["name"] == "run"
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def _pixels(pictures: list[Picture]) -> torch.Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
