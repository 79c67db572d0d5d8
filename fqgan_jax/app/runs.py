"""A run as it goes: its newest numbers, its curves and its pictures, as HTML."""

from pathlib import Path
from tempfile import TemporaryDirectory

from fqgan_jax.pictures.curves import USUAL, points, save_overlaid_curves
from fqgan_jax.pictures.report import figure, number_rows, number_table
from fqgan_jax.training.logging import VALIDATION, newest_values, read_log


def run_state(workdir: Path) -> list[tuple[str, int]]:
    """Returns the files that `run_page` reads and when they were written: the page is the same while this is."""
    return [
        (path.name, path.stat().st_mtime_ns)
        for path in (workdir / "metrics.jsonl", *_pictures(workdir))
        if path.exists()
    ]


def run_page(workdir: Path) -> str:
    """Returns the page of a work folder."""
    log = read_log(workdir)
    if not log:
        return "<div class=report><p>Nothing is logged yet.</p></div>"
    newest = newest_values(log)
    step = newest.pop("step")
    validation_first = dict(sorted(newest.items(), key=lambda item: not item[0].startswith(VALIDATION)))
    pictures = "".join(figure(path.read_bytes(), path.stem) for path in _pictures(workdir))
    numbers = number_table(number_rows(validation_first))
    return f"<div class=report><h2>Step {step}</h2>{_curves(log)}{pictures}{numbers}</div>"


def _pictures(workdir: Path) -> list[Path]:
    return sorted((workdir / "pictures").glob("*.png"))


def _curves(log: list[dict]) -> str:
    if not any(points(log, name) for name in USUAL):
        return ""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "curves.png"
        save_overlaid_curves({"": log}, path)
        return figure(path.read_bytes(), "training curves")
