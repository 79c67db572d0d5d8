"""How many sub-codebooks? The demo's tokenizer with K = 1, 2, ..., everything else equal (no teacher).

    fqgan ablate --config configs/ablation_codebooks.py --workdir runs/ablation

About four minutes a run on two CPU cores.
"""

from ml_collections import ConfigDict

from fqgan_jax.config import parse_arguments


def get_config(arguments: str = ""):
    """Arguments: k, the numbers of sub-codebooks with dashes between; n, the entries of each."""
    arguments = parse_arguments(arguments, k="1-2", n=256)
    config = ConfigDict()
    # A run's name, its config file and overrides; the same seed gives the same batches in all of them.
    config.runs = {
        f"K={k}": (
            f"configs/demo_tokenizer.py:k={k},teacher=none",
            f"--config.model.codebook_size={arguments['n']}",
            "--config.train.steps=1000",
        )
        for k in arguments["k"].split("-")
    }
    config.seeds = (0, 1)  # every run is trained with each
    return config
