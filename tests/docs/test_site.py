"""The site builds without a warning, and its generated pages say what the code says."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.pages import ROOT

from fqgan_jax.cli.main import COMMANDS
from fqgan_jax.config import defaults

GENERATE = ROOT / "docs" / "generate"


@pytest.fixture
def generators(monkeypatch):
    monkeypatch.syspath_prepend(str(GENERATE))
    import commands
    import config_fields
    import sentences

    return {"commands": commands, "config": config_fields, "sentences": sentences}


def test_every_config_field_has_its_comment(generators):
    table = generators["config"].tables()
    for task in ("tokenizer", "generator"):
        missing = [path for path in defaults.field_rules(task) if f"`{path}=" not in table]
        assert not missing
    assert "| `train.steps=200000` | in all; <small>a whole number of at least 1</small> |" in table
    # A field whose default differs between tasks has both, with the comment that stands at its first definition.
    assert re.findall(r"`optimizer.learning_rate=(\S+)` \| (\w+)", table) == [("0.0002", "peak"), ("0.0001", "peak")]


def test_every_command_has_its_flags(generators):
    page = generators["commands"].sections()
    assert re.findall(r"^## fqgan ([a-z]+)$", page, re.MULTILINE) == list(COMMANDS)
    assert "| `--checkpoint MODEL` |" in page
    assert "### fqgan weights fetch" in page


def test_troubleshooting_quotes_sentences_of_the_code(generators):
    said = "\n".join(sentence for _, sentence in generators["sentences"].sentences())
    headings = re.findall(r"^### (.+)$", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)
    assert len(headings) > 10
    for heading in headings:
        parts = [part.strip() for part in heading.split("…") if len(part.strip()) > 1]
        pattern = ".*".join(map(re.escape, parts))
        assert re.search(pattern, said), heading


def test_sentences_are_those_of_the_package(generators):
    rooms = {room for room, _ in generators["sentences"].sentences()}
    assert rooms >= {"api", "cli", "config", "data", "training"}


@pytest.mark.slow
def test_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = os.environ | {"GITHUB_REPOSITORY": "owner/name", "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    pages = {page.relative_to(tmp_path).as_posix(): page.read_text() for page in tmp_path.rglob("*.html")}
    assert "colab.research.google.com/github/owner/name/blob/main/docs/tour.ipynb" in pages["tour/index.html"]
    assert "<!-- generated" not in "".join(pages.values())
    assert 'href="https://github.com/owner/name/tree/main/launch"' in pages["scale/index.html"]
    assert not dead_links(tmp_path, pages)
    searched = json.loads((tmp_path / "search" / "search_index.json").read_text())["docs"]
    assert any("load_tokenizer" in entry["text"] for entry in searched)


def dead_links(site: Path, pages: dict[str, str]) -> list[str]:
    """Links and pictures of a built site that lead to no file of it."""
    dead = []
    for name, page in pages.items():
        for target in re.findall(r'(?:href|src)="([^"#?]+)', page):
            if re.match(r"\w+:|//", target) or (target.startswith("/") and name == "404.html"):
                continue
            path = (site / name).parent / target
            if not (path.is_file() or (path / "index.html").is_file()):
                dead.append(f"{name}: {target}")
    return dead
