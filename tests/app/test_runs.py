"""A run's page follows the files of its work folder."""

import json
import shutil

from fqgan_jax.app.runs import run_page, run_state


def test_the_page_shows_numbers_curves_and_pictures_as_they_come(trained_tokenizer, tmp_path):
    run = tmp_path / "run"
    assert run_state(run) == []
    assert "Nothing is logged yet" in run_page(run)
    shutil.copytree(trained_tokenizer, run)
    page, state = run_page(run), run_state(run)
    assert "<h2>Step 4</h2>" in page
    assert page.count("data:image/png;base64,") == 1 + len(list((run / "pictures").glob("*.png")))
    assert page.index("validation/<wbr>psnr") < page.index("gradient_<wbr>norm")
    assert run_state(run) == state
    with (run / "metrics.jsonl").open("a") as log:
        log.write(json.dumps({"step": 5, "own <number>": 0.25}) + "\n")
    assert run_state(run) != state
    assert "<h2>Step 5</h2>" in run_page(run)
    assert "own &lt;number&gt;" in run_page(run)


def test_a_run_without_the_usual_curves_has_a_page(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, "own": 2.0}))
    page = run_page(tmp_path)
    assert "own" in page
    assert "<img" not in page
