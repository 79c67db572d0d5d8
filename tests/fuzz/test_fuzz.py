"""Files and values from strangers, made at random: a right result or one sentence, and nothing else.

A short run is part of the slow tests. `FQGAN_FUZZ=100000 pytest -m slow tests/fuzz --hypothesis-show-statistics` makes
that many cases of each kind, with other seeds every time; without the variable the cases are the same in every run.
"""

import contextlib
import io
import json
import math
import os
import resource
import shutil
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from support.tiny_configs import TINY_GENERATOR, TINY_TOKENIZER
from support.tiny_models import tiny_tokenizer

from fqgan_jax.api import load_model
from fqgan_jax.caches.codes import CodeCache
from fqgan_jax.cli.main import main
from fqgan_jax.config import load_config
from fqgan_jax.config.rules import flat
from fqgan_jax.data.images import FORMATS, UnreadableImageError, read_image
from fqgan_jax.data.sources import open_source
from fqgan_jax.errors import UserError
from fqgan_jax.interop.checkpoint_files import read_checkpoint_file
from fqgan_jax.training.logging import read_log
from fqgan_jax.training.tasks import tasks
from fqgan_jax.training.workdir import complete_config, saved_config

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

LONG = os.environ.get("FQGAN_FUZZ")
CASES = int(LONG or 25)
SECONDS, MEGABYTES = 30, 2000  # that one case may take
fuzz = settings(
    max_examples=CASES,
    deadline=None,
    database=None,
    derandomize=not LONG,
    suppress_health_check=list(HealthCheck),
)

NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([2**16, 2**31 - 1, 2**31, 2**63, 10**9, 1e-300, 1e300, 0.5]),
)
ODD = ("", " ", "nan", "../x", "/", "None", "float32", "vq", "\0", "a" * 999)
TEXTS = st.one_of(st.text(max_size=8), st.sampled_from(ODD))
PLAIN = st.one_of(NUMBERS, TEXTS, st.booleans(), st.none())
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=3))


@contextlib.contextmanager
def within_limits():
    """Fails if a case takes too long or too much memory."""
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    seconds = time.monotonic() - start
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert seconds < SECONDS, f"{seconds:.0f} seconds"
    assert grown < MEGABYTES, f"{grown:.0f} MB"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def some_key(parent: dict | list) -> st.SearchStrategy:
    return st.sampled_from(sorted(parent) if isinstance(parent, dict) else range(len(parent)))


@st.composite
def mutated_json(draw, content):
    """JSON of which some values are others, gone or new; sometimes only a part of the text, or bytes in it replaced."""
    content = json.loads(json.dumps(content))
    for _ in range(draw(st.integers(1, 3))):
        if not content:
            break
        parent, key = content, draw(some_key(content))
        while isinstance(parent[key], dict | list) and parent[key] and draw(st.booleans()):
            parent = parent[key]
            key = draw(some_key(parent))
        if draw(st.integers(0, 4)):
            parent[key] = draw(VALUES)
        elif isinstance(parent, dict):
            parent.pop(key, None)
            parent[draw(TEXTS)] = draw(VALUES)
    text = json.dumps(content).encode(errors="surrogatepass")
    return draw(mutated_bytes(text)) if not draw(st.integers(0, 5)) else text


