"""Where configs end: checks their values and makes modules and settings of them.

Everything below this file takes modules, dataclasses and numbers.
"""

from collections.abc import Mapping
from typing import Any, cast

import flax.linen as nn
import jax.numpy as jnp
import optax

from fqgan_jax import losses
from fqgan_jax.config.registry import nearest
from fqgan_jax.data.transforms import Size, height_and_width
from fqgan_jax.errors import check
from fqgan_jax.losses.adversarial import adversarial_losses
from fqgan_jax.losses.rows import Loss
from fqgan_jax.models.discriminators import discriminators
from fqgan_jax.models.far import FAR
from fqgan_jax.models.fields import build_module, downsampling
from fqgan_jax.models.fqgan import FQGAN
from fqgan_jax.models.heads import heads
from fqgan_jax.models.predictions import predictions
from fqgan_jax.models.quantizers import CodebookQuantizer, quantizers
from fqgan_jax.pretrained.perceptual import PerceptualNetwork, perceptual_networks
from fqgan_jax.pretrained.teachers import teachers
from fqgan_jax.training.adversarial import AdversarialTraining
from fqgan_jax.training.generator_step import GeneratorTraining
from fqgan_jax.training.nested import nested_probabilities
from fqgan_jax.training.optimizers import OptimizerSettings, learning_rate_schedule, make_tx, schedules
from fqgan_jax.training.perturbation import Perturbation
from fqgan_jax.training.tokenizer_step import TokenizerTraining


