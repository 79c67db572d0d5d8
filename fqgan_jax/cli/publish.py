"""`fqgan publish`."""

from fqgan_jax.cli.arguments import add_checkpoint
from fqgan_jax.storage import as_path

HELP = "Upload a model to the Hugging Face hub, with a model card: how to load it, data, metrics, pictures, config."
EXAMPLES = """\
  fqgan publish --checkpoint runs/tokenizer hf:OWNER/REPO --out card  # to look at it first
  fqgan publish --checkpoint runs/tokenizer@best hf:OWNER/REPO --evaluation rfid.json --license apache-2.0
Whoever has the address then loads it: fqgan reconstruct --checkpoint hf:OWNER/REPO --out pictures photo.jpg
The token is that of `hf auth login`, or HF_TOKEN."""


def add_arguments(parser) -> None:
    """Adds the flags of `fqgan publish`."""
    add_checkpoint(parser, "tokenizer or generator")
    parser.add_argument("to", metavar="hf:OWNER/REPO[@BRANCH]", help="repository, which is made if there is none yet")
    parser.add_argument(
        "--evaluation",
        action="append",
        default=[],
        type=as_path,
        metavar="FILE.json",
        help="what fqgan evaluate --out wrote about this model (repeatable; default: the run's last evaluation)",
    )
    parser.add_argument("--license", default="", help="of the weights, as the hub names it: apache-2.0, …")
    parser.add_argument("--private", action="store_true", help="a repository that is made is private")
    parser.add_argument("--out", type=as_path, metavar="FOLDER", help="write the files there, and upload nothing")


def run(options) -> None:
    """Uploads the model, or writes what would be uploaded."""
    from fqgan_jax.export.publishing import Publication, publish, write_publication
    from fqgan_jax.hub import HubAddress

    publication = Publication(
        checkpoint=as_path(options.checkpoint),
        address=HubAddress.parse(options.to),
        evaluations=options.evaluation,
        license=options.license,
    )
    if options.out:
        write_publication(publication, options.out)
        print(f"{options.to} -> {options.out}, not uploaded")
    else:
        print(f"{options.checkpoint} -> {publish(publication, private=options.private)}")
