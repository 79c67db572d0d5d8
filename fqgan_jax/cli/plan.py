"""`fqgan plan`."""

from fqgan_jax.cli.arguments import add_config

HELP = "Compile a training step for a TPU topology, with no TPU here, and print what it needs on each chip."
EXAMPLES = """\
  fqgan plan --config configs/tokenizer_imagenet.py:k=2,f=16 --topology v5e:4x4 --config.data.batch_size=64"""


def add_arguments(parser) -> None:
    add_config(parser)
    parser.add_argument("--topology", required=True, help="chips and how they are laid out: v5e:4x4, v5p:8x8x4, ...")


def run(options) -> None:
    from fqgan_jax.config import load_config
    from fqgan_jax.performance.plan import plan_step, topology_devices

    config = load_config(options.config, options.overrides)
    print(f"Compiling for {options.topology}; a full-size step takes minutes.", flush=True)
    plan = plan_step(config, topology_devices(options.topology))
    images = plan.batch_size / plan.devices
    print(f"chips                  {plan.devices}, {images:g} images each")
    for name in ("arguments", "temporaries", "outputs", "memory"):
        print(f"{name:<22} {getattr(plan, name) / 2**30:.2f} GiB a chip")
    print(
        f"{'operations':<22} {plan.flops / 1e12:.2f} TFLOP a chip and step, {plan.flops / images / 1e12:.2f} an image"
    )
