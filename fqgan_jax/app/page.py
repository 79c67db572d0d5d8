"""The page: a tab for each thing to do with a tokenizer, a generator or runs."""

import dataclasses
import html
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import gradio as gr

from fqgan_jax.api import Generator, Tokenizer
from fqgan_jax.app import models
from fqgan_jax.app.models import Sampling
from fqgan_jax.app.runs import run_page, run_state
from fqgan_jax.errors import UserError
from fqgan_jax.pictures.code_maps import entry_colours

TITLE = "fqgan app"
READ_EVERY = 3.0  # seconds between looks at a run's files
STYLE = """
.gradio-container { width: 100% !important; max-width: 72rem !important; margin: auto; }
.pixels img { image-rendering: pixelated; }
.pixels .grid-wrap { min-height: 0 !important; max-height: none !important; }
.pixels .grid-container { grid-template-columns: repeat(auto-fit, minmax(7rem, 1fr)) !important; }
.pixels .gallery-item { max-width: 26rem; }
.pixels .caption-label { max-width: 100%; white-space: normal; }
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Content:
    """What the page is about; what is None or empty has no tab.

    Attributes:
      tokenizer: reconstructs and mixes images.
      generator: draws samples that the tokenizer decodes.
      runs: work folders.
      max_side: larger images are scaled down to it.
    """

    tokenizer: Tokenizer | None = None
    generator: Generator | None = None
    runs: Sequence[Path] = ()
    max_side: int = 256


def build_page(content: Content) -> gr.Blocks:
    """Returns the page, which is not served yet."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown(f"# {TITLE}\n{_description(content)}")
        if content.tokenizer is not None:
            with gr.Tab("Reconstruct"):
                _reconstruct_tab(content.tokenizer, content.max_side)
            with gr.Tab("Mix"):
                _mix_tab(content.tokenizer, content.max_side)
        if content.tokenizer is not None and content.generator is not None:
            with gr.Tab("Sample"):
                _sample_tab(content.generator, content.tokenizer)
        if content.runs:
            with gr.Tab("Runs"):
                _runs_tab(content.runs)
    return page


def _description(content: Content) -> str:
    parts = []
    if content.tokenizer is not None:
        module = content.tokenizer.module
        entries = f"{module.num_codebooks} x {module.codebook_size} entries"
        parts.append(f"Tokenizer: {entries}, f = {content.tokenizer.downsampling}.")
    if content.generator is not None:
        (h, w), classes = content.generator.module.grid, content.generator.module.num_classes
        parts.append(f"Generator: {w} x {h} positions, {classes} classes.")
    return " ".join(parts)


def _reconstruct_tab(tokenizer: Tokenizer, max_side: int) -> None:
    colours = entry_colours(tokenizer)

    def encode(file: str | None):
        encoded = _opened(models.open_image, tokenizer, file, max_side=max_side)
        maps = [] if encoded is None else models.code_maps(tokenizer, encoded, colours)
        return gr.skip() if encoded else None, encoded, maps

    def decode(encoded, kept: list[int]):
        if encoded is None:
            return None, ""
        picture, numbers = models.reconstruct(tokenizer, encoded, kept)
        return (encoded.image, picture), numbers

    everything = list(range(tokenizer.module.num_codebooks))
    encoded = gr.State()
    with gr.Row():
        with gr.Column():
            file = _image_file("Image", height=360, elem_id="image")
            kept = _codebooks("Sub-codebooks that take part", everything, everything, elem_id="kept")
        with gr.Column():
            pair = gr.ImageSlider(label="Original | reconstruction", format="png", elem_id="pair", interactive=False)
            numbers = gr.Markdown(elem_id="numbers")
    gallery = _gallery("Codes (like colours are like entries)", elem_id="maps")
    encoding = file.change(encode, file, [file, encoded, gallery])
    encoding.then(decode, [encoded, kept], [pair, numbers])
    kept.input(decode, [encoded, kept], [pair, numbers])


