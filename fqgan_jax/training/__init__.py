"""Training: one loop for all tasks, their steps, and the state of a run."""

from fqgan_jax.training import generator_task, tokenizer_task  # noqa: F401  (they add their rows to `tasks`)
from fqgan_jax.training.loop import train
from fqgan_jax.training.tasks import Evaluator, Task, tasks

__all__ = ["Evaluator", "Task", "tasks", "train"]
