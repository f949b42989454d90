"""The form of Create: its fields, and what a person has said in them."""

from dataclasses import dataclass
from typing import Any, Self

import gradio as gr

from serve.web.wishes import NEGATIVE_CHARS, NUMBERS, Wishes
from serve.web.words import Words
from video.camera.move import Speed
from video.photo import Fit

FIELDS = 11 + len(NUMBERS) + 4
"""Values of a Form, the arguments of `wishes_of`."""

OF_THE_MODEL = 7 + len(NUMBERS)
"""Of Form.of_the_model."""


@dataclass(frozen=True, slots=True)
class Form:
    """Gradio's components, by what they say."""

    files: Any
    photo: Any  # hidden: an UploadedPhoto that serves where no file is added
    previews: Any
    category: Any
    settled: Any  # hidden: the category that the preset has been fitted to
    title: Any
    prompt: Any
    made: Any  # hidden: the prompt that was made of category and title, to know it from one's own
    advice: Any
    preset: Any
    count: Any
    fit: Any
    model: Any
    move: Any
    speed: Any
    strength: Any
    numbers: list[Any]  # in the order of NUMBERS
    others: list[Any]  # negative prompt, seed, SKU, smooth
    start: Any
    refused: Any

    @property
    def values(self) -> list[Any]:
        """The arguments of `wishes_of`."""
        said = [self.category, self.title, self.prompt, self.made, self.preset, self.count]
        camera = [self.model, self.move, self.speed, self.strength]
        return [*said, self.fit, *camera, *self.numbers, *self.others]

    @property
    def of_the_model(self) -> list[Any]:
        """What the model in force allows: see serve.web.limits.allowed."""
        negative, seed, _, smooth = self.others
        camera = [self.move, self.speed, self.strength]
        return [*camera, self.count, negative, seed, smooth, *self.numbers]

    @classmethod
    def draw(cls, words: Words) -> Self:
        """Choices and limits come from the service, once the page is open."""
        files = gr.File(
            label=words("create.photos"),
            file_count="multiple",
            file_types=["image"],
            elem_id="photos",
            height=150,
        )
        photo = gr.Textbox(visible="hidden")
        previews = gr.HTML()
        with gr.Row():
            category = gr.Dropdown(label=words("create.category"), min_width=140)
            settled = gr.Textbox(visible="hidden")
            title = gr.Textbox(
                label=words("create.title"),
                placeholder=words("create.title_hint"),
                max_length=500,
                min_width=220,
                scale=2,
            )
        prompt = gr.Textbox(label=words("create.prompt"), info=words("create.prompt_help"), lines=3)
        made = gr.Textbox(visible="hidden")
        advice = gr.HTML()
        model = gr.Radio(label=words("create.model"), info=words("create.model_help"))
        with gr.Row():
            move = gr.Dropdown(label=words("create.move"), visible=False, min_width=180)
            speed = gr.Dropdown(
                [(words(f"create.speeds.{one}"), str(one)) for one in Speed],
                value=str(Speed.NORMAL),
                label=words("create.speed"),
                visible=False,
                min_width=140,
            )
        preset = gr.Radio(label=words("create.preset"))
        count = gr.Slider(
            1,
            2,
            value=1,
            step=1,
            label=words("create.candidates"),
            info=words("create.candidates_help"),
        )
        with gr.Accordion(words("create.advanced"), open=False):
            fit = gr.Dropdown(
                [(words(f"create.fits.{one}"), str(one)) for one in Fit],
                value=str(Fit.CROP),
                label=words("create.fit"),
            )
            strength = gr.Slider(
                0.05,
                1,
                step=0.05,
                label=words("create.strength"),
                info=words("create.strength_help"),
                visible=False,
            )
            with gr.Row():
                numbers = [
                    gr.Number(
                        value=None, label=words(f"create.{label}"), precision=digits, min_width=150
                    )
                    for label, digits in NUMBERS.values()
                ]
            others = _others(words)
        start = gr.Button(words("create.start"), variant="primary", elem_id="start")
        return cls(
            files,
            photo,
            previews,
            category,
            settled,
            title,
            prompt,
            made,
            advice,
            preset,
            count,
            fit,
            model,
            move,
            speed,
            strength,
            numbers,
            others,
            start,
            refused=gr.HTML(),
        )


def _others(words: Words) -> list[Any]:
    negative = gr.Textbox(
        label=words("create.negative"),
        info=words("create.negative_help"),
        max_length=NEGATIVE_CHARS,
    )
    with gr.Row():
        seed = gr.Number(
            value=None, label=words("create.seed"), info=words("create.seed_help"), precision=0
        )
        sku = gr.Textbox(label=words("create.sku"), max_length=200)
    return [negative, seed, sku, gr.Checkbox(label=words("create.smooth"))]


def told(wishes: Wishes) -> list[Any]:
    """The values of a form that says just these; `wishes_of` undoes it."""
    return [
        wishes.category or "",
        wishes.title or "",
        wishes.prompt or "",
        "",
        wishes.preset,
        wishes.n,
        wishes.fit or str(Fit.CROP),
        wishes.model,
        wishes.move or "",
        wishes.speed or str(Speed.NORMAL),
        wishes.motion_strength,
        *(getattr(wishes, name) for name in NUMBERS),
        wishes.negative_prompt or "",
        wishes.seed,
        wishes.sku or "",
        wishes.enable_frame_interpolation,
    ]


def wishes_of(
    category: str | None,
    title: str,
    prompt: str,
    made: str,
    preset: str | None,
    count: int,
    fit: str,
    model: str | None,
    move: str | None,
    speed: str,
    strength: float | None,
    *advanced: Any,
) -> Wishes:
    """A prompt that is still as it was made is left to the service, which names its template."""
    *numbers, negative, seed, sku, smooth = advanced
    own = prompt.strip() if prompt.strip() != made.strip() else ""
    return Wishes(
        category=category or None,
        title=title.strip() or None,
        prompt=own or None,
        preset=preset or None,
        n=int(count),
        fit=None if fit == Fit.CROP else fit,
        model=model or None,
        move=move or None,
        speed=None if speed == Speed.NORMAL else speed,
        motion_strength=strength,
        negative_prompt=negative.strip() or None,
        seed=seed,
        sku=sku.strip() or None,
        enable_frame_interpolation=smooth,
        **dict(zip(NUMBERS, numbers, strict=True)),
    )
