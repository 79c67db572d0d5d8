"""`fqgan export`: folders that load elsewhere, bit-identical round trips, sentences on bad input."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file
from support import golden_data
from support.tiny_models import IMAGE_SIZE, random_params, tiny_generator, tiny_tokenizer

import fqgan_jax
from fqgan_jax.api import Model, Tokenizer
from fqgan_jax.checkpoints import write_description
from fqgan_jax.cli.main import main
from fqgan_jax.export import ReadmeText, formats
from fqgan_jax.interop import export_params, import_params, infer_tokenizer_fields
from fqgan_jax.models.fqgan import FQGAN
from fqgan_jax.training.checkpointing import Checkpoints
from fqgan_jax.training.state import TrainState

TORCH_FORMAT = pytest.param("torch", marks=pytest.mark.torch)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """`exported(model, format, *flags)` is the folder that the command wrote; each is written once."""
    saved, folders = {}, {}

    def folder_of(model: Model, format_name: str, *flags: str) -> Path:
        if id(model) not in saved:
            saved[id(model)] = tmp_path_factory.mktemp("saved") / "model"
            model.save(saved[id(model)])
        key = (id(model), format_name, flags)
        if key not in folders:
            out = tmp_path_factory.mktemp("exported") / format_name
            command = ["export", "--checkpoint", str(saved[id(model)]), "--format", format_name]
            assert main([*command, "--out", str(out), *flags]) == 0
            folders[key] = out
        return folders[key]

    return folder_of


def assert_identical(first, second):
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b, strict=True), first, jax.tree.map(np.asarray, second))


class TestPublishedTensors:
    @pytest.mark.parametrize("factorization", ["adapters", "split"])
    @pytest.mark.parametrize("num_codebooks", [1, 2, 3, 5])
    def test_tokenizer_comes_back(self, num_codebooks, factorization, exported):
        tokenizer = tiny_tokenizer(num_codebooks, factorization)
        tensors = load_file(exported(tokenizer, "safetensors") / "model.safetensors")
        assert_identical(import_params(tensors, tokenizer.module), tokenizer.params)

    @pytest.mark.parametrize("num_codebooks", [1, 2, 3, 5])
    def test_generator_comes_back(self, num_codebooks, exported):
        generator = tiny_generator(num_codebooks)
        tensors = load_file(exported(generator, "safetensors") / "model.safetensors")
        assert_identical(import_params(tensors, generator.module), generator.params)

    @pytest.mark.torch
    @pytest.mark.parametrize("make", [(tiny_tokenizer, 5), (tiny_tokenizer, 2, "split"), (tiny_generator, 3)])
    def test_torch_holds_the_same(self, make, exported):
        torch = pytest.importorskip("torch")
        model = make[0](*make[1:])
        tensors = torch.load(exported(model, "torch") / "model.pt", weights_only=True)
        assert tensors.keys() == {"model", "fqgan_jax"}
        tensors = {name: tensor.numpy() for name, tensor in tensors["model"].items()}
        assert_identical(import_params(tensors, model.module), model.params)
        path = exported(model, "safetensors") / "model.safetensors"
        assert_identical(tensors, load_file(path))
        with safe_open(path, "numpy") as file:
            assert file.metadata()["format"] == "pt"

    @pytest.mark.parametrize("format_name", [TORCH_FORMAT, "safetensors"])
    def test_the_file_is_a_checkpoint(self, format_name, exported, tmp_path):
        """With fields that shapes do not determine (heads, groups, classes), and it can be exported again."""
        if format_name == "torch":
            pytest.importorskip("torch")
        tokenizer, generator = tiny_tokenizer(3, dtype=jnp.dtype("bfloat16")), tiny_generator(2)
        name = {"torch": "model.pt", "safetensors": "model.safetensors"}[format_name]
        loaded = fqgan_jax.load_tokenizer(exported(tokenizer, format_name) / name)
        assert loaded.fingerprint == tokenizer.fingerprint
        file = exported(generator, format_name) / name
        loaded = fqgan_jax.load_generator(file)
        assert loaded.module == generator.module
        assert (loaded.class_names, loaded.tokenizer) == (generator.class_names, generator.tokenizer)
        command = ["export", "--checkpoint", str(file), "--format", "native", "--out", str(tmp_path / "again")]
        assert main(command) == 0
        assert_identical(fqgan_jax.load_generator(tmp_path / "again").params, generator.params)

    def test_names_and_shapes_are_the_published_ones(self, exported):
        published = golden_data.shapes("trajectory")
        module = FQGAN(**infer_tokenizer_fields(published, adapter_heads=4, feature_heads=4))
        tokenizer = Tokenizer(module, random_params(module, jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)))
        tensors = load_file(exported(tokenizer, "safetensors") / "model.safetensors")
        # The small golden model was stored without its buffers; the published files have them.
        buffers = {name: shape for name, shape in golden_data.shapes("dual_f16").items() if "codebook_used" in name}
        assert len(buffers) == 2
        assert {name: tensor.shape for name, tensor in tensors.items()} == published | buffers
        assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float32)}


def work_folder(folder: Path, *, with_average: bool) -> Path:
    """Makes a work folder of `fqgan train` with one checkpoint of the tiny tokenizer."""
    tokenizer = tiny_tokenizer(2)
    folder.mkdir()
    write_description(folder, tokenizer.description)
    average = jax.tree.map(lambda leaf: leaf / 2, tokenizer.params) if with_average else None
    checkpoints = Checkpoints(folder, keep=1)
    checkpoints.save(TrainState(jnp.int32(3), tokenizer.params, optax.EmptyState(), average, jnp.int32(0)))
    checkpoints.close()
    return folder


@pytest.fixture(scope="module")
def averaged(tmp_path_factory):
    return work_folder(tmp_path_factory.mktemp("run") / "averaged", with_average=True)


class TestMovingAverage:
    def test_both_sets(self, averaged, tmp_path):
        tokenizer = tiny_tokenizer(2)
        command = ["export", "--checkpoint", str(averaged), "--format", "safetensors", "--out"]
        assert main([*command, str(tmp_path / "both"), "--with-ema"]) == 0
        assert main([*command, str(tmp_path / "one")]) == 0

        def load(name):
            return import_params(load_file(tmp_path / f"{name}.safetensors"), tokenizer.module)

        average = jax.tree.map(lambda leaf: leaf / 2, tokenizer.params)
        assert_identical(load("both/model"), tokenizer.params)
        assert_identical(load("both/ema"), average)
        assert_identical(load("one/model"), average)
        assert not (tmp_path / "one" / "ema.safetensors").exists()
        assert "`ema` their moving average" in (tmp_path / "both" / "README.md").read_text()
        assert "These are the moving average" in (tmp_path / "one" / "README.md").read_text()

    @pytest.mark.torch
    def test_both_sets_in_one_torch_file(self, averaged, tmp_path):
        torch = pytest.importorskip("torch")
        command = ["export", "--checkpoint", str(averaged), "--format", "torch", "--out", str(tmp_path / "out")]
        assert main([*command, "--with-ema"]) == 0
        sets = torch.load(tmp_path / "out" / "model.pt", weights_only=True)
        assert sets.keys() == {"model", "ema", "fqgan_jax"}
        codebook = sets["model"]["quantize_sem.embedding.weight"].numpy()
        np.testing.assert_array_equal(codebook, tiny_tokenizer(2).params["quantizer"]["codebooks"][1])
        np.testing.assert_array_equal(sets["ema"]["quantize_sem.embedding.weight"].numpy(), codebook / 2)

    def test_none_was_kept(self, tmp_path, capsys):
        plain = work_folder(tmp_path / "plain", with_average=False)
        command = ["export", "--checkpoint", str(plain), "--format", "safetensors", "--out", str(tmp_path / "out")]
        assert main([*command, "--with-ema"]) == 2
        assert "keeps no moving average" in capsys.readouterr().err
        assert main(command) == 0
        assert "no moving average was kept" in (tmp_path / "out" / "README.md").read_text()


# Format, kind of model, flags, the libraries that the README's code needs, and what it prints.
TOKENIZER_SHAPES = "codes ({b}, 4, 4, 2) int32 images ({b}, 8, 8, 3) float32"
README_CASES = {
    ("stablehlo", "tokenizer"): ((), (), TOKENIZER_SHAPES.format(b=3)),
    ("stablehlo", "generator"): ((), (), "codes (3, 4, 4, 2) int32"),
    ("torch", "tokenizer"): ((), ("torch",), None),
    ("torch", "generator"): ((), ("torch",), None),
    ("safetensors", "tokenizer"): ((), ("torch",), None),
    ("safetensors", "generator"): ((), ("torch",), None),
    ("onnx", "tokenizer"): (("--batch-size", "2"), ("jax2onnx", "onnxruntime"), TOKENIZER_SHAPES.format(b=2)),
    ("native", "tokenizer"): ((), (), TOKENIZER_SHAPES.format(b=1)),
    ("native", "generator"): ((), (), "codes (1, 4, 4, 2) int32"),
}
# Runs the code of READMEs, each inside its folder; only that of native folders may import this package.
README_RUNNER = """
import contextlib, io, json, os, sys, traceback

