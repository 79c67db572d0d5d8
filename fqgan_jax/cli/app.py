"""`fqgan app`."""

import os
import signal
from pathlib import Path
from tempfile import TemporaryDirectory

from fqgan_jax.cli.arguments import MODEL, positive
from fqgan_jax.errors import check, import_extra

HELP = "Open a page on this machine: reconstruct and mix images, draw samples, watch runs."
EXAMPLES = """\
  fqgan app --tokenizer runs/demo/tokenizer --generator runs/demo/generator    # pip install fqgan-jax[app]
  fqgan app --tokenizer dual_f16.safetensors --max-side 512
  fqgan app --runs runs/tokenizer runs/generator"""


def add_arguments(parser) -> None:
    """Adds the flags of `fqgan app`."""
    parser.add_argument("--tokenizer", help=f"reconstructs and mixes images: {MODEL}")
    parser.add_argument("--generator", help="draws samples that the tokenizer decodes; named as the tokenizer is")
    parser.add_argument(
        "--runs",
        type=Path,
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="work folders to watch (default: those of tokenizer and generator)",
    )
    parser.add_argument(
        "--max-side",
        type=positive,
        default=256,
        help="larger images are scaled down to it; memory grows with the square of their area (default: %(default)s)",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address that the page is served on (default: %(default)s, for this machine alone); there is no password",
    )
    parser.add_argument("--port", type=positive, default=7860, help="default: %(default)s")


def run(options) -> None:
    """Serves the page until Ctrl-C."""
    check(
        bool(options.tokenizer or options.runs),
        "There is nothing to show: give --tokenizer, --runs or both.",
    )
    check(
        not options.generator or bool(options.tokenizer),
        "A generator's samples need a tokenizer: give the one that wrote its codes as --tokenizer.",
    )
    for folder in options.runs:
        check(folder.is_dir(), f"There is no folder {folder}: give work folders of fqgan train as --runs.")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import_extra("gradio", "app")

    from fqgan_jax.api import load_generator, load_tokenizer
    from fqgan_jax.app.page import Content, build_page
    from fqgan_jax.app.serving import serve

    tokenizer = load_tokenizer(options.tokenizer) if options.tokenizer else None
    generator = load_generator(options.generator) if options.generator else None
    content = Content(tokenizer=tokenizer, generator=generator, runs=_runs(options), max_side=options.max_side)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does, which removes the folder
    with TemporaryDirectory(prefix="fqgan_app_") as folder:  # uploads and pictures go when the page does
        os.environ["GRADIO_TEMP_DIR"] = folder
        serve(build_page(content), host=options.host, port=options.port)


def _runs(options) -> list[Path]:
    """Returns the work folders to watch: the given ones, else those of the models."""
    from fqgan_jax.checkpoints import CheckpointName

    models = (CheckpointName.parse(path) for path in (options.tokenizer, options.generator) if path)
    return options.runs or [name.workdir for name in models if name.is_of_a_run]
