"""What a run evaluates while it trains: rows by name, each with a period of its own.

An evaluator of your own is a function in a file that the config imports or that `--plugin` names:

    from fqgan_jax.training import evaluators

    @evaluators.tokenizer("dead_entries")
    def dead_entries(context, params, mesh):
        ...
        return {"dead_entries": 3.0}, {}  # numbers, logged as validation/NAME, and pictures

It runs every `config.evaluation.dead_entries` steps; without that field, or if it is 0, every `train.evaluate_every`.
"""

from collections.abc import Callable, Mapping
from functools import partial

from tqdm import tqdm

from fqgan_jax.config import Registry
from fqgan_jax.errors import check
from fqgan_jax.evaluation.networks import EvaluationNetworks
from fqgan_jax.training.tasks import Evaluator

# A row is a function of (context, params, mesh) as in `Evaluator.run`, with what the task gives it in front.
tokenizer: Registry[Callable] = Registry("tokenizer evaluator")  # context: `TokenizerContext`
generator: Registry[Callable] = Registry("generator evaluator")  # context: `GeneratorContext`


def with_periods(
    rows: Registry[Callable], context: object, *, periods: Mapping[str, int], evaluate_every: int
) -> dict[str, Evaluator]:
    """Returns the evaluators of a task.

    Args:
      rows: the task's table of evaluators.
      context: what they are given.
      periods: steps between two runs by name (`config.evaluation`); 0 or none: `evaluate_every`.
      evaluate_every: steps between two runs of all others.

    Raises:
      UserError: a period without an evaluator, or a negative one.
    """
    for name, every in periods.items():
        rows.check(name, f"evaluation.{name}")
        check(every >= 0, f"evaluation.{name} is {every}: give the steps between two runs, or 0 for evaluate_every.")
    return {
        name: Evaluator(run=partial(row, context), every=periods.get(name, 0) or evaluate_every)
        for name, row in rows.items()
    }


def announce_missing(networks: EvaluationNetworks) -> EvaluationNetworks:
    """Prints which networks the evaluations have to do without; returns the networks."""
    for name, reason in networks.missing.items():
        tqdm.write(f"Evaluations go without {name}: {reason}")
    return networks
