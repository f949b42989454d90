"""The web page's Catalogue and Service views, and the form by model: what they ask the API for, and
what they show."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from catalog.batches.items import Item, ItemStatus
from catalog.batches.keeper import _code
from catalog.batches.lines import are_requests, manifest_of
from catalog.batches.request import BatchRequest, UploadedManifest, run_options
from catalog.errors import CatalogError
from catalog.presets import default_presets
from catalog.results.errors import ResultsError
from catalog.run.config import CatalogConfig
from catalog.run.errors import PlanChanged
from cluster.eta import TierState, Work
from cluster.tiers import CameraTierConfig, TierConfig
from diffusion.params import Priority
from serve.config import CAMERA
from serve.schemas import Batch, BatchItem, Cluster, CreateBatch, Queue, Tier
from serve.web.api import Refused
from serve.web.catalogue import reports
from serve.web.catalogue.lists import ListUnusable, ProductList
from serve.web.catalogue.runs import (
    RunWishes,
    gone_on_with,
    is_of_report,
    is_run,
    name_of,
    percent,
    retried,
    started,
    state,
)
from serve.web.cluster.picture import Machine, Picture, in_line, machine
from serve.web.cluster.view import shown
from serve.web.create.form import FIELDS, OF_THE_MODEL, told, wishes_of
from serve.web.limits import Offer, allowed
from serve.web.wishes import Wishes
from serve.web.words import LANGUAGES, words_of
from storage.batches import Batch as StoredBatch
from storage.batches import BatchError, BatchStatus, Counts
from storage.sql.overview import Line

EN, ZH = (words_of(language) for language in LANGUAGES)
NO_ROWS: dict[str, Any] = {"data": [], "has_more": False}


def batch(
    status: str,
    counts: tuple[int, int, int] = (0, 0, 0),
    errors: tuple[BatchError, ...] = (),
    name: str = "<b>goods</b>.csv",
    dry_run: bool = False,
) -> dict[str, Any]:
    """A run of the page as the API tells it: {total, completed, failed} in that order."""
    fields = RunWishes(preset="high", max_failures="5%").fields("file_1", name, dry_run)
    create = CreateBatch.model_validate(fields)
    request = BatchRequest(
        file=UploadedManifest(id="file_1", sha256="0" * 64, suffix=".csv"),
        run=create.of_the_run(),
        dry_run=dry_run,
        metadata=create.metadata or {},
    )
    stored = StoredBatch(
        id="batch_0a",
        tenant="shop",
        request="{}",
        output_uri="s3://reel/batches/shop/batch_0a",
        status=BatchStatus(status),
        counts=Counts(*counts),
        errors=errors,
    )
    options = run_options(stored, request, "reel", CatalogConfig())
    wire: dict[str, Any] = json.loads(
        Batch.of(stored, request, options, "i2vgen-xl").model_dump_json()
    )
    return wire


def item(row: int, status: ItemStatus, **more: Any) -> dict[str, Any]:
    told = BatchItem.of(Item(row, status, f"sku-{row}", **more))
    wire: dict[str, Any] = json.loads(told.model_dump_json())
    return wire


def test_a_run_is_told_in_words() -> None:
    assert state(EN, batch("validating")) == "Reading the list"
    assert state(EN, batch("validating", dry_run=True)) == "Checking the list"
    assert state(EN, batch("in_progress", (5, 2, 1))) == "At work: 2 of 5 ready, 1 failed"
    assert state(ZH, batch("in_progress", (5, 2, 1))) == "制作中：共 5 个，完成 2 个，失败 1 个"
    checked = batch("completed", (5, 0, 1), dry_run=True)
    assert state(EN, checked) == "Checked: 5 products, 1 cannot be used"
    assert "all 5 products" in state(EN, batch("completed", (5, 0, 0), dry_run=True))
    for status in BatchStatus:
        assert state(EN, batch(status))
    assert [percent(batch(*one)) for one in (("in_progress", (5, 2, 1)), ("completed",))] == [
        60,
        100,
    ]


def test_a_checked_list_is_started_as_it_was_checked() -> None:
    checked = batch("completed", (5, 0, 1), dry_run=True)
    body = started(checked)
    assert body is not None
    create = CreateBatch.model_validate(body)
    assert (create.input_file_id, create.dry_run) == ("file_1", False)
    assert (create.preset, create.category, create.max_failures) == ("high", None, "5%")
    assert name_of(checked) == "<b>goods</b>.csv"
    assert started(batch("completed", (5, 0, 5), dry_run=True)) is None  # nothing to make
    assert started(batch("completed", (5, 5, 0))) is None
    assert started(checked | {"metadata": {}}) is None  # another program's


def test_an_address_names_a_run_and_nothing_else() -> None:
    assert is_run(batch("validating")["id"])
    assert not is_run("batch_../../files")
    assert not is_run("")


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("report", True),
        ("errors.csv", True),
        ("videos/00007/mug-7.mp4", True),
        ("videos/00007/mug-7.webp", True),
        ("cancel", False),
        ("items", False),
        ("videos/00007/../../report", False),
        ("videos/00007/mug 7.mp4", False),
        ("errorsxcsv", False),
    ],
)
def test_the_page_hands_on_a_report_and_what_it_links_to(name: str, known: bool) -> None:
    assert is_of_report(name) is known


@pytest.mark.parametrize(
    ("run", "told"),
    [
        (batch("completed", (5, 4, 1)), "again"),
        (batch("completed", (5, 5, 0)), None),
        (batch("completed", (5, 0, 1), dry_run=True), None),
        (batch("in_progress", (5, 2, 1)), None),
        (batch("cancelled", (5, 2, 0)), "go_on"),
        (batch("failed", (5, 1, 3)), "go_on"),
        (batch("failed"), None),  # its list was not even read
    ],
)
def test_a_run_goes_on_where_something_is_left_to_be_made(run: Any, told: str | None) -> None:
    assert retried(run) == told
    drawn = reports.card(EN, run)
    assert ('data-act="retry"' in drawn) is (told is not None)
    if told is not None:
        assert EN(f"catalogue.{told}") in drawn


def test_only_the_last_batch_of_a_run_goes_on_with_it() -> None:
    failed = batch("completed", (5, 4, 1))
    newer, other = failed | {"id": "batch_0b"}, failed | {"id": "batch_0c", "run_id": "run_other"}
    listed = [other, newer, failed]  # the newest first, as the API lists them
    assert gone_on_with(listed) == {"batch_0a"}
    drawn = reports.runs(EN, listed, gone_on_with(listed))
    assert drawn.count('data-act="retry"') == 2
    assert 'data-act="retry"' not in reports.card(EN, failed, gone_on_with(listed))


@pytest.mark.parametrize("words", [EN, ZH])
def test_a_report_opens_beside_the_page_or_says_why_not(words: Any) -> None:
    made = reports.card(words, batch("completed", (5, 4, 1)))
    assert 'href="/ui/batches/batch_0a/report" target="_blank"' in made
    assert words("catalogue.report") in made
    for other in (batch("in_progress", (5, 2, 1)), batch("completed", (5, 0, 1), dry_run=True)):
        assert "/report" not in reports.card(words, other)
    page = reports.no_file(words, Refused("report_not_found", "<gone>"))
    assert words.errors["report_not_found"].remedy in page
    assert "&lt;gone&gt;" in page
    assert page.strip().startswith("<!doctype html>")


@pytest.mark.parametrize("words", [EN, ZH])
def test_what_is_wrong_with_a_list_is_said_by_row_with_what_to_do(words: Any) -> None:
    error = BatchError("bad_n", "row 4: 101 is not …", "n", 5)
    drawn = reports.problems(words, batch("completed", (5, 0, 1), (error,), dry_run=True), NO_ROWS)
    assert words("catalogue.line", line=5) in drawn
    assert words.errors["bad_n"].remedy in drawn
    assert reports.problems(words, batch("completed", (5, 5, 0)), NO_ROWS).strip() == ""
    failed = item(3, ItemStatus.FAILED, error_code="image_too_small", error_message="<8 px>")
    drawn = reports.problems(
        words, batch("completed", (5, 4, 1)), {"data": [failed], "has_more": 0}
    )
    assert words.errors["image_too_small"].happened in drawn
    assert "<td>4</td>" in drawn
    assert "&lt;8 px&gt;" in drawn
    assert words("catalogue.first_problems", count=1) not in drawn
    several = reports.problems(
        words, batch("completed", (5, 1, 4)), {"data": [failed], "has_more": True}
    )
    assert words("catalogue.first_problems", count=1) in several


@pytest.mark.parametrize("words", [EN, ZH])
def test_a_run_shows_what_can_be_done_with_it(words: Any) -> None:
    at_work = reports.card(words, batch("in_progress", (5, 2, 1)))
    assert 'value="60"' in at_work
    assert 'data-act="stop"' in at_work
    assert "<b>goods" not in at_work
    checked = reports.card(words, batch("completed", (5, 0, 1), dry_run=True))
    assert 'data-act="start"' in checked
    assert "data-act" not in reports.card(words, batch("completed", (5, 5, 0)))
    assert "data-act" not in reports.card(words, batch("cancelling", (5, 2, 0)))
    assert words("catalogue.none") in reports.runs(words, [])
    assert reports.runs(words, [batch("completed"), batch("failed")]).count("<article") == 2


def test_rows_show_their_videos_once_they_are_ready() -> None:
    ready = item(0, ItemStatus.OK, video_id="video_0a", score=0.75)
    drawn = reports.rows(EN, [ready, item(1, ItemStatus.QUEUED, video_id="video_0b")])
    assert drawn.count("<figure") == 2
    assert drawn.count('loading="lazy"') == 1
    assert "score 0.75" in drawn
    assert EN("catalogue.no_rows") in reports.rows(EN, [])
    assert "s3://reel/batches/shop/batch_0a" in reports.files(EN, batch("completed", (5, 5, 0)))
    assert reports.files(EN, batch("in_progress", (5, 2, 0))) == ""


GOODS = """sku,image_uri,title,colour,n
W-1,photos/watch.jpg,Steel watch,blue,
W-2,"C:\\goods\\watch.jpg",,,3
W-3,https://cdn.example/mug.jpg,"Mug, white",,
"""


def test_a_list_and_its_photos_become_lines_that_the_service_reads() -> None:
    products = ProductList.read("goods.CSV", ("\ufeff" + GOODS).encode())
    assert products.photos(["other.jpg", "watch.jpg"]) == ["watch.jpg"]
    lines = products.requests({"watch.jpg": "file_1"})
    assert are_requests(lines)
    uris = {"file_1": "s3://reel/inputs/1"}
    rows = [
        json.loads(row) for row in manifest_of(lines, "i2vgen-xl", uris.__getitem__).split(b"\n")
    ]
    assert [row["sku"] for row in rows] == ["W-1", "W-2", "W-3"]
    assert [row["image_uri"] for row in rows] == [
        "s3://reel/inputs/1",
        "s3://reel/inputs/1",
        "https://cdn.example/mug.jpg",
    ]
    assert rows[0]["metadata_json"] == {"colour": "blue"}
    assert (rows[1]["n"], rows[2]["title"]) == ("3", "Mug, white")


@pytest.mark.parametrize(
    ("name", "data", "reason", "names"),
    [
        ("goods.parquet", b"PAR1", "catalogue.photos_need_csv", ()),
        ("goods.csv", b"sku,image_uri\n\xff,a.jpg", "catalogue.not_utf8", ()),
        ("goods.csv", b"sku,photo\na,b.jpg", "catalogue.no_column", ("image_uri",)),
        ("goods.csv", b"sku,image_uri\na,b.jpg", "catalogue.photos_absent", ("b.jpg",)),
    ],
)
def test_a_list_that_its_photos_do_not_fit_is_refused_in_words(
    name: str, data: bytes, reason: str, names: tuple[str, ...]
) -> None:
    with pytest.raises(ListUnusable) as refused:
        ProductList.read(name, data).photos(["a.jpg"])
    assert (refused.value.reason, refused.value.names) == (reason, names)
    assert EN(reason, names=", ".join(names)) != ZH(reason, names=", ".join(names))


@pytest.mark.parametrize("row", ["a,b.jpg,c", "a"])
def test_a_row_of_another_width_is_not_guessed_at(row: str) -> None:
    with pytest.raises(ListUnusable) as refused:
        ProductList.read("goods.csv", f"sku,image_uri\n{row}".encode())
    assert refused.value.reason == "catalogue.not_csv"


def test_whatever_ends_a_run_has_words() -> None:
    """As its keeper names it; what concerns rows has ADVICE."""
    ends = [*CatalogError.__subclasses__(), *ResultsError.__subclasses__(), PlanChanged]
    told = {_code(Exception.__new__(error)) for error in ends}
    told |= {"stopped", "driver_lost", "input_not_found", "invalid_request"}
    assert told <= EN.errors.keys()


LIMITS = {"max_area_px": 262_144, "min_num_frames": 8, "max_num_frames": 32, "max_candidates": 4}
MODEL = {"id": "i2vgen-xl", "limits": LIMITS | {"size_multiple": 64}}


NOTHING = dict.fromkeys(Priority, Work())
BUSY = TierState(
    2,
    4,
    90.0,
    False,
    125.0,
    NOTHING | {Priority.INTERACTIVE: Work(3, 100.0), Priority.BATCH: Work(1, 20.0)},
    NOTHING | {Priority.BATCH: Work(12, 480.0)},
    starting=1,
    is_measured=True,
    peak_vram_bytes=34_000_000_000,
)
A100 = TierConfig(name="a100", num_gpus=0.75, vram_gb=80, cold_start_s=90)
AT_REST = TierConfig(name="l4", num_gpus=1, min_replicas=0, cold_start_s=120)
CPU = TierConfig(name="cpu")
KINDS = (A100, AT_REST, CPU, CameraTierConfig())


def cluster(states: Mapping[str, TierState], *broken: str) -> dict[str, Any]:
    """As the API tells it: three wait for two minutes, no batch work."""
    lines = {Priority.INTERACTIVE: Line(3, 880.0), Priority.BATCH: Line(0, None)}
    said = Cluster(
        status="not_ready" if broken else "ready",
        broken=list(broken),
        observed_at=1_000 if states else None,
        stale=not states,
        queue=Queue.of(lines, 1_000.0) if states else None,
        tiers=[Tier.of(tier, states.get(tier.name)) for tier in KINDS],
    )
    wire: dict[str, Any] = json.loads(said.model_dump_json())
    return wire


def test_a_tier_is_a_row_in_words() -> None:
    idle = replace(BUSY, replicas=0, starting=0, running=NOTHING, queued=NOTHING)
    states = {"a100": BUSY, "l4": replace(idle, peak_vram_bytes=3 << 30), "cpu": idle}
    states["cpu"] = replace(idle, replicas=1, is_measured=False, peak_vram_bytes=None)
    told = cluster(states)["tiers"]
    a100, l4, cpu, camera = (machine(EN, tier) for tier in told)
    assert a100 == Machine(
        tier="a100",
        makes="",
        replicas="2, 1 starting",
        at_work="3 + 1 batch (room for 8)",
        queued="0 + 12 batch",
        ahead="about 5 min",  # 600 s on two replicas
        speed="125 TFLOP/s",
        card="80 GB",
        memory="34.0 of 60.0 GB",
    )
    assert (l4.replicas, l4.at_work) == ("at rest, starts in about 2 min", "0")
    assert (l4.card, l4.memory) == ("–", "3.2 GB")
    assert (cpu.replicas, cpu.at_work, cpu.ahead) == ("1", "0 (room for 4)", "none")
    assert (cpu.speed, cpu.card, cpu.memory) == ("–", "–", "–")
    assert (camera.makes, camera.replicas, camera.ahead) == ("camera moves", "–", "–")
    uncounted = machine(EN, cluster({"cpu": replace(BUSY, starting=None)})["tiers"][2])
    assert (uncounted.replicas, uncounted.at_work) == ("–", "3 + 1 batch")
    chinese = machine(ZH, told[0])
    assert (chinese.ahead, chinese.replicas) == ("约 5 分钟", "2，1 个启动中")


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.2, "1 s"), (89, "89 s"), (90, "2 min"), (5300, "88 min"), (5400, "2 h")],
)
def test_a_span_is_told_as_finely_as_it_is_known(seconds: float, told: str) -> None:
    assert in_line(EN, {"clips": 3, "oldest_seconds": seconds}) == f"3, the first one for {told}"


class Told:
    """The API, with one video that has failed; with none, its table is away."""

    def __init__(self, cluster: dict[str, Any], trouble: Refused | None = None) -> None:
        self._cluster, self._trouble = cluster, trouble

    async def cluster(self) -> dict[str, Any]:
        return self._cluster

    async def models(self) -> dict[str, Any]:
        return {"data": [MODEL]}

    async def videos(self, status: str) -> dict[str, Any]:
        if self._trouble is not None:
            raise self._trouble
        assert status == "failed"
        error = {"code": "out_of_memory", "message": "30 GB"}
        return {"data": [{"id": "video_0a", "error": error, "metadata": {}, "sku": "<b>"}]}


def picture_of(told: Told) -> Picture:
    return asyncio.run(Picture.of(told))  # type: ignore[arg-type]


@pytest.mark.parametrize("words", [EN, ZH])
def test_the_service_is_drawn_as_the_api_tells_it(words: Any) -> None:
    url = "https://grafana.example/d/1"
    drawn = shown(words, picture_of(Told(cluster({"a100": BUSY}))), url)
    assert words("cluster.ready") in drawn
    assert words.trouble("out_of_memory").remedy in drawn
    assert f'href="{url}"' in drawn
    assert "&lt;b&gt;" in drawn
    assert [f'data-tier="{tier.name}"' in drawn for tier in KINDS] == [True] * 4
    assert "80 GB" in drawn
    assert in_line(words, {"clips": 3, "oldest_seconds": 120.0}) in drawn
    assert words("cluster.stale") not in drawn


@pytest.mark.parametrize("words", [EN, ZH])
def test_what_is_not_known_is_not_drawn(words: Any) -> None:
    away = cluster({}, "job table: <does> not answer")
    drawn = shown(words, picture_of(Told(away, Refused("store_unavailable"))), None)
    assert "job table: &lt;does&gt; not answer" in drawn
    assert words("cluster.ready") not in drawn
    assert words("cluster.stale") in drawn
    assert words("cluster.failures_unknown") in drawn
    assert words("cluster.no_failures") not in drawn
    assert "data-line" not in drawn
    assert '<td data-column="replicas">–</td>' in drawn
    assert "grafana" not in drawn.lower()
    with pytest.raises(Refused):
        picture_of(Told(away, Refused("invalid_api_key")))


def card_of(name: str, moves: list[str], strength: float | None, most: int) -> dict[str, Any]:
    said = {"camera_motions": moves, "default_motion_strength": strength, "max_candidates": most}
    return {"id": name, "limits": LIMITS | said}


@pytest.mark.parametrize(
    ("model", "shown"),
    [
        # move, speed, strength, candidates, negative, seed, smooth, then NUMBERS
        (card_of("i2vgen-xl", ["pan_left"], 0.4, 4), "1111111" + "11111"),
        (card_of("i2vgen-xl", [], 0.4, 1), "0000111" + "11111"),
        (card_of(CAMERA, ["pan_left"], None, 1), "1100000" + "00110"),
    ],
)
def test_the_form_shows_what_means_something_to_the_model(
    model: dict[str, Any], shown: str
) -> None:
    preset = default_presets()["standard"].model_dump()
    updates = allowed(EN, model, preset)
    assert len(updates) == OF_THE_MODEL
    assert "".join("01"[one["visible"]] for one in updates) == shown
    moves = [value for _, value in updates[0]["choices"]]
    assert moves == ["", *model["limits"]["camera_motions"]]


@pytest.mark.parametrize("default", ["i2vgen-xl", CAMERA])
def test_a_form_begins_with_the_services_default_model(default: str) -> None:
    cards = [{"id": name, "default": name == default} for name in ("i2vgen-xl", CAMERA)]
    offer = Offer(cards, [], [])
    assert offer.model(None)["id"] == offer.model("gone-since")["id"] == default
    assert offer.model(CAMERA)["id"] == CAMERA


def test_a_form_says_what_was_wished() -> None:
    wishes = Wishes(
        category="watch",
        prompt="a watch turns",
        preset="high",
        model="i2vgen-xl",
        move="zoom_in",
        speed="fast",
        motion_strength=0.4,
        num_frames=12,
        sku="W-1",
    )
    values = told(wishes)
    assert len(values) == FIELDS
    assert wishes_of(*values) == wishes
