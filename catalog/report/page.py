"""report.html: one file that an operator opens, mails or archives. No script, no network."""

from collections.abc import Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined

from catalog.report import view, words
from catalog.report.summary import RunSummary
from catalog.results.output import RunOutput


def report_html(
    output: RunOutput, summary: RunSummary, posters: Mapping[int, str], written_at: float
) -> bytes:
    """`posters`: data URIs by row. Size does not grow with the number of rows."""
    tally = summary.tally
    page = _ENVIRONMENT.get_template("page.html").render(
        run=summary,
        output_uri=output.uri,
        written_at=written_at,
        headline=view.headline(summary),
        progress=list(view.progress(summary)),
        figures=list(view.figures(summary)),
        failures=view.failures(summary),
        stages=view.stages(summary),
        queue_mean_s=view.queue_mean_s(summary),
        tiers=view.tiers(summary),
        scores=view.scores(summary),
        worst=view.cards(output, tally.worst, posters),
        samples=view.cards(output, tally.samples, posters),
    )
    return page.encode()


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("catalog.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for word in (words.count, words.duration, words.size, words.share, words.moment):
        environment.filters[word.__name__] = word
    return environment


_ENVIRONMENT = _environment()
