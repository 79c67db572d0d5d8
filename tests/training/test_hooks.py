"""When hooks are called, and in which order; evaluators with periods of their own in one line of the log."""

from types import SimpleNamespace

import numpy as np
import pytest

from fqgan_jax.config import task_defaults
from fqgan_jax.errors import DivergedError
from fqgan_jax.training import Evaluator
from fqgan_jax.training.hooks import Hook, SkippedSteps, evaluate, training_hooks
from fqgan_jax.training.logging import RunLog, read_log


@pytest.mark.parametrize(("every", "also_at", "due"), [(3, 7, [3, 6, 7]), (1, 2, list(range(1, 9))), (20, 8, [8])])
def test_a_hook_is_due_every_so_many_steps_and_in_the_end(every, also_at, due):
    hook = Hook(run=print, every=every, also_at=also_at)
    assert [step for step in range(1, 9) if hook.is_due(step)] == due


def test_a_step_is_logged_checked_evaluated_and_saved_in_this_order():
    settings = task_defaults().train
    settings.update(log_every=2, checkpoint_every=4)
    hooks = training_hooks(settings, 5)
    named = {step: [getattr(h.run, "__name__", "skipped") for h in hooks if h.is_due(step)] for step in (1, 2, 4, 5)}
    logged = ["log_metrics", "skipped", "check_last_save", "evaluate"]
    assert named == {1: ["evaluate"], 2: logged, 4: [*logged, "save_checkpoint"], 5: [*logged, "save_checkpoint"]}


def test_evaluators_that_are_due_together_share_a_line(tmp_path):
    def evaluator(name, every):
        return Evaluator(run=lambda params, mesh: ({name: params}, {name: np.zeros((2, 2, 3), np.uint8)}), every=every)

    log, restarted = RunLog(tmp_path, 0), []
    for step in range(1, 6):
        run = SimpleNamespace(
            step=step,
            state=SimpleNamespace(inference_params=0.5),
            num_steps=5,
            mesh=None,
            evaluators={"a": evaluator("psnr", 2), "b": evaluator("gfid", 4)},
            log=log,
            meter=SimpleNamespace(restart_clock=restarted.append),
        )
        evaluate(run)
    log.close()
    psnr, gfid = {"validation/psnr": 0.5}, {"validation/gfid": 0.5}
    assert read_log(tmp_path) == [{"step": 2} | psnr, {"step": 4} | psnr | gfid, {"step": 5} | psnr | gfid]
    assert restarted == [2, 4, 5]
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {"psnr.png", "gfid.png"}


def test_a_run_whose_updates_were_all_skipped_ends(tmp_path):
    check = SkippedSteps(3, 0.5)
    check(after(7, 2, tmp_path))
    with pytest.raises(DivergedError, match="last 3 updates before step 8 were skipped"):
        check(after(8, 3, tmp_path))


def test_a_run_that_was_never_finite_ends_early(tmp_path):
    check = SkippedSteps(100, 1.0)
    check(after(9, 9, tmp_path))
    check(after(20, 19, tmp_path))  # the first step was finite
    with pytest.raises(DivergedError, match="last 10 updates before step 10"):
        check(after(10, 10, tmp_path))


def test_a_run_of_which_many_updates_were_skipped_ends(tmp_path):
    """Though never many in a row: 40 % are borne, 60 % are not."""
    borne, check = SkippedSteps(100, 0.5), SkippedSteps(100, 0.5)
    for line in range(1, 30):
        borne(after(5 * line, 1, tmp_path, share=0.4))
    for line in range(1, 9):
        check(after(5 * line, 1, tmp_path, share=0.6))
    with pytest.raises(DivergedError, match="54% of the updates of the last 10 log lines before step 45") as raised:
        check(after(45, 1, tmp_path, share=0.6))
    assert raised.value.code == 3


def after(step, skipped, workdir, *, share=0.0):
    """A run after a step, with what its log says."""
    log = SimpleNamespace(newest=lambda name, default: {"skipped_share": share}.get(name, default))
    return SimpleNamespace(state=SimpleNamespace(skipped=np.int32(skipped)), step=step, workdir=workdir, log=log)
