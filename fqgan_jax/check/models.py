"""Parts that run on one device: both models, both training steps, sampling, bfloat16."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from fqgan_jax.check.numbers import Numbers, summary
from fqgan_jax.check.parts import BFLOAT16_ROUNDING, GRADIENT_ROUNDING, ROUNDING, parts
from fqgan_jax.check.subjects import BATCH_SIZE, GUIDANCE, Subjects, noise


@parts("encode", bound=ROUNDING, stored=True)
def encode(subjects: Subjects) -> Numbers:
    """Latents and codes of images."""
    latents, codes = subjects.encoded
    return {"latents": summary(latents), "codes": summary(codes)}


@parts("quantize", bound=ROUNDING, stored=True)
def quantize(subjects: Subjects) -> Numbers:
    """Codes, entries and soft assignments of fixed latents."""
    network = subjects.tokenizer
    latents = noise("latents", (2, 16, 16, 2, network.module.code_dim))
    found = jax.jit(partial(network.module.apply, method="quantize"))({"params": network.params}, latents)
    return {name: summary(value) for name, value in vars(jax.device_get(found)).items() if value is not None}


@parts("decode", bound=ROUNDING, stored=True)
def decode(subjects: Subjects) -> Numbers:
    """Images of codes."""
    return {"images": summary(subjects.decoded)}


@parts("tokenizer's step", bound=GRADIENT_ROUNDING, stored=True)
def tokenizer_step(subjects: Subjects) -> Numbers:
    """Losses, and gradients of tokenizer and discriminator."""
    return subjects.training_step("tokenizer", batch_size=BATCH_SIZE).numbers


@parts("generator's step", bound=GRADIENT_ROUNDING, stored=True)
def generator_step(subjects: Subjects) -> Numbers:
    """Losses and gradients."""
    return subjects.training_step("generator", batch_size=BATCH_SIZE).numbers


@parts("sample", bound=ROUNDING, stored=True)
def sample(subjects: Subjects) -> Numbers:
    """The most probable codes, with guidance, and their logits."""
    codes, logits = subjects.sampled
    return {"codes": summary(codes), "logits": summary(logits)}


@parts("cached sampling against teacher forcing", bound=ROUNDING)
def cached_sampling(subjects: Subjects) -> tuple[Numbers, Numbers]:
    """Sampling, which keeps keys and values, against one pass over the codes that it chose."""
    codes, logits = subjects.sampled
    module, count = subjects.generator.module, len(codes)
    labels = np.concatenate([subjects.labels, np.full(count, module.num_classes)])
    sequences = np.tile(codes.reshape(count, -1, codes.shape[-1]), (2, 1, 1))
    teacher_forced = jax.jit(module.apply)({"params": subjects.generator.params}, sequences, labels)
    conditional, unconditional = np.split(jax.device_get(teacher_forced), 2)
    expected = unconditional + GUIDANCE * (conditional - unconditional)
    chosen = np.argmax(expected, -1).reshape(codes.shape)
    return {"codes": codes, "logits": logits}, {"codes": chosen, "logits": expected}


@parts("encode in bfloat16", bound=BFLOAT16_ROUNDING)
def encode_bfloat16(subjects: Subjects) -> tuple[Numbers, Numbers]:
    """Latents in bfloat16 against those in float32; codes may differ where two entries are about as near."""
    return {"latents": subjects.encode(jnp.bfloat16)[0]}, {"latents": subjects.encoded[0]}


@parts("decode in bfloat16", bound=BFLOAT16_ROUNDING)
def decode_bfloat16(subjects: Subjects) -> tuple[Numbers, Numbers]:
    """Images in bfloat16 against those in float32."""
    return {"images": subjects.decode(jnp.bfloat16)}, {"images": subjects.decoded}


@parts("generator's step in bfloat16", bound=BFLOAT16_ROUNDING)
def generator_step_bfloat16(subjects: Subjects) -> tuple[Numbers, Numbers]:
    """Losses and gradients in bfloat16 against those in float32."""
    rounded = subjects.training_step("generator", batch_size=BATCH_SIZE, dtype="bfloat16")
    return rounded.numbers, subjects.training_step("generator", batch_size=BATCH_SIZE).numbers
