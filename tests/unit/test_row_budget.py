"""Rows that fit: as the cost model says, never none."""

import torch

from diffusion.memory import Architecture
from diffusion.model_folder import ModelFolder
from diffusion.row_budget import row_budget
from diffusion.trajectory import Bucket

BUCKET = Bucket(num_frames=8, height=16, width=16)


def test_the_rows_it_grants_fit_and_one_more_would_not(tiny: ModelFolder) -> None:
    architecture = Architecture.of(tiny)
    memory = 50e6

    def needs(rows: int) -> int:
        return architecture.denoiser_bytes(128, 128, 8, rows, 4, False)

    rows = row_budget(architecture, memory, torch.float32, False)(BUCKET)
    assert needs(rows) <= memory < needs(rows + 1)
    assert row_budget(architecture, memory, torch.float32, True)(BUCKET) > rows


def test_there_is_always_one(tiny: ModelFolder) -> None:
    architecture = Architecture.of(tiny)
    assert row_budget(architecture, 1, torch.float16, False)(BUCKET) == 1
    assert row_budget(architecture, None, torch.float32, False)(BUCKET) > 1000
