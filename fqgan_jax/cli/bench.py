"""`fqgan bench`."""

import json
import tempfile
from pathlib import Path

from fqgan_jax.cli.arguments import add_config, add_tokenizer_config, positive
from fqgan_jax.errors import UserError

HELP = "Time a part on the devices here: on noise, with random weights."
EXAMPLES = """\
  fqgan bench tokenizer-train --config.data.batch_size=16 --profile trace
  fqgan bench tokenizer-encode --config configs/demo_tokenizer.py:k=8,teacher=none --steps 20
  fqgan bench generator-train --config configs/generator_imagenet.py:size=B --json train.json
  fqgan bench generator-sample --config configs/demo_generator.py --tokenizer-config configs/demo_tokenizer.py
  fqgan bench quantizer --config configs/tokenizer_imagenet.py:k=3 --config.data.batch_size=32
  fqgan bench loader --data FOLDER --config.data.batch_size=32 --config.data.num_threads=2 --steps 30"""
CONFIGS = {"tokenizer": "configs/tokenizer_imagenet.py", "generator": "configs/generator_imagenet.py"}
PARTS = (
    *("tokenizer-train", "tokenizer-encode", "tokenizer-decode"),
    *("generator-train", "generator-sample", "loader", "quantizer"),
)


def add_arguments(parser) -> None:
    parser.add_argument("part", choices=PARTS, help="what is measured")
    add_config(parser, " or ".join(CONFIGS.values()))
    add_tokenizer_config(parser)
    parser.add_argument("--data", help="for loader: a folder of images, a subfolder a class (default: synthetic files)")
    parser.add_argument("--steps", type=positive, default=5, help="calls that are timed (default: %(default)s)")
    parser.add_argument("--warm-up", type=int, default=2, help="calls before that (default: %(default)s)")
    parser.add_argument(
        "--profile", type=Path, help="write a trace of the timed calls to this folder (xprof, Perfetto)"
    )
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    parser.set_defaults(config=None)


def run(options) -> None:
    from fqgan_jax.config import load_config
    from fqgan_jax.files import write_atomically

    task = "generator" if options.part.startswith("generator") else "tokenizer"
    options.config = options.config or CONFIGS[task]
    config = load_config(options.config, options.overrides)
    if config.task != task:
        raise UserError(f"{options.config} trains a {config.task}: fqgan bench {options.part} needs a {task}'s config.")
    values = _measured(options, config)
    for name, value in values.items():
        print(f"{name:<36} {value if isinstance(value, str) else f'{value:.4g}'}")
    if options.json:
        what = {"part": options.part, "config": options.config, "overrides": options.overrides, **_where()}
        write_atomically(options.json, json.dumps(what | {"values": values}, indent=2) + "\n")


def _measured(options, config) -> dict[str, float | str]:
    from fqgan_jax.config import load_config
    from fqgan_jax.performance import bench
    from fqgan_jax.performance.measure import Clock
    from fqgan_jax.training.from_config import tokenizer_fields

    clock = Clock(options.warm_up, options.steps, options.profile)
    if options.part == "loader":
        return _bench_loader(options, config)
    if options.part == "quantizer":
        fields = tokenizer_fields(config)
        tokens = config.data.batch_size * fields["grid"][0] * fields["grid"][1]
        sizes = (fields["num_codebooks"], fields["codebook_size"], fields["code_dim"], tokens)
        return bench.bench_quantizer(*sizes, config.model.chunk_tokens, clock)
    if options.part in ("tokenizer-encode", "tokenizer-decode"):
        return bench.bench_tokenizer(config, options.part.removeprefix("tokenizer-"), clock)
    tokenizer_config = load_config(options.tokenizer_config)
    run = bench.bench_sampling if options.part == "generator-sample" else bench.bench_training
    return run(config, tokenizer_config, clock)


def _bench_loader(options, config) -> dict[str, float]:
    from fqgan_jax.data.sources.folder import ImageFolder
    from fqgan_jax.performance.bench_loader import bench_loader, synthetic_folder
    from fqgan_jax.training.from_config import check_reading

    check_reading(config.data)
    with tempfile.TemporaryDirectory(prefix="fqgan_bench_") as temporary:
        folder = Path(options.data) if options.data else synthetic_folder(Path(temporary))
        return bench_loader(ImageFolder(folder, "train", 0), config.data, options.steps)


def _where() -> dict:
    """The devices that were measured."""
    import jax

    return {"device": jax.devices()[0].device_kind, "devices": jax.device_count(), "jax": jax.__version__}
