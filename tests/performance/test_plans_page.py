"""The table of docs/plans.md is that of the plans in docs/plans."""

import runpy
from pathlib import Path

PLANS = Path("docs/plans")


def test_the_table_has_a_row_for_every_plan():
    row = runpy.run_path(str(PLANS / "make.py"))["row"]
    page = Path("docs/plans.md").read_text().splitlines()
    rows = [row(path) for path in sorted(PLANS.glob("*.txt"))]
    assert [line for line in page if line.startswith("| [")] == rows
    assert all(cell.strip() for line in rows for cell in line.split("|")[1:-1])
