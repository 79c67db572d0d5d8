"""A generator measured with several values of sampling options, in one table; resumable."""

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from fqgan_jax.errors import UserError, check
from fqgan_jax.evaluation.protocol import Evaluation, aligned
from fqgan_jax.files import write_atomically

Options = Mapping[str, float]

SWEPT = ("guidance", "temperature", "top_k", "top_p", "min_p")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """One measurement.

    Attributes:
      options: the swept options and their values.
      results: its numbers by name.
    """

    options: Options
    results: Mapping[str, float]


def parse_sweep(text: str) -> tuple[str, list[float]]:
    """Returns the option and the values of "guidance=1:4:0.5" (from, to, step) or "top_k=0,100,1000".

    Raises:
      UserError: no such option, or no values.
    """
    name, _, given = text.partition("=")
    name = name.replace("-", "_")
    check(name in SWEPT, f"--sweep {text}: there is no option {name!r} to sweep; choose {', '.join(SWEPT)}.")
    try:
        numbers = [float(part) for part in given.replace(":", ",").split(",")]
    except ValueError as error:
        raise UserError(f"--sweep {text}: write {name}=FROM:TO:STEP, or {name}=A,B,C.") from error
    if ":" in given:
        check(
            len(numbers) == 3 and numbers[2] > 0 and numbers[0] <= numbers[1] and np.isfinite(numbers).all(),
            f"--sweep {text}: write {name}=FROM:TO:STEP with FROM <= TO and a step above 0.",
        )
        start, stop, step = numbers
        numbers = [round(start + i * step, 10) for i in range(int((stop - start) / step + 1e-9) + 1)]
    return name, [int(number) for number in numbers] if name == "top_k" else numbers


def grid(sweeps: Sequence[tuple[str, Sequence[float]]]) -> list[Options]:
    """Returns all combinations of the values of several options."""
    names = [name for name, _ in sweeps]
    check(len(set(names)) == len(names), f"--sweep names an option twice ({', '.join(names)}): give each once.")
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*(values for _, values in sweeps))]


def run_sweep(
    wanted: Sequence[Options], measure: Callable[[Options], Evaluation], path: Path | None
) -> Iterator[Point]:
    """Yields a measurement for each combination of options; those that a file holds already are not repeated.

    Args:
      wanted: from `grid`.
      measure: measures the generator with the options.
      path: JSON file that is written after each measurement, and read first if it exists; None keeps none.

    Raises:
      UserError: the file is of another sweep.
    """
    stored = _read(path) if path is not None and path.exists() else {"protocol": None, "points": []}
    points = [Point(options=point["options"], results=point["results"]) for point in stored["points"]]
    protocol = stored["protocol"]
    for options in wanted:
        found = next((point for point in points if point.options == options), None)
        if found is None:
            evaluation = measure(options)
            own = shared_protocol(evaluation, options)
            check(
                protocol in (None, own),
                f"{path} holds a sweep of another generator, reference or setting: choose another --out.",
            )
            found, protocol = Point(options=options, results=evaluation.results), own
            points.append(found)
            if path is not None:
                content = {"protocol": protocol, "points": [dataclasses.asdict(point) for point in points]}
                write_atomically(path, json.dumps(content, indent=2))
        yield found


def shared_protocol(evaluation: Evaluation, options: Options) -> dict:
    """Returns what all measurements of a sweep have in common, as JSON gives it back."""
    protocol = dict(evaluation.protocol)
    protocol["sampling"] = {name: value for name, value in protocol["sampling"].items() if name not in options}
    return json.loads(json.dumps(protocol))


def sweep_table(points: Sequence[Point]) -> str:
    """Returns a line for each measurement with its options and the numbers that are one for all sub-codebooks."""
    names = [name for name in points[0].results if "/" not in name]
    rows = [[*points[0].options, *names]]
    for point in points:
        rows.append([f"{value:g}" for value in point.options.values()] + [f"{point.results[n]:.6g}" for n in names])
    return "\n".join(aligned(rows))


def _read(path: Path) -> dict:
    try:
        stored = json.loads(path.read_text())
        if not isinstance(stored["points"], list) or not isinstance(stored["protocol"], dict):
            raise TypeError("no points")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} holds no sweep: choose another --out, or remove it first.") from error
    return stored
