"""`fqgan app` before it serves anything: one sentence for each thing that is missing."""

import socket
import sys

import pytest

from fqgan_jax.cli.main import main


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("", "There is nothing to show: give --tokenizer, --runs or both."),
        ("--generator {tmp} --runs {tmp}", "give the one that wrote its codes as --tokenizer"),
        ("--runs {tmp} {tmp}/none", "none: give work folders of fqgan train"),
        ("--runs {tmp}", "This needs gradio, which is not installed: pip install fqgan-jax[app]."),
    ],
)
def test_what_is_missing_is_one_sentence(flags, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["app", *flags.format(tmp=tmp_path).split()]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_a_port_in_use_is_one_sentence(tmp_path, capsys):
    pytest.importorskip("gradio")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["app", "--runs", str(tmp_path), "--port", port]) == 2
    assert f"cannot be served on 127.0.0.1:{port}" in capsys.readouterr().err
