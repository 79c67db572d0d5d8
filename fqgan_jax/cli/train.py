"""`fqgan train`."""

from pathlib import Path

from fqgan_jax.cli.arguments import add_config
from fqgan_jax.storage import as_path, in_storage

OVERRIDES = True
MANY_PROCESSES = True
HELP = "Train a tokenizer or a generator; continues from the newest checkpoint if the work folder has one."
EXAMPLES = """\
  fqgan train --config configs/demo_tokenizer.py --workdir runs/tokenizer
  fqgan train --config configs/tokenizer_imagenet.py:k=3,f=16 --workdir runs/triple \\
      --config.data.source=/data/imagenet --config.data.batch_size=128
  fqgan train --config configs/demo_generator.py --workdir runs/generator \\
      --config.data.codes=runs/codes --config.sample.tokenizer=runs/tokenizer"""


def add_arguments(parser) -> None:
    """Adds the flags of `fqgan train`."""
    add_config(parser)
    parser.add_argument("--workdir", required=True, type=as_path, help="folder for checkpoints, logs and pictures")


def run(options) -> None:
    """Runs `fqgan train`."""
    from fqgan_jax.config import load_config
    from fqgan_jax.training.loop import train

    _keep_compiled(options.workdir / "compilation_cache")
    train(load_config(options.config, options.overrides), options.workdir)


def _keep_compiled(folder: Path) -> None:
    """Caches compiled programs, so that a run that is continued starts soon; a cache that the user has set stays.

    JAX itself reads and writes the two kinds of object storage that it knows.
    """
    import jax

    if in_storage(folder) and folder.protocol not in ("gs", "s3"):
        return
    if not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        jax.config.update("jax_compilation_cache_dir", str(folder.absolute()))
