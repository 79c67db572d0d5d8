"""`fqgan bench`."""

import dataclasses
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from fqgan_jax.cli.arguments import add_config, add_tokenizer_config, natural, positive
from fqgan_jax.config import Registry
from fqgan_jax.errors import UserError
from fqgan_jax.storage import as_path

OVERRIDES = True
HELP = "Time a part on the devices here: on noise, with random weights."
EXAMPLES = """\
  fqgan bench tokenizer-train --config.data.batch_size=16 --profile trace
  fqgan bench tokenizer-encode --config configs/demo_tokenizer.py:k=8,teacher=none --steps 20
  fqgan bench generator-train --config configs/generator_imagenet.py:size=B --json train.json
  fqgan bench generator-sample --config configs/demo_generator.py --tokenizer-config configs/demo_tokenizer.py
  fqgan bench quantizer --config configs/tokenizer_imagenet.py:k=3 --config.data.batch_size=32
  fqgan bench loader --data FOLDER --config.data.batch_size=32 --config.data.num_threads=2 --steps 30"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """Something that is measured.

    Attributes:
      measure: function of the options and the config; returns numbers by name.
      task: that the config trains.
      config: default config file.
    """

    measure: Callable
    task: str
    config: str


def _row(measure: Callable, *, task: str, config: str) -> Part:
    return Part(measure=measure, task=task, config=config)


parts: Registry[Part] = Registry("part of fqgan bench", _row)
TOKENIZER = {"task": "tokenizer", "config": "configs/tokenizer_imagenet.py"}
GENERATOR = {"task": "generator", "config": "configs/generator_imagenet.py"}


def add_arguments(parser) -> None:
    """Adds the flags of `fqgan bench`."""
    parser.add_argument("part", choices=tuple(parts), help="what is measured")
    add_config(parser, " or ".join((TOKENIZER["config"], GENERATOR["config"])))
    add_tokenizer_config(parser)
    parser.add_argument("--data", help="for loader: a folder of images, a subfolder a class (default: synthetic files)")
    parser.add_argument("--steps", type=positive, default=5, help="calls that are timed (default: %(default)s)")
    parser.add_argument("--warm-up", type=natural, default=2, help="calls before that (default: %(default)s)")
    parser.add_argument(
        "--profile", type=Path, help="write a trace of the timed calls to this folder (xprof, Perfetto)"
    )
    parser.add_argument("--json", type=as_path, help="also write the numbers here")
    parser.set_defaults(config=None)


def run(options) -> None:
    """Runs `fqgan bench`."""
    from fqgan_jax.config import load_config
    from fqgan_jax.files import write_atomically

    part = parts[options.part]
    options.config = options.config or part.config
    config = load_config(options.config, options.overrides)
    if config.task != part.task:
        raise UserError(
            f"{options.config} trains a {config.task}: fqgan bench {options.part} needs a {part.task}'s config."
        )
    values = part.measure(options, config)
    for name, value in values.items():
        print(f"{name:<36} {value if isinstance(value, str) else f'{value:.4g}'}")
    if options.json:
        run_of = {"part": options.part, "config": options.config, "overrides": options.overrides, **_where()}
        write_atomically(options.json, json.dumps(run_of | {"values": values}, indent=2) + "\n")


@parts("tokenizer-train", **TOKENIZER)
@parts("generator-train", **GENERATOR)
def _training(options, config) -> Mapping[str, float | str]:
    from fqgan_jax.performance.bench import bench_training

    return bench_training(config, _tokenizer_config(options), _clock(options))


@parts("tokenizer-encode", **TOKENIZER)
def _encoding(options, config) -> Mapping[str, float | str]:
    from fqgan_jax.performance.bench import bench_inference
    from fqgan_jax.performance.inference import encoding

    return bench_inference(encoding(config), config.data.batch_size, _clock(options))


@parts("tokenizer-decode", **TOKENIZER)
def _decoding(options, config) -> Mapping[str, float | str]:
    from fqgan_jax.performance.bench import bench_inference
    from fqgan_jax.performance.inference import decoding

    return bench_inference(decoding(config), config.data.batch_size, _clock(options))


@parts("generator-sample", **GENERATOR)
def _sampling(options, config) -> Mapping[str, float | str]:
    from fqgan_jax.performance.bench import bench_sampling
    from fqgan_jax.performance.inference import sampling

    return bench_sampling(sampling(config, _tokenizer_config(options)), _clock(options))


@parts("loader", **TOKENIZER)
def _loader(options, config) -> Mapping[str, float | str]:
    from fqgan_jax.data.sources.folder import ImageFolder
    from fqgan_jax.data.stream import Stream
    from fqgan_jax.performance.bench_loader import bench_loader, synthetic_folder

    with tempfile.TemporaryDirectory(prefix="fqgan_bench_") as temporary:
        folder = Path(options.data) if options.data else synthetic_folder(Path(temporary))
        data = config.data
        return bench_loader(
            ImageFolder(str(folder), "train", validation_fraction=0),
            Stream(batch_size=data.batch_size, num_threads=data.num_threads, num_workers=data.num_workers),
            image_size=data.image_size,
            full_decode=data.full_decode,
            num_steps=options.steps,
        )


@parts("quantizer", **TOKENIZER)
def _quantizer(options, config) -> Mapping[str, float | str]:
    from fqgan_jax.models.fields import build_module
    from fqgan_jax.performance.bench import bench_quantizer
    from fqgan_jax.training.from_config import tokenizer_fields

    module = build_module("tokenizer", tokenizer_fields(config))
    tokens = config.data.batch_size * module.grid[0] * module.grid[1]
    return bench_quantizer(module.quantizer, module.quantizer_sizes(), tokens=tokens, clock=_clock(options))


def _clock(options):
    from fqgan_jax.performance.measure import Clock

    return Clock(warm_up=options.warm_up, repeats=options.steps, profile=options.profile)


def _tokenizer_config(options):
    from fqgan_jax.config import load_config

    return load_config(options.tokenizer_config)


def _where() -> dict:
    """The devices that were measured."""
    import jax

    return {"device": jax.devices()[0].device_kind, "devices": jax.device_count(), "jax": jax.__version__}
