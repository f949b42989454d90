"""The page's words, wishes and relay: what needs neither a browser nor Ray."""

import ast
import asyncio
import json
import string
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from catalog.report.advice import ADVICE
from deployments.dispatch import verdict
from serve import errors
from serve.config import CAMERA
from serve.errors import TABLE
from serve.schemas import CreateVideoJson, Video
from serve.services.resolve_camera import _MEANINGLESS
from serve.web import markup
from serve.web.api import UploadedPhoto
from serve.web.gallery.listing import newest
from serve.web.hosting.relay import AnswerStart, RelayedRequest, answer
from serve.web.telling import state
from serve.web.wishes import (
    BOUNDS,
    GENERATED_ONLY,
    NEGATIVE_CHARS,
    NUMBERS,
    Wishes,
    again,
    ids_of,
    name_of,
    wished,
)
from serve.web.words import LANGUAGES, Language, Trouble, preferred, words_of
from storage.jobs import Job, JobStatus
from tests.sample_jobs import make_request

_CONTRACT = (
    "image_undecodable",
    "image_too_small",
    "image_too_large",
    "fetch_blocked",
    "out_of_memory",
    "does_not_fit",
    "deadline_exceeded",
    "worker_lost",
    "store_unavailable",
    "no_space",
    "encode_failed",
    "quality_gate_failed",
    "internal",
)
"""`error.code` of a video."""


def codes_raised() -> set[str]:
    """Every error code that the API can answer with."""
    return set(_CONTRACT) | set(_of_table()) | set(_of_sources())


def _of_table() -> Iterator[str]:
    for error, row in TABLE.items():
        if row.code is not None:
            yield row.code
            continue
        for cls in (error, *error.__subclasses__()):
            if isinstance(code := getattr(cls, "code", None), str):
                yield code


def _of_sources() -> Iterator[str]:
    """Codes written out: the third argument of ApiError, and what is assigned to `code`."""
    package = Path(errors.__file__).parent
    for path in [*package.rglob("*.py"), Path(verdict.__file__)]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                place = {"ApiError": 2, "_refusal": 0, "Verdict": 0}.get(node.func.id)
                if place is not None and len(node.args) > place:
                    yield from _texts(node.args[place])
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).endswith("code"):
                yield from _texts(node.value)


def _texts(node: ast.expr) -> Iterator[str]:
    """Constants that are the value of an expression, not what it compares or looks up."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.IfExp(body=body, orelse=orelse):
            yield from _texts(body)
            yield from _texts(orelse)
        case ast.Call(func=ast.Attribute(value=ast.Dict(values=values)), args=args):
            for value in (*values, *args):
                yield from _texts(value)


def test_every_error_code_has_words_in_both_languages() -> None:
    raised = codes_raised()
    assert {"queue_full", "missing_parameter", "route_not_found", "invalid_api_key"} <= raised
    raised -= {"preempted", "Retry-After"}  # an attempt's verdict that no caller ever sees
    for language in LANGUAGES:
        told = words_of(language).errors
        assert raised - told.keys() == set()
        assert all(all(trouble) and isinstance(trouble, Trouble) for trouble in told.values())
    english, chinese = (words_of(language).errors for language in LANGUAGES)
    assert [code for code in english if english[code] == chinese[code]] == []


def test_both_languages_say_the_same_things() -> None:
    english, chinese = (words_of(language).texts for language in LANGUAGES)
    for name, text in english.items():
        assert text, name
        assert chinese[name], name
        assert _fields(text) == _fields(chinese[name]), name


def _fields(text: str) -> set[str]:
    return {field for _, field, _, _ in string.Formatter().parse(text) if field}


def test_words_that_no_view_says_are_not_kept() -> None:
    document = yaml.safe_load(files("serve.web").joinpath("words.yaml").read_text("utf-8"))
    sources = "".join(
        path.read_text()
        for path in Path(str(files("serve.web"))).rglob("*")
        if path.suffix in (".py", ".html")
    )
    unsaid = [
        f"{section}.{name}"
        for section, entries in document.items()
        if section != "errors"
        for name in entries
        if f"{section}.{name}" not in sources and f'"{name}"' not in sources
    ]
    assert set(unsaid) <= {"job.completed", "job.failed", "job.cancelled"}  # job.{status}


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("en-GB,en;q=0.9,zh;q=0.5", "en"),
        ("de,zh;q=0.8", "zh"),
        ("fr", "en"),
        (None, "en"),
    ],
)
def test_the_language_is_the_browsers(header: str | None, language: str) -> None:
    assert preferred(header) == language


FULL = Wishes(
    category="watch",
    prompt="a steel watch turns",
    preset="high",
    n=3,
    fit="subject_crop",
    model="i2vgen-xl",
    move="pan_left",
    speed="slow",
    motion_strength=0.3,
    num_inference_steps=33,
    guidance_scale=7.5,
    num_frames=12,
    fps=10,
    motion_fps=20,
    negative_prompt="模" * NEGATIVE_CHARS,
    seed=5,
    sku="W-1",
    enable_frame_interpolation=True,
)


def made_of(fields: dict[str, Any]) -> dict[str, Any]:
    """What the API tells of a video of these fields: serve.schemas.Video's, as far as asked."""
    told = [*("category", "prompt", "preset", "n", "num_frames", "fps", "sku", "metadata", "seed")]
    told += ["model", "camera_motion", "motion_strength"]
    return {"id": "video_0a", "status": "completed", **{name: fields.get(name) for name in told}}


