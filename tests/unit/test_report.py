"""What a run's report says, and that nothing in it comes to life."""

import html
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from catalog.manifest.rows import ProblemCode
from catalog.report import words
from catalog.report.advice import ADVICE, UNKNOWN, advice_on
from catalog.report.errors_csv import harmless
from catalog.report.page import report_html
from catalog.report.run_json import run_json
from catalog.report.summary import RunSummary
from catalog.results.output import RunOutput
from catalog.results.row import ResultRow
from catalog.results.tally import Tally
from storage.object_store import ObjectStoreConfig
from tests.sample_results import RUN, failed_row, ok_row, output_in, plan_of, tally
from video import errors as video_errors

NOW = 1_790_001_000.0
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7 * 7 }}"


@pytest.fixture
def output() -> RunOutput:
    """Names keys; nothing here speaks to a store."""
    return output_in(
        ObjectStoreConfig(endpoint="localhost:1", bucket="shop", access_key="a", secret_key="b")
    )


def summary_of(
    *rows: ResultRow, total: int, shards: tuple[int, int] = (1, 1), **plan: Any
) -> RunSummary:
    done, all_ = shards
    counted = tally(*rows) if rows else Tally()
    return RunSummary(RUN, plan_of(total, all_, **plan), counted, done, (), None)


def page(output: RunOutput, summary: RunSummary) -> str:
    return report_html(output, summary, {}, NOW).decode()


