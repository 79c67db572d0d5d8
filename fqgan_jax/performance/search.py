"""The largest batch that fits a chip, found in a few compilations."""

from collections.abc import Callable

from fqgan_jax.errors import UserError
from fqgan_jax.performance.plan import Plan

MAX_COMPILATIONS = 5


def largest_batch(plan_of: Callable[[int], Plan], start: int, *, max_compilations: int = MAX_COMPILATIONS) -> Plan:
    """Returns the plan with the most examples a device that fits.

    Memory is about linear in the batch: two plans predict the largest batch, the next ones confirm it.

    Args:
      plan_of: makes the plan for a number of examples a device.
      start: number of examples a device to try first.
      max_compilations: after which the best plan so far is returned.

    Raises:
      UserError: not even one example a device fits.
    """
    plans: dict[int, Plan] = {}
    examples = max(start, 1)
    while len(plans) < max_compilations:
        plans[examples] = plan_of(examples)
        fitting = max((n for n, plan in plans.items() if plan.fits), default=0)
        failing = min((n for n, plan in plans.items() if not plan.fits), default=None)
        if failing == fitting + 1:
            break
        examples = _next_batch(plans, fitting, failing)
    if not fitting:
        smallest = plans[min(plans)]
        needed = smallest.total_memory / (smallest.devices // smallest.chips) / 2**30
        raise UserError(
            f"No batch fits: {min(plans)} example(s) a device need {needed:.1f} GiB. "
            "Set model.remat, or split the state with mesh.fsdp."
        )
    return plans[fitting]


def _next_batch(plans: dict[int, Plan], fitting: int, failing: int | None) -> int:
    """Predicts the largest batch from the line through the two nearest plans, between the bounds that are known."""
    if len(plans) == 1:
        return 2 * fitting if failing is None else max(failing // 2, 1)
    room = next((plan.available for plan in plans.values() if plan.available), None)
    if room is None:
        room = next(plan.chip.memory * 0.98 for plan in plans.values() if plan.chip)
    low, high = sorted(sorted(plans, key=lambda n: abs(plans[n].total_memory - room))[:2])
    slope = (plans[high].total_memory - plans[low].total_memory) / (high - low)
    guess = int(low + (room - plans[low].total_memory) / slope) if slope > 0 else 2 * high
    guess = max(guess, fitting + 1)
    return guess if failing is None else min(guess, failing - 1)
