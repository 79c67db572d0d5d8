"""Which checkpoint a path names."""

import pytest

from fqgan_jax.checkpoints import CheckpointName


@pytest.mark.parametrize(
    ("path", "workdir", "which"),
    [
        ("runs/a", "runs/a", "newest"),
        ("runs/a@best", "runs/a", "best"),
        ("runs/a@5000", "runs/a", 5000),
        ("runs/a@b@7", "runs/a@b", 7),
        ("runs/a@newest", "runs/a@newest", "newest"),
        ("runs@3/a", "runs@3/a", "newest"),
        ("@best", "@best", "newest"),
    ],
)
def test_paths(path, workdir, which, tmp_path):
    name = CheckpointName.parse(tmp_path / path)
    assert name == CheckpointName(workdir=tmp_path / workdir, which=which)
    assert str(name) == str(tmp_path / path)


def test_a_folder_that_exists_is_a_work_folder(tmp_path):
    (tmp_path / "a@3" / "checkpoints").mkdir(parents=True)
    name = CheckpointName.parse(tmp_path / "a@3")
    assert name == CheckpointName(workdir=tmp_path / "a@3")
    assert name.is_of_a_run
    assert not CheckpointName.parse(tmp_path / "b").is_of_a_run
