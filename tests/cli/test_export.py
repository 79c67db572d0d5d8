"""`fqgan export`: folders that load elsewhere, bit-identical round trips, sentences on bad input."""

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
from fqgan_jax.api import Generator, Tokenizer
from fqgan_jax.checkpoints import ModelDescription, read_description, write_description
from fqgan_jax.cli.main import main
from fqgan_jax.interop import export_params, import_params, infer_tokenizer_fields
from fqgan_jax.models.fqgan import FQGAN
from fqgan_jax.training.checkpointing import Checkpoints
from fqgan_jax.training.state import TrainState


def export(model: Tokenizer | Generator, format: str, tmp_path: Path, *more: str) -> Path:
    """Folder that the command wrote for a model."""
    if not (tmp_path / "model").exists():
        tmp_path.mkdir(exist_ok=True)
        model.save(tmp_path / "model")
    out = tmp_path / format
    assert main(["export", "--checkpoint", str(tmp_path / "model"), "--format", format, "--out", str(out), *more]) == 0
    return out


def assert_identical(first, second):
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b, strict=True), first, jax.tree.map(np.asarray, second))


class TestPublishedTensors:
    @pytest.mark.parametrize("factorization", ["adapters", "split"])
    @pytest.mark.parametrize("num_codebooks", [1, 2, 3, 5])
    def test_tokenizer_comes_back(self, num_codebooks, factorization, tmp_path):
        tokenizer = tiny_tokenizer(num_codebooks, factorization)
        tensors = load_file(export(tokenizer, "safetensors", tmp_path) / "model.safetensors")
        assert_identical(import_params(tensors, tokenizer.module), tokenizer.params)

    @pytest.mark.parametrize("num_codebooks", [1, 2, 3, 5])
    def test_generator_comes_back(self, num_codebooks, tmp_path):
        generator = tiny_generator(num_codebooks)
        tensors = load_file(export(generator, "safetensors", tmp_path) / "model.safetensors")
        assert_identical(import_params(tensors, generator.module), generator.params)

    @pytest.mark.torch
    @pytest.mark.parametrize("model", [tiny_tokenizer(5), tiny_tokenizer(2, "split"), tiny_generator(3)])
    def test_torch_holds_the_same(self, model, tmp_path):
        torch = pytest.importorskip("torch")
        tensors = torch.load(export(model, "torch", tmp_path) / "model.pt", weights_only=True)
        assert tensors.keys() == {"model", "fqgan_jax"}
        tensors = {name: tensor.numpy() for name, tensor in tensors["model"].items()}
        assert_identical(import_params(tensors, model.module), model.params)
        path = export(model, "safetensors", tmp_path) / "model.safetensors"
        assert_identical(tensors, load_file(path))
        with safe_open(path, "numpy") as file:
            assert file.metadata()["format"] == "pt"

    @pytest.mark.parametrize("format", [pytest.param("torch", marks=pytest.mark.torch), "safetensors"])
    def test_the_file_is_a_checkpoint(self, format, tmp_path):
        """With what shapes do not tell (heads, groups, classes), and it can be exported again."""
        if format == "torch":
            pytest.importorskip("torch")
        tokenizer, generator = tiny_tokenizer(3, dtype=jnp.dtype("bfloat16")), tiny_generator(2)
        name = {"torch": "model.pt", "safetensors": "model.safetensors"}[format]
        loaded = fqgan_jax.load_tokenizer(export(tokenizer, format, tmp_path / "t") / name)
        assert loaded.fingerprint == tokenizer.fingerprint
        file = export(generator, format, tmp_path / "g") / name
        loaded = fqgan_jax.load_generator(file)
        assert loaded.module == generator.module
        assert (loaded.class_names, loaded.tokenizer) == (generator.class_names, generator.tokenizer)
        command = ["export", "--checkpoint", str(file), "--format", "native", "--out", str(tmp_path / "again")]
        assert main(command) == 0
        assert_identical(fqgan_jax.load_generator(tmp_path / "again").params, generator.params)

    def test_names_and_shapes_are_the_published_ones(self, tmp_path):
        published = golden_data.shapes("trajectory")
        module = FQGAN(**infer_tokenizer_fields(published, adapter_heads=4, feature_heads=4))
        tokenizer = Tokenizer(module, random_params(module, jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)))
        tensors = load_file(export(tokenizer, "safetensors", tmp_path) / "model.safetensors")
        # The small golden model was stored without its buffers; the published files have them.
        buffers = {name: shape for name, shape in golden_data.shapes("dual_f16").items() if "codebook_used" in name}
        assert len(buffers) == 2
        assert {name: tensor.shape for name, tensor in tensors.items()} == published | buffers
        assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float32)}


