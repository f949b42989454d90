"""The web page's Catalogue and Service views, and the form by model: what they ask the API for, and
what they show."""

import asyncio
import json
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
from serve.config import CAMERA
from serve.schemas import Batch, BatchItem, CreateBatch
from serve.web import markup, reports
from serve.web.api import Refused
from serve.web.form import FIELDS, OF_THE_MODEL, told, wishes_of
from serve.web.limits import Offer, allowed
from serve.web.lists import ListUnusable, ProductList
from serve.web.picture import Picture, machines
from serve.web.runs import (
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
from serve.web.wishes import Wishes
from serve.web.words import LANGUAGES, words_of
from storage.batches import Batch as StoredBatch
from storage.batches import BatchError, BatchStatus, Counts

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


def video(tier: str | None, gpu_seconds: float = 0.0, **more: Any) -> dict[str, Any]:
    usage = {"gpu_seconds": gpu_seconds, "peak_vram_bytes": more.pop("peak", None)}
    return {"tier": tier, "usage": usage, "shared_with": None, "queue_position": None, **more}


def test_machines_are_told_by_what_they_made() -> None:
    made = [
        video("a100", 4.0, peak=3 << 30),
        video("a100", 6.0, peak=5 << 30),
        video("a100", 0.0, shared_with="video_0a"),  # took an earlier video's result
        video("cpu", 60.0),
    ]
    a100, cpu, l4 = machines([video("l4"), video("l4"), video(None)], made)
    assert (a100.tier, a100.at_work, a100.made) == ("a100", 0, 2)
    assert (a100.gpu_seconds, a100.peak_vram_bytes) == (5.0, 5 << 30)
    assert (cpu.gpu_seconds, cpu.peak_vram_bytes) == (60.0, None)
    assert (l4.tier, l4.at_work, l4.made, l4.gpu_seconds) == ("l4", 2, 0, None)


LIMITS = {"max_area_px": 262_144, "min_num_frames": 8, "max_num_frames": 32, "max_candidates": 4}
MODEL = {"id": "i2vgen-xl", "limits": LIMITS | {"size_multiple": 64}}


class Told:
    """The API, with one video of each status."""

    def __init__(self, broken: list[str]) -> None:
        self._broken = broken

    async def broken(self) -> list[str]:
        return self._broken

    async def models(self) -> dict[str, Any]:
        return {"data": [MODEL]}

    async def videos(self, status: str, limit: str) -> dict[str, Any]:
        place = {"queued": 3}.get(status)
        one = video(None if status == "queued" else "a100", 2.0) | {"queue_position": place}
        error = {"code": "out_of_memory", "message": "30 GB"} if status == "failed" else None
        return {"data": [one | {"id": "video_0a", "error": error, "metadata": {}, "sku": "<b>"}]}


@pytest.mark.parametrize("words", [EN, ZH])
def test_the_service_is_drawn_as_the_api_tells_it(words: Any) -> None:
    picture = asyncio.run(Picture.of(Told([])))  # type: ignore[arg-type]
    assert (picture.waiting, picture.no_machine, picture.first_place) == (1, 0, 3)
    trouble = words.trouble("out_of_memory")
    failures = [(picture.failures[0], "<b>", trouble)]
    url = "https://grafana.example/d/1"
    drawn = markup.draw("cluster.html", "service", words, picture, failures, url)
    assert words("cluster.ready") in drawn
    assert trouble.remedy in drawn
    assert f'href="{url}"' in drawn
    assert "&lt;b&gt;" in drawn
    assert 'data-tier="a100"' in drawn
    assert '<dd id="waiting">1</dd>' in drawn
    broken = asyncio.run(Picture.of(Told(["Dispatcher: away"])))  # type: ignore[arg-type]
    drawn = markup.draw("cluster.html", "service", words, broken, [], None)
    assert "Dispatcher: away" in drawn
    assert words("cluster.ready") not in drawn
    assert "grafana" not in drawn.lower()


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
