"""A dataset with every kind of bad image goes through every command that reads images."""

import io
import itertools
import json

import numpy as np
import pytest
from PIL import Image
from support.tiny_configs import tiny_tokenizer_config

from fqgan_jax.caches.codes import CodeCache
from fqgan_jax.caches.teacher_features import FeatureCache, feature_batches
from fqgan_jax.cli.main import main
from fqgan_jax.data.loader import evaluation_batches, image_batches
from fqgan_jax.data.skipping import Skipped
from fqgan_jax.data.sources import open_source
from fqgan_jax.data.stream import Stream
from fqgan_jax.training.loop import train

DAMAGED = ("empty.jpg", "text.jpg", "truncated.jpg", "truncated.png")
ODD = ("animated.gif", "animated.webp", "cmyk.jpg", "deep.png", "long.jpg", "one.png", "tall.png", "transparent.png")
SOUND = ("sound_0.jpg", "sound_1.jpg", "sound_2.jpg", "sound_3.jpg")


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def bad_folder(tmp_path_factory):
    """One class of sound images and one of odd and damaged ones."""
    root = tmp_path_factory.mktemp("bad")
    rng = np.random.default_rng(0)

    def noise(*shape):
        return rng.integers(0, 255, shape, np.uint8)

    photo = Image.fromarray(noise(64, 80, 3))
    frames = {"save_all": True, "append_images": [Image.new("RGB", (80, 64), "red")]}
    files = {
        "empty.jpg": b"",
        "text.jpg": b"<html>404 Not Found</html>",
        "truncated.jpg": encoded(photo, "JPEG")[:900],
        "truncated.png": encoded(photo, "PNG")[:900],
        "animated.gif": encoded(photo, "GIF", **frames),
        "animated.webp": encoded(photo, "WEBP", **frames),
        "cmyk.jpg": encoded(photo.convert("CMYK"), "JPEG"),
        "deep.png": encoded(Image.fromarray(noise(64, 80).astype(np.uint16) * 257), "PNG"),
        "long.jpg": encoded(Image.fromarray(noise(10, 20_000, 3)), "JPEG"),
        "one.png": encoded(Image.fromarray(noise(1, 1, 3)), "PNG"),
        "tall.png": encoded(Image.fromarray(noise(20_000, 10)), "PNG"),
        "transparent.png": encoded(Image.fromarray(noise(64, 80, 4)), "PNG"),
    }
    for name, content in files.items():
        (root / "odd").mkdir(exist_ok=True)
        (root / "odd" / name).write_bytes(content)
    for name in SOUND:
        (root / "sound").mkdir(exist_ok=True)
        (root / "sound" / name).write_bytes(encoded(Image.fromarray(noise(64, 80, 3)), "JPEG"))
    return root


def names(source) -> set[str]:
    return {source.name(i).rsplit("/", 1)[-1] for i in range(len(source))}


