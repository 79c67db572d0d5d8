"""The model card of a model on the hub: how to load it, its data, metrics with their protocol, pictures, config."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fqgan_jax.evaluation.metrics import how_to_read
from fqgan_jax.hub import HubAddress

PICTURES = "pictures"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CardContent:
    """What a model card says beside the README of a native export.

    Attributes:
      address: of the repository.
      kind: of the model.
      license: of the weights, as the hub names licences; "" if it is not given.
      config: of the run that trained it; empty if it is not known.
      evaluations: results and protocol of each evaluation.
      pictures: names of PNG files in the folder `PICTURES`.
    """

    address: HubAddress
    kind: str
    license: str
    config: Mapping[str, Any]
    evaluations: Sequence[Mapping[str, Any]]
    pictures: Sequence[str]


def model_card(readme: str, content: CardContent) -> str:
    """Returns the text of a model card.

    Args:
      readme: README of the native export, whose code loads the model from the folder it is in.
      content: what else there is to say.
    """
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        library_name="fqgan_jax", license=content.license or None, tags=["fqgan", "jax", "flax", content.kind]
    )
    sections = {
        "Training": _training(content.config),
        "Metrics": "\n\n".join(map(_evaluation, content.evaluations)),
        "Pictures": "\n\n".join(f"![{Path(name).stem}]({PICTURES}/{name})" for name in content.pictures),
        "Config": _folded("config.json", content.config) if content.config else "",
    }
    title, _, text = readme.replace('"."', f'"{content.address}"').strip().partition("\n\n")
    name = content.address.repository.rpartition("/")[2]
    parts = [f"---\n{data.to_yaml()}\n---", f"# {name}", f"{title.lstrip('# ')} (`pip install fqgan-jax`).", text]
    parts += [f"## {title}\n\n{text}" for title, text in sections.items() if text]
    return "\n\n".join(parts) + "\n"


def _training(config: Mapping[str, Any]) -> str:
    """What the run saw, in a line each."""
    if not config:
        return ""
    data, train = config["data"], config["train"]
    names = {"source": "images", "codes": "codes", "image_size": "image size", "batch_size": "batch size"}
    lines = [f"{title}: `{data[name]}`" for name, title in names.items() if data.get(name)]
    return "\n".join(f"- {line}" for line in [*lines, f"steps: `{train['steps']}`", f"seed: `{config['seed']}`"])


def _evaluation(evaluation: Mapping[str, Any]) -> str:
    """A table of the numbers, and below it what they depend on."""
    rows = [f"| {name} | {value:.6g} | {how_to_read(name)} |" for name, value in evaluation["results"].items()]
    table = "\n".join(["| metric | value | |", "| --- | --- | --- |", *rows])
    return f"{table}\n\n{_folded('Protocol', evaluation['protocol'])}"


def _folded(title: str, content: Mapping[str, Any]) -> str:
    text = json.dumps(content, indent=2)
    return f"<details><summary>{title}</summary>\n\n```json\n{text}\n```\n\n</details>"
