"""What a run may be asked for, and the keys and counts that come of it."""

from dataclasses import replace

import pytest
from pydantic import ValidationError

from catalog.manifest.rows import Row
from catalog.results.row import ResultRow, RowStatus
from catalog.run.options import RunOptions
from catalog.run.progress import Counts
from catalog.run.row_jobs import is_job_key, job_key


@pytest.mark.parametrize("output", ["s3://b/x", "s3://bucket//x", "s3://bucket/x/", "s3://bucket/"])
def test_an_output_that_is_no_folder_is_refused(output: str) -> None:
    with pytest.raises(ValidationError, match="output_uri"):
        RunOptions(manifest_uri="m.csv", output_uri=output)


@pytest.mark.parametrize("prefix", ["x", "runs/one", "runs//one"])
def test_any_folder_of_a_bucket_is_an_output(prefix: str) -> None:
    options = RunOptions(manifest_uri="m.csv", output_uri=f"s3://bucket/{prefix}")
    assert (options.bucket, options.prefix) == ("bucket", prefix)


def test_each_asking_is_its_own_and_reaches_its_drivers() -> None:
    asked = [RunOptions(manifest_uri="m.csv", output_uri="s3://bucket/x") for _ in range(2)]
    assert asked[0].submission != asked[1].submission
    handed_over = asked[0].model_dump_json(exclude_defaults=True)
    assert RunOptions.model_validate_json(handed_over) == asked[0]
    assert asked[0].of_the_rows() == asked[1].of_the_rows()


def test_a_key_that_a_tenant_chose_is_no_rows() -> None:
    assert is_job_key("run_1", job_key("run_1", 7, 0, 2, 1))
    for key in ("mine", "run_1:mine", "run_1:1:2:3", "run_2:1:0:0:0", "run_1:1:0:0:0:0"):
        assert not is_job_key("run_1", key)


@pytest.mark.parametrize("status", [RowStatus.CANCELLED, RowStatus.FAILED])
def test_a_row_that_is_tried_again_is_taken_back_as_what_it_was(status: RowStatus) -> None:
    counts = Counts(2)
    row = ResultRow(row=0, status=status, error_code="x", gpu_seconds=2.0, cost=0.1)
    counts.add(row)
    counts.skipped = 1  # it was a driver's before
    assert counts.gpu_seconds == 2.0
    counts.take_back(row)
    assert counts == Counts(2)


ROW = Row(
    index=0,
    sku="mug",
    image_uri="s3://photos/mug.jpg",
    category=None,
    title=None,
    prompt="a mug",
    negative_prompt=None,
    preset=None,
    seconds=None,
    seed=None,
    n=None,
    priority=None,
    metadata={},
    extra={},
)


def test_a_run_of_camera_moves_asks_for_them() -> None:
    options = RunOptions(manifest_uri="m.csv", output_uri="s3://bucket/x", model="camera")
    asked = options.fields(replace(ROW, camera_motion="pan_left", motion_strength="0.25"), 0)
    assert (asked["model"], asked["camera_motion"]) == ("camera", "pan_left")
    assert asked["motion_strength"] == "0.25"
    plain = RunOptions(manifest_uri="m.csv", output_uri="s3://bucket/x")
    assert not {"model", "camera_motion", "motion_strength"} & plain.fields(ROW, 0).keys()
    # The plan of a run that an older release began has no such option.
    assert "model" not in plain.of_the_rows()
    assert options.of_the_rows() == plain.of_the_rows() | {"model": "camera"}
