"""A user's own kind of source, added by a file outside the package."""

import sys
import textwrap

import numpy as np
import pytest

from fqgan_jax.cli.arguments import SOURCE
from fqgan_jax.config.plugins import load_plugin
from fqgan_jax.data.preparation.pool import Pool
from fqgan_jax.data.preparation.survey import survey
from fqgan_jax.data.sources import fingerprint, open_source, sources
from fqgan_jax.errors import UserError

SQUARES = '''
from PIL import Image

from fqgan_jax.data.images import png_bytes
from fqgan_jax.data.sources import Source, sources


@sources("squares")
class Squares(Source):
    """N images of one grey value each."""

    usage = "squares:N"
    class_names = ("square",)

    @staticmethod
    def recognizes(name):
        return name.startswith("squares:")

    def __init__(self, name, split, **_):
        self.split, self.count = split, int(name.partition(":")[2])

    def __len__(self):
        return self.count

    def name(self, index):
        return f"{self.split}/{index}"

    def label(self, index):
        return 0

    def encoded(self, index):
        return png_bytes(Image.new("RGB", (64, 64), (index % 256,) * 3))
'''


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    file = tmp_path / "squares_of_mine.py"
    file.write_text(SQUARES)
    load_plugin(file)
    yield file
    sources._rows.pop("squares")
    sources._definitions.pop("squares")
    sys.modules.pop("squares_of_mine")


def test_a_source_from_a_users_file_is_opened_read_and_fingerprinted(plugin):
    train, validation = (open_source("squares:32", split) for split in ("train", "validation"))
    assert type(train).__module__ == plugin.stem
    assert len(train) == 32
    np.testing.assert_array_equal(train.read(5), np.full((64, 64, 3), 5, np.uint8))
    assert fingerprint(train) == fingerprint(open_source("squares:32", "train"))
    assert len({fingerprint(each) for each in (train, validation, open_source("squares:33", "train"))}) == 3


def test_worker_processes_read_a_users_source(plugin):
    found = survey(open_source("squares:3", "train"), Pool(1, processes=True))
    assert found.sizes == [(64, 64)] * 3
    assert found.formats == {"PNG": 3}


def test_the_documented_source_is_the_tested_one():
    documentation = textwrap.dedent(sources["folder"].__mro__[1].__doc__)
    code = [line.strip() for line in SQUARES.splitlines() if line.strip() and not line.startswith(("from", "import"))]
    assert all(line.replace('"""', '"') in documentation for line in code)


def test_names_that_no_row_recognizes_are_explained():
    with pytest.raises(UserError, match=r"There is no folder squares:32: give one of a folder .*tfds:NAME"):
        open_source("squares:32", "train")


def test_the_help_text_names_every_kind_of_source():
    assert all(kind.usage in SOURCE for kind in sources.values())
