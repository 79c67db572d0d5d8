"""The demo's configs, so small that they compile and train in seconds."""

from fqgan_jax.config import load_config

# 16x16 images, f = 2.
TINY_TOKENIZER = (
    *("model.codebook_size=32", "model.base_width=8", "model.multipliers=(1,2)", "model.z_channels=16"),
    *("model.adapter_heads=2", "data.image_size=16", "data.batch_size=8", "train.steps=4", "train.log_every=2"),
    *("train.checkpoint_every=2", "train.evaluate_every=4", "optimizer.warmup_steps=0"),
)
# A tokenizer without adapters and teachers compiles twice as fast: for tests that any model would do for.
PLAIN = ("model.factorization=split", "teachers=(None,None)")
TINY_GENERATOR = (
    *("model.width=32", "model.depth=2", "model.num_heads=2", "data.batch_size=8", "train.steps=4"),
    *("train.log_every=2", "train.checkpoint_every=2", "train.evaluate_every=4", "optimizer.warmup_steps=0"),
)


def tiny_tokenizer_config(*overrides: str, k: int = 2):
    """The demo's config with the fields of `TINY_TOKENIZER` and more."""
    fields = [f"--config.{field}" for field in (*TINY_TOKENIZER, *overrides)]
    return load_config(f"configs/demo_tokenizer.py:k={k}", fields)


def tiny_generator_config(*overrides: str):
    """The demo's config with the fields of `TINY_GENERATOR` and more."""
    fields = [f"--config.{field}" for field in (*TINY_GENERATOR, *overrides)]
    return load_config("configs/demo_generator.py", fields)
