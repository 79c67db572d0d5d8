"""`fqgan features`: what is stored, and training batches that take it in the teachers' box."""

import itertools
import json
import shutil

import jax
import numpy as np
import pytest
from support import golden_data
from support.dino_files import fetch_small_teacher, small_teacher
from support.rows import replace_row
from support.tiny_configs import tiny_tokenizer_config

from fqgan_jax.caches import write_shards
from fqgan_jax.caches.teacher_features import FeatureCache
from fqgan_jax.caches.write_shards import RandomCrops
from fqgan_jax.cli.main import main
from fqgan_jax.data.images import UnreadableImageError
from fqgan_jax.data.pixels import to_float
from fqgan_jax.data.sources.folder import ImageFolder
from fqgan_jax.data.transforms import crop_at, largest_side, random_crop
from fqgan_jax.errors import UserError
from fqgan_jax.pretrained.hog import hog_features
from fqgan_jax.pretrained.teachers import teachers
from fqgan_jax.pretrained.weights import networks
from fqgan_jax.sharding.mesh import make_mesh
from fqgan_jax.training.tokenizer_task import TokenizerTask

R, SEED, SIZE = 3, 5, 16
DAMAGED = "red/04.png"


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """dinov2-small, far smaller, with random weights in the cache."""
    folder = tmp_path_factory.mktemp("teacher")
    small = small_teacher()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FQGAN_CACHE", str(folder / "cache"))
        replace_row(patch, teachers, "dinov2-small", small)
        fetch_small_teacher(folder / "published")
        yield small


@pytest.fixture(scope="module")
def images(image_folder, tmp_path_factory):
    """The image folder with a damaged file."""
    folder = tmp_path_factory.mktemp("images") / "data"
    shutil.copytree(image_folder, folder)
    (folder / DAMAGED).write_bytes(b"damaged")
    return folder


def features(images, out, *flags):
    command = ["features", "--teacher", "dinov2-small", "--teacher", "hog", "--data", str(images), "--out", str(out)]
    sizes = ["--augmentations", str(R), "--image-size", str(SIZE), "--seed", str(SEED), "--validation-fraction", "0"]
    return main([*command, *sizes, "--batch-size", "6", "--images-per-shard", "9", *flags])


@pytest.fixture(scope="module")
def folder(teacher, images, tmp_path_factory):
    out = tmp_path_factory.mktemp("features") / "cache"
    assert features(images, out) == 0
    return out


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_record_i_describes_the_training_crops_of_image_i(teacher, images, folder):
    cache, source = FeatureCache(folder), ImageFolder(str(images), "train", validation_fraction=0)
    assert len(cache) == len(source) == 24
    apply, params = jax.jit(teacher.features), teacher.load()
    for index in range(len(source)):
        if source.name(index).endswith(DAMAGED):
            with pytest.raises(UnreadableImageError):
                cache[index]
            continue
        record = cache[index]
        image = source.read(index, largest_side(SIZE))
        drawn = [random_crop(image, SIZE, np.random.default_rng([SEED, index, r])) for r in range(R)]
        assert record.label == source.label(index)
        assert {box.side for box in record.crop_boxes} <= set(range(16, 21))
        for r, (crop, box) in enumerate(zip(drawn, record.crop_boxes, strict=True)):
            np.testing.assert_array_equal(crop_at(image, SIZE, box), crop)
            np.testing.assert_array_equal(record.features["hog"][r], hog_features(crop))
        if index % 8 == 0:
            expected = apply(params, to_float(np.stack(drawn)))
            assert golden_data.relative_error(record.features["dinov2-small"], expected) < 1e-5


def test_the_manifest_names_what_the_records_depend_on(folder, images, teacher):
    manifest, published = json.loads((folder / "features.json").read_text()), networks["dinov2-small"]
    assert manifest["source"] == str(images)
    assert {
        "split": "train",
        "images": 24,
        "count": 24,
        "image_size": SIZE,
        "augmentations": R,
    }.items() <= manifest.items()
    assert (manifest["seed"], manifest["decode"]) == (SEED, "reduced")
    assert manifest["teachers"]["dinov2-small"] == {"width": 32, "weights": published.published_sha256}
    assert manifest["teachers"]["hog"] == {"width": 96, "weights": None}
    assert list(manifest["skipped"]) == [DAMAGED]
    assert [shard["count"] for shard in manifest["shards"]] == [9, 9, 6]


def test_the_number_of_devices_changes_no_byte(folder, images, tmp_path, monkeypatch):
    monkeypatch.setattr(write_shards, "make_mesh", lambda axes, devices: make_mesh(axes, devices[:1]))
    assert features(images, tmp_path / "one") == 0
    assert contents(tmp_path / "one") == contents(folder)