@pytest.mark.parametrize(
    "wishes",
    [
        FULL,
        Wishes(title="Mug"),
        Wishes(category="food", n=2),
        Wishes(prompt="a mug", move="static"),
    ],
)
def test_wishes_are_what_the_api_takes(wishes: Wishes) -> None:
    fields = wishes.fields(UploadedPhoto("file_1", "mug.jpg"))
    create = CreateVideoJson.model_validate(fields)
    assert create.input_reference.file_id == "file_1"
    assert create.select == ("all" if wishes.n > 1 else "best")
    assert (create.n, create.seed, create.fit) == (wishes.n, wishes.seed, wishes.fit or "crop")


def test_the_form_tells_the_bounds_that_the_api_holds() -> None:
    told = CreateVideoJson.model_json_schema()["properties"]
    for name, bounds in BOUNDS.items():
        (number,) = (kind for kind in told[name]["anyOf"] if kind["type"] != "null")
        assert (number["minimum"], number["maximum"]) == bounds, name
    assert NUMBERS.keys() - BOUNDS.keys() == {"num_frames"}  # GET /v1/models


def test_again_is_the_same_with_another_seed() -> None:
    fields = FULL.fields(UploadedPhoto("file_1", "watch.jpg"))
    repeated = again(made_of(fields))
    assert repeated is not None
    CreateVideoJson.model_validate(repeated)
    assert "seed" not in repeated
    assert repeated == {name: value for name, value in fields.items() if name != "seed"}
    assert name_of(made_of(fields)) == "watch.jpg"


def test_a_camera_move_is_asked_for_without_what_means_nothing_to_it() -> None:
    wishes = replace(FULL, model=CAMERA)
    fields = wishes.fields(UploadedPhoto("file_1", "watch.jpg"))
    create = CreateVideoJson.model_validate(fields)
    photo = {"input_reference": {"file_id": "file_1"}}
    plain = CreateVideoJson.model_validate({"prompt": "a watch", **photo})
    assert create.camera_motion is not None
    assert (create.model, create.camera_motion.move, create.camera_motion.speed) == (
        CAMERA,
        "pan_left",
        "slow",
    )
    left = [name for name in _MEANINGLESS if getattr(create, name) != getattr(plain, name)]
    assert left == []
    made = made_of(fields)
    assert again(made | {"status": "completed"}) is None  # it would be the same
    assert again(made | {"status": "failed"}) is not None
    begun = wished(made | {"n": 1})
    assert begun is not None
    assert (begun[0].model, begun[0].move, begun[0].num_frames) == (CAMERA, "pan_left", 12)


def test_a_strength_without_a_move_is_not_sent() -> None:
    fields = Wishes(title="Mug", motion_strength=0.4).fields(UploadedPhoto("file_1", "a.jpg"))
    assert "motion_strength" not in fields


