"""Cluster: whether the service can work, what its machines do, and what of the caller's has failed
lately."""

from collections.abc import Callable
from dataclasses import dataclass

import gradio as gr

from serve.web import markup
from serve.web.actions import QUIET
from serve.web.api import Api, Refused
from serve.web.cluster.picture import Picture, in_line, machine
from serve.web.wishes import name_of
from serve.web.words import Words

_EVERY_S = 5.0
_FAILURES = 10


@dataclass(frozen=True, slots=True)
class ClusterView:
    words: Words
    api_of: Callable[[gr.Request], Api]
    grafana_url: str | None

    def draw(self, tab: gr.Tab, *others: gr.Tab) -> None:
        """`others`: behind them nothing is asked for."""
        service = gr.HTML(elem_id="service")
        timer = gr.Timer(_EVERY_S, active=False)
        tab.select(self._look, None, service, **QUIET).then(_awake, None, timer, **QUIET)
        timer.tick(self._look, None, service, **QUIET)
        for other in others:
            other.select(_asleep, None, timer, **QUIET)

    async def _look(self, request: gr.Request) -> str:
        try:
            picture = await Picture.of(self.api_of(request))
        except Refused as e:
            return markup.alert(self.words, e)
        return shown(self.words, picture, self.grafana_url)


def shown(words: Words, picture: Picture, grafana_url: str | None) -> str:
    queue = picture.cluster["queue"]
    waiting = queue and {name: in_line(words, line) for name, line in queue.items()}
    machines = [machine(words, tier) for tier in picture.cluster["tiers"]]
    failures = None
    if picture.failures is not None:
        failures = [
            (one, name_of(one), words.trouble(one["error"]["code"]))
            for one in picture.failures[:_FAILURES]
        ]
    drawn = (words, picture, waiting, machines, failures, grafana_url)
    return markup.draw("cluster.html", "service", *drawn)


def _awake() -> gr.Timer:
    return gr.Timer(active=True)


def _asleep() -> gr.Timer:
    return gr.Timer(active=False)