def test_a_stopped_run_goes_on_and_other_settings_are_refused(folder, images, tmp_path, monkeypatch, capsys):
    """Stopped by Ctrl-C in the third shard, while the second one is on the devices: the first one stays as it is."""
    out, read = tmp_path / "cache", RandomCrops.__call__

    def interrupted(random_crops, index):
        if index >= 20:
            raise KeyboardInterrupt
        return read(random_crops, index)

    monkeypatch.setattr(RandomCrops, "__call__", interrupted)
    with pytest.raises(SystemExit) as stopped:
        features(images, out)
    assert stopped.value.code == 130
    assert "the same command continues" in capsys.readouterr().err
    monkeypatch.undo()
    first = "features-00000-of-00003.array_record"
    finished = {name: content for name, content in contents(out).items() if not name.startswith(".")}
    assert finished == {first: contents(folder)[first]}
    assert features(images, out, "--full-decode") == 2
    assert "with other settings" in capsys.readouterr().err
    assert features(images, out) == 0
    assert "Skipped 1 unreadable image(s): red/04.png" in capsys.readouterr().out
    assert contents(out) == contents(folder)
    assert features(images, out) == 2
    assert "is complete" in capsys.readouterr().err
    assert contents(out) == contents(folder)
    # Killed when the manifest was there and the plan was not yet gone.
    (out / ".plan.json").write_text((out / "features.json").read_text())
    assert features(images, out) == 0
    assert contents(out) == contents(folder)


def make_config(images, folder, *overrides, teachers=("hog", "dinov2-small")):
    fields = [f"data.source={images}", f"data.features={folder}", "data.validation_fraction=0.0"]
    config = tiny_tokenizer_config(*fields, "model.feature_heads=4", *overrides)
    config.teachers = teachers
    return config


def make_task(*arguments, **fields):
    return TokenizerTask(make_config(*arguments, **fields), jax.device_count())


def test_cached_features_are_those_of_the_online_teacher_on_the_same_crops(teacher, images, folder):
    task = make_task(images, folder)
    assert task.frozen() == {"teachers": {}}
    apply, params = jax.jit(teacher.features), teacher.load()
    batches = list(itertools.islice(task.batches(0), 4))
    for batch in batches:
        assert batch.keys() == task.random_batch(jax.random.key(0)).keys()
        online = np.asarray(apply(params, to_float(batch["image"])))
        assert golden_data.relative_error(batch["feature/dinov2-small"], online) < 1e-3
        expected = np.stack([hog_features(image) for image in batch["image"]])
        np.testing.assert_array_equal(batch["feature/hog"], expected)
        np.testing.assert_array_equal(batch["label"] == 0, batch["image"][..., 2].mean((1, 2)) > 130)
    assert list(task.skipped.reasons) == [str(images / DAMAGED)]
    # A batch is a function of seed and step, and visits take one augmentation or another.
    again = next(make_task(images, folder).batches(2))
    np.testing.assert_array_equal(again["image"], batches[2]["image"])
    assert len(np.unique(np.concatenate([batch["image"] for batch in batches]), axis=0)) > 24


@pytest.mark.slow
def test_worker_processes_read_the_cache(teacher, images, folder):
    expected, found = (next(make_task(images, folder, f"data.num_workers={n}").batches(0)) for n in (0, 1))
    jax.tree.map(np.testing.assert_array_equal, expected, found)


@pytest.mark.slow
def test_training_takes_neither_teachers_nor_their_weights(teacher, images, folder, tmp_path, monkeypatch):
    from fqgan_jax.training.loop import train

    monkeypatch.setenv("FQGAN_CACHE", str(tmp_path / "empty"))
    config = make_config(images, folder)
    state = train(config, tmp_path / "run", stop_after=1)
    assert (int(state.step), int(state.skipped)) == (1, 0)
    config = make_config(images, "", teachers=("hog", None))
    with pytest.raises(UserError, match=r"data.features .* -> ''"):
        train(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.image_size=32"], "describes crops of 16x16 pixels, not of data.image_size=32"),
        (["data.full_decode=True"], "decoded at reduced scale: set data.full_decode=False"),
        (["data.features=/none"], "holds no feature cache: .* fqgan features"),
    ],
)
def test_caches_of_another_config_are_refused(images, folder, overrides, message):
    with pytest.raises(UserError, match=message):
        make_task(images, folder, *overrides)


def test_a_teacher_that_is_not_in_the_cache_is_named(images, folder):
    with pytest.raises(UserError, match=r"has no features of dinov2-base \(only of dinov2-small, hog\)"):
        make_task(images, folder, teachers=(None, "dinov2-base"))


def test_other_weights_and_other_images_are_refused(teacher, images, folder, image_folder, monkeypatch):
    with pytest.raises(UserError, match=r"describes the 24 images of .* not the 22 images of data.source"):
        make_task(images, folder, "data.validation_fraction=0.1").batches(0)
    monkeypatch.setattr("fqgan_jax.training.tokenizer_task.known_weights", lambda names: {"dinov2-small": "f" * 64})
    with pytest.raises(UserError, match="other weights of dinov2-small"):
        make_task(images, folder)
