"""What the heads, the order of training and the embeddings of a generator change (docs/generators.md).

    fqgan tokenize --checkpoint runs/tokenizer --data tiny_imagenet --split both --out runs/codes
    fqgan ablate --config configs/ablation_generators.py:codes=runs/codes,tokenizer=runs/tokenizer,reference=FOLDER \\
        --workdir runs/generators

Codes of one tokenizer, two seeds, equal budgets.
"""

from ml_collections import ConfigDict

from fqgan_jax.config import parse_arguments, whole


def get_config(arguments: str = ""):
    """Arguments: part (heads, order, embeddings, or all), steps, evaluations, samples (that are compared with images of
    reference, 0: none), codes, tokenizer, reference.
    """
    defaults = {"part": "all", "steps": whole(1500, 10), "evaluations": whole(5, 1), "samples": whole(0, 0)}
    arguments = parse_arguments(arguments, **defaults, codes="runs/codes", tokenizer="runs/tokenizer", reference="")
    steps = arguments["steps"]
    paper = {"transformer (the paper)": ()}
    parts = {
        "heads": paper | {name: (f"model.prediction={name}",) for name in ("parallel", "flattened", "delayed")},
        "order": paper | {"annealed order": (f"order_annealing=({steps // 2},{steps * 3 // 4})",)},
        "embeddings": paper | {"embeddings from the codebook": ("model.embeddings=codebook",)},
    }
    shared = {
        "data.codes": arguments["codes"],
        "sample.tokenizer": arguments["tokenizer"],
        "sample.count": arguments["samples"],
        "sample.reference": arguments["reference"],
        "train.steps": steps,
        "train.checkpoint_every": steps,
        "train.evaluate_every": steps // arguments["evaluations"],
        "evaluation.samples": steps,
        "evaluation.pictures": steps,
    }
    config = ConfigDict()
    chosen = list(parts) if arguments["part"] == "all" else [arguments["part"]]
    overrides = tuple(f"--config.{field}={value}" for field, value in shared.items())
    config.runs = {
        name: ("configs/demo_generator.py", *(f"--config.{field}" for field in fields), *overrides)
        for part in chosen
        for name, fields in parts[part].items()
    }
    config.seeds = (0, 1)
    return config
