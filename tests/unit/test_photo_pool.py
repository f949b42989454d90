"""Real decoder processes: killed, stopped, starved, lying, orphaned; the pool answers them all."""

import asyncio
import io
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image

from video.errors import (
    PhotoError,
    PhotoPoolBusy,
    PhotoTooLarge,
    PhotoTooSmall,
    UndecodablePhoto,
    UnsupportedPhotoType,
)
from video.photo import PhotoFacts, PhotoLimits, inspect_photo
from video.photo_pool import PhotoPool, PhotoPoolConfig

LIMITS = PhotoLimits()
ROOT = Path(__file__).parents[2]


def encoded(width: int, height: int, format_: str = "JPEG") -> bytes:
    stream = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(stream, format_)
    return stream.getvalue()


PHOTO = encoded(640, 480)
LARGE = encoded(8000, 8000)  # 64 megapixels: half a second of decoding
DECODING_BYTES = 250 << 20  # resident only while LARGE is decoded


def pool_of(workers: int = 1, **options: float) -> PhotoPool:
    return PhotoPool(PhotoPoolConfig.model_validate({"workers": workers, **options}), LIMITS)


@pytest.fixture(scope="module", name="pool")
def shared_pool() -> Iterator[PhotoPool]:
    with pool_of() as pool:
        yield pool


def inspect(pool: PhotoPool, data: bytes) -> PhotoFacts:
    return asyncio.run(pool.inspect(data))


async def until(condition: Callable[[], bool], patience_s: float = 60) -> None:
    async with asyncio.timeout(patience_s):
        while not condition():
            await asyncio.sleep(0.002)


def is_decoding(pid: int) -> bool:
    try:
        return psutil.Process(pid).memory_info().rss > DECODING_BYTES
    except psutil.NoSuchProcess:
        return False


async def kill_at_work(pool: PhotoPool) -> None:
    """Kills the one process of `pool` in the middle of LARGE and waits for the one after it."""
    await until(lambda: is_decoding(pool.pids[0]))
    (killed,) = pool.pids
    os.kill(killed, signal.SIGKILL)
    await until(lambda: pool.pids != [killed])


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_the_facts_are_those_of_inspect_photo(pool: PhotoPool, format_: str) -> None:
    data = encoded(320, 200, format_)
    facts = inspect(pool, data)
    assert facts == inspect_photo(data, LIMITS)
    assert (facts.width, facts.height, facts.format) == (320, 200, format_.lower())
    assert "320x200 px" in facts.warnings[0]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", UndecodablePhoto),
        (PHOTO[:-500], UndecodablePhoto),
        (b"%PDF-1.7", UnsupportedPhotoType),
        (encoded(10, 20), PhotoTooSmall),
        (encoded(64, 3000), PhotoTooLarge),
        (PHOTO + bytes(LIMITS.max_bytes), PhotoTooLarge),
    ],
    ids=["empty", "truncated", "pdf", "small", "long", "many bytes"],
)
def test_a_refusal_is_the_one_of_open_photo(
    pool: PhotoPool, data: bytes, error: type[PhotoError]
) -> None:
    before = pool.pids
    with pytest.raises(PhotoError) as there:
        inspect(pool, data)
    with pytest.raises(PhotoError) as here:
        inspect_photo(data, LIMITS)
    assert type(there.value) is type(here.value) is error
    assert there.value.args == here.value.args
    assert pool.pids == before


def test_a_photo_beyond_the_memory_limit_is_undecodable() -> None:
    with pool_of(memory_bytes=512 << 20) as pool:
        before = pool.pids
        with pytest.raises(UndecodablePhoto, match="more memory than is allowed"):
            inspect(pool, LARGE)
        assert inspect(pool, PHOTO).width == 640
        assert pool.pids == before


def test_a_photo_that_takes_too_long_is_undecodable_and_its_process_replaced() -> None:
    with pool_of(timeout_s=0.5) as pool:
        (stuck,) = pool.pids
        os.kill(stuck, signal.SIGSTOP)
        with pytest.raises(UndecodablePhoto, match="longer than 0.5 s"):
            inspect(pool, PHOTO)
        assert not psutil.pid_exists(stuck)
        assert inspect(pool, PHOTO).width == 640


