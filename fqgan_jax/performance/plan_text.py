"""Plans as text and as JSON."""

import dataclasses
from collections.abc import Sequence

from fqgan_jax.performance.chips import Chip
from fqgan_jax.performance.collectives import Collective
from fqgan_jax.performance.plan import Plan
from fqgan_jax.performance.roofline import Roofline, scaling
from fqgan_jax.performance.traffic import Mover, Traffic

# Numbers of chips in the table of scaling.
SCALES = (1, 4, 16, 64, 256, 1024, 4096)
SCALES_OF_HOSTS = (1, 8, 16, 64, 256, 1024, 4096)


def plan_values(plan: Plan, movers: int = 0) -> dict:
    """Returns the plan for JSON.

    Args:
      plan: of a program.
      movers: number of operations that move most bytes to list.
    """
    values = dataclasses.asdict(plan)
    values["roofline"] = None if plan.roofline is None else dataclasses.asdict(plan.roofline)
    if plan.traffic is not None:
        traffic = values["traffic"]
        traffic["movers"] = traffic["movers"][:movers]
        for each, of_json in zip(plan.traffic.collectives, traffic["collectives"], strict=True):
            of_json |= {"sent_within": each.sent_within, "sent_between": each.sent_between}
    return values


def one_line(plan: Plan) -> str:
    """Returns memory and verdict, for the lines of a search."""
    verdict = "fits" if plan.fits else "does not fit"
    return (
        f"{plan.images_per_chip:g} examples a chip: {_gib(plan.total_memory)}, {verdict} ({plan.compile_seconds:.0f} s)"
    )


def plan_text(plan: Plan, movers: int = 0) -> str:
    """Returns the whole plan as text; for the arguments see `plan_values`."""
    name = plan.chip.name if plan.chip else "chips without an entry in the table of peak figures"
    hosts = f" on {plan.hosts} hosts" if plan.hosts > 1 else ""
    batch = f"{plan.images_per_chip:g} examples each, {plan.batch_size} in all"
    lines = [f"{plan.program} on {plan.chips} {name}{hosts}, {batch}"]
    if plan.devices != plan.chips:
        lines.append(f"each chip is {plan.devices // plan.chips} devices; figures are a chip's")
    lines += ["", *_memory(plan), "", *_operations(plan)]
    chip, traffic, least = plan.chip, plan.traffic, plan.roofline
    if traffic is not None:
        lines += _traffic(plan, traffic)
        if movers:
            lines += ["", *_movers(plan, traffic.movers[:movers])]
    if chip is not None and least is not None:
        lines += ["", *_roofline(plan, chip, least)]
        if plan.chips > 1 and traffic is not None:
            lines += ["", *_scaling(plan, chip, least, collectives=traffic.collectives)]
    return "\n".join(lines)


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"


def _tera(flops: float) -> str:
    return f"{flops / 1e12:.3f} TFLOP"


def _once(plan: Plan) -> str:
    """What figures refer to."""
    return "a chip and step" if plan.program == "step" else "a chip and batch"


def _memory(plan: Plan) -> list[str]:
    room = f" of {_gib(plan.available)}" if plan.available else ""
    lines = [f"memory a chip: {_gib(plan.total_memory)}{room}, {'fits' if plan.fits else 'DOES NOT FIT'}"]
    lines += [f"  {kind:<20} {_gib(size):>11}" for kind, size in plan.memory.items() if size >= 2**20]
    lines.append(f"  {'temporaries':<20} {_gib(plan.memory['temporaries'] / plan.images_per_chip):>11} an example")
    return lines


def _operations(plan: Plan) -> list[str]:
    images = plan.images_per_chip
    example = f"  {_tera(plan.flops / images)} an example"
    if plan.program == "step":
        example += f", {_tera(plan.model_flops / images)} without what the backward pass computes again"
    lines = [f"operations of matrix products and convolutions: {_tera(plan.flops)} {_once(plan)}", example]
    if plan.xla_flops is not None:
        lines.append(f"  XLA's own count, with every loop's body once: {_tera(plan.xla_flops)} {_once(plan)}")
    return lines


