"""A report that is one HTML file: it opens offline and asks nothing of the network."""

import base64
import html
import json
from collections.abc import Sequence
from pathlib import Path

from fqgan_jax.evaluation.protocol import Evaluation
from fqgan_jax.files import write_atomically

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #222; }
img { max-width: 100%; height: auto; border: 1px solid #ddd; }
table { border-collapse: collapse; }
td, th { border-bottom: 1px solid #ddd; padding: .3rem 1rem .3rem 0; text-align: left; overflow-wrap: anywhere; }
th { min-width: 9rem; overflow-wrap: normal; }
figure { margin: 2rem 0; } figcaption { color: #555; }
"""


def write_report(path: Path, title: str, rows: Sequence[tuple[str, str]], pictures: Sequence[tuple[Path, str]]) -> None:
    """Writes the table's rows (name, value) and the PNGs with their captions into one file."""
    breakable = lambda name: html.escape(name).replace("_", "_<wbr>").replace("/", "/<wbr>")
    table = "".join(f"<tr><th>{breakable(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in rows)
    figures = "".join(
        f'<figure><img alt="{html.escape(caption)}" src="data:image/png;base64,'
        f'{base64.b64encode(picture.read_bytes()).decode()}"><figcaption>{html.escape(caption)}</figcaption></figure>'
        for picture, caption in pictures
    )
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    page = (
        f"<!doctype html><html lang=en><head>{head}<title>{html.escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><h1>{html.escape(title)}</h1><table>{table}</table>{figures}</body></html>"
    )
    write_atomically(path, page)


def write_evaluation_report(path: Path, evaluation: Evaluation, pictures: dict[Path, str]) -> None:
    """Writes an evaluation's numbers, what is missing, its protocol, and pictures (PNG to caption)."""
    rows = [(name, f"{value:.6g}") for name, value in evaluation.results.items()]
    rows += [(names, f"missing: {reason}") for reason, names in evaluation.reasons().items()]
    text = lambda value: value if isinstance(value, str) else json.dumps(value)
    rows += [(name, text(value)) for name, value in evaluation.protocol.items() if value is not None]
    write_report(path, f"fqgan evaluate: {evaluation.protocol['task']}", rows, list(pictures.items()))
