"""A report that is one HTML file and opens without a network, and its parts."""

import base64
import dataclasses
import html
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from flax.traverse_util import flatten_dict
from PIL import Image

from fqgan_jax.evaluation.metrics import how_to_read
from fqgan_jax.evaluation.protocol import Evaluation
from fqgan_jax.files import write_atomically

STYLE = """
.report { font: 16px/1.5 system-ui, sans-serif; }
.report h1 { font-size: 1.6rem; } .report h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
.report table { border-collapse: collapse; width: 100%; }
.report table, .report table tr { border: 0 !important; }
.report table th, .report table td { border: 0; border-bottom: 1px solid #8884; padding: .35rem 0; text-align: left;
  vertical-align: top; }
.report table th { font-weight: 500; padding-right: 1.5rem; }
.report td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.report small, .report figcaption { color: #777; } .report small { white-space: nowrap; }
.report .value { white-space: nowrap; margin-right: .75rem; }
.report figure { margin: 1.5rem 0; } .report figcaption { margin-top: .25rem; }
.report img { display: block; max-width: 100%; height: auto; border: 1px solid #8884; border-radius: 6px; }
.report .wide div { overflow-x: auto; contain: inline-size; } .report .wide img { width: 100%; min-width: 38rem; }
.report summary { cursor: pointer; } .report ul { padding-left: 1.2rem; overflow-wrap: anywhere; }
"""
PAGE_STYLE = """
:root { color-scheme: light dark; }
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
"""
WIDE = 1.8  # width over height, from which a picture is scrolled rather than shrunk on narrow screens
SHOWN_PARTS = 8  # values of one number, by sub-codebook or pair of them; of more there is the range


@dataclasses.dataclass(frozen=True)
class Row:
    """A number of a report.

    Attributes:
      name: what was measured.
      value: with its unit.
      reading: what a reader should know, say "higher is better".
    """

    name: str
    value: str
    reading: str = ""


def write_report(
    path: Path,
    title: str,
    *,
    rows: Sequence[Row],
    pictures: Mapping[Path, str],
    protocol: Mapping[str, object] | None = None,
    missing: Mapping[str, str] | None = None,
) -> None:
    """Writes a page: numbers, pictures, how they were measured, and at the end what is missing.

    Args:
      path: path of the file.
      title: title of the page.
      rows: the numbers.
      pictures: PNG files and their captions.
      protocol: how the numbers were measured; may be nested.
      missing: names of what is missing, and the way to get it.
    """
    figures = (figure(picture.read_bytes(), caption) for picture, caption in pictures.items())
    parts = [f"<h1>{html.escape(title)}</h1>", number_table(rows), *figures]
    if protocol:
        flat = flatten_dict(dict(protocol), sep=": ")
        told = [Row(name, _text(value)) for name, value in flat.items() if value not in (None, [], {})]
        parts.append(f"<details><summary>How it was measured</summary>{_table(told, _plain)}</details>")
    if missing:
        items = "".join(f"<li>{html.escape(f'{names}: {reason}')}</li>" for names, reason in missing.items())
        parts.append(f"<h2>Missing</h2><ul>{items}</ul>")
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    page = (
        f"<!doctype html><html lang=en><head>{head}<title>{html.escape(title)}</title>"
        f"<style>{PAGE_STYLE}{STYLE}</style></head><body class=report>{''.join(parts)}</body></html>"
    )
    write_atomically(path, page)


def write_evaluation_report(path: Path, evaluation: Evaluation, pictures: Mapping[Path, str]) -> None:
    """Writes an evaluation's numbers, pictures (PNG to caption), its protocol and what is missing."""
    write_report(
        path,
        f"fqgan evaluate: {evaluation.protocol['task']}",
        rows=number_rows(evaluation.results),
        pictures=pictures,
        protocol=evaluation.protocol,
        missing={names: _first_sentence(reason) for reason, names in evaluation.reasons().items()},
    )


def number_rows(results: Mapping[str, float]) -> list[Row]:
    """Returns a row for each number, with its unit; one for all values by sub-codebook, `usage/0` and so on."""
    grouped: dict[str, dict[str, float]] = {}
    for name, value in results.items():
        found = re.fullmatch(r"(.+?)(?:/(\d+(?:-\d+)?|all))?", name)
        assert found is not None
        number, part = found.groups()
        grouped.setdefault(number, {})[part or ""] = value
    return [_number_row(name, values) for name, values in grouped.items()]


def _number_row(name: str, values: Mapping[str, float]) -> Row:
    unit, _, better = how_to_read(name.removeprefix("validation/")).rpartition(", ")
    if "is better" not in better:
        unit, better = better, ""
    if list(values) == [""]:
        text = f"{values['']:.4g}"
    elif len(values) <= SHOWN_PARTS:
        known = list(values) == [str(k) for k in range(len(values))]  # by sub-codebook, all of them
        text = ", ".join(f"{value:.4g}" if known else f"{value:.4g} ({part})" for part, value in values.items())
    else:
        text = f"{min(values.values()):.4g} to {max(values.values()):.4g} ({len(values)} values)"
    return Row(name, f"{text} {unit}".strip(), better)


def number_table(rows: Sequence[Row]) -> str:
    """Returns numbers as HTML."""
    return _table(rows, lambda row: f"<span class=value>{html.escape(row.value)}</span> {_reading(row)}")


def figure(png: bytes, caption: str) -> str:
    """Returns a picture and its caption as HTML."""
    with Image.open(io.BytesIO(png)) as image:
        wide = " class=wide" if image.width > WIDE * image.height else ""
    text, content = html.escape(caption), base64.b64encode(png).decode()
    picture = f'<img alt="{text}" src="data:image/png;base64,{content}">'
    return f"<figure{wide}><div>{picture}</div><figcaption>{text}</figcaption></figure>"


def _table(rows: Sequence[Row], cell) -> str:
    lines = (f"<tr><th>{_breakable(row.name)}</th><td>{cell(row)}</td></tr>" for row in rows)
    return f"<table>{''.join(lines)}</table>"


def _plain(row: Row) -> str:
    return html.escape(row.value)


def _reading(row: Row) -> str:
    return f"<small>{html.escape(row.reading)}</small>" if row.reading else ""


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _first_sentence(text: str) -> str:
    return text.partition(". ")[0].rstrip(".").replace("`", "")


def _breakable(name: str) -> str:
    """Escapes a name and lets lines break within it."""
    return html.escape(name).replace("_", "_<wbr>").replace("/", "/<wbr>")
