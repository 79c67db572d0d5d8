"""A loader that waits says for which file."""

import logging
import time

import numpy as np
from PIL import Image

from fqgan_jax.data import stalls
from fqgan_jax.data.loader import evaluation_batches, image_batches
from fqgan_jax.data.skipping import Skipped
from fqgan_jax.data.sources import Source
from fqgan_jax.data.stream import Stream


class Slow(Source):
    """Four images, of which the third takes long to read."""

    class_names = ("grey",)

    def __init__(self, seconds):
        self.seconds = seconds

    def __len__(self):
        return 4

    def name(self, index):
        return f"slow/{index}.png"

    def label(self, index):
        return 0

    def read(self, index, shortest_side=None):
        if index == 2:
            time.sleep(self.seconds)
        return Image.fromarray(np.zeros((16, 16, 3), np.uint8))


def test_the_file_that_is_waited_for_is_named(monkeypatch, caplog):
    monkeypatch.setattr(stalls, "SECONDS", 0.2)
    with caplog.at_level(logging.WARNING):
        next(image_batches(Slow(1.0), Stream(batch_size=8), image_size=16, skipped=Skipped()))
        list(evaluation_batches(Slow(1.0), image_size=16, batch_size=4, skipped=Skipped()))
    named = [record.message for record in caplog.records]
    assert len(named) >= 2
    assert all(message.startswith("Reading slow/2.png has taken ") for message in named)


def test_nothing_is_said_of_files_that_are_read_in_time(monkeypatch, caplog):
    monkeypatch.setattr(stalls, "SECONDS", 0.5)
    with caplog.at_level(logging.WARNING):
        list(evaluation_batches(Slow(0.05), image_size=16, batch_size=4, skipped=Skipped()))
        time.sleep(0.8)
    assert not caplog.records