def tokenizer_fields(config) -> dict:
    """Returns the fields of the `FQGAN` module that a config describes.

    Raises:
      UserError: sizes that cannot work together.
    """
    model, names, size = config.model, config.teachers, image_size(config.data)
    f = downsampling(model.multipliers)
    K = model.num_codebooks
    check(
        all(side % f == 0 for side in height_and_width(size)),
        f"data.image_size={size} is not divisible by the tokenizer's downsampling f={f} "
        f"(model.multipliers has {len(model.multipliers)} levels): choose a multiple of {f}.",
    )
    check(
        len(names) == K,
        f"teachers={names} names {len(names)} teacher(s) for model.num_codebooks={K}: give one per sub-codebook, "
        "None for those without.",
    )
    for name in filter(None, names):
        teachers.check(name, "teachers")
    widths = tuple(None if name is None else teachers[name].width for name in names)
    for teacher, feature_width in zip(names, widths, strict=True):
        check(
            not feature_width or feature_width % model.feature_heads == 0,
            f"The feature width {feature_width} of teacher {teacher} is not divisible by "
            f"model.feature_heads={model.feature_heads}.",
        )
    nested = nested_probabilities(model.nested, K)
    fields = dict(model) | {
        "grid": tuple(side // f for side in height_and_width(size)),
        "feature_widths": widths,
        "nested": nested,
    }
    module = build_module("tokenizer", fields)
    heads[module.factorization].check_sizes(module.head_sizes())
    quantizers[module.quantizer].check_sizes(module.quantizer_sizes())
    return fields


def image_size(data) -> Size:
    """Returns the size of the crops that a config's section `data` describes."""
    size = data.image_size
    return size if isinstance(size, int) else (size[0], size[1])


def build_discriminator(config) -> nn.Module | None:
    """Returns the discriminator of a tokenizer's config; None if it has none.

    Raises:
      UserError: a choice that does not exist, or one that the images' size does not allow.
    """
    adversarial, size = config.adversarial, height_and_width(image_size(config.data))
    adversarial_losses.check(adversarial.loss, "adversarial.loss")
    if adversarial.discriminator == "none":
        return None
    discriminators.check(adversarial.discriminator, "adversarial.discriminator")
    discriminator = discriminators[adversarial.discriminator]
    discriminator.check_image_size(size)
    return discriminator.from_width(adversarial.width, dtype=jnp.dtype(config.model.dtype))


def generator_fields(
    config, *, num_codebooks: int, codebook_size: int, num_classes: int, grid: tuple[int, int], entry_dim: int = 0
) -> dict:
    """Returns the fields of the `FAR` module for a config and the sizes of its codes.

    Args:
      config: of a generator.
      num_codebooks: K.
      codebook_size: N.
      num_classes: classes of the code cache.
      grid: (h, w).
      entry_dim: d of the tokenizer, if `model.embeddings` begins with its entries.

    Raises:
      UserError: sizes that cannot work together.
    """
    model, positions = config.model, grid[0] * grid[1]
    head_width = model.width // model.num_heads
    check(
        model.width % model.num_heads == 0 and head_width % 4 == 0,
        f"model.width={model.width} must split into model.num_heads={model.num_heads} heads of a multiple of 4 "
        "channels (the rotary embedding turns pairs by row and by column).",
    )
    check(
        positions + 1 >= num_codebooks,
        f"{num_codebooks} sub-codebooks need a grid of at least {num_codebooks - 1} positions; this one has "
        f"{positions}.",
    )
    predictions.check(model.prediction, "model.prediction")
    annealed = bool(order_annealing(config))
    check(
        not annealed or predictions[model.prediction].any_order,
        f"order_annealing={config.order_annealing} permutes positions, but model.prediction={model.prediction!r} needs "
        "them row by row: choose another prediction, or order_annealing=().",
    )
    codes = {"num_codebooks": num_codebooks, "codebook_size": codebook_size, "num_classes": num_classes, "grid": grid}
    fields = {name: value for name, value in model.items() if name != "embeddings"}
    return fields | codes | {"target_positions": annealed, "entry_dim": entry_dim}


def order_annealing(config) -> tuple[int, int] | None:
    """Returns the steps between which the share of permuted examples falls; None if none are permuted.

    Raises:
      UserError: anything but two steps in order.
    """
    steps = tuple(config.order_annealing)
    check(
        not steps or steps[0] <= steps[1],
        f"order_annealing={steps}: give two steps in order, (200_000, 300_000), or () for none.",
    )
    return steps or None


def check_batch_size(batch_size: int, shards: int) -> None:
    """Raises `UserError` if a global batch does not divide over the devices that split it."""
    check(
        batch_size % shards == 0,
        f"data.batch_size={batch_size} does not divide over {shards} device(s): choose a multiple of {shards}.",
    )


def check_batch_parts(config, num_devices: int) -> None:
    """Raises `UserError` if `train.accumulate` or `loss.feature_group` does not divide a tokenizer's batch."""
    size, parts, group = config.data.batch_size, config.train.accumulate, config.loss.feature_group
    check(
        parts >= 1 and size % (parts * num_devices) == 0,
        f"train.accumulate={parts} does not divide the {size // num_devices} examples that each of {num_devices} "
        f"device(s) gets of data.batch_size={size}.",
    )
    check(
        group >= 0 and (group == 0 or size % group == 0),
        f"loss.feature_group={group} does not divide data.batch_size={size}.",
    )


def tokenizer_training(
    config, fields: dict, *, num_devices: int, perceptual: PerceptualNetwork | None
) -> TokenizerTraining:
    """Returns everything constant that the tokenizer's step depends on.

    Args:
      config: of a tokenizer.
      fields: of its module.
      num_devices: devices that share a batch.
      perceptual: the network of the perceptual loss, if it has a weight.

    Raises:
      UserError: a weight of a loss that does not exist, or an unknown choice.
    """
    weights, options = loss_weights(config.loss, losses.tokenizer)
    fixed = fixed_patterns(config)
    # `chunk_tokens` is a device's share; distances exist on all devices at the same time.
    module = build_module("tokenizer", fields | {"chunk_tokens": config.model.chunk_tokens * num_devices})

    return TokenizerTraining(
        module=cast(FQGAN, module),
        tx=make_tx(optimizer_settings(config.optimizer, config.train.steps), fixed),
        loss_weights=weights,
        loss_options=options,
        perceptual_distance=None if perceptual is None else perceptual.distance,
        adversarial=adversarial_training(config),
        ema_decay=config.optimizer.ema_decay,
        accumulate=config.train.accumulate,
        reseed_after=config.reseed_after,
        perturbation=latent_perturbation(config),
        fixed=fixed,
        seed=config.seed,
    )


def fixed_patterns(config) -> tuple[str, ...]:
    """Returns the patterns of the parameters that a tokenizer's training leaves as they are.

    These are the config's `train.freeze`, and what the quantizer itself keeps constant.
    """
    constant = quantizers[config.model.quantizer].fixed
    return (*config.train.freeze, *(f"quantizer/{name}" for name in constant))


def latent_perturbation(config) -> Perturbation | None:
    """Returns how a tokenizer's codes are perturbed in training; None if none is.

    Raises:
      UserError: a share out of range, more entries than there are, or a quantizer without a table of entries.
    """
    section, model = config.perturbation, config.model
    for name in ("tokens", "images"):
        check(0 <= section[name] <= 1, f"perturbation.{name}={section[name]} is no probability: choose 0 to 1.")
    if not section.tokens:
        return None
    check(
        issubclass(quantizers[model.quantizer], CodebookQuantizer),
        f"perturbation.tokens={section.tokens} replaces codes by near entries of a table, and "
        f"model.quantizer={model.quantizer!r} has none: set perturbation.tokens=0.",
    )
    check(
        1 <= section.nearest <= model.codebook_size,
        f"perturbation.nearest={section.nearest}: choose 1 to model.codebook_size={model.codebook_size} entries.",
    )
    return Perturbation(tokens=section.tokens, images=section.images, nearest=section.nearest)


def perceptual_network(config) -> PerceptualNetwork | None:
    """Returns the network of a tokenizer's perceptual loss; None if the loss has no weight.

    Raises:
      UserError: an unknown network.
    """
    name = config.loss.perceptual_network
    perceptual_networks.check(name, "loss.perceptual_network")
    return perceptual_networks[name].with_dtype(config.frozen_dtype) if config.loss.perceptual else None


def adversarial_training(config) -> AdversarialTraining | None:
    """Returns the discriminator's side of a tokenizer's config; None if it has no discriminator."""
    module, adversarial = build_discriminator(config), config.adversarial
    if module is None:
        return None
    check(
        0 <= adversarial.discriminator_start <= adversarial.start,
        f"adversarial.discriminator_start={adversarial.discriminator_start}: the discriminator learns from a step on "
        f"that is not after adversarial.start={adversarial.start}; 0 is that step itself.",
    )
    return AdversarialTraining(
        module=module,
        tx=make_tx(optimizer_settings(adversarial.optimizer, config.train.steps)),
        loss=adversarial.loss,
        weight=adversarial.weight,
        start_step=adversarial.start,
        discriminator_start_step=adversarial.discriminator_start,
        ramp_steps=adversarial.ramp,
        adaptive=adversarial.adaptive,
        largest_adaptive_weight=adversarial.adaptive_largest,
        lecam=adversarial.lecam,
        lecam_decay=adversarial.lecam_decay,
        r1=adversarial.r1,
    )


def generator_training(config, fields: dict) -> GeneratorTraining:
    """Returns everything constant that the generator's step depends on.

    Raises:
      UserError: a weight of a loss that does not exist, or an unknown choice.
    """
    weights, _ = loss_weights(config.loss, losses.generator)
    return GeneratorTraining(
        module=cast(FAR, build_module("generator", fields)),
        tx=make_tx(optimizer_settings(config.optimizer, config.train.steps), config.train.freeze),
        loss_weights=weights,
        fixed=config.train.freeze,
        class_dropout=config.class_dropout,
        order_annealing=order_annealing(config),
        ema_decay=config.optimizer.ema_decay,
        seed=config.seed,
    )


def loss_weights(section, rows: Mapping[str, Loss]) -> tuple[dict[str, float], dict[str, Any]]:
    """Splits a config's `loss` section into the weights of the rows and the rows' options.

    Raises:
      UserError: a field that is neither; the nearest one is named.
    """
    options = {option for row in rows.values() for option in row.options}
    for name in section:
        check(
            name in rows or name in options,
            f"loss.{name} is the weight of no loss{nearest(name, [*rows, *options])} "
            "If a file of yours adds it, name that file with --plugin FILE or import it in the config.",
        )
    weights = {name: section[name] for name in section if name in rows}
    return weights, {name: section[name] for name in section if name in options}


def optimizer_settings(section, total_steps: int) -> OptimizerSettings:
    """Returns the settings of one of a config's optimizer sections.

    Raises:
      UserError: an unknown schedule.
    """
    schedules.check(section.schedule, "optimizer.schedule")
    check(0 <= section.floor <= 1, f"optimizer.floor={section.floor} is no share of the peak: choose 0 to 1.")
    check(
        0 <= section.decay_steps <= total_steps,
        f"optimizer.decay_steps={section.decay_steps}: choose 0 to train.steps={total_steps}.",
    )
    return OptimizerSettings(
        learning_rate=section.learning_rate,
        schedule=section.schedule,
        warmup_steps=section.warmup_steps,
        total_steps=total_steps,
        floor=section.floor,
        decay_steps=section.decay_steps,
        b1=section.b1,
        b2=section.b2,
        weight_decay=section.weight_decay,
        clip=section.clip,
    )


def learning_rates(config, num_steps: int) -> dict[str, optax.Schedule]:
    """Returns the learning rates of a run of `num_steps` steps by name: the model's, and the discriminator's if any."""
    sections = {"learning_rate": config.optimizer}
    if "adversarial" in config and config.adversarial.discriminator != "none":
        sections["discriminator_learning_rate"] = config.adversarial.optimizer
    return {name: learning_rate_schedule(optimizer_settings(section, num_steps)) for name, section in sections.items()}
