"""The page in headless Chromium: what a visitor sees and clicks, and whom page and server ask for anything."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio")
playwright = pytest.importorskip("playwright.sync_api")

CHROMIUM = shutil.which("chromium")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
PATIENCE = 120_000  # milliseconds, for programs to compile

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")]

# Writes every address that the process connects to or looks up into a file.
WATCHED = """
import sys
log = open(sys.argv.pop(1), "a", buffering=1)
def watch(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        print(arguments[1][0], file=log)
    elif event == "socket.getaddrinfo":
        print(arguments[0], file=log)
sys.addaudithook(watch)
from fqgan_jax.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def server(trained_tokenizer, trained_generator, tmp_path_factory):
    """Address of a page, and the file of the addresses that its server asked."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("server")
    asked, uploads = folder / "asked", folder / "uploads"
    uploads.mkdir()
    command = ["app", "--tokenizer", trained_tokenizer, "--generator", trained_generator, "--port", port]
    process = subprocess.Popen(
        [sys.executable, "-c", WATCHED, *map(str, (asked, *command))],
        env=os.environ | {"TMPDIR": str(uploads)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        assert process.stdout.readline().decode() == f"Open http://127.0.0.1:{port}/ in a browser; Ctrl-C ends.\n"
        assert len(list(uploads.glob("fqgan_app_*"))) == 1
        yield f"http://127.0.0.1:{port}/", asked
        process.terminate()
        # Nothing else was printed, and no upload stays.
        assert process.communicate(timeout=60)[0].decode() == "fqgan app: stopped.\n"
        assert process.returncode == 130
        assert not list(uploads.glob("fqgan_app_*"))
    finally:
        process.kill()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(server, browser):
    """The loaded page; `page.asked` are the hosts that the browser asked."""
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    tab.set_default_timeout(PATIENCE)
    tab.asked = set()
    tab.on("request", lambda request: tab.asked.add(request.url.split("/")[2] if "://" in request.url else "here"))
    tab.goto(server[0])
    yield tab
    tab.close()


def drop(page, area: str, file: Path) -> None:
    page.set_input_files(f"#{area} input[type=file]", file)


def source(page, picture: str) -> str:
    """The address of a shown picture; it names the picture's content."""
    page.wait_for_selector(f"{picture} img")
    return page.locator(f"{picture} img").last.get_attribute("src")


def wait_for_another(page, picture: str, before: str) -> None:
    changed = "([query, old]) => { const all = document.querySelectorAll(query + ' img');"
    changed += " return all.length > 0 && all[all.length - 1].getAttribute('src') !== old; }"
    page.wait_for_function(changed, arg=[picture, before])


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A photograph, and another of other proportions."""
    from skimage import data

    folder = tmp_path_factory.mktemp("photographs")
    for name, pixels in (("cat", data.chelsea()), ("coffee", data.coffee())):
        Image.fromarray(pixels).resize((48, 32 if name == "cat" else 40)).save(folder / f"{name}.png")
    return folder / "cat.png", folder / "coffee.png"


def test_a_photograph_is_reconstructed_from_the_chosen_sub_codebooks(server, page, photographs):
    drop(page, "image", photographs[0])
    page.wait_for_selector("#numbers >> text=48 x 32 pixels")
    assert page.locator("#maps img").count() == 2
    everything = source(page, "#pair")
    page.locator("#kept input").nth(1).uncheck()
    wait_for_another(page, "#pair", everything)
    first_alone = source(page, "#pair")
    page.locator("#kept input").nth(1).check()
    wait_for_another(page, "#pair", first_alone)
    shown = page.request.get(source(page, "#pair")).body()
    assert shown[:4] == b"\x89PNG"
    assert page.asked == {server[0].split("/")[2]}
    assert {"127.0.0.1"} <= set(server[1].read_text().split()) <= {"127.0.0.1", "localhost", "0.0.0.0"}


def test_two_photographs_are_mixed(page, photographs):
    page.get_by_role("tab", name="Mix").click()
    drop(page, "mix_first", photographs[0])
    drop(page, "mix_second", photographs[1])
    mixed = source(page, "#mixed")
    page.locator("#taken input").nth(0).check()
    wait_for_another(page, "#mixed", mixed)


def test_samples_of_a_class_are_drawn(page):
    page.get_by_role("tab", name="Sample").click()
    page.click("#draw")
    page.wait_for_selector("#drawn >> text=4 samples in")
    assert page.locator("#samples img").count() == 4
    before = source(page, "#samples")
    page.get_by_label("Seed").fill("7")
    page.click("#draw")
    wait_for_another(page, "#samples", before)


def test_the_models_runs_are_shown(page):
    page.get_by_role("tab", name="Runs").click()
    page.wait_for_selector("#log >> text=Step 4")
    assert page.locator("#log img").count() >= 2


def test_what_is_no_image_or_too_large_is_refused(server, page, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    drop(page, "image", tmp_path / "text.png")
    page.wait_for_selector("text=text.png cannot be used (not an image): give a JPEG")
    noise = np.random.default_rng(0).integers(0, 256, (2800, 2600, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png", compress_level=0)
    drop(page, "image", tmp_path / "large.png")
    page.wait_for_selector("text=exceed the maximum allowed size of 20")
    assert page.locator("#pair img").count() == 0
    # The server refuses it too.
    file = {"name": "large.png", "mimeType": "image/png", "buffer": (tmp_path / "large.png").read_bytes()}
    assert page.request.post(f"{server[0]}gradio_api/upload", multipart={"files": file}).status == 413


@pytest.mark.parametrize("tab", ["Reconstruct", "Mix", "Sample", "Runs"])
def test_nothing_is_wider_than_a_phone(page, photographs, tab):
    page.set_viewport_size({"width": 390, "height": 844})
    if tab == "Reconstruct":
        drop(page, "image", photographs[0])
        source(page, "#maps")
    page.get_by_role("tab", name=tab).click()
    if tab == "Runs":
        page.wait_for_selector("#log img")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
