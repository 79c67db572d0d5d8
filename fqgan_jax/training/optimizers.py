"""Optimizers from their configs."""

import jax
import optax


def learning_rate_schedule(config, steps: int) -> optax.Schedule:
    """Linear warm-up, then constant or a cosine to zero at the last step."""
    after = max(steps - config.warmup_steps, 1)
    rates = {
        "constant": optax.constant_schedule(config.learning_rate),
        "cosine": optax.cosine_decay_schedule(config.learning_rate, after),
    }
    if not config.warmup_steps:
        return rates[config.schedule]
    warmup = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
    return optax.join_schedules([warmup, rates[config.schedule]], [config.warmup_steps])


def make_optimizer(config, steps: int) -> optax.GradientTransformation:
    """AdamW (Adam where the decay is 0, decay on matrices only) after clipping the global gradient norm."""
    matrices = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.adamw(
            learning_rate_schedule(config, steps),
            config.b1,
            config.b2,
            weight_decay=config.weight_decay,
            mask=matrices,
        ),
    )