@pytest.mark.parametrize("flags", [[], ["--shorter-side", "32"], ["--processes"]])
def test_prepare_keeps_the_readable_and_names_the_others(bad_folder, tmp_path, capsys, flags):
    command = ["prepare", str(bad_folder), str(tmp_path / "records"), "--workers", "2", "--validation-fraction", "0"]
    assert main([*command, *flags, "--images-per-shard", "5", "--verify"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("skipped") == len(DAMAGED)
    assert all(f"train: skipped odd/{name}: " in printed for name in DAMAGED)
    source = open_source(str(tmp_path / "records"), "train")
    assert names(source) == {*ODD, *SOUND}
    manifest = json.loads((tmp_path / "records" / "manifest.json").read_text())
    assert manifest["totals"]["train"] == manifest["totals"]["train"] | {"images": 12, "skipped": 4}
    if flags[:1] == ["--shorter-side"]:
        assert max(min(source.read(i).size) for i in range(len(source))) == 32


def test_data_lists_every_damaged_file_and_draws_a_batch(bad_folder, tmp_path, capsys):
    command = ["data", str(bad_folder), "--image-size", "32", "--batch-size", "9"]
    assert main([*command, "--out", str(tmp_path / "pictures" / "batch.png")]) == 0
    printed = capsys.readouterr().out
    total = len(open_source(str(bad_folder), "train"))
    damaged = [line.split(": ")[1].rsplit("/", 1)[-1] for line in printed.splitlines() if line.startswith("damaged")]
    # Which of them are kept aside for validation is a matter of hashes.
    assert set(damaged) == names(open_source(str(bad_folder), "train")) & set(DAMAGED)
    assert f"{total - len(damaged)} of {total}" in printed
    assert "20000" in printed
    with Image.open(tmp_path / "pictures" / "batch.png") as picture:
        assert picture.width % (8 * 32 + 7 * 2) == 0


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_the_training_loader_serves_the_readable(bad_folder, workers):
    source, skipped = open_source(str(bad_folder), "train", validation_fraction=0), Skipped()
    stream = Stream(batch_size=8, num_workers=workers)
    batches = image_batches(source, stream, image_size=32, skipped=skipped)
    for batch in itertools.islice(batches, 4):  # two epochs
        assert batch["image"].shape == (8, 32, 32, 3)
        assert batch["image"].dtype == np.uint8
    assert {name.rsplit("/", 1)[-1] for name in skipped.reasons} == set(DAMAGED)


def test_evaluation_sees_the_readable_once(bad_folder):
    source, skipped = open_source(str(bad_folder), "train", validation_fraction=0), Skipped()
    batches = list(evaluation_batches(source, image_size=32, batch_size=5, skipped=skipped))
    assert sum(batch["mask"].sum() for batch in batches) == len(ODD) + len(SOUND)
    assert len(skipped.reasons) == len(DAMAGED)


def test_a_source_without_a_readable_image_is_refused(tmp_path, capsys):
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_bytes(b"nothing")
    features = ["features", "--teacher", "hog", "--data", str(tmp_path), "--out", str(tmp_path.with_name("features"))]
    prepare = ["prepare", str(tmp_path), str(tmp_path.with_name("records"))]
    for command in (prepare, ["data", str(tmp_path)], [*features, "--image-size", "16"]):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert "can be read" in error
        assert "Traceback" not in error


def skipped_line(printed: str) -> str:
    (line,) = (line for line in printed.splitlines() if line.startswith("Skipped"))
    return line


def test_features_describe_the_readable(bad_folder, tmp_path, capsys):
    command = ["features", "--teacher", "hog", "--data", str(bad_folder), "--validation-fraction", "0"]
    sizes = ["--augmentations", "2", "--image-size", "32", "--images-per-shard", "5", "--batch-size", "4"]
    assert main([*command, *sizes, "--out", str(tmp_path / "features")]) == 0
    line = skipped_line(capsys.readouterr().out)
    assert line.startswith("Skipped 4 unreadable image(s)")
    assert all(f"odd/{name}" in line for name in DAMAGED)
    source, cache = open_source(str(bad_folder), "train", validation_fraction=0), FeatureCache(tmp_path / "features")
    batches = feature_batches(source, cache, Stream(batch_size=8), teachers=["hog"], skipped=Skipped())
    for batch in itertools.islice(batches, 2):
        assert batch["image"].shape == (8, 32, 32, 3)
        assert np.isfinite(batch["feature/hog"]).all()


def test_tokenize_writes_the_codes_of_the_readable(bad_folder, trained_tokenizer, tmp_path, capsys):
    command = ["tokenize", "--checkpoint", str(trained_tokenizer), "--data", str(bad_folder), "--batch-size", "20"]
    assert main([*command, "--validation-fraction", "0", "--out", str(tmp_path / "codes")]) == 0
    line = skipped_line(capsys.readouterr().out)
    assert line.startswith("Skipped 4 unreadable image(s)")
    assert all(f"odd/{name}" in line for name in DAMAGED)
    assert len(CodeCache(tmp_path / "codes")) == len(ODD) + len(SOUND)


def test_training_goes_on_and_names_them(bad_folder, tmp_path, capfd):
    config = tiny_tokenizer_config(f"data.source={bad_folder}", "data.validation_fraction=0.0")
    assert int(train(config, tmp_path / "run", stop_after=2).step) == 2
    printed = "".join(capfd.readouterr())
    assert "Traceback" not in printed
    line = skipped_line(printed)
    assert all(name in line for name in DAMAGED)