def test_a_process_killed_between_photos_goes_unnoticed() -> None:
    with pool_of() as pool:
        os.kill(pool.pids[0], signal.SIGKILL)
        assert inspect(pool, PHOTO).width == 640


def test_a_photo_whose_decoder_is_killed_once_is_decoded_by_the_next() -> None:
    async def killed_once() -> PhotoFacts:
        answer = asyncio.create_task(pool.inspect(LARGE))
        await kill_at_work(pool)
        return await answer

    with pool_of() as pool:
        assert asyncio.run(killed_once()).width == 8000


def test_a_photo_that_takes_two_decoders_along_is_undecodable() -> None:
    async def killed_twice() -> None:
        answer = asyncio.create_task(pool.inspect(LARGE))
        for _ in range(2):
            await kill_at_work(pool)
        with pytest.raises(UndecodablePhoto, match="its decoder crashed"):
            await answer
        assert (await pool.inspect(PHOTO)).width == 640

    with pool_of() as pool:
        asyncio.run(killed_twice())


def test_a_decoder_killed_while_it_starts_is_not_the_last() -> None:
    async def killed_at_start() -> None:
        (first,) = pool.pids
        answer = asyncio.create_task(pool.inspect(PHOTO))
        await until(lambda: pool.pids != [first])
        os.kill(pool.pids[0], signal.SIGKILL)
        with pytest.raises(RuntimeError, match="did not start"):  # nothing against the photo
            await answer

    with pool_of(photos_per_process=1) as pool:
        inspect(pool, PHOTO)
        asyncio.run(killed_at_start())
        assert inspect(pool, PHOTO).width == 640