@pytest.fixture
def work_folder(tmp_path):
    """Makes a work folder of `fqgan train` with one checkpoint, with or without a moving average."""

    def make(ema: bool) -> tuple[Path, Tokenizer]:
        tokenizer = tiny_tokenizer(2)
        folder = tmp_path / ("averaged" if ema else "plain")
        tokenizer.save(tmp_path / "saved")
        fields = read_description(tmp_path / "saved").fields
        folder.mkdir()
        write_description(folder, ModelDescription(kind="tokenizer", fields=fields, class_names=("ant",)))
        average = jax.tree.map(lambda leaf: leaf / 2, tokenizer.params) if ema else None
        checkpoints = Checkpoints(folder, keep=1)
        checkpoints.save(TrainState(jnp.int32(3), tokenizer.params, optax.EmptyState(), average, jnp.int32(0)))
        checkpoints.close()
        return folder, tokenizer

    return make


class TestMovingAverage:
    def test_both_sets(self, work_folder, tmp_path):
        workdir, tokenizer = work_folder(ema=True)
        command = ["export", "--checkpoint", str(workdir), "--format", "safetensors", "--out"]
        assert main([*command, str(tmp_path / "both"), "--with-ema"]) == 0
        assert main([*command, str(tmp_path / "one")]) == 0
        load = lambda file: import_params(load_file(tmp_path / f"{file}.safetensors"), tokenizer.module)
        average = jax.tree.map(lambda leaf: leaf / 2, tokenizer.params)
        assert_identical(load("both/model"), tokenizer.params)
        assert_identical(load("both/ema"), average)
        assert_identical(load("one/model"), average)
        assert not (tmp_path / "one" / "ema.safetensors").exists()
        assert "`ema` their moving average" in (tmp_path / "both" / "README.md").read_text()
        assert "These are the moving average" in (tmp_path / "one" / "README.md").read_text()

    @pytest.mark.torch
    def test_both_sets_in_one_torch_file(self, work_folder, tmp_path):
        torch = pytest.importorskip("torch")
        workdir, tokenizer = work_folder(ema=True)
        command = ["export", "--checkpoint", str(workdir), "--format", "torch", "--out", str(tmp_path / "out")]
        assert main([*command, "--with-ema"]) == 0
        sets = torch.load(tmp_path / "out" / "model.pt", weights_only=True)
        assert sets.keys() == {"model", "ema", "fqgan_jax"}
        codebook = sets["model"]["quantize_sem.embedding.weight"].numpy()
        np.testing.assert_array_equal(codebook, tokenizer.params["quantizer"]["codebooks"][1])
        np.testing.assert_array_equal(sets["ema"]["quantize_sem.embedding.weight"].numpy(), codebook / 2)

    def test_none_was_kept(self, work_folder, tmp_path, capsys):
        workdir, _ = work_folder(ema=False)
        command = ["export", "--checkpoint", str(workdir), "--format", "safetensors", "--out", str(tmp_path / "out")]
        assert main([*command, "--with-ema"]) == 2
        assert "keeps no moving average" in capsys.readouterr().err
        assert main(command) == 0
        assert "no moving average was kept" in (tmp_path / "out" / "README.md").read_text()


TOKENIZER_SHAPES = "codes ({b}, 4, 4, 2) int32 images ({b}, 8, 8, 3) float32"
README_CASES = [
    ("native", tiny_tokenizer(2), (), TOKENIZER_SHAPES.format(b=1)),
    ("native", tiny_generator(2), (), "codes (1, 4, 4, 2) int32"),
    ("torch", tiny_tokenizer(2), (), None),
    ("torch", tiny_generator(2), (), None),
    ("safetensors", tiny_tokenizer(2), (), None),
    ("safetensors", tiny_generator(2), (), None),
    ("stablehlo", tiny_tokenizer(2), (), TOKENIZER_SHAPES.format(b=3)),
    ("stablehlo", tiny_generator(2), (), "codes (3, 4, 4, 2) int32"),
    ("onnx", tiny_tokenizer(2), ("--batch-size", "2"), TOKENIZER_SHAPES.format(b=2)),
]