def text_of(markup: str) -> str:
    body = re.sub(r"<style>.*?</style>", "", markup, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


class _Elements(HTMLParser):
    def __init__(self, markup: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(markup)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_a_finished_run_says_what_failed_and_what_to_do(output: RunOutput) -> None:
    rows = [ok_row(n) for n in range(97)] + [failed_row(n) for n in range(97, 100)]
    said = text_of(page(output, summary_of(*rows, total=100)))
    assert "Complete" in said
    assert "ok 97 97 %" in said
    assert "failed 3 3 %" in said
    assert "image_too_small mend the photo 3" in said
    assert ADVICE["image_too_small"].remedy in said
    assert "SKU-97 the photo is 96 x 72 px" in said
    assert "a100 97 4 min 51 s 12 GB 0.9700 EUR 0.0100 EUR" in said
    assert "make the frames (GPU) 3.0 s" in said
    assert "a row waited 10 s on average" in said
    assert "24 of 97 videos, drawn at random" in said
    assert "Mug" in said


def test_a_run_under_way_says_how_far_it_is(output: RunOutput) -> None:
    done = [ok_row(n) for n in range(379)]
    said = text_of(page(output, summary_of(*done, total=1000, shards=(2, 6))))
    assert "37 % so far" in said
    assert "379 of 1,000 rows" in said
    assert "2 of 6 shards" in said
    assert "to do 621 62.1 %" in said


def test_all_but_one_row_is_not_said_to_be_all() -> None:
    summary = summary_of(*map(ok_row, range(999)), total=1000, shards=(1, 2))
    assert summary.percent == 99
    assert summary.status == "in_progress"


def test_a_run_that_was_stopped_says_why(output: RunOutput) -> None:
    running = summary_of(ok_row(0), total=4, shards=(1, 4))
    stopped = RunSummary(RUN, running.plan, running.tally, 1, (), "100 rows failed")
    said = text_of(page(output, stopped))
    assert "Stopped at 25 %" in said
    assert "Stopped: 100 rows failed" in said
    assert json.loads(run_json(stopped, NOW))["stopped_because"] == "100 rows failed"


def test_a_manifest_without_rows_has_a_report(output: RunOutput) -> None:
    empty = summary_of(total=0, shards=(0, 0))
    said = text_of(page(output, empty))
    assert "Complete" in said
    assert "The manifest has no rows." in said
    assert json.loads(run_json(empty, NOW))["score"]["median"] is None


def test_a_run_of_ten_million_rows_has_a_report_as_small(output: RunOutput) -> None:
    one = tally(*(ok_row(n) if n % 7 else failed_row(n) for n in range(1000)))
    whole = one
    for _ in range(14):
        whole += whole  # 16.4 million rows
    summary = RunSummary(RUN, plan_of(whole.rows, 16_384), whole, 16_384, (), None)
    markup = page(output, summary)
    assert f"{whole.rows:,}" in markup
    assert len(markup) < 60_000


def test_nothing_of_the_manifest_comes_to_life(output: RunOutput) -> None:
    rows = [
        ok_row(0, sku=EVIL, title=EVIL, tier=EVIL, downgrades=(EVIL,), score=0.1),
        ok_row(1, video_uri="javascript:alert(1)", poster_uri="https://evil.example/p.webp"),
        failed_row(2, EVIL, sku=EVIL, error_message=EVIL),
    ]
    options = {EVIL: EVIL}
    plan: dict[str, Any] = {
        "manifest_uri": EVIL,
        "options": options,
        "versions": options,
        "currency": EVIL,
    }
    markup = page(output, summary_of(*rows, total=3, **plan))
    elements = _Elements(markup).found
    assert not {"script", "iframe", "object", "link", "form"} & {tag for tag, _ in elements}
    assert not [name for _, attrs in elements for name in attrs if name.startswith("on")]
    links = [attrs["href"] for _, attrs in elements if "href" in attrs]
    assert links
    assert all(link and link.startswith("./") for link in links)
    assert not [attrs for tag, attrs in elements if tag == "img"]  # a foreign address is not asked
    assert EVIL in html.unescape(markup)
    assert EVIL not in markup


def test_a_report_asks_no_network_and_carries_its_posters(output: RunOutput) -> None:
    poster = "data:image/webp;base64,UklGRg=="
    markup = report_html(output, summary_of(ok_row(0), total=1), {0: poster}, NOW).decode()
    elements = _Elements(markup).found
    assert {attrs["src"] for _, attrs in elements if "src" in attrs} == {poster}
    assert not re.search(r"url\(|@import|https?://", markup)
    policies = [a["content"] for _, a in elements if a.get("http-equiv")]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_titles_of_any_script_are_kept(output: RunOutput) -> None:
    titles = ["智能音箱", "陶器の花瓶", "나무 장난감", "عطر العنبر"]
    rows = [ok_row(n, title=title) for n, title in enumerate(titles)]
    markup = page(output, summary_of(*rows, total=4))
    assert all(title in markup for title in titles)


def test_a_tier_without_a_price_is_not_said_to_be_free(output: RunOutput) -> None:
    said = text_of(page(output, summary_of(ok_row(0, cost=None), total=1, currency=None)))
    assert "no price" in said
    mixed = [ok_row(0), ok_row(1, cost=None)]
    assert "0.0100 EUR + 3.0 s without a price" in text_of(
        page(output, summary_of(*mixed, total=2))
    )


def test_run_json_has_the_figures_of_the_report() -> None:
    rows = [ok_row(0), ok_row(1, shared_with="video_0", gpu_seconds=0.0, cost=0.0), failed_row(2)]
    said = json.loads(run_json(summary_of(*rows, total=5, shards=(1, 2)), NOW))
    assert said["status"] == "in_progress"
    assert said["rows"] == {"total": 5, "done": 3, "ok": 2, "failed": 1, "cancelled": 0}
    assert said["failures"] == {"image_too_small": 1}
    assert said["videos"]["shared"] == 1
    assert said["tiers"]["a100"]["cost"] == 0.01
    assert said["manifest"]["fingerprint"] == "sha256:feed"
    assert sum(said["score"]["histogram"]) == 2


def test_every_code_of_a_manifest_or_photo_has_advice() -> None:
    codes = (getattr(error, "code", None) for error in vars(video_errors).values())
    photos = {code for code in codes if isinstance(code, str)}
    assert {"image_undecodable", "encode_failed"} <= photos
    assert {*photos, *ProblemCode} <= {*ADVICE}
    assert advice_on("of_tomorrow") is UNKNOWN
    assert advice_on("worker_lost").first_step == "run again"


@pytest.mark.parametrize(
    "cell", ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\t=1", "\r\n=1", "＝1", "＋1", "－1", "＠1"]
)
def test_a_cell_that_a_spreadsheet_would_run_is_quoted(cell: str) -> None:
    assert harmless(cell) == f"'{cell}"


@pytest.mark.parametrize("value", ["a=1", "", "sku-1", -1, -0.5, None, True])
def test_other_cells_are_left_alone(value: object) -> None:
    assert harmless(value) == value


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"), (5.6e-5, "0 s"), (0.034, "0.034 s"), (3.04, "3.0 s"), (9.99, "10 s"),
        (61, "1 min 1 s"),
        (3600, "1 h"), (11_520, "3 h 12 min"), (90_000, "1 d 1 h"), (86_400_000, "1,000 d"),
    ],
)  # fmt: skip
def test_durations_are_said_in_two_units(seconds: float, said: str) -> None:
    assert words.duration(seconds) == said


@pytest.mark.parametrize(
    ("num_bytes", "said"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (999_999, "1 MB"), (8_200_000_000, "8.2 GB")],
)
def test_sizes_are_said_in_decimal_units(num_bytes: int, said: str) -> None:
    assert words.size(num_bytes) == said


@pytest.mark.parametrize(
    ("part", "whole", "said"),
    [
        (0, 0, "0 %"), (0, 9, "0 %"), (1, 10**7, "< 0.1 %"), (1, 3, "33.3 %"), (1, 2, "50 %"),
        (10**7 - 1, 10**7, "> 99.9 %"), (9, 9, "100 %"),
    ],
)  # fmt: skip
def test_shares_do_not_round_to_all_or_nothing(part: int, whole: int, said: str) -> None:
    assert words.share(part, whole) == said
