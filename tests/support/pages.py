"""Commands and code of the pages that people read: README.md and docs/*.md."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    """The blocks of code of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[list[str]]:
    """The words after `fqgan` of every command in the page's blocks, in order."""
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    parts = [shlex.split(part, comments=True) for line in lines for part in re.split(r"&&|;", line)]
    return [words[1:] for words in parts if words and words[0].endswith("fqgan")]


def mentioned_commands(page: Path) -> list[list[str]]:
    """The words after `fqgan` of every command with flags in the page's sentences."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"`(?:JAX\w+=\S+ )?fqgan ([^`]+)`", re.sub(r"\s+", " ", prose))
    return [shlex.split(text) for text in found if " --" in text]
