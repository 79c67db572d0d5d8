"""How many sub-codebooks, of what kind? The demo's tokenizer, a run for every combination of the arguments.

    fqgan ablate --config configs/ablation_codebooks.py --workdir runs/ablation
    fqgan ablate --config configs/ablation_codebooks.py:k=1-2-4,n=64-256,teacher=none-hog --workdir runs/grid

About four minutes a run on two CPU cores.
"""

import itertools

from ml_collections import ConfigDict

from fqgan_jax.config import parse_arguments
from fqgan_jax.models.heads import heads


def get_config(arguments: str = ""):
    """Arguments, each one value or several with dashes between: k (sub-codebooks), n (entries of each), d (dimensions
    of an entry), factorization (adapters, split), disentanglement (its weight), teacher (none, hog).
    """
    choices = {"k": "1-2", "n": "256", "d": "8", "factorization": "adapters", "disentanglement": "0.1"}
    choices = parse_arguments(arguments, **choices, teacher="none")
    axes = {name: values.split("-") for name, values in choices.items()}
    config = ConfigDict()
    # A run's name, its config file and overrides; the same seed gives the same batches in all of them.
    config.runs = {}
    for values in itertools.product(*axes.values()):
        run = dict(zip(axes, values, strict=True))
        name = ", ".join(f"{axis}={value}" for axis, value in run.items() if len(axes[axis]) > 1 or axis == "k")
        config.runs[name] = _run(**run)
    config.seeds = (0, 1)  # every run is trained with each
    return config


def _run(*, k: str, n: str, d: str, factorization: str, disentanglement: str, teacher: str) -> tuple[str, ...]:
    fields = {"model.codebook_size": n, "model.code_dim": d, "model.factorization": factorization}
    fields |= {"loss.disentanglement": disentanglement, "train.steps": 1000}
    z_channels = heads[factorization].required_z_channels(int(k), int(d))
    if z_channels is not None:
        fields["model.z_channels"] = z_channels
    overrides = (f"--config.{field}={value}" for field, value in fields.items())
    return f"configs/demo_tokenizer.py:k={k},teacher={teacher}", *overrides
