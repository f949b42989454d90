"""What report.html shows, worked out of a summary: sorted, scaled and worded."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from catalog.report import words
from catalog.report.advice import Advice, advice_on
from catalog.report.summary import RunSummary
from catalog.results.histogram import BINS
from catalog.results.output import RunOutput
from catalog.results.row import STAGES, RowStatus
from catalog.results.tally import Example, Shown, TierUse

_STAGE_NAMES = {
    "text_encoding": "read the prompt",
    "image_encoding": "read the photo",
    "denoising": "make the frames (GPU)",
    "decoding": "decode the frames",
    "interpolation": "frames in between",
    "video_encoding": "encode the MP4",
    "quality": "measure quality",
    "storing": "store",
    "other": "other",
}


@dataclass(frozen=True, slots=True)
class Figure:
    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Bar:
    label: str
    width: float  # percent
    value: str


@dataclass(frozen=True, slots=True)
class FailureLine:
    code: str
    count: int
    advice: Advice
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class TierLine:
    name: str
    use: TierUse
    cost: str
    cost_per_video: str


@dataclass(frozen=True, slots=True)
class Card:
    """A video to show. `link` and `poster` are None where the report cannot reach them."""

    video: Shown
    link: str | None
    poster: str | None


def headline(summary: RunSummary) -> str:
    if summary.complete:
        return "Complete"
    if summary.stopped is None:
        return f"{summary.percent} % so far"
    return f"Stopped at {summary.percent} %"


def progress(summary: RunSummary) -> Iterator[tuple[str, int, float]]:
    """(status, rows, percent of all rows) of each status that occurs, and of "to do"."""
    counts = [(status.value, summary.tally.count(status)) for status in RowStatus]
    for name, rows in [*counts, ("to do", summary.plan.rows - summary.tally.rows)]:
        if rows:
            yield name, rows, 100 * rows / summary.plan.rows


def figures(summary: RunSummary) -> Iterator[Figure]:
    tally, videos = summary.tally, summary.tally.count(RowStatus.OK)
    made = videos - tally.shared
    yield Figure(
        "videos",
        words.count(videos),
        f"{words.duration(tally.video_seconds)} of footage, {words.size(tally.video_bytes)}",
    )
    yield Figure(
        "failed",
        words.count(tally.count(RowStatus.FAILED)),
        words.share(tally.count(RowStatus.FAILED), tally.rows) + " of the rows done",
    )
    gpu_s = sum(tier.gpu_seconds for tier in tally.tiers.values())
    yield Figure(
        "GPU time",
        words.duration(gpu_s),
        f"{words.duration(gpu_s / made)} a video made" if made else "",
    )
    if summary.plan.currency:
        cost = sum(tier.cost for tier in tally.tiers.values())
        yield Figure(
            "cost",
            words.money(cost, summary.plan.currency),
            f"{words.money(1000 * cost / videos, summary.plan.currency)} per 1,000 videos"
            if videos
            else "",
        )
    yield Figure(
        "shared results",
        words.count(tally.shared),
        f"{words.share(tally.shared, videos)} of the videos needed no GPU: the same one was stored",
    )
    if summary.wall_s:
        yield Figure(
            "wall time",
            words.duration(summary.wall_s),
            f"{words.count(round(3600 * tally.rows / summary.wall_s))} rows an hour",
        )


def failures(summary: RunSummary) -> list[FailureLine]:
    """The most frequent first."""
    found = summary.tally.failures.items()
    return [
        FailureLine(code, failure.count, advice_on(code), failure.examples)
        for code, failure in sorted(found, key=lambda entry: (-entry[1].count, entry[0]))
    ]


def stages(summary: RunSummary) -> list[Bar]:
    """Mean seconds of each, in the order of the path; waiting is apart: it dwarfs the work."""
    found = summary.tally.stages
    means = {
        name: found[name].seconds / found[name].rows for name in (*STAGES, "other") if name in found
    }
    longest = max(means.values(), default=0.0)
    return [
        Bar(_STAGE_NAMES[name], 100 * mean / longest if longest else 0.0, words.duration(mean))
        for name, mean in means.items()
    ]


def queue_mean_s(summary: RunSummary) -> float | None:
    queue = summary.tally.stages.get("queue")
    return None if queue is None else queue.seconds / queue.rows


def tiers(summary: RunSummary) -> list[TierLine]:
    """The most used first."""
    currency = summary.plan.currency
    lines = []
    for name, use in sorted(summary.tally.tiers.items(), key=lambda tier: -tier[1].gpu_seconds):
        priced = use.gpu_seconds > use.unpriced_seconds or use.cost > 0
        cost = words.money(use.cost, currency) if priced else "no price"
        if priced and use.unpriced_seconds:
            cost += f" + {words.duration(use.unpriced_seconds)} without a price"
        each = words.money(use.cost / use.videos, currency) if priced and use.videos else "–"
        lines.append(TierLine(name, use, cost, each))
    return lines


def scores(summary: RunSummary) -> list[Bar]:
    """The histogram; widths are heights here."""
    histogram = summary.tally.scores
    most = max(histogram.counts)
    return [
        Bar(
            f"{index / BINS:.2f} to {(index + 1) / BINS:.2f}",
            100 * number / most if most else 0.0,
            words.count(number),
        )
        for index, number in enumerate(histogram.counts)
    ]


def cards(output: RunOutput, videos: Iterable[Shown], posters: Mapping[int, str]) -> list[Card]:
    return [Card(video, output.link(video.video_uri), posters.get(video.row)) for video in videos]
