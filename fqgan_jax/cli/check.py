"""`fqgan check`."""

import dataclasses
import json
from pathlib import Path

from fqgan_jax.storage import as_path

MANY_PROCESSES = True
HELP = "Check that the devices here compute what they should: small versions of everything, in about a minute."
EXAMPLES = """\
  fqgan check
  fqgan check --bench --json check.json
  fqgan check --only "generator's step" --only "attention, plain"
  fqgan check --coordinator HOST:PORT --num-processes 2 --process-id 0 --folder /shared  # 1 on the other
exits with 1 if something does not hold."""


def add_arguments(parser) -> None:
    """Adds the flags of `fqgan check`."""
    parser.add_argument("--bench", action="store_true", help="then measure training, encoding, decoding and sampling")
    parser.add_argument("--only", action="append", default=[], metavar="PART", help="run this part (repeatable)")
    parser.add_argument(
        "--folder", type=Path, help="for the saved state: with many hosts, one that all see (default: a temporary one)"
    )
    parser.add_argument("--json", type=as_path, help="also write the results here")
    parser.add_argument("--numbers", type=Path, help="compare with these numbers (default: those of the package)")
    parser.add_argument("--write-numbers", type=as_path, help="write the numbers of these devices, and compare nothing")


def run(options) -> None:
    """Runs `fqgan check`.

    Raises:
      SystemExit: with 1 if something does not hold.
    """
    from fqgan_jax.check.bench import headline_times
    from fqgan_jax.check.numbers import STORED, read_numbers, write_numbers
    from fqgan_jax.check.parts import parts
    from fqgan_jax.check.running import computed_numbers, run_parts, surroundings
    from fqgan_jax.check.subjects import Subjects
    from fqgan_jax.files import write_atomically
    from fqgan_jax.sharding import processes

    for name in options.only:
        parts.check(name, "--only")
    subjects, where = Subjects(options.folder), surroundings()
    for name, text in where.items():
        print(f"{name:<10} {text}", flush=True)
    if options.write_numbers:
        numbers, made_on = computed_numbers(subjects), {name: where[name] for name in ("devices", "versions")}
        if processes.is_first():
            write_numbers(options.write_numbers, numbers, made_on)
        return
    stored = read_numbers(options.numbers or STORED)
    print(f"\n{'part':<42} {'deviation':>9} {'bound':>7}", flush=True)
    results = []
    for result in run_parts(subjects, stored, options.only):
        results.append(result)
        print(_line(result), flush=True)
    failed = [result.part for result in results if not result.holds]
    print(_verdict(failed, held=sum(result.holds and not result.skipped for result in results)), flush=True)
    times: dict[str, float | str] = {}
    if options.bench:
        print("\nMedians of three calls:", flush=True)
        for name, value in headline_times():
            times[name] = value
            print(f"{name:<42} {value if isinstance(value, str) else f'{value:.4g}'}", flush=True)
    if options.json and processes.is_first():
        lines = [dataclasses.asdict(result) | {"holds": result.holds} for result in results]
        content = {"where": where, "parts": lines, "times": times}
        write_atomically(options.json, json.dumps(content, indent=2) + "\n")
    if failed:
        raise SystemExit(1)


def _line(result) -> str:
    if result.skipped:
        return f"{result.part:<42} {'':>9} {'':>7}  skipped: {result.note}"
    deviation = "" if result.deviation is None else f"{result.deviation:.1e}"
    verdict = "holds" if result.holds else f"DOES NOT HOLD: {result.note}"
    return f"{result.part:<42} {deviation:>9} {result.bound:>7.0e}  {verdict}"


def _verdict(failed: list[str], *, held: int) -> str:
    return f"{held} parts hold." if not failed else f"{held} parts hold; these do not: {'; '.join(failed)}."