@st.composite
def mutated_bytes(draw, content):
    """Bytes of which some are others, more often near the start; sometimes cut off, or with others at the end."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(0, 6))):
        near = draw(st.booleans())
        position = draw(st.integers(0, min(len(changed), 200 if near else len(changed)) - 1))
        changed[position] = draw(st.integers(0, 255))
    if not draw(st.integers(0, 3)):
        del changed[draw(st.integers(1, len(changed))) :]
    return bytes(changed) + (draw(st.binary(max_size=20)) if not draw(st.integers(0, 5)) else b"")


@pytest.mark.parametrize("task", ["tokenizer", "generator"])
def test_config_fields(task, code_cache):
    tiny = TINY_TOKENIZER if task == "tokenizer" else (*TINY_GENERATOR, f"data.codes={code_cache}")
    tiny = [f"--config.{field}" for field in tiny]
    names = sorted(flat(load_config(f"configs/demo_{task}.py")))

    given_values = PLAIN | st.tuples(PLAIN, PLAIN) | st.lists(NUMBERS, max_size=4)

    @fuzz
    @given(st.dictionaries(st.sampled_from(names), given_values, max_size=3))
    def check(fields):
        overrides = [f"--config.{name}={value}" for name, value in fields.items()]
        with within_limits(), contextlib.suppress(UserError):
            config = complete_config(load_config(f"configs/demo_{task}.py", [*tiny, *overrides]))
            tasks[config.task](config, 1)

    check()


def test_descriptions_in_tensor_files(tmp_path):
    from safetensors.numpy import save_file

    from fqgan_jax.interop import export_params

    model = tiny_tokenizer(2)
    tensors = export_params(model.params, model.module)

    @fuzz
    @given(mutated_json(model.description.to_json()))
    def check(description):
        metadata = {"fqgan_jax": description.decode(errors="replace")}
        save_file(tensors, tmp_path / "x.safetensors", metadata=metadata)
        with within_limits(), contextlib.suppress(UserError):
            loaded = load_model(tmp_path / "x.safetensors")
            assert loaded.module.num_codebooks == 2

    check()


def test_bytes_of_tensor_files(tmp_path):
    from safetensors.numpy import save

    torch = pytest.importorskip("torch")
    tensors = {"a.weight": np.arange(12, dtype=np.float32).reshape(3, 4), "b": np.ones(5, np.float16)}
    buffer = io.BytesIO()
    torch.save({"model": {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}}, buffer)
    files = {".safetensors": save(tensors), ".pt": buffer.getvalue()}

    @fuzz
    @given(st.data(), st.sampled_from(sorted(files)))
    def check(data, suffix):
        path = tmp_path / f"x{suffix}"
        path.write_bytes(data.draw(mutated_bytes(files[suffix])))
        with within_limits(), contextlib.suppress(UserError):
            read_checkpoint_file(path)

    check()


def test_headers_of_safetensors(tmp_path):
    header = {"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}, "__metadata__": {"fqgan_jax": "{}"}}

    @fuzz
    @given(mutated_json(header))
    def check(text):
        (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(16))
        with within_limits(), contextlib.suppress(UserError):
            read_checkpoint_file(tmp_path / "x.safetensors")

    check()


@pytest.mark.parametrize("name", FORMATS)
def test_images(name):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, name)

    @fuzz
    @given(mutated_bytes(buffer.getvalue()))
    def check(content):
        with within_limits(), contextlib.suppress(UnreadableImageError):
            assert read_image(content).mode == "RGB"

    check()


def test_manifests_of_codes(code_cache, tmp_path):
    folder = shutil.copytree(code_cache, tmp_path / "codes")
    manifest, whole = json.loads((folder / "codes.json").read_text()), CodeCache(folder)
    expected = [whole[index] for index in range(len(whole))]

    @fuzz
    @given(mutated_json(manifest))
    def check(text):
        (folder / "codes.json").write_bytes(text)
        with within_limits(), contextlib.suppress(UserError):
            cache = CodeCache(folder)
            for (label, codes), (expected_label, expected_codes) in zip(
                map(cache.__getitem__, range(len(cache))), expected, strict=False
            ):
                assert label == expected_label
                assert math.prod(codes.shape) <= math.prod(expected_codes.shape)

    check()


def test_manifests_of_prepared_images(image_folder, tmp_path):
    folder = tmp_path / "records"
    assert main(["prepare", str(image_folder), str(folder)]) == 0
    manifest = json.loads((folder / "manifest.json").read_text())

    @fuzz
    @given(mutated_json(manifest))
    def check(text):
        (folder / "manifest.json").write_bytes(text)
        with within_limits(), contextlib.suppress(UserError):
            source = open_source(str(folder), "train")
            for index in range(len(source)):
                assert 0 <= source.label(index) < len(source.class_names)
                with contextlib.suppress(UnreadableImageError):
                    source.read(index)

    check()


@pytest.mark.parametrize("name", ["config.json", "model.json", "metrics.jsonl", "checkpoints/4/checksums.json"])
def test_files_of_a_work_folder(name, trained_tokenizer, tmp_path):
    folder = shutil.copytree(trained_tokenizer, tmp_path / "run")
    file = folder / name
    whole = file.read_bytes()
    mutated = mutated_bytes(whole) if name.endswith("l") else mutated_json(json.loads(whole)) | mutated_bytes(whole)

    @fuzz
    @given(mutated)
    def check(content):
        file.write_bytes(content)
        before = contents(folder)
        with within_limits(), contextlib.suppress(UserError):
            read_log(folder)
            load_model(folder)
            saved_config(folder)
        assert contents(folder) == before

    check()


COMMANDS = ["data", "prepare", "runs", "reconstruct", "tokenize", "sample", "evaluate", "export", "publish", "weights"]
COMMANDS += ["plan"]
FLAGS = [
    "--out",
    "--seed",
    "--labels",
    "--count",
    "--top-k",
    "--guidance",
    "--temperature",
    "--batch-size",
    "--split",
    "--image-size",
    "--checkpoint",
    "--tokenizer",
    "--data",
    "--codebooks",
    "--format",
    "--json",
    "--workers",
    "--per-class",
    "--size",
    "--limit",
    "--topology",
    "--config",
    "--sweep",
    "--max-side",
    "--report",
    "list",
    "fetch",
]


def test_command_lines(tmp_path, monkeypatch):
    """Nothing that these could work on is there, so each ends before any work, in one sentence."""
    monkeypatch.setenv("FQGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    value = st.one_of(TEXTS, NUMBERS.map(str), st.sampled_from(["none", "x.pt", "x.png", "x.json", "0,1", "1:2:1"]))
    values = value.filter(lambda text: "photos" not in text and not text.startswith("--plugin"))

    @fuzz
    @given(st.sampled_from(COMMANDS), st.lists(st.tuples(st.sampled_from(FLAGS), values), max_size=6))
    def check(command, flags):
        arguments = [command, *(part for flag in flags for part in flag)]
        out, err = io.StringIO(), io.StringIO()
        with within_limits(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main(arguments)
            except SystemExit as error:
                code = error.code
        assert code in (0, 2), (arguments, code)
        assert "Traceback" not in err.getvalue()

    check()