def test_what_means_nothing_to_camera_moves_is_what_the_service_refuses() -> None:
    of_the_page = {name for name in _MEANINGLESS if hasattr(FULL, name)}
    assert set(GENERATED_ONLY) == of_the_page | {"seed"}  # which is taken, and changes nothing


def test_a_form_can_begin_with_what_an_earlier_video_was_made_of() -> None:
    photo = UploadedPhoto("file_1", "a/b watch.jpg")
    found = wished(made_of(FULL.fields(photo)))
    assert found == (replace(FULL, seed=None), photo)
    assert UploadedPhoto.read(str(photo)) == photo
    assert UploadedPhoto.read("") is None


def test_a_video_that_the_page_did_not_make_cannot_be_repeated() -> None:
    assert again({**made_of({}), "metadata": {}}) is None


def test_an_address_names_videos_and_nothing_else() -> None:
    assert ids_of("video_0a,../files,video_,video_1f,") == ["video_0a", "video_1f"]


def test_a_state_is_told_in_words() -> None:
    english, chinese = (words_of(language) for language in LANGUAGES)
    queued = {"status": "queued", "queue_position": 2, "eta_seconds": 300.0}
    assert state(english, queued) == "Waiting: number 3 in line, about 5 min left"
    at_work = {"status": "in_progress", "stage": "denoising", "step": 12, "steps": 50}
    assert state(english, {**at_work, "eta_seconds": 30.2}) == (
        "Making the frames: step 12 of 50, about 30 s left"
    )
    assert state(chinese, {**at_work, "eta_seconds": None}) == "生成画面：第 12 步，共 50 步"
    unknown = {**at_work, "stage": "polishing", "eta_seconds": None}
    assert state(english, unknown) == "At work"
    assert state(english, {"status": "completed", "eta_seconds": None}) == "Ready"


def shown(**more: Any) -> dict[str, Any]:
    """A video as the API tells it, from a job like any other."""
    fields = FULL.fields(UploadedPhoto("file_1", "<b>watch</b>.jpg"))
    request = replace(make_request("video_0a"), metadata=fields["metadata"])
    job = Job(request=request, status=JobStatus.QUEUED, created_at=1.0)
    return {**json.loads(Video.of(job).model_dump_json()), **more}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_state_is_drawn_and_names_are_no_markup(language: Language) -> None:
    words = words_of(language)
    at_work = shown(status="in_progress", stage="denoising", step=3, steps=50, progress=7)
    drawn = markup.progress(words, at_work)
    assert 'value="7"' in drawn
    assert "&lt;b&gt;watch&lt;/b&gt;.jpg" in drawn
    assert "<b>watch" not in drawn
    clips = [
        {"candidate": k, "selected": k == 1, "kept": k < 2, "score": 0.5 if k else None}
        for k in range(3)
    ]
    one = markup.ended(words, shown(status="completed", usage={"gpu_seconds": 1.25}))
    assert one.count("<video") == 1
    assert 'data-act="again"' in one
    several = markup.ended(words, shown(status="completed", candidates=clips))
    assert several.count("<video") == 2
    assert several.count("<mark>") == 1
    failed = markup.ended(
        words, shown(status="failed", error={"code": "out_of_memory", "message": "30 GB"})
    )
    assert words.errors["out_of_memory"].remedy in failed
    assert "<video" not in failed
    rated = markup.ended(words, shown(status="completed", feedback={"rating": 1}))
    assert words("job.rated") in rated
    assert 'data-act="good"' not in rated


def test_a_shelf_shows_each_video_with_what_can_be_done() -> None:
    words = words_of("en")
    videos = [shown(status="completed"), shown(status="queued"), shown(metadata={}, sku="S-1")]
    drawn = markup.shelf(words, videos)
    assert drawn.count("<figure") == 3
    assert drawn.count('loading="lazy"') == 1
    acts = [drawn.count(f'data-act="{name}"') for name in ("delete", "cancel", "again")]
    assert acts == [3, 2, 1]
    assert words("gallery.none") in markup.shelf(words, [])


