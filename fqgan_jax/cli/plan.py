"""`fqgan plan`."""

import json
import os

from fqgan_jax.cli.arguments import add_config, add_tokenizer_config, positive
from fqgan_jax.storage import as_path

OVERRIDES = True
HELP = "Compile a program for TPUs or GPUs, without the hardware: does it fit, how fast can it be, how does it scale."
EXAMPLES = """\
  fqgan plan --config configs/generator_imagenet.py:size=B --topology v5e:4x4 --batch 8
  fqgan plan --config configs/generator_imagenet.py:size=B --topology h100:8x8 --batch 32 --traffic 20
  fqgan plan --config configs/generator_imagenet.py:size=B --topology h100:1 --program sample --batch 8
  fqgan plan --config configs/tokenizer_imagenet.py:k=2,f=16 --topology v5e:4x4 --batch 16 --config.model.remat=full
  fqgan plan --config configs/generator_imagenet.py:size=L --topology v6e:16x16 --search --json plan.json
  JAX_EXEC_TIME_OPTIMIZATION_EFFORT=-1 fqgan plan --config configs/tokenizer_imagenet.py --topology v6e:4x4 --batch 16
      (compiled six times faster, with a tenth less memory and nothing in fast memory)
  fqgan plan --config configs/demo_tokenizer.py --topology local"""


def add_arguments(parser) -> None:
    """Adds the flags of `fqgan plan`."""
    add_config(parser)
    parser.add_argument(
        "--topology",
        required=True,
        help="chips and how they are laid out: v5e:4x4, v5p:8x8x4, ... (TPUs); h100:8 (a host of eight GPUs), h100:4x8 "
        "(four hosts), h200, a100, b200; local: those here",
    )
    parser.add_argument(
        "--program", default="step", help="step (training, the default), sample (with guidance), encode or decode"
    )
    parser.add_argument("--batch", type=positive, help="examples a chip (default: data.batch_size over all chips)")
    parser.add_argument(
        "--traffic", type=positive, default=0, metavar="N", help="list the N operations that move most bytes"
    )
    parser.add_argument("--search", action="store_true", help="find the largest batch a chip that fits")
    add_tokenizer_config(parser)
    parser.add_argument("--json", type=as_path, help="also write the plan here")


def run(options) -> None:
    """Runs `fqgan plan`."""
    if options.topology != "local":
        os.environ.setdefault("JAX_PLATFORMS", "cpu")  # nothing is run on a chip that may be here
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # remarks of the compilers; their errors are raised
    from fqgan_jax.config import load_config
    from fqgan_jax.files import write_atomically
    from fqgan_jax.performance.plan import Plan, make_plan
    from fqgan_jax.performance.plan_text import one_line, plan_text, plan_values
    from fqgan_jax.performance.programs import make_program
    from fqgan_jax.performance.search import largest_batch
    from fqgan_jax.performance.topology import count_chips, topology_devices

    config, devices = load_config(options.config, options.overrides), topology_devices(options.topology)
    tokenizer_config = load_config(options.tokenizer_config)
    if options.batch:
        config.data.batch_size = options.batch * count_chips(devices)

    def plan_here() -> Plan:
        return make_plan(make_program(options.program, config, devices, tokenizer_config=tokenizer_config))

    def plan_of(examples: int) -> Plan:
        config.data.batch_size = examples * len(devices)
        plan = plan_here()
        print(one_line(plan), flush=True)
        return plan

    print(f"Compiling for {options.topology}; a full-size program takes minutes.", flush=True)
    plan = largest_batch(plan_of, config.data.batch_size // len(devices)) if options.search else plan_here()
    print(plan_text(plan, movers=options.traffic))
    if options.json:
        values = {"config": options.config, "overrides": options.overrides, "topology": options.topology}
        write_atomically(options.json, json.dumps(values | plan_values(plan, movers=options.traffic), indent=2) + "\n")
