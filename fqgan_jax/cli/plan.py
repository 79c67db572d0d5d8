"""`fqgan plan`."""

import dataclasses
import json
from pathlib import Path

from fqgan_jax.cli.arguments import add_config, add_tokenizer_config, positive

HELP = (
    "Compile a training step for a TPU topology, with no TPU here: does it fit, how fast can it be, how does it scale."
)
EXAMPLES = """\
  fqgan plan --config configs/generator_imagenet.py:size=B --topology v5e:4x4 --batch 8
  fqgan plan --config configs/tokenizer_imagenet.py:k=2,f=16 --topology v5e:4x4 --batch 16 --config.model.remat=full
  fqgan plan --config configs/generator_imagenet.py:size=L --topology v6e:16x16 --search --json plan.json
  JAX_EXEC_TIME_OPTIMIZATION_EFFORT=-1 fqgan plan --config configs/tokenizer_imagenet.py --topology v6e:4x4 --batch 16
      (compiled six times faster, with a tenth less memory and nothing in fast memory)
  fqgan plan --config configs/demo_tokenizer.py --topology local"""
SCALES = (1, 4, 16, 64, 256, 1024, 4096)


def add_arguments(parser) -> None:
    add_config(parser)
    parser.add_argument(
        "--topology", required=True, help="chips and how they are laid out: v5e:4x4, v5p:8x8x4, ...; local: those here"
    )
    parser.add_argument("--batch", type=positive, help="examples a chip (default: data.batch_size over all chips)")
    parser.add_argument("--search", action="store_true", help="find the largest batch a chip that fits")
    add_tokenizer_config(parser)
    parser.add_argument("--json", type=Path, help="also write the plan here")


def run(options) -> None:
    from fqgan_jax.config import load_config
    from fqgan_jax.files import write_atomically
    from fqgan_jax.performance.plan import count_chips, largest_batch, plan_step, topology_devices

    config, devices = load_config(options.config, options.overrides), topology_devices(options.topology)
    tokenizer_config = load_config(options.tokenizer_config)
    if options.batch:
        config.data.batch_size = options.batch * count_chips(devices)
    print(f"Compiling for {options.topology}; a full-size step takes minutes.", flush=True)
    if options.search:
        plan = largest_batch(config, devices, tokenizer_config, lambda plan: print(_one_line(plan), flush=True))
    else:
        plan = plan_step(config, devices, tokenizer_config)
    print(*_lines(plan), sep="\n")
    if options.json:
        values = {"config": options.config, "overrides": options.overrides, "topology": options.topology}
        values |= dataclasses.asdict(plan) | {"roofline": plan.roofline and dataclasses.asdict(plan.roofline)}
        write_atomically(options.json, json.dumps(values, indent=2) + "\n")


def _one_line(plan) -> str:
    verdict = "fits" if plan.fits else "does not fit"
    return (
        f"{plan.images_per_chip:g} examples a chip: {_gib(plan.total_memory)}, {verdict} ({plan.compile_seconds:.0f} s)"
    )


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"


def _lines(plan) -> list[str]:
    """The plan as text."""
    name = plan.chip.name if plan.chip else "chips without an entry in the table of peak figures"
    lines = [f"{plan.chips} {name}, {plan.images_per_chip:g} examples each, {plan.batch_size} in all"]
    if plan.devices != plan.chips:
        lines.append(f"each chip is {plan.devices // plan.chips} devices; figures are a chip's")
    room = f" of {_gib(plan.available)}" if plan.available else ""
    lines += ["", f"memory a chip: {_gib(plan.total_memory)}{room}, {'fits' if plan.fits else 'DOES NOT FIT'}"]
    lines += [f"  {kind:<20} {_gib(size):>11}" for kind, size in plan.memory.items() if size >= 2**20]
    lines += [f"  {'temporaries':<20} {_gib(plan.memory['temporaries'] / plan.images_per_chip):>11} an example"]
    tera = lambda flops: f"{flops / 1e12:.3f} TFLOP"
    images = plan.images_per_chip
    lines += ["", f"operations of matrix products and convolutions: {tera(plan.flops)} a chip and step"]
    once = f"{tera(plan.model_flops / images)} without what the backward pass computes again"
    lines += [f"  {tera(plan.flops / images)} an example, {once}"]
    if plan.traffic is not None:
        lines += [f"  XLA's own count, with every loop's body once: {tera(plan.xla_flops)} a chip and step"]
        lines += _traffic(plan.traffic, images)
    return lines + (_speed(plan) if plan.roofline else [])


def _traffic(traffic, images: float) -> list[str]:
    """Memory traffic and collectives."""
    size = f"{traffic.bytes / 1e9:.1f} GB a chip and step, {traffic.bytes / images / 1e9:.2f} GB an example"
    lines = [f"memory traffic (estimate from the program): {size}"]
    lines += [f"  {traffic.unknown_loops} loop(s) of unknown length count once"] if traffic.unknown_loops else []
    lines += ["collectives a chip and step:" if traffic.collectives else "collectives: none"]
    for c in traffic.collectives:
        sizes = f"{c.bytes / 1e6:10.2f} MB, {c.sent() / 1e6:10.2f} MB sent"
        lines.append(f"  {c.kind:<20} {c.count:6g} x over {c.group} devices, {sizes}")
    return lines


def _speed(plan) -> list[str]:
    """Roofline and scaling."""
    from fqgan_jax.performance.roofline import scaling

    here, chip, images = plan.roofline, plan.chip, plan.images_per_chip
    lines = ["", f"roofline on {chip.name}: {here.seconds * 1e3:.1f} ms a step, bound by {here.bound}"]
    lines += [f"  {side:<20} {seconds * 1e3:8.1f} ms" for side, seconds in dataclasses.asdict(here).items()]
    best = plan.model_flops / chip.flops / here.seconds
    lines += [f"  at most {images / here.seconds:.1f} examples/s a chip, model FLOPs utilization {best:.0%}"]
    lines += [
        "",
        f"scaling at {images:g} examples a chip (work a chip fixed; collectives over all chips on rings of n,",
    ]
    lines += ["sending (n-1)/n of their bytes; collectives overlap the computation, or wait for it):"]
    lines += ["   chips   overlapped              exposed"]
    busy = max(here.compute, here.memory)
    rate = lambda chips, seconds: f"{chips * images / seconds:12.0f} ex/s {busy / seconds:4.0%}"
    for row in scaling(chip, here, plan.traffic.collectives, plan.chips, SCALES):
        lines.append(f"  {row.chips:>6} {rate(row.chips, row.overlapped)}  {rate(row.chips, row.exposed)}")
    return lines