def test_more_photos_than_may_wait_are_sent_away_and_may_come_back() -> None:
    async def crowd() -> None:
        os.kill(pool.pids[0], signal.SIGSTOP)
        taken = [asyncio.create_task(pool.inspect(PHOTO)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(PhotoPoolBusy) as busy:
            await pool.inspect(PHOTO)
        assert busy.value.retryable
        taken.pop().cancel()  # its caller hung up: its place is free again
        await asyncio.sleep(0.05)
        taken.append(asyncio.create_task(pool.inspect(PHOTO)))
        await asyncio.sleep(0)
        os.kill(pool.pids[0], signal.SIGCONT)
        assert [facts.width for facts in await asyncio.gather(*taken)] == [640] * 3
        await asyncio.gather(*(pool.inspect(PHOTO) for _ in range(3)))

    with pool_of(max_waiting=2) as pool:
        asyncio.run(crowd())


def test_the_event_loop_runs_on_while_a_large_photo_is_decoded(pool: PhotoPool) -> None:
    async def turns() -> int:
        answer, turns = asyncio.create_task(pool.inspect(LARGE)), 0
        while not answer.done():
            await asyncio.sleep(0.005)
            turns += 1
        assert answer.result().width == 8000
        return turns

    assert asyncio.run(turns()) > 10


def test_a_process_is_replaced_after_its_share_of_photos() -> None:
    with pool_of(photos_per_process=2) as pool:
        seen = []
        for _ in range(5):
            inspect(pool, PHOTO)
            seen.append(pool.pids[0])
        assert [seen.count(pid) for pid in dict.fromkeys(seen)] == [2, 2, 1]


def test_a_decoder_is_bounded_and_knows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOPREEL_OBJECT_STORE__SECRET_KEY", "hush")
    with pool_of(memory_bytes=600 << 20) as pool:
        process = psutil.Process(pool.pids[0])
        expected = {
            resource.RLIMIT_AS: 600 << 20,
            resource.RLIMIT_CORE: 0,
            resource.RLIMIT_FSIZE: 0,
            resource.RLIMIT_NOFILE: 16,
            resource.RLIMIT_NPROC: 0,
        }
        assert {what: process.rlimit(what) for what in expected} == {
            what: (most, most) for what, most in expected.items()
        }
        assert "hush" not in Path(f"/proc/{process.pid}/environ").read_text()
        assert Path(f"/proc/{process.pid}/oom_score_adj").read_text().strip() == "1000"
        assert process.num_fds() == 3
        assert process.num_threads() == 1
        status = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
        )
        assert status["NoNewPrivs"] == "1"
        for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(status[kind], 16) == 0


def test_a_decoder_imports_no_more_than_it_needs() -> None:
    script = "import sys, video.photo_worker; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert {"PIL", "numpy", "video"} <= loaded
    assert loaded.isdisjoint({"torch", "ray", "fastapi", "sqlalchemy", "minio", "storage", "serve"})


ORPHANS = """
    import asyncio, sys
    from video.photo import PhotoLimits
    from video.photo_pool import PhotoPool, PhotoPoolConfig
    pool = PhotoPool(PhotoPoolConfig(), PhotoLimits())
    print(*pool.pids, flush=True)
    asyncio.run(pool.inspect(sys.stdin.buffer.read()))
    print("decoded", flush=True)
    sys.stdin.buffer.raw.readinto(bytearray(1))
    import time; time.sleep(60)
"""


@pytest.mark.parametrize("busy", [True, False], ids=["busy", "idle"])
def test_no_decoder_outlives_a_killed_parent(busy: bool) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(ORPHANS)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        decoders = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        assert len(decoders) == 2
        with parent.stdin as photo:
            photo.write(LARGE if busy else PHOTO)
        if busy:
            asyncio.run(until(lambda: any(is_decoding(process.pid) for process in decoders)))
        else:
            assert parent.stdout.readline() == b"decoded\n"
        parent.kill()
    _, alive = psutil.wait_procs(decoders, timeout=30)
    assert alive == []


def test_a_decoder_that_nobody_watches_ends_itself() -> None:
    bounds = LIMITS.model_dump_json(), str(PhotoPoolConfig().memory_bytes), "0.05"
    done = subprocess.run(
        [sys.executable, "-m", "video.photo_worker", *bounds],
        cwd=ROOT,
        input=len(LARGE).to_bytes(8, "little") + LARGE,
        capture_output=True,
    )
    assert (done.stdout, done.returncode) == (b"ready\n", -signal.SIGALRM)


def test_closing_ends_every_process_and_refuses_what_is_at_work() -> None:
    async def close_at_work() -> None:
        answer = asyncio.create_task(pool.inspect(LARGE))
        await until(lambda: any(is_decoding(pid) for pid in pool.pids))
        pool.close()
        with pytest.raises(PhotoPoolBusy, match="leaving"):
            await answer

    pool = pool_of(workers=2)
    started = pool.pids
    asyncio.run(close_at_work())
    pool.close()
    assert not any(psutil.pid_exists(pid) for pid in {*started, *pool.pids})


@pytest.fixture
def impostor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Decoders of pools made from now on say they are ready and then answer every photo alike."""

    def answers(line: bytes) -> None:
        script = tmp_path / "impostor"
        script.write_text(
            f"#!{sys.executable} -S\nimport os\n"
            "os.write(1, b'ready\\n')\n"
            f"while os.read(0, 1 << 20): os.write(1, {line!r})\n"
        )
        script.chmod(0o700)
        monkeypatch.setattr("video.photo_process.sys.executable", str(script))

    return answers


FACTS = {"width": 640, "height": 480, "format": "jpeg", "sha256": "ab" * 32, "warnings": []}


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(json.dumps(FACTS).encode() + b"\n", id="facts of another photo"),
        pytest.param(b"cos\nsystem\n(S'true'\ntR.\n", id="a pickle"),
        pytest.param(b"x" * 70_000, id="no end"),
        pytest.param(b'{"type": "PhotoTooSmall", "args": []}\n', id="an error of wrong shape"),
        pytest.param(b'{"type": "SystemExit", "args": [0]}\n', id="no PhotoError"),
        pytest.param(b"\n", id="nothing"),
    ],
)
def test_a_decoder_that_was_taken_over_is_not_believed(
    impostor: Callable[[bytes], None], line: bytes
) -> None:
    impostor(line)
    with pool_of() as pool:
        first = pool.pids
        with pytest.raises(UndecodablePhoto, match="its decoder crashed"):
            inspect(pool, PHOTO)
        assert pool.pids != first


def test_a_decoder_that_does_not_start_fails_the_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("video.photo_process._ENVIRONMENT", {"PYTHONPATH": str(tmp_path)})
    monkeypatch.setattr("video.photo_process.sys.executable", "/bin/false")
    with pytest.raises(RuntimeError, match="did not start: it hung up"):
        pool_of()
