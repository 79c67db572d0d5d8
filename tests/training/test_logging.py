"""The log of a run that was cut off: readable, and without a step twice."""

from fqgan_jax.training.logging import RunLog, read_log


def test_half_a_line_is_left_out_and_no_step_stands_twice(tmp_path):
    log = RunLog(tmp_path, 0)
    for step in (1, 2, 3, 4):
        log.scalars(step, {"loss": 1.0 / step})
    log.scalars(2, {"validation/psnr": 20.0})
    log.scalars(4, {"validation/psnr": 22.0})
    assert log.validation == {"psnr": 22.0}
    log.close()
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 5, "loss": 0.1')
    assert [line["step"] for line in read_log(tmp_path)] == [1, 2, 3, 4, 2, 4]

    log = RunLog(tmp_path, 3)  # continued from an older checkpoint: what came after is dropped
    assert log.validation == {"psnr": 20.0}
    log.scalars(4, {"loss": 0.25})
    other = RunLog(tmp_path, 3, writes=False)  # of another process: it knows the same, and writes nothing
    other.scalars(4, {"validation/psnr": 24.0})
    assert other.validation == {"psnr": 24.0}
    other.close()
    log.close()
    assert read_log(tmp_path) == [
        *({"step": step, "loss": 1.0 / step} for step in (1, 2, 3)),
        {"step": 2, "validation/psnr": 20.0},
        {"step": 4, "loss": 0.25},
    ]
