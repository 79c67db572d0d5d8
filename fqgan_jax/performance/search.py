"""The largest batch that fits a chip, found in a few compilations."""

from collections.abc import Callable, Sequence

import jax
from ml_collections import ConfigDict

from fqgan_jax.errors import UserError
from fqgan_jax.performance.plan import StepPlan, plan_step
from fqgan_jax.performance.topology import count_chips

MAX_COMPILATIONS = 5


def _ignore(plan: StepPlan) -> None:
    del plan


def largest_batch(
    config: ConfigDict,
    devices: Sequence[jax.Device],
    tokenizer_config: ConfigDict | None = None,
    *,
    on_plan: Callable[[StepPlan], None] = _ignore,
    max_compilations: int = MAX_COMPILATIONS,
) -> StepPlan:
    """Returns the plan with the most examples a chip that fits.

    Memory is about linear in the batch: two plans predict the largest batch, the next ones confirm it.

    Args:
      config: config of the training run; the search starts at its batch size.
      devices: devices of a topology, or of this machine.
      tokenizer_config: see `make_step`.
      on_plan: called with every plan that is made.
      max_compilations: after which the best plan so far is returned.

    Raises:
      UserError: not even one example a chip fits.
    """
    plans: dict[int, StepPlan] = {}
    examples = max(config.data.batch_size // len(devices), 1)
    while len(plans) < max_compilations:
        changed = config.copy_and_resolve_references()
        changed.data.batch_size = examples * len(devices)
        plans[examples] = plan_step(changed, devices, tokenizer_config)
        on_plan(plans[examples])
        fitting = max((n for n, plan in plans.items() if plan.fits), default=0)
        failing = min((n for n, plan in plans.items() if not plan.fits), default=None)
        if failing == fitting + 1:
            break
        examples = _next_batch(plans, fitting, failing)
    if not fitting:
        cores = len(devices) // count_chips(devices)
        needed = plans[min(plans)].total_memory / cores / 2**30
        raise UserError(
            f"No batch fits: {min(plans)} example(s) a device need {needed:.1f} GiB. "
            "Set model.remat, or split the state with mesh.fsdp."
        )
    return plans[fitting]


def _next_batch(plans: dict[int, StepPlan], fitting: int, failing: int | None) -> int:
    """Predicts the largest batch from the line through the two nearest plans, between the bounds that are known."""
    if len(plans) == 1:
        return 2 * fitting if fitting else max(failing // 2, 1)
    room = next((plan.available for plan in plans.values() if plan.available), None)
    if room is None:
        room = next(plan.chip.memory * 0.98 for plan in plans.values())
    low, high = sorted(sorted(plans, key=lambda n: abs(plans[n].total_memory - room))[:2])
    slope = (plans[high].total_memory - plans[low].total_memory) / (high - low)
    guess = int(low + (room - plans[low].total_memory) / slope) if slope > 0 else 2 * high
    guess = max(guess, fitting + 1)
    return guess if failing is None else min(guess, failing - 1)
