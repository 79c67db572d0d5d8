"""The published ablation (docs/ablation.md): K at equal N and at equal bits, disentanglement and teacher on and off.

    fqgan ablate --config configs/ablation_tiny_imagenet.py --data tiny_imagenet --workdir runs/ablation

Tiny-ImageNet at 32x32, three seeds, 36 runs of about two and a half minutes on one CPU core each.
"""

from ml_collections import ConfigDict

# The same for all runs: the demo's tokenizer (f = 4), 12,800 images each.
COMMON = tuple(f"--config.train.{field}=800" for field in ("steps", "evaluate_every", "checkpoint_every"))

ENTRIES_OF_12_BITS = {1: 4096, 2: 64, 3: 16, 4: 8, 8: 3}  # 8 sub-codebooks of 3 entries have 12.7 bits


def get_config(arguments: str = ""):
    """No arguments."""
    config = ConfigDict()
    config.runs = {
        **{f"equal N: K={k}": _run(k, 256) for k in (1, 2, 3, 4, 8)},
        **{f"equal bits: K={k}": _run(k, entries) for k, entries in ENTRIES_OF_12_BITS.items()},
        "K=2, N=256: no disentanglement": _run(2, 256, "--config.loss.disentanglement=0"),
        "K=2, N=256: HOG teacher": _run(2, 256, teacher="hog"),
    }
    config.seeds = (0, 1, 2)  # every run is trained with each
    return config


def _run(k: int, entries: int, *overrides: str, teacher: str = "none") -> tuple[str, ...]:
    """A config file and its overrides."""
    file = f"configs/demo_tokenizer.py:k={k},teacher={teacher}"
    return file, f"--config.model.codebook_size={entries}", *COMMON, *overrides
