"""Plans as text and as JSON."""

import dataclasses

from fqgan_jax.performance.plan import StepPlan
from fqgan_jax.performance.roofline import scaling
from fqgan_jax.performance.traffic import Traffic

SCALES = (1, 4, 16, 64, 256, 1024, 4096)  # numbers of chips in the table of scaling


def plan_values(plan: StepPlan, movers: int = 0) -> dict:
    """Returns the plan for JSON.

    Args:
      plan: of a training step.
      movers: number of operations that move most bytes to list.
    """
    least = None if plan.roofline is None else dataclasses.asdict(plan.roofline)
    values = dataclasses.asdict(plan) | {"roofline": least}
    if plan.traffic is not None:
        values["traffic"]["movers"] = values["traffic"]["movers"][:movers]
    return values


def one_line(plan: StepPlan) -> str:
    """Returns memory and verdict, for the lines of a search."""
    verdict = "fits" if plan.fits else "does not fit"
    return (
        f"{plan.images_per_chip:g} examples a chip: {_gib(plan.total_memory)}, {verdict} ({plan.compile_seconds:.0f} s)"
    )


def plan_text(plan: StepPlan, movers: int = 0) -> str:
    """Returns the whole plan as text; for the arguments see `plan_values`."""
    name = plan.chip.name if plan.chip else "chips without an entry in the table of peak figures"
    lines = [f"{plan.chips} {name}, {plan.images_per_chip:g} examples each, {plan.batch_size} in all"]
    if plan.devices != plan.chips:
        lines.append(f"each chip is {plan.devices // plan.chips} devices; figures are a chip's")
    lines += ["", *_memory(plan), "", *_operations(plan)]
    if plan.traffic is not None:
        lines += _traffic(plan.traffic, plan.images_per_chip)
    if plan.traffic is not None and movers:
        lines += ["", *_movers(plan.traffic, movers)]
    if plan.roofline is not None:
        lines += ["", *_roofline(plan), "", *_scaling(plan)]
    return "\n".join(lines)


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"


def _tera(flops: float) -> str:
    return f"{flops / 1e12:.3f} TFLOP"


def _memory(plan: StepPlan) -> list[str]:
    room = f" of {_gib(plan.available)}" if plan.available else ""
    lines = [f"memory a chip: {_gib(plan.total_memory)}{room}, {'fits' if plan.fits else 'DOES NOT FIT'}"]
    lines += [f"  {kind:<20} {_gib(size):>11}" for kind, size in plan.memory.items() if size >= 2**20]
    lines.append(f"  {'temporaries':<20} {_gib(plan.memory['temporaries'] / plan.images_per_chip):>11} an example")
    return lines


def _operations(plan: StepPlan) -> list[str]:
    images = plan.images_per_chip
    once = f"{_tera(plan.model_flops / images)} without what the backward pass computes again"
    lines = [
        f"operations of matrix products and convolutions: {_tera(plan.flops)} a chip and step",
        f"  {_tera(plan.flops / images)} an example, {once}",
    ]
    if plan.xla_flops is not None:
        lines.append(f"  XLA's own count, with every loop's body once: {_tera(plan.xla_flops)} a chip and step")
    return lines


def _traffic(traffic: Traffic, images: float) -> list[str]:
    size = f"{traffic.bytes / 1e9:.1f} GB a chip and step, {traffic.bytes / images / 1e9:.2f} GB an example"
    lines = [f"memory traffic (estimate from the program): {size}"]
    if traffic.unknown_loops:
        lines.append(f"  {traffic.unknown_loops} loop(s) of unknown length count once")
    lines.append("collectives a chip and step:" if traffic.collectives else "collectives: none")
    for each in traffic.collectives:
        sizes = f"{each.bytes / 1e6:10.2f} MB, {each.sent() / 1e6:10.2f} MB sent"
        lines.append(f"  {each.kind:<20} {each.count:6g} x over {each.group} devices, {sizes}")
    return lines


def _movers(traffic: Traffic, count: int) -> list[str]:
    lines = ["largest movers of bytes, a chip and step:"]
    for each in traffic.movers[:count]:
        what = ", ".join(each.instructions)
        lines.append(f"  {each.bytes / 1e9:8.2f} GB {each.count:8g} x  {each.name} ({what})")
    return lines


def _roofline(plan: StepPlan) -> list[str]:
    least, chip = plan.roofline, plan.chip
    best = plan.model_flops / chip.flops / least.seconds
    rate = plan.images_per_chip / least.seconds
    return [
        f"roofline on {chip.name}: {least.seconds * 1e3:.1f} ms a step, bound by {least.bound}",
        *(f"  {side:<20} {seconds * 1e3:8.1f} ms" for side, seconds in dataclasses.asdict(least).items()),
        f"  at most {rate:.1f} examples/s a chip, model FLOPs utilization {best:.0%}",
    ]


def _scaling(plan: StepPlan) -> list[str]:
    images, least = plan.images_per_chip, plan.roofline
    busy = max(least.compute, least.memory)

    def rate(chips: int, seconds: float) -> str:
        return f"{chips * images / seconds:12.0f} ex/s {busy / seconds:4.0%}"

    lines = [
        f"scaling at {images:g} examples a chip (work a chip fixed; collectives over all chips on rings of n,",
        "sending (n-1)/n of their bytes; collectives overlap the computation, or wait for it):",
        "   chips   overlapped              exposed",
    ]
    for row in scaling(plan.chip, least, collectives=plan.traffic.collectives, chips=plan.chips, counts=SCALES):
        lines.append(f"  {row.chips:>6} {rate(row.chips, row.overlapped)}  {rate(row.chips, row.exposed)}")
    return lines
