"""Catalogue: a list of products is checked, made, watched, stopped; its report is opened."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from serve.web import markup
from serve.web.actions import LISTEN, QUIET
from serve.web.api import Api, Json, Refused
from serve.web.catalogue import reports
from serve.web.catalogue.lists import ListUnusable, ProductList
from serve.web.catalogue.runs import ENDED, ROW_STATUSES, RunWishes, gone_on_with, is_run, started
from serve.web.limits import Offer
from serve.web.words import Words

_TICK_S = 2.0
_ROWS = "24"  # shown at once
_PROBLEMS = "20"
_LISTED = "20"
_KEEP_RUN = """(run) => {
  const url = new URL(window.location);
  run ? url.searchParams.set('batch', run) : url.searchParams.delete('batch');
  window.history.replaceState(null, '', url);
}"""
_READ_RUN = "() => [new URLSearchParams(window.location.search).get('batch') || '']"


@dataclass(frozen=True, slots=True)
class CatalogueView:
    words: Words
    api_of: Callable[[gr.Request], Api]

    def draw(self, page: gr.Blocks, tabs: gr.Tabs, tab: gr.Tab) -> None:
        """`page` begins here, on `tab`, where its address names a run."""
        words = self.words
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=320):
                manifest = gr.File(
                    label=words("catalogue.manifest"),
                    file_types=[".csv", ".jsonl", ".ndjson", ".parquet"],
                    elem_id="manifest",
                    height=150,
                )
                gr.HTML(f'<p class="faint">{words("catalogue.manifest_help")}</p>')
                photos = gr.File(
                    label=words("catalogue.photos"),
                    file_count="multiple",
                    file_types=["image"],
                    elem_id="list-photos",
                    height=150,
                )
                with gr.Row():
                    preset = gr.Dropdown(label=words("catalogue.preset"), min_width=180)
                    category = gr.Dropdown(label=words("catalogue.category"), min_width=180)
                most = gr.Textbox(
                    label=words("catalogue.max_failures"),
                    info=words("catalogue.max_failures_help"),
                    max_length=16,
                )
                with gr.Row():
                    check = gr.Button(words("catalogue.check"), min_width=140)
                    start = gr.Button(words("catalogue.start"), variant="primary", min_width=140)
                refused = gr.HTML()
            with gr.Column(scale=6, min_width=320):
                card = gr.HTML(js_on_load=LISTEN, elem_id="run")
                problems = gr.HTML(elem_id="problems")
                with gr.Row(visible=False) as bar:
                    everything = (words("gallery.all"), "")
                    named = [(words(f"catalogue.row_statuses.{one}"), one) for one in ROW_STATUSES]
                    status = gr.Dropdown(
                        [everything, *named], value="", label=words("catalogue.rows_of")
                    )
                    further = gr.Button(words("catalogue.next_rows"), min_width=140)
                    back = gr.Button(words("catalogue.first_rows"), min_width=140)
                rows = gr.HTML(elem_id="rows")
                listed = gr.HTML(js_on_load=LISTEN, elem_id="runs")
                refresh = gr.Button(words("catalogue.refresh"))
        run, after, last = (gr.Textbox(visible="hidden") for _ in range(3))
        timer = gr.Timer(_TICK_S, active=False)
        asked = [run, status, after]
        seen = [card, problems, bar, further, rows, last, timer, listed]
        look: dict[str, Any] = {"fn": self._look, "inputs": asked, "outputs": seen, **QUIET}
        page.load(self._opened, run, [run, tabs, preset, category], js=_READ_RUN, **QUIET).then(
            **look
        )
        tab.select(**look)
        timer.tick(**look)
        refresh.click(**look)
        run.change(None, run, None, js=_KEEP_RUN, api_visibility="private")
        said = [manifest, photos, preset, category, most, run]
        check.click(self._check, said, [run, after, refused], api_visibility="private").then(**look)
        start.click(self._start, said, [run, after, refused], api_visibility="private").then(**look)
        status.change(_from_the_first, None, after, **QUIET).then(**look)
        back.click(_from_the_first, None, after, **QUIET).then(**look)
        further.click(_go_on, last, after, **QUIET).then(**look)
        for shown in (card, listed):
            shown.click(self._act, [run], [run, after, refused], **QUIET).then(**look)

    async def _opened(self, run: str, request: gr.Request) -> list[Any]:
        run = run if is_run(run) else ""
        tabs = gr.Tabs(selected="catalogue") if run else gr.skip()
        try:
            offer = await Offer.of(self.api_of(request))
        except Refused:  # the head of the page tells
            return [run, tabs, gr.skip(), gr.skip()]
        of_row = self.words("catalogue.row_default")
        presets = [(of_row, ""), *offer.preset_choices(self.words)]
        categories = offer.category_choices(of_row)
        return [
            run,
            tabs,
            gr.update(choices=presets, value=""),
            gr.update(choices=categories, value=""),
        ]

    async def _check(self, request: gr.Request, *said: Any) -> tuple[str, str, str]:
        return await self._begin(request, True, *said)

    async def _start(self, request: gr.Request, *said: Any) -> tuple[str, str, str]:
        return await self._begin(request, False, *said)

    async def _begin(
        self,
        request: gr.Request,
        dry_run: bool,
        manifest: str | None,
        photos: Sequence[str] | None,
        preset: str | None,
        category: str | None,
        most: str,
        run: str,
    ) -> tuple[str, str, str]:
        """[run, after, refused]."""
        if not manifest:
            return run, "", markup.hint(self.words("catalogue.no_manifest"))
        api, path = self.api_of(request), Path(manifest)
        wishes = RunWishes(preset or None, category or None, most.strip() or None)
        try:
            file_id = await _uploaded(api, path, [Path(photo) for photo in photos or ()])
            fields = wishes.fields(file_id, path.name, dry_run, bool(photos))
            batch = await api.create_batch(fields)
        except Refused as e:
            return run, "", markup.alert(self.words, e, path.name)
        except ListUnusable as e:
            return run, "", markup.hint(self.words(e.reason, names=", ".join(e.names)))
        return str(batch["id"]), "", ""

    async def _act(
        self, run: str, event: gr.EventData, request: gr.Request
    ) -> tuple[str, str, str]:
        """[run, after, refused]."""
        said = event._data if isinstance(event._data, dict) else {}
        chosen, api = str(said.get("of", "")), self.api_of(request)
        if not is_run(chosen):
            return run, "", ""
        try:
            if said.get("act") == "stop":
                await api.cancel_batch(chosen)
            elif said.get("act") == "start" and (body := started(await api.batch(chosen))):
                return str((await api.create_batch(body))["id"]), "", ""
            elif said.get("act") == "retry":
                return str((await api.create_batch({"retry_of": chosen}))["id"]), "", ""
        except Refused as e:
            return run, "", markup.alert(self.words, e)
        return run or chosen, "", ""

    async def _look(self, run: str, status: str, after: str, request: gr.Request) -> list[Any]:
        """[card, problems, bar, further, rows, last, timer, listed]."""
        words, api = self.words, self.api_of(request)
        try:
            listed = (await api.batches(limit=_LISTED))["data"]
        except Refused as e:
            offline = e.code == "unreachable"
            alert = markup.hint(words("page.offline")) if offline else markup.alert(words, e)
            return [alert, *[gr.skip()] * 5, gr.Timer(active=offline and bool(run)), gr.skip()]
        shown = ["", "", gr.update(visible=False), gr.skip(), "", ""]
        past = gone_on_with(listed)
        live = any(map(_is_live, listed))
        if is_run(run):
            try:
                batch = await api.batch(run)
                shown = await self._report(api, batch, past, status, after)
                live = live or _is_live(batch)
            except Refused as e:
                shown[0] = markup.alert(words, e)
        others = [one for one in listed if one["id"] != run]
        return [*shown, gr.Timer(active=live), reports.runs(words, others, past)]

    async def _report(
        self, api: Api, batch: Json, past: Collection[str], status: str, after: str
    ) -> list[Any]:
        """[card, problems, bar, further, rows, last]."""
        words, batch_id = self.words, batch["id"]
        card = reports.card(words, batch, past)
        if batch["dry_run"]:
            found = reports.problems(words, batch, {"data": [], "has_more": False})
            return [card, found, gr.update(visible=False), gr.skip(), "", ""]
        failed, page = await asyncio.gather(
            api.items(batch_id, status="failed", limit=_PROBLEMS),
            api.items(batch_id, status=status, after=after, limit=_ROWS),
        )
        return [
            card,
            reports.problems(words, batch, failed),
            gr.update(visible=True),
            gr.update(interactive=page["has_more"]),
            reports.rows(words, page["data"]) + reports.files(words, batch),
            page["last_id"] or "",
        ]


async def _uploaded(api: Api, manifest: Path, added: Sequence[Path]) -> str:
    """The id of the manifest's file. Raises Refused and ListUnusable."""
    data = await asyncio.to_thread(manifest.read_bytes)
    if not added:
        return await api.upload_manifest(manifest.name, data)
    products, by_name = ProductList.read(manifest.name, data), {one.name: one for one in added}
    file_ids = {}
    for name in products.photos(list(by_name)):  # one at a time: the service has them in memory
        file_ids[name] = (await api.upload(by_name[name])).file_id
    return await api.upload_manifest(f"{manifest.stem}.jsonl", products.requests(file_ids))


def _is_live(batch: Json) -> bool:
    return batch["status"] not in ENDED


def _from_the_first() -> str:
    return ""


def _go_on(last: str) -> str:
    return last
