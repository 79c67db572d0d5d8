"""Completes the pages of the site: what the code says itself is read from the code, not written again."""

import os
import re
from pathlib import Path, PurePosixPath

import commands
import config_fields
import sentences
from mkdocs.structure.files import File
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parents[2]
# Files that become pages of the site under another name.
PAGES = {"README.md": "index.md", "SECURITY.md": "security.md", "docs/tour.ipynb": "tour.md"}
# What replaces `<!-- generated: NAME -->`.
PARTS = {
    "config fields": config_fields.tables,
    "commands": commands.sections,
    "error sentences": sentences.lists,
}
LINK = re.compile(r"(!?\[(?:[^][]|\[[^][]*\])*\])\(([^)\s]+)\)")
FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
COLAB = "https://colab.research.google.com"


def on_config(config):
    """Takes the address of the repository from GitHub's own build; without one, source files are not linked."""
    if repository := os.environ.get("GITHUB_REPOSITORY"):
        config.repo_url = f"{os.environ.get('GITHUB_SERVER_URL', 'https://github.com')}/{repository}"
        config.repo_name, config.edit_uri = repository, "edit/main/docs/"
    return config


def on_files(files, config):
    """Adds the pages that are written elsewhere, and the pictures that the notebook shows."""
    for source, page in PAGES.items():
        text, pictures = (ROOT / source).read_text(), {}
        if source.endswith(".ipynb"):
            text, resources = MarkdownExporter().from_filename(ROOT / source)
            pictures = resources["outputs"]
            badge = f"{COLAB}/assets/colab-badge.svg)]({COLAB}/github/{config.repo_name}/blob/main/{source}"
            text = f"[![Open in Colab]({badge})\n\n{text}" if config.repo_url else text
        files.append(File.generated(config, page, content=text))
        for name, content in pictures.items():
            files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown, page, config, files):
    """Fills in the generated parts of a page, and its links for the site."""
    del files
    markdown = re.sub(r"<!-- generated: ([\w ]+) -->", lambda found: PARTS[found[1]](), markdown)
    source = {page: source for source, page in PAGES.items()}.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    parts = FENCE.split(markdown)
    parts[::2] = [LINK.sub(lambda found: _link(found, source, config.repo_url), text) for text in parts[::2]]
    return "".join(parts)


def _link(found: re.Match, source: str, repository: str | None) -> str:
    """Returns a link as the site has it.

    Args:
      found: a link of a file in the repository, as it works there.
      source: the file's path.
      repository: address of the repository; without it, a file that is no page is named without a link.
    """
    shown, (target, _, anchor) = found[1], found[2].partition("#")
    if not target or re.match(r"\w+:", target):
        return found[0]
    path = os.path.normpath(PurePosixPath(source).parent / target)
    if not (ROOT / path).exists():
        return found[0]  # `mkdocs build --strict` says that it is broken
    if path in PAGES or (path.startswith("docs/") and (ROOT / path).is_file()):
        here = PurePosixPath(_on_site(source)).parent
        return f"{shown}({os.path.relpath(_on_site(path), here)}{'#' * bool(anchor)}{anchor})"
    return f"{shown}({repository}/tree/main/{path})" if repository else shown[1:-1]


def _on_site(path: str) -> str:
    return PAGES.get(path, path.removeprefix("docs/"))