def _traffic(plan: Plan, traffic: Traffic) -> list[str]:
    images = plan.images_per_chip
    size = f"{traffic.bytes / 1e9:.1f} GB {_once(plan)}, {traffic.bytes / images / 1e9:.2f} GB an example"
    ratio = traffic.bytes / plan.floor
    lines = [
        f"memory traffic (estimate from the program): {size}",
        f"  {ratio:.2f} times the floor of {plan.floor / 1e9:.1f} GB: {_FLOORS[plan.program]}",
    ]
    if traffic.unknown_loops:
        lines.append(f"  {traffic.unknown_loops} loop(s) of unknown length count once")
    return lines + _collectives(plan, traffic.collectives)


def _collectives(plan: Plan, collectives: Sequence[Collective]) -> list[str]:
    if not collectives:
        return ["collectives: none"]
    many = plan.hosts > 1
    lines = [f"collectives {_once(plan)}{', sent within a host and between hosts' if many else ''}:"]
    for each in collectives:
        devices = f"{each.group} devices" + (f" of {each.hosts} hosts" if each.hosts > 1 else "")
        sent = f"{each.sent_within / 1e6:10.2f} MB {'within' if many else 'sent'}"
        if many:
            sent += f", {each.sent_between / 1e6:10.2f} MB between"
        lines.append(f"  {each.kind:<20} {each.count:6g} x over {devices}, {each.bytes / 1e6:10.2f} MB, {sent}")
    return lines


_FLOORS = {
    "step": "inputs read and the state written once",
    "sample": "weights at every position, keys and values so far",
    "encode": "inputs, weights and outputs of convolutions, products and norms",
    "decode": "inputs, weights and outputs of convolutions, products and norms",
}


def _movers(plan: Plan, movers: Sequence[Mover]) -> list[str]:
    lines = [f"operations that move most bytes, {_once(plan)}:"]
    for each in movers:
        what = ", ".join(each.instructions)
        lines.append(f"  {each.bytes / 1e9:8.2f} GB {each.count:8g} x  {each.name} ({what})")
    return lines


def _roofline(plan: Plan, chip: Chip, least: Roofline) -> list[str]:
    best = plan.model_flops / chip.flops / least.seconds
    rate = plan.images_per_chip / least.seconds
    sides = dataclasses.asdict(least)
    if plan.hosts == 1:
        del sides["network"]
    return [
        f"roofline on {chip.name}: {least.seconds * 1e3:.1f} ms, bound by {least.bound}",
        *(f"  {side:<20} {seconds * 1e3:8.1f} ms" for side, seconds in sides.items()),
        f"  at most {rate:.1f} examples/s a chip, model FLOPs utilization {best:.0%}",
    ]


def _scaling(plan: Plan, chip: Chip, least: Roofline, *, collectives: Sequence[Collective]) -> list[str]:
    images, busy = plan.images_per_chip, max(least.compute, least.memory)

    def rate(chips: int, seconds: float) -> str:
        return f"{chips * images / seconds:12.0f} ex/s {busy / seconds:4.0%}"

    lines = [
        f"scaling at {images:g} examples a chip (work a chip fixed; collectives over all chips on rings of n,",
        "sending (n-1)/n of their bytes; collectives overlap the computation, or wait for it):",
        "   chips   overlapped              exposed",
    ]
    rows = scaling(
        chip,
        least,
        collectives=collectives,
        chips=plan.chips,
        hosts=plan.hosts,
        counts=SCALES if chip.host is None else SCALES_OF_HOSTS,
    )
    for row in rows:
        lines.append(f"  {row.chips:>6} {rate(row.chips, row.overlapped)}  {rate(row.chips, row.exposed)}")
    return lines