def _mix_tab(tokenizer: Tokenizer, max_side: int) -> None:
    K = tokenizer.module.num_codebooks

    def encode(file: str | None):
        encoded = _opened(models.open_square, tokenizer, file, max_side=max_side)
        return gr.skip() if encoded else None, encoded

    def mix(first, second, taken: list[int]):
        return None if first is None or second is None else models.mix(tokenizer, first, second, taken)

    states = [gr.State(), gr.State()]
    with gr.Row():
        files = [
            _image_file(f"{name} image", height=300, elem_id=f"mix_{name.lower()}") for name in ("First", "Second")
        ]
        mixed = gr.Image(
            label="Mix",
            height=300,
            format="png",
            elem_id="mixed",
            interactive=False,
            buttons=["download", "fullscreen"],
        )
    taken = _codebooks("Sub-codebooks of the second image", list(range(K)), [K - 1], elem_id="taken")
    for file, state in zip(files, states, strict=True):
        file.change(encode, file, [file, state]).then(mix, [*states, taken], mixed)
    taken.input(mix, [*states, taken], mixed)


def _sample_tab(generator: Generator, tokenizer: Tokenizer) -> None:
    tokenizer = generator.check_tokenizer(tokenizer)
    classes = [(generator.class_name(label), label) for label in range(generator.module.num_classes)]

    def draw(*values):
        names = [field.name for field in dataclasses.fields(Sampling)]
        sampling = Sampling(**dict(zip(names, values, strict=True)))
        start = time.monotonic()
        try:
            pictures = models.draw(generator, tokenizer, sampling)
        except UserError as error:
            raise gr.Error(html.escape(str(error)), print_exception=False) from error
        return pictures, f"{len(pictures)} samples in {time.monotonic() - start:.1f} s"

    with gr.Row():
        with gr.Column(scale=1):
            settings = [
                gr.Dropdown(classes, value=0, label="Class", elem_id="class"),
                gr.Slider(1, models.MOST_SAMPLES, 4, step=1, label="Samples"),
                gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**32 - 1),
                gr.Slider(0, 10, 2, step=0.1, label="Guidance"),
                gr.Slider(0, 2, 1, step=0.05, label="Temperature (0: the most probable codes)"),
                gr.Slider(0, generator.module.codebook_size, 0, step=1, label="Top k (0: all codes)"),
                gr.Slider(0.05, 1, 1, step=0.05, label="Top p (1: all codes)"),
            ]
            button = gr.Button("Draw", variant="primary", elem_id="draw")
        with gr.Column(scale=2):
            gallery = _gallery("Samples", elem_id="samples")
            numbers = gr.Markdown(elem_id="drawn")
    button.click(draw, settings, [gallery, numbers])


def _runs_tab(runs: Sequence[Path]) -> None:
    def read(number: int, seen):
        state = number, run_state(runs[number])
        return (gr.skip(), seen) if state == seen else (run_page(runs[number]), state)

    names = [(str(run), number) for number, run in enumerate(runs)]
    chosen = gr.Dropdown(names, value=0, label="Work folder", elem_id="run", visible=len(names) > 1)
    seen = gr.State()
    shown = gr.HTML(elem_id="log")
    for trigger in (chosen.change, gr.Timer(READ_EVERY).tick):
        trigger(read, [chosen, seen], [shown, seen], show_progress="hidden")


def _image_file(label: str, *, height: int, elem_id: str) -> gr.Image:
    """A place to drop an image file; its value is the file's path."""
    image = gr.Image(label=label, height=height, elem_id=elem_id, sources=["upload", "clipboard"], type="filepath")
    # Not opened by Gradio: it would let any of Pillow's decoders see the file, `read_image` does not.
    image.preprocess = lambda payload: None if payload is None else payload.path  # type: ignore[method-assign]
    return image


def _codebooks(label: str, choices: list[int], value: list[int], *, elem_id: str) -> gr.CheckboxGroup:
    return gr.CheckboxGroup([(str(k), k) for k in choices], value=value, label=label, elem_id=elem_id)


def _gallery(label: str, *, elem_id: str) -> gr.Gallery:
    return gr.Gallery(
        label=label,
        format="png",
        buttons=["download", "download_all", "fullscreen"],
        elem_id=elem_id,
        elem_classes="pixels",
        interactive=False,
    )


def _opened(opener: Callable, tokenizer: Tokenizer, file: str | None, *, max_side: int):
    """Opens an uploaded file; None, and a sentence on the page, if it cannot be used."""
    if file is None:
        return None
    try:
        return opener(tokenizer, Path(file), max_side=max_side)
    except UserError as error:
        gr.Warning(html.escape(str(error)), title="This file cannot be used")
        return None
