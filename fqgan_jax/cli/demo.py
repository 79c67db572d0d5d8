"""`fqgan demo`."""

from pathlib import Path

HELP = "From images to new samples in under ten minutes on two CPU cores; writes pictures and report.html."
EXAMPLES = """\
  fqgan demo
  fqgan demo --data /data/my_photos --workdir runs/my_photos"""


def add_arguments(parser) -> None:
    parser.add_argument(
        "--data",
        default="photos",
        help='a folder of images with one subfolder a class, or "photos" (bundled; the default)',
    )
    parser.add_argument("--workdir", type=Path, default=Path("runs/demo"), help="default: %(default)s")


def run(options) -> None:
    from fqgan_jax.demo import run_demo

    print(f"Open {run_demo(options.data, options.workdir)} in a browser.")
