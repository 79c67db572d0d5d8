"""A report that is one HTML file and opens without a network."""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from fqgan_jax.evaluation.metrics import how_to_read
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


def write_report(
    path: Path, title: str, *, rows: Sequence[tuple[str, str]], pictures: Sequence[tuple[Path, str]]
) -> None:
    """Writes a table and pictures into one file.

    Args:
      path: path of the file.
      title: title of the page.
      rows: name and value of each row of the table.
      pictures: PNG files and their captions.
    """
    table = "".join(f"<tr><th>{_breakable(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in rows)
    figures = "".join(_figure(picture, caption) for picture, caption in pictures)
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    page = (
        f"<!doctype html><html lang=en><head>{head}<title>{html.escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><h1>{html.escape(title)}</h1><table>{table}</table>{figures}</body></html>"
    )
    write_atomically(path, page)


def write_evaluation_report(path: Path, evaluation: Evaluation, pictures: Mapping[Path, str]) -> None:
    """Writes an evaluation's numbers, what is missing, its protocol, and pictures (PNG to caption)."""
    rows = []
    for name, value in evaluation.results.items():
        reading = how_to_read(name)
        rows.append((name, f"{value:.6g} ({reading})" if reading else f"{value:.6g}"))
    rows += [(names, f"missing: {reason}") for reason, names in evaluation.reasons().items()]
    for name, value in evaluation.protocol.items():
        if value is not None:
            rows.append((name, value if isinstance(value, str) else json.dumps(value)))
    write_report(path, f"fqgan evaluate: {evaluation.protocol['task']}", rows=rows, pictures=list(pictures.items()))


def _breakable(name: str) -> str:
    """Escapes a name and lets lines break within it."""
    return html.escape(name).replace("_", "_<wbr>").replace("/", "/<wbr>")


def _figure(picture: Path, caption: str) -> str:
    """Returns a picture with its content and caption as HTML."""
    text, content = html.escape(caption), base64.b64encode(picture.read_bytes()).decode()
    return f'<figure><img alt="{text}" src="data:image/png;base64,{content}"><figcaption>{text}</figcaption></figure>'
