"""`eightbit tune` on files."""

import json

import numpy as np
from click.testing import CliRunner

import eightbit as eb
from eightbit.cli import main
from tests.small_net import images, write_small_net


def _run(folder, *options: str):
    net = write_small_net(folder)
    np.savez(folder / "c.npz", image=images(16))
    np.savez(folder / "h.npz", image=images(16, seed=1))
    out = folder / "net.int8.onnx"
    arguments = ["tune", str(net), "-c", str(folder / "c.npz"), "-o", str(out), *options]
    return CliRunner().invoke(main, arguments), out


def test_a_model_and_a_recipe_come_out(tmp_path):
    options = (
        "--bits",
        "5",
        "--held-out",
        str(tmp_path / "h.npz"),
        "--save-recipe",
        str(tmp_path / "r.toml"),
        "--json",
    )
    done, out = _run(tmp_path, *options)
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["met"] and report["chosen"]["bits"] <= 5 and report["held_out"] is not None
    again = tmp_path / "again.onnx"
    arguments = ["quantize", str(tmp_path / "net.onnx"), "-c", str(tmp_path / "c.npz"), "-o", str(again)]
    assert CliRunner().invoke(main, [*arguments, "--recipe", str(tmp_path / "r.toml")]).exit_code == 0
    np.testing.assert_array_equal(eb.open(again)(images(4)), eb.open(out)(images(4)))


def test_a_missed_budget_is_an_exit_status_and_a_line(tmp_path):
    done, out = _run(tmp_path, "--size", "0.01")
    assert done.exit_code == 1
    assert "NOT met" in done.stdout and "is the nearest" in done.stderr
    assert out.exists()


def test_a_command_without_a_budget_is_refused(tmp_path):
    done, _ = _run(tmp_path)
    assert done.exit_code == 1 and "asks for nothing" in done.stderr
