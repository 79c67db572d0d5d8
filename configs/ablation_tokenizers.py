"""What teachers, disentanglement, nesting, quantizers and a perceptual loss change (docs/ablation.md).

    fqgan ablate --config configs/ablation_tokenizers.py --data tiny_imagenet --workdir runs/tokenizers

Tiny-ImageNet at 32x32, two seeds, equal budgets, about four minutes a run on one CPU core. Needs the extra `lite`.
"""

from ml_collections import ConfigDict

from fqgan_jax.config import parse_arguments


def get_config(arguments: str = ""):
    """Arguments: part (teachers, disentanglement, nested, quantizers, one_codebook, perceptual, or all), steps."""
    arguments = parse_arguments(arguments, part="all", steps=800)
    parts = {
        "teachers": {
            "teacher none": _run(),
            "teacher HOG": _run(teacher="hog"),
            "teacher EfficientNet-Lite0": _run("loss.feature=0.5", teacher="efficientnet-lite0"),
        },
        "disentanglement": {f"disentanglement {w}": _run(f"loss.disentanglement={w}.0") for w in (0, 1)},
        "nested": {"nested K=8": _run("model.nested=(0.4,)", k=8)} | {f"alone K={k}": _run(k=k) for k in (1, 4, 8)},
        "quantizers": {
            "simvq, 2 x 256": _run("model.quantizer=simvq"),
            "ibq, 2 x 256": _run("model.quantizer=ibq", "loss.commitment=1.0", "loss.codebook=0.25"),
            "lfq, 2 x 256": _run("model.quantizer=lfq", "model.temperature=1.0"),
            "fsq, 2 x 256": _run("model.quantizer=fsq", "model.code_dim=4"),
            "vq, rotation, 2 x 256": _run("model.gradient=rotation"),
        },
        "one_codebook": {
            "vq, 1 x 2^14": _large(),
            "simvq, 1 x 2^14": _large("model.quantizer=simvq"),
            "ibq, 1 x 2^14": _large("model.quantizer=ibq", "loss.commitment=1.0", "loss.codebook=0.25"),
            "lfq, 1 x 2^14": _large("model.quantizer=lfq", "model.code_dim=14", "model.temperature=1.0"),
            "fsq, 1 x 2^14": _large("model.quantizer=fsq", "model.code_dim=7"),
            "vq, 2 x 2^7": _run("model.codebook_size=128"),
        },
        "perceptual": {
            "perceptual EfficientNet-Lite0": _run(
                "loss.perceptual=0.1", "loss.perceptual_network=efficientnet-lite0", "frozen_dtype=float32"
            ),
        },
    }
    config = ConfigDict()
    chosen = list(parts) if arguments["part"] == "all" else [arguments["part"]]
    steps = tuple(f"--config.train.{field}={arguments['steps']}" for field in ("steps", "evaluate_every"))
    steps += (f"--config.train.checkpoint_every={arguments['steps']}",)
    config.runs = {name: (*run, *steps) for part in chosen for name, run in parts[part].items()}
    config.seeds = (0, 1)
    config.probe = True
    return config


def _run(*fields: str, k: int = 2, teacher: str = "none") -> tuple[str, ...]:
    """A config file and its overrides."""
    return f"configs/demo_tokenizer.py:k={k},teacher={teacher}", *(f"--config.{field}" for field in fields)


def _large(*fields: str) -> tuple[str, ...]:
    """One codebook of 2^14 entries."""
    return _run("model.codebook_size=16384", *fields, k=1)