results = []
for folder in sys.argv[1:]:
    os.chdir(folder)
    with open("README.md") as file:
        code = file.read().split("```python\\n")[1].split("```")[0]
    values, printed = {}, io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            exec(code, values)
        shapes = [f"{name} {values[name].shape} {values[name].dtype}" for name in ("codes", "images") if name in values]
        results.append(" ".join(shapes) or printed.getvalue().strip())
    except BaseException:
        results.append(traceback.format_exc())
    if os.path.basename(folder) != "native" and "fqgan_jax" in sys.modules:
        results[-1] = "fqgan_jax was imported"
print(json.dumps(results))
"""


def tiny_model(kind: str) -> Model:
    return {"tokenizer": tiny_tokenizer, "generator": tiny_generator}[kind](2)


def is_installed(library: str) -> bool:
    try:
        __import__(library)
    except ModuleNotFoundError:
        return False
    return True


@pytest.fixture(scope="module")
def readme_results(exported):
    """What the code of every README prints, and the shapes of what it computes, by format and kind of model."""
    cases = [case for case, (_, libraries, _) in README_CASES.items() if all(map(is_installed, libraries))]
    folders = [
        exported(tiny_model(kind), format_name, *README_CASES[format_name, kind][0]) for format_name, kind in cases
    ]
    command = [sys.executable, "-W", "error::FutureWarning", "-c", README_RUNNER, *map(str, folders)]
    environment = os.environ | {"PYTHONPATH": str(Path(fqgan_jax.__file__).parent.parent)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return dict(zip(cases, json.loads(run.stdout), strict=True))


@pytest.mark.parametrize(("format_name", "kind"), README_CASES)
def test_the_code_in_the_readme_runs(format_name, kind, readme_results):
    if (format_name, kind) not in readme_results:
        pytest.skip(f"needs {', '.join(README_CASES[format_name, kind][1])}")
    model, printed = tiny_model(kind), README_CASES[format_name, kind][2]
    if printed is None:
        printed = f"{len(export_params(model.params, model.module))} tensors"
    assert readme_results[format_name, kind] == printed


def test_every_format_and_kind_has_a_readme_that_is_run():
    assert {(name, kind) for name, row in formats.items() for kind in row.readme} == set(README_CASES)


def test_the_readme_says_what_it_is(exported):
    text = (exported(tiny_generator(2), "native") / "README.md").read_text()
    assert "labels: int32 `[B]`, 0 to 2" in text
    assert "codes: int32 `[B, 4, 4, 2]`, 0 to 11" in text
    assert "Classes: 0 ant, 1 bee, 2 cat." in text
    text = (exported(tiny_tokenizer(3), "safetensors") / "README.md").read_text()
    assert "`sem_1`" in text
    assert f"images: float32, {IMAGE_SIZE} x {IMAGE_SIZE} pixels, RGB, -1 to 1" in text
    assert "(10.75 bits a position)" in text


def test_native_export_is_the_same_model(exported):
    tokenizer = tiny_tokenizer(3)
    assert fqgan_jax.load_tokenizer(exported(tokenizer, "native")).fingerprint == tokenizer.fingerprint


def test_a_format_of_a_plugin_is_a_row(exported, monkeypatch):
    monkeypatch.setattr(formats, "_rows", dict(formats))

    @formats("sizes", help="for nobody", readme={"generator": ReadmeText(files="A list.", code="K = {K}")})
    def write_sizes(folder, export):
        (folder / "sizes.txt").write_text(f"{export.model.module.grid}")

    folder = exported(tiny_generator(2), "sizes")
    assert (folder / "sizes.txt").read_text() == "(4, 4)"
    assert "A list. These are the parameters" in (folder / "README.md").read_text()
    assert "```python\nK = 2\n```" in (folder / "README.md").read_text()


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A folder with a tokenizer, a generator, nothing, and a file."""
    root = tmp_path_factory.mktemp("checkpoints")
    tiny_tokenizer(2).save(root / "tokenizer")
    tiny_generator(2).save(root / "generator")
    (root / "empty").mkdir()
    (root / "file").touch()
    return root


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ("--checkpoint {root}/none --format torch", "There is no checkpoint"),
            ("--checkpoint {root}/empty --format native", "holds no model"),
            (
                "--checkpoint {root}/generator --format onnx",
                "--format onnx is for a tokenizer, not for a generator, whose formats are: native, torch, safetensors",
            ),
            (
                "--checkpoint {root}/tokenizer --format onnx --with-ema",
                "--with-ema is for --format torch or safetensors: onnx holds one set",
            ),
            ("--checkpoint {root}/tokenizer --format torch --with-ema", "is no work folder of `fqgan train`"),
            ("--checkpoint {root}/tokenizer --format stablehlo --batch-size 2", "--batch-size is for --format onnx"),
            ("--checkpoint {root}/tokenizer --format keras", "--format is 'keras': there is no export format 'keras'"),
        ],
    )
    def test_one_sentence_and_exit_code_2(self, arguments, message, *, checkpoints, tmp_path, capsys):
        command = ["export", *arguments.format(root=checkpoints).split(), "--out", str(tmp_path / "out")]
        assert main(command) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1
        # Nothing is left, hidden files included.
        assert list(tmp_path.iterdir()) == []

    def test_existing_folder_stays(self, checkpoints, tmp_path, capsys):
        (tmp_path / "note").write_text("kept")
        command = ["export", "--checkpoint", str(checkpoints / "tokenizer"), "--format", "native", "--out"]
        assert main([*command, str(tmp_path)]) == 2
        assert "exists already" in capsys.readouterr().err
        assert [path.name for path in tmp_path.iterdir()] == ["note"]
        assert main([*command, str(checkpoints / "file" / "below")]) == 2
        assert "file is no folder" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("format_name", "library"), [("torch", "torch"), ("onnx", "jax2onnx"), ("onnx", "onnxruntime")]
    )
    def test_missing_extra(self, format_name, library, *, checkpoints, tmp_path, monkeypatch, capsys):
        if library == "jax2onnx":
            pytest.importorskip("onnxruntime")
        monkeypatch.setitem(sys.modules, library, None)
        command = ["export", "--checkpoint", str(checkpoints / "tokenizer"), "--format", format_name]
        assert main([*command, "--out", str(tmp_path / "out")]) == 2
        # The extra has the format's name.
        sentence = f"needs {library}, which is not installed: pip install fqgan-jax[{format_name}]."
        assert sentence in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []

    def test_help_has_examples_and_every_format(self, capsys):
        with pytest.raises(SystemExit) as stopped:
            main(["export", "--help"])
        assert stopped.value.code == 0
        printed = " ".join(capsys.readouterr().out.split())
        assert "fqgan export --checkpoint runs/tokenizer --format torch" in printed
        assert all(f"{name}: {row.help}" in printed for name, row in formats.items())