class Pages:
    """The API's list of so many videos."""

    def __init__(self, videos: int) -> None:
        self._ids = [f"video_{n:x}" for n in range(videos)]
        self.asked: list[dict[str, str]] = []

    async def videos(self, limit: str, after: str = "", **asked: str) -> dict[str, Any]:
        self.asked.append({"limit": limit, **asked})
        begin = self._ids.index(after) + 1 if after else 0
        page = self._ids[begin : begin + int(limit)]
        more = begin + len(page) < len(self._ids)
        data = [{"id": one} for one in page]
        return {"data": data, "last_id": page[-1] if page else None, "has_more": more}


def listed(pages: Pages, count: int, **asked: str) -> tuple[int, bool]:
    found, more = asyncio.run(newest(pages, count, **asked))  # type: ignore[arg-type]
    assert [one["id"] for one in found] == [f"video_{n:x}" for n in range(len(found))]
    return len(found), more


def test_a_shelf_is_filled_from_as_many_pages_as_it_needs() -> None:
    pages = Pages(250)
    assert listed(pages, 24, category="watch", sku="W") == (24, True)
    assert pages.asked == [{"limit": "24", "category": "watch", "sku": "W"}]
    assert listed(pages, 240) == (240, True)
    assert [one["limit"] for one in pages.asked[1:]] == ["100", "100", "40"]
    assert listed(pages, 250) == (250, False)
    assert listed(pages, 264) == (250, False)
    assert listed(Pages(0), 24) == (0, False)


def test_known_failures_of_rows_have_words_too() -> None:
    """What the catalogue's report explains, the page explains too."""
    assert ADVICE.keys() <= words_of("en").errors.keys()


def request(path: str, body: bytes = b"") -> RelayedRequest:
    scope = {
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"a=1",
        "scheme": "http",
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1),
        "http_version": "1.1",
        "headers": [(b"host", b"reel.example")],
    }
    return RelayedRequest.of("POST", scope, body)


async def echo(asked: Request) -> Response:
    said = {"body": (await asked.body()).decode(), "url": str(asked.url), "server": asked["server"]}
    return PlainTextResponse(json.dumps(said), 201, {"X-Mine": "1"})


def test_a_relayed_request_arrives_and_is_answered_whole() -> None:
    app = Starlette(routes=[Route("/ui/echo", echo, methods=["POST"])])

    async def relayed() -> list[AnswerStart | bytes]:
        return [piece async for piece in answer(app, request("/ui/echo", b"hello"))]

    start, *body = asyncio.run(relayed())
    assert isinstance(start, AnswerStart)
    assert (start.status, dict(start.headers)[b"x-mine"]) == (201, b"1")
    said = json.loads(b"".join(part for part in body if isinstance(part, bytes)))
    assert said["body"] == "hello"
    assert said["url"] == "http://reel.example/ui/echo?a=1"
    assert said["server"] == ["127.0.0.1", 80]


def test_a_stream_is_relayed_as_it_comes_and_ends_with_its_reader() -> None:
    ended = asyncio.Event()

    async def endless(_: Request) -> Response:
        async def ticks() -> AsyncIterator[str]:
            try:
                while True:
                    yield "tick"
                    await asyncio.sleep(0)
            finally:
                ended.set()

        return StreamingResponse(ticks())

    app = Starlette(routes=[Route("/ui/ticks", endless, methods=["POST"])])

    async def read_some() -> list[AnswerStart | bytes]:
        pieces = answer(app, request("/ui/ticks"))
        seen = [await anext(pieces) for _ in range(4)]
        await pieces.aclose()
        await asyncio.wait_for(ended.wait(), 5)
        return seen

    assert asyncio.run(read_some())[1:] == [b"tick"] * 3


def test_what_the_page_raises_is_raised_to_its_caller() -> None:
    async def broken(_: Request) -> Response:
        raise ZeroDivisionError

    app = Starlette(routes=[Route("/ui/broken", broken, methods=["POST"])])

    async def relayed() -> None:
        async for _ in answer(app, request("/ui/broken")):
            pass

    with pytest.raises(ZeroDivisionError):
        asyncio.run(relayed())
