"""Times an older revision and this checkout in turn, on the devices of this machine.

    python benchmarks/against.py 07a1250                              # sampling FAR-B, the dual tokenizer's step
    python benchmarks/against.py HEAD~5 --only sampling --rounds 3

Both run `fqgan bench` with the same arguments, in float32; rounds alternate, so that what else a machine does falls on
both. Every program is run once before it is timed. A time is the fastest call of all rounds.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
PARTS = {
    "sampling": (
        *("generator-sample", "--config", "configs/generator_imagenet.py:size=B"),
        "--config.model.dtype=float32",
    ),
    "tokenizer": (  # without LPIPS, discriminator and teacher
        *("tokenizer-train", "--config", "configs/tokenizer_imagenet.py:k=2,f=16", "--config.data.batch_size=2"),
        *("--config.model.dtype=float32", "--config.loss.perceptual=0", "--config.adversarial.discriminator=none"),
        "--config.teachers=(None,None)",
    ),
}
# `fqgan bench` itself, with the batches that a small machine samples in minutes.
PROGRAM = """
from fqgan_jax.cli.main import main
from fqgan_jax.performance import bench
bench.SAMPLE_BATCHES = (1, 8)
main()
"""


def export(revision: str, folder: Path) -> Path:
    """Writes the files of a revision to a folder and returns it."""
    archive = subprocess.run(("git", "archive", revision), cwd=HERE, stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(("tar", "-x", "-C", folder), input=archive, check=True)
    return folder


def times(checkout: Path, part: str, *, calls: int) -> dict[str, float]:
    """Runs a part of a checkout; returns its fastest seconds by name."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "numbers.json"
        options = ("bench", *PARTS[part], "--warm-up", "1", "--steps", str(calls), "--json", str(file))
        command = (sys.executable, "-c", PROGRAM, *options)
        environment = os.environ | {"PYTHONPATH": str(checkout)}
        subprocess.run(command, cwd=checkout, env=environment, stdout=subprocess.DEVNULL, check=True)
        values = json.loads(file.read_text())["values"]
    end = "fastest (s)"
    return {f"{part} {name.removesuffix(end)}".rstrip(" :"): values[name] for name in values if name.endswith(end)}


def main() -> None:
    """Prints the seconds of both checkouts and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("revision", help="that this checkout is compared with")
    parser.add_argument("--only", choices=PARTS, action="append", help="a part to time (default: all)")
    parser.add_argument("--rounds", type=int, default=2, help="how often both run (default: %(default)s)")
    parser.add_argument("--calls", type=int, default=1, help="timed calls a round (default: %(default)s)")
    options = parser.parse_args()
    before, after = {}, {}
    with tempfile.TemporaryDirectory(prefix="fqgan_against_") as folder:
        older = export(options.revision, Path(folder))
        for _ in range(options.rounds):
            for part in options.only or PARTS:
                for checkout, fastest in ((older, before), (HERE, after)):
                    for name, seconds in times(checkout, part, calls=options.calls).items():
                        fastest[name] = min(seconds, fastest.get(name, seconds))
                print(f"{'':<24}{options.revision:>12}{'now':>12}{'ratio':>8}")
                for name in before:
                    print(f"{name:<24}{before[name]:>10.2f} s{after[name]:>10.2f} s{before[name] / after[name]:>8.2f}")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
