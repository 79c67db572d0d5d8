"""`fqgan train`."""

from pathlib import Path

HELP = "Train a tokenizer or a generator, or continue where the work folder stands."
EXAMPLES = """\
  fqgan train --config configs/demo_tokenizer.py --workdir runs/tokenizer
  fqgan train --config configs/tokenizer_imagenet.py:k=3,f=16 --workdir runs/triple \\
      --config.data.source=/data/imagenet --config.data.batch_size=128
  fqgan train --config configs/demo_generator.py --workdir runs/generator \\
      --config.data.codes=runs/codes --config.sample.tokenizer=runs/tokenizer"""


def add_arguments(parser) -> None:
    parser.add_argument("--config", required=True, help="config file, with its arguments after a colon: FILE[:k=3,...]")
    parser.add_argument("--workdir", required=True, type=Path, help="takes checkpoints, logs and pictures")
    parser.add_argument(
        "--config.FIELD", metavar="VALUE", dest="config_field", help="change any field of the config (repeatable)"
    )


def run(options) -> None:
    from fqgan_jax.config import load_config
    from fqgan_jax.training.loop import train

    train(load_config(options.config, options.overrides), options.workdir)
