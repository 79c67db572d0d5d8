"""Makes the plans in this folder, and their table in `docs/plans.md`.

The first line of a plan is the command that printed it: a new plan is a file with that line alone.

    python docs/plans/make.py docs/plans/FAR-B.*.txt    # run the commands of these files, then write the table
    python docs/plans/make.py                           # only write the table
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
PAGE = FOLDER.parent / "plans.md"
START, END = "<!-- table: written by docs/plans/make.py -->\n", "<!-- end of table -->\n"
COLUMNS = (
    *("step", "topology", "`remat`", "examples a chip", "memory (GiB)", "temporaries an example", "traffic (GB)"),
    *("bound by", "step (ms)", "examples/s a chip", "kept, exposed"),
)
MODELS = {"k=2,f=16": "dual f16", "k=3,f=16": "triple f16", "size=B": "FAR-B", "size=L": "FAR-L"}
MODELS |= {"size=XL": "FAR-XL", "size=3B": "FAR-3B"}


def run(path: Path) -> None:
    """Runs the command in the first line of a file and writes what it prints below it."""
    line = path.read_text().splitlines()[0]
    words = shlex.split(line.removeprefix("$ "))
    start = words.index("fqgan")
    environment = os.environ | dict(word.split("=", 1) for word in words[:start])
    command = [sys.executable, "-m", "fqgan_jax.cli.main", *words[start + 1 :]]
    print(line, flush=True)
    printed = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    path.write_text(f"{line}\n{printed}")


def row(path: Path) -> str:
    """Returns the row of a plan."""
    text = path.read_text()
    command, _, printed = text.partition("\n")

    def option(name: str, default: str = "") -> str:
        found = re.search(rf"--{re.escape(name)}[ =](\S+)", command)
        return found[1] if found else default

    def number(pattern: str) -> str:
        found = re.search(pattern, printed)
        return found[1] if found else ""

    model = MODELS[option("config").partition(":")[2]]
    marks = "†" * ("JAX_EXEC_TIME_OPTIMIZATION_EFFORT" in command) + "*" * ("# libtpu" in printed)
    remat = option("config.model.remat", "none")
    if fsdp := option("config.mesh.fsdp"):
        remat += f", fsdp {fsdp}"
    if option("config.model.unroll") == "True":
        remat += ", unrolled"
    chips = number(r"(?m)^(?:step on )?(\d+) (?:TPU|H|A|B)")
    kept = number(rf"(?m)^ +{chips} .* ex/s.* ex/s +(\d+%)$").replace("%", " %")
    found = re.search(r"roofline on .*?: ([\d.]+) ms.*, bound by (\w+)", printed)
    milliseconds, bound = found.groups() if found else ("", "")
    cells = (
        *(f"[{model}{marks}](plans/{path.name})", option("topology"), remat, option("batch")),
        number(r"memory a chip: ([\d.]+) GiB") + ("" if ", fits" in printed else ", does not fit"),
        number(r"temporaries +([\d.]+) GiB an example"),
        number(r"memory traffic .*?: ([\d.]+) GB"),
        *(bound, milliseconds, number(r"at most ([\d.]+) examples/s"), kept),
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Runs the given plans and writes the table of all of them."""
    for name in sys.argv[1:]:
        run(Path(name))
    rows = [f"| {' | '.join(COLUMNS)} |", "|" + " --- |" * len(COLUMNS), *map(row, sorted(FOLDER.glob("*.txt")))]
    before, _, rest = PAGE.read_text().partition(START)
    after = rest.partition(END)[2]
    PAGE.write_text(before + START + "\n".join(rows) + "\n" + END + after)


if __name__ == "__main__":
    main()
