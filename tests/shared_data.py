"""Other people's schemas that the tests hold ours against. They are not copied into the project."""

import os
from pathlib import Path

import pytest

_BESIDE = Path(__file__).parents[2] / "shared" / "data"


def shared_data(path: str) -> Path:
    """A file below SHOPREEL_TEST_DATA, or below ../shared/data. For tests marked `shared_data`:
    they skip where nobody says that there is such a folder, and fail where it lacks the file."""
    told = os.environ.get("SHOPREEL_TEST_DATA")
    file = Path(told) / path if told else _BESIDE / path
    if not file.exists():
        if told or _BESIDE.exists():
            pytest.fail(f"{file} is missing", pytrace=False)
        pytest.skip(f"put {path} in a folder and name that by SHOPREEL_TEST_DATA")
    return file