@pytest.mark.parametrize(
    ("format", "model", "more", "printed"),
    [pytest.param(*case, id=f"{case[0]}-{type(case[1]).__name__}") for case in README_CASES],
)
def test_the_code_in_the_readme_runs(format, model, more, printed, tmp_path):
    """In a process of its own inside the folder; what it computes has the shapes that are written beside it."""
    needs = {"onnx": ("jax2onnx", "onnxruntime"), "torch": ("torch",), "safetensors": ("torch",)}
    for library in needs.get(format, ()):
        pytest.importorskip(library)
    folder = export(model, format, tmp_path, *more)
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    if printed:
        names = ["codes"] if isinstance(model, Generator) else ["codes", "images"]
        code += "".join(f"print('{name}', {name}.shape, {name}.dtype, end=' ')\n" for name in names)
    else:
        published = export_params(model.params, model.module)
        printed = f"{len(published)} tensors"
    path = str(Path(fqgan_jax.__file__).parent.parent) if format == "native" else ""
    command = [sys.executable, "-W", "error::FutureWarning", "-c", code]
    run = subprocess.run(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == printed


def test_the_readme_says_what_it_is(tmp_path):
    text = (export(tiny_generator(2), "native", tmp_path) / "README.md").read_text()
    assert "labels: int32 `[B]`, 0 to 2" in text
    assert "codes: int32 `[B, 4, 4, 2]`, 0 to 11" in text
    assert "Classes: 0 ant, 1 bee, 2 cat." in text
    text = (export(tiny_tokenizer(3), "safetensors", tmp_path / "tokenizer") / "README.md").read_text()
    assert "`sem_1`" in text
    assert f"images: float32, {IMAGE_SIZE} x {IMAGE_SIZE} pixels, RGB, -1 to 1" in text
    assert "(10.75 bits a position)" in text


def test_native_export_is_the_same_model(tmp_path):
    tokenizer = tiny_tokenizer(3)
    assert fqgan_jax.load_tokenizer(export(tokenizer, "native", tmp_path)).fingerprint == tokenizer.fingerprint


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
            ("--checkpoint {root}/generator --format onnx", "--format onnx is for tokenizers alone"),
            ("--checkpoint {root}/tokenizer --format onnx --with-ema", "--with-ema is for the formats torch"),
            ("--checkpoint {root}/tokenizer --format torch --with-ema", "is no work folder of `fqgan train`"),
            ("--checkpoint {root}/tokenizer --format stablehlo --batch-size 2", "--batch-size is for --format onnx"),
        ],
    )
    def test_one_sentence_and_exit_code_2(self, arguments, message, checkpoints, tmp_path, capsys):
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
        assert "cannot be made" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("format", "library", "extra"),
        [("torch", "torch", "torch"), ("onnx", "jax2onnx", "onnx"), ("onnx", "onnxruntime", "onnx")],
    )
    def test_missing_extra(self, format, library, extra, checkpoints, tmp_path, monkeypatch, capsys):
        if library == "jax2onnx":
            pytest.importorskip("onnxruntime")
        monkeypatch.setitem(sys.modules, library, None)
        command = ["export", "--checkpoint", str(checkpoints / "tokenizer"), "--format", format]
        assert main([*command, "--out", str(tmp_path / "out")]) == 2
        assert f"needs {library}, which is not installed: pip install fqgan-jax[{extra}]." in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []

    def test_unknown_format(self, tmp_path, capsys):
        with pytest.raises(SystemExit) as stopped:
            main(["export", "--checkpoint", str(tmp_path), "--format", "keras", "--out", str(tmp_path / "out")])
        assert stopped.value.code == 2
        assert "invalid choice: 'keras'" in capsys.readouterr().err

    def test_help_has_examples(self, capsys):
        with pytest.raises(SystemExit) as stopped:
            main(["export", "--help"])
        assert stopped.value.code == 0
        assert "fqgan export --checkpoint runs/tokenizer --format torch" in capsys.readouterr().out
