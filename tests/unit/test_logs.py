"""Log lines: JSON in a replica's file, people's in a terminal, ids on them and nothing secret."""

import asyncio
import json
import logging
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.serve._private.logging_utils import configure_component_logger
from ray.serve.schema import LoggingConfig

from diffusion.model_folder import ModelFolder
from monitoring.logs import LogConfig, digest, log_in_replica
from monitoring.stages import StageCall, StageRecord, stage
from storage.errors import StoreUnavailable

log = logging.getLogger("deployments.somewhere")

CALL = StageCall("video_7", 2, "a100", "req-1", f"00-{'ab' * 16}-{'cd' * 8}-01")
IDS = {
    "job": "video_7",
    "attempt": 2,
    "tier": "a100",
    "request_id": "req-1",
    "trace_id": "ab" * 16,
}

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def _loggers() -> Iterator[None]:
    """As they were, afterwards."""
    root, serve = logging.getLogger(), logging.getLogger("ray.serve")
    names = ("deployments", "monitoring", "serve")
    before = root.handlers[:], serve.handlers[:], serve.propagate
    levels = {name: logging.getLogger(name).level for name in names}
    yield
    root.handlers[:], serve.handlers[:], serve.propagate = before
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture(params=["TEXT", "JSON"])
def lines(tmp_path: Path, request: pytest.FixtureRequest) -> Lines:
    """Those in the file that Serve keeps, set up by Serve itself."""
    configure_component_logger(
        component_name="shopreel_Decoder",
        component_id="x1",
        logging_config=LoggingConfig(encoding=request.param, logs_dir=str(tmp_path)),
        max_bytes=1 << 20,
        backup_count=1,
    )
    log_in_replica(LogConfig(), "Decoder", "x1")

    def read() -> list[dict[str, Any]]:
        (file,) = tmp_path.iterdir()
        return [json.loads(line) for line in file.read_text().splitlines()]

    return read


def test_a_replicas_file_holds_our_lines_and_serves_own_as_json(lines: Lines) -> None:
    log.info("one %s", "thing")
    logging.getLogger("ray.serve").info("another")
    ours, theirs = lines()
    assert ours.pop("timestamp").endswith("+00:00")
    assert ours == {
        "event": "one thing",
        "level": "info",
        "logger": "deployments.somewhere",
        "deployment": "Decoder",
        "replica": "x1",
    }
    assert (theirs["event"], theirs["logger"]) == ("another", "ray.serve")


def test_other_packages_are_heard_from_warnings_on(lines: Lines) -> None:
    other = logging.getLogger("urllib3.connectionpool")
    other.info("https://bucket/key?X-Amz-Signature=secret")
    other.warning("retrying")
    assert [line["event"] for line in lines()] == ["retrying"]


def test_a_line_stays_one_line_whatever_it_quotes(lines: Lines) -> None:
    log.warning("no photo %s", 'a"\r\n{"event": "forged"}')
    (line,) = lines()
    assert line["event"] == 'no photo a"\r\n{"event": "forged"}'


def test_a_traceback_shows_no_local_variables(lines: Lines) -> None:
    def fail() -> None:
        api_key = "reel_secret"
        raise StoreUnavailable(f"{len(api_key)} bytes")

    try:
        fail()
    except StoreUnavailable:
        log.exception("it failed")
    (line,) = lines()
    assert line["exception"].endswith("11 bytes")
    assert "in fail" in line["exception"]
    assert "reel_secret" not in json.dumps(line)


def test_a_stage_leaves_one_line_and_its_ids_on_every_other(lines: Lines) -> None:
    with stage("decoding", CALL) as record:
        log.warning("on the way")
        logging.getLogger("ray.serve").info("what began here outlives the call")
        record.note(seconds=0.5, shapes={"latents": (1, 4, 8, 8, 8)})
    log.info("afterwards")
    warned, theirs, told, after = lines()
    assert warned.items() >= {"event": "on the way", **IDS}.items()
    assert told.items() >= {"event": "decoding", "outcome": "done", "seconds": 0.5, **IDS}.items()
    assert told["shapes"] == {"latents": [1, 4, 8, 8, 8]}
    assert told["vram_bytes"] is None  # no GPU here
    assert not IDS.keys() & after.keys()
    assert not IDS.keys() & theirs.keys()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (StoreUnavailable("away"), {"outcome": "failed", "error": "StoreUnavailable"}),
        (GeneratorExit(), {"outcome": "cancelled"}),
    ],
)
def test_a_stage_that_does_not_end_well_tells_so(
    lines: Lines, error: BaseException, told: dict[str, str]
) -> None:
    record = StageRecord("denoising", CALL)
    record.note(step=3)
    with pytest.raises(type(error)), record:
        raise error
    (line,) = lines()
    assert line.items() >= {"event": "denoising", "step": 3, **told, **IDS}.items()


async def _encode(tiny: ModelFolder, prompt: str) -> None:
    from deployments.text_encoder import TextEncoder, TextEncoderConfig
    from diffusion.model_folder import ModelConfig

    model = ModelConfig(source=str(tiny.path))
    encoder = TextEncoder(TextEncoderConfig(), model, tiny.digests())
    await encoder.encode(prompt, "blurry", CALL)


def test_a_prompt_is_told_by_its_digest_alone(lines: Lines, tiny: ModelFolder) -> None:
    asyncio.run(_encode(tiny, "a secret bag turns"))
    (line,) = lines()
    assert line["prompt_sha256"] == digest("a secret bag turns")
    assert len(line["prompt_sha256"]) == 12
    assert line["shapes"]["prompt_embeds"][0] == 1
    assert line["seconds"] > 0
    assert "secret" not in json.dumps(line)


_WARN = (
    "import logging; from monitoring.logs import log_to_stderr; log_to_stderr();"
    "logging.getLogger('cluster.local').warning('not drained', extra={'seconds': 3})"
)


def test_a_terminal_shows_lines_for_people() -> None:
    terminal, stderr = pty.openpty()
    subprocess.run([sys.executable, "-c", _WARN], stderr=stderr, check=True, timeout=60)
    os.close(stderr)
    shown = os.read(terminal, 10_000).decode()
    os.close(terminal)
    assert "not drained" in shown
    assert "\x1b[" in shown  # coloured
    assert not shown.startswith("{")


def test_a_pipe_gets_json() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _WARN], stderr=subprocess.PIPE, text=True, check=True, timeout=60
    )
    line = json.loads(ran.stderr)
    assert (line["event"], line["level"], line["seconds"]) == ("not drained", "warning", 3)
