"""Publishes a model on the hub: a native export with a model card, the run's config, evaluations and pictures."""

import dataclasses
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fqgan_jax.api import Model, load_model
from fqgan_jax.checkpoints import CheckpointName, checkpoint_step, fingerprint
from fqgan_jax.config import to_json
from fqgan_jax.config.rules import Fields, check_complete
from fqgan_jax.errors import check
from fqgan_jax.export.exporting import export_checkpoint
from fqgan_jax.export.model_card import PICTURES, CardContent, model_card
from fqgan_jax.files import read_json
from fqgan_jax.hub import HubAddress, local_checkpoint, upload
from fqgan_jax.training.logging import read_log, validation_metrics
from fqgan_jax.training.workdir import CONFIG, saved_config

_README = "README.md"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Publication:
    """What is published, and where.

    Attributes:
      checkpoint: whatever `api.load_model` takes.
      address: the repository on the hub.
      evaluations: files that `fqgan evaluate --out` wrote about this model; without any, the card has the numbers that
        the run's last evaluation logged.
      license: of the weights, as the hub names licences; "" if it is not given.
    """

    checkpoint: Path
    address: HubAddress
    evaluations: Sequence[Path] = ()
    license: str = ""


def publish(publication: Publication, *, private: bool = False) -> str:
    """Uploads a model with its card; returns the address of the commit's page.

    Raises:
      UserError: there is no model, an evaluation is of another one, or the hub does not take it.
    """
    with tempfile.TemporaryDirectory(prefix="fqgan_") as temporary:
        folder = Path(temporary) / "model"
        write_publication(publication, folder)
        return upload(folder, publication.address, private=private)


def write_publication(publication: Publication, out: Path) -> None:
    """Writes the folder that `publish` uploads; it must not exist.

    Raises:
      UserError: there is no model, an evaluation is of another one, or the folder exists.
    """
    check(not publication.address.file, f"{publication.address} names a file: give the repository alone.")
    checkpoint = local_checkpoint(publication.checkpoint)
    model = load_model(checkpoint)
    evaluations = [_read_evaluation(path, model) for path in publication.evaluations]
    name = CheckpointName.parse(checkpoint)
    config, pictures = {}, []
    if name.is_of_a_run:
        config = json.loads(to_json(saved_config(name.workdir)))
        evaluations = evaluations or _logged(checkpoint, config)
        pictures = sorted((name.workdir / "pictures").glob("*.png"))
    export_checkpoint(checkpoint, "native", out)
    if config:
        (out / CONFIG).write_text(json.dumps(config, indent=2))
    if pictures:
        (out / PICTURES).mkdir()
    for picture in pictures:
        (out / PICTURES / picture.name).write_bytes(picture.read_bytes())
    content = CardContent(
        address=publication.address,
        kind=model.kind,
        license=publication.license,
        config=config,
        evaluations=evaluations,
        pictures=[picture.name for picture in pictures],
    )
    (out / _README).write_text(model_card((out / _README).read_text(), content))


def _read_evaluation(path: Path, model: Model) -> dict[str, Any]:
    """An evaluation that `fqgan evaluate --out` wrote; UserError if it is of another model."""
    evaluation = read_json(path, remedy="write it again with fqgan evaluate --out")
    check_complete(evaluation, {"results": Fields(), "protocol": Fields()}, where=f"{path}: ", remedy="write it again")
    measured = evaluation["protocol"].get(model.kind)
    check(
        measured in _fingerprints(model),
        f"{path} is not an evaluation of this {model.kind}: it measured {measured or 'something else'}.",
    )
    return evaluation


def _fingerprints(model: Model) -> tuple[str, ...]:
    """The marks by which evaluations name a model."""
    own = getattr(model, "fingerprint", None)
    return tuple(filter(None, (own, fingerprint({}, model.params))))


def _logged(checkpoint: Path, config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The last evaluation during training up to the checkpoint, if there was one."""
    step = checkpoint_step(checkpoint)
    results: dict[str, float] = {}
    measured = 0
    for line in read_log(CheckpointName.parse(checkpoint).workdir):
        found = validation_metrics(line)
        if found and line["step"] <= step:
            results, measured = results | found, line["step"]
    data = {name: config["data"][name] for name in ("source", "codes", "image_size") if config["data"].get(name)}
    count = config["train"].get("evaluate_count")
    protocol = {"task": "evaluation in training", "step": measured, "split": "validation", "data": data}
    return [{"results": results, "protocol": protocol | ({"count": count} if count else {})}] if results else []
