"""The command line on files: each word does its work, and each failure is one line and a status."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import helper
from PIL import Image

import eightbit as eb
from eightbit.cli import main
from eightbit.deploy.engines import ENGINES
from eightbit.graph.processor import processor_features, processor_name
from tests.small_net import CLASSES, SHAPE, images, small_net, write_small_net


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A float net, calibration data and labelled test data; the labels are what the float net says, but for 4."""
    write_small_net(tmp_path)
    x = images(40, seed=1)
    labels = eb.load(tmp_path / "net.onnx")(x).argmax(axis=1)
    labels[:4] = (labels[:4] + 1) % CLASSES
    np.savez(tmp_path / "calib.npz", image=images(16))
    np.savez_compressed(tmp_path / "test.npz", image=x, labels=labels)
    return tmp_path


@pytest.fixture
def quantized(folder: Path) -> Path:
    assert (
        call("quantize", folder / "net.onnx", "-c", folder / "calib.npz", "-o", folder / "q.onnx").exit_code
        == 0
    )
    return folder


def call(*words: object) -> Result:
    return CliRunner().invoke(main, [str(w) for w in words])


def assert_refused(result: Result, *said: str, status: int = 1) -> None:
    """One line on stderr that says what is wrong, nothing on stdout, no traceback."""
    assert result.exit_code == status
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    if status == 1:
        assert len(lines) == 1
        assert lines[0].startswith("Error: ")
    for word in said:
        assert word in result.stderr
    assert "Traceback" not in result.stderr
    assert "unexpected" not in result.stderr


def quantize_with(folder: Path, calibration: Path, **options: object) -> Result:
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    result = call("quantize", folder / "net.onnx", "-c", calibration, "-o", folder / "out.onnx", *words)
    if result.exit_code:
        assert [p.name for p in folder.iterdir() if "out.onnx" in p.name] == []
    return result


# What the words do


def test_quantize_writes_what_the_package_would(folder: Path):
    result = call("quantize", folder / "net.onnx", "-c", folder / "calib.npz", "-o", folder / "q.onnx")
    assert result.exit_code == 0, result.stderr
    assert f"{(folder / 'q.onnx').stat().st_size:,} bytes" in result.stdout
    assert result.stderr == ""  # no progress bar where there is no terminal
    mine, x = eb.quantize(eb.load(folder / "net.onnx"), images(16)), images(4, seed=2)
    np.testing.assert_array_equal(eb.open(folder / "q.onnx")(x), mine(x))


def test_prune_writes_a_smaller_model_and_lists_its_layers(folder: Path):
    words = ("prune", folder / "net.onnx", "-o", folder / "p.onnx", "--macs", "0.5")
    result = call(*words, "-c", folder / "calib.npz", "--sparsity", "0.25")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert re.search(r"stem +Conv +8 +[2-7] ", lines[3]) and lines[-2].split()[0] == "all"
    assert float(re.search(r"([\d.]+)% of the multiplications are left", lines[-1])[1]) <= 50
    assert eb.load(folder / "p.onnx")(images(4)).shape == (4, CLASSES)
    found = json.loads(call(*words, "--json").stdout)
    assert [layer["name"] for layer in found["layers"]] == ["stem", "body", "classifier"]
    assert found["macs"] <= 0.5 and all(layer["zeros"] == 0 for layer in found["layers"])
    words = (
        "prune",
        folder / "net.onnx",
        "-o",
        folder / "p.onnx",
        "-c",
        folder / "calib.npz",
        "--branches",
        "1",
    )
    found = json.loads(call(*words, "--json").stdout)
    assert [layer["after"]["channels"] for layer in found["layers"]] == [8, 0, CLASSES]
    refused = call("prune", folder / "net.onnx", "-o", folder / "p.onnx")
    assert refused.exit_code == 1 and "say what shall go" in refused.stderr


def test_quantize_counts_the_weights_beside_the_file(folder: Path):
    """PyTorch's exporter writes them there: the int8 file was 2.29 of a float one of four times its size."""
    proto = onnx.load(folder / "net.onnx")
    onnx.save(proto, folder / "out.onnx", save_as_external_data=True, location="out.data", size_threshold=0)
    said = [
        call("quantize", folder / name, "-c", folder / "calib.npz", "-o", folder / "q.onnx").output.split()[
            2:4
        ]
        for name in ("net.onnx", "out.onnx")
    ]
    whole = sum((folder / name).stat().st_size for name in ("out.onnx", "out.data"))
    assert said[1] == ["bytes,", f"{(folder / 'q.onnx').stat().st_size / whole:.2f}"]
    assert float(said[0][1]) == pytest.approx(float(said[1][1]), rel=0.1)  # the names of the files take room


def test_quantize_refines_on_request(folder: Path):
    result = call(
        "quantize", folder / "net.onnx", "-c", folder / "calib.npz", "-o", folder / "q.onnx", "--refine"
    )
    assert result.exit_code == 0
    assert "refined on 12 samples; on 4 others" in result.output
    mine, x = eb.refine(eb.load(folder / "net.onnx"), images(16)), images(4, seed=2)
    np.testing.assert_array_equal(eb.open(folder / "q.onnx")(x), mine(x))


def test_quantize_lists_the_nodes_left_in_float(folder: Path):
    onnx.save(small_net(helper.make_node("Tanh", ["f"], ["t"], name="squash")), folder / "net.onnx")
    result = call("quantize", folder / "net.onnx", "-c", folder / "calib.npz", "-o", folder / "q.onnx")
    assert result.exit_code == 0
    assert "Left in float" in result.stdout
    assert "squash" in result.stdout


def test_quantize_states_how_near_the_outputs_are(folder: Path):
    words = ("quantize", folder / "net.onnx", "-c", folder / "calib.npz", "-o", folder / "q.onnx")
    assert re.search(
        r"outputs on 8 calibration samples \(floor 15 dB\): \w+ \d+\.\d dB\n", call(*words).stdout
    )
    assert "outputs on" not in call(*words, "--no-check").stdout
    raised, beyond = call(*words, "--floor", "50"), call(*words, "--floor", "100")
    assert "16 bits for the " in raised.stdout and {
        t.bits for t in eb.inspect(folder / "q.onnx").tensors
    } >= {8}
    for result in (raised, beyond):
        assert (result.exit_code, result.stderr) == (0, "")
    assert "neither 16 bits nor float" in beyond.stdout
    assert_refused(call(*words, "--floor", "-3"), "floor=-3.0")


def test_a_recipe_changes_the_file(quantized: Path):
    (quantized / "recipe.toml").write_text(
        '[weights]\ngranularity = "per-tensor"\nrange = { name = "mse", steps = 20 }\n[overrides]\n"class*" = "float"\n'
    )
    result = quantize_with(quantized, quantized / "calib.npz", recipe=quantized / "recipe.toml")
    assert result.exit_code == 0
    assert "classifier" in result.stdout
    rows = {t.name: t for t in eb.inspect(quantized / "out.onnx").tensors}
    assert rows["w1"].channels == 1
    assert "w3" not in rows


def test_the_output_may_replace_the_input(folder: Path):
    before = (folder / "net.onnx").stat().st_size
    assert (
        call("quantize", folder / "net.onnx", "-c", folder / "calib.npz", "-o", folder / "net.onnx").exit_code
        == 0
    )
    assert eb.open(folder / "net.onnx").inputs[0].name == "image"
    assert (folder / "net.onnx").stat().st_size != before


def test_both_engines_run_the_file_to_the_same_outputs(quantized: Path):
    for engine in ("onnxruntime", "numpy"):
        target = quantized / f"{engine}.npz"
        result = call(
            "run", quantized / "q.onnx", "-i", quantized / "test.npz", "-o", target, "--engine", engine
        )
        assert result.exit_code == 0, result.stderr
        assert "logits float32 (40, 5)" in result.stdout
    first, second = np.load(quantized / "onnxruntime.npz"), np.load(quantized / "numpy.npz")
    assert first.files == ["logits"]
    np.testing.assert_array_equal(first["logits"], second["logits"])
    np.testing.assert_array_equal(
        first["logits"], eb.open(quantized / "q.onnx")(np.load(quantized / "test.npz")["image"])
    )


@pytest.mark.usefixtures("cc")
def test_native_and_numpy_run_the_file_to_the_same_outputs(quantized: Path):
    found = {}
    for engine in ("numpy", "native"):
        words = ("run", quantized / "q.onnx", "-i", quantized / "test.npz", "-o", quantized / f"{engine}.npz")
        result = call(*words, "--engine", engine, "--arithmetic", "single")
        assert result.exit_code == 0, result.stderr
        found[engine] = np.load(quantized / f"{engine}.npz")["logits"]
    np.testing.assert_array_equal(found["native"], found["numpy"])


def test_export_writes_a_folder_of_c_and_prints_the_arena(quantized: Path):
    words = (
        "export",
        quantized / "q.onnx",
        "-o",
        quantized / "net_c",
        "--arithmetic",
        "single",
        "--name",
        "small",
    )
    result = call(*words, "-d", quantized / "test.npz")
    assert result.exit_code == 0, result.stderr
    assert "alive in one step" in result.stdout
    assert "#define EB_SINGLE_ROUNDING 1" in (quantized / "net_c" / "small.c").read_text()
    assert "#define VECTORS 40" in (quantized / "net_c" / "selftest.c").read_text()
    assert_refused(call("export", quantized / "q.onnx", "-o", quantized / "q.onnx"), "cannot make the folder")
    assert_refused(call(*words[:4], "--arithmetic", "onnx"), "choose 'tflite' or 'single'")


def test_compare_prints_tables_and_json(quantized: Path):
    words = ("compare", quantized / "net.onnx", quantized / "q.onnx", "-d", quantized / "test.npz")
    text = call(*words)
    assert text.exit_code == 0, text.stderr
    assert "float and int8 on 40 samples" in text.stdout
    assert "90.00%" in text.stdout  # 4 of 40 labels are wrong on purpose
    found = json.loads(call(*words, "--json").stdout)
    assert found["samples"] == 40
    assert found["accuracy"]["float_accuracy"] == 0.9
    assert found["latency"] is None
    timed = json.loads(call(*words, "--json", "--latency", "--threads", 1).stdout)
    assert timed["latency"]["ratio"] > 0
    assert timed["latency"]["threads"] == 1


def test_compare_fails_where_the_accuracy_is_not_shown_to_be_kept(quantized: Path):
    words = ("compare", quantized / "net.onnx", quantized / "q.onnx", "-d", quantized / "test.npz")
    passed = call(*words, "--margin", 0.5)
    assert passed.exit_code == 0, passed.stderr
    assert "no worse than 50 points" in passed.stdout
    failed = call(*words, "--margin", 0.005)
    assert failed.exit_code == 1
    assert "float and int8 on 40 samples" in failed.stdout  # the report is there all the same
    (line,) = failed.stderr.splitlines()
    assert line.startswith(
        "Error: the test of the accuracy failed: no worse than 0.5 points: not enough images"
    )
    assert call(*words).exit_code == 0  # reported, not required
    found = json.loads(call(*words, "--json", "--margin", 0.5).stdout)
    assert found["no_worse"]["verdict"] == "no worse"
    np.savez(quantized / "plain.npz", image=images(3))
    unlabelled = call(*words[:-1], quantized / "plain.npz", "--margin", 0.1)
    assert_refused(unlabelled, "--margin", "labels")
    assert_refused(call(*words, "--margin", 5), "--margin", status=2)


def test_inspect_prints_tables_and_json(quantized: Path):
    text = call("inspect", quantized / "q.onnx")
    assert text.exit_code == 0
    assert "classifier" not in text.stdout
    assert "8x3x3x3" in text.stdout
    found = json.loads(call("inspect", quantized / "q.onnx", "--json").stdout)
    assert sum(found["bytes"].values()) == (quantized / "q.onnx").stat().st_size


@pytest.mark.parametrize("data", [(), ("-d", "test.npz")])
def test_bench_gives_medians_and_their_ratio(quantized: Path, data: tuple[str, ...]):
    words = [quantized / w if w.endswith("npz") else w for w in data]
    options = ("--rounds", 5, "--batch", 2, "--threads", 1)
    run = ("bench", quantized / "net.onnx", quantized / "q.onnx", *words, *options)
    assert "medians of 5 rounds in turns, batch 2, threads 1" in call(*run).stdout
    report = json.loads(call(*run, "--json").stdout)
    timed = {e["engine"]: e for e in report["engines"]}
    assert set(timed) | set(report["left_out"]) == set(ENGINES) and {"onnxruntime", "numpy"} <= set(timed)
    for found in timed.values():
        has_float = found["engine"] in ("onnxruntime", "openvino")
        assert found["ratio"] == (found["int8_seconds"] / found["float_seconds"] if has_float else None)
    assert report["processor"] == processor_name() and report["features"] == list(processor_features())
    one = json.loads(call(*run, "--json", "--engine", "numpy").stdout)
    assert [e["engine"] for e in one["engines"]] == ["numpy"] and one["left_out"] == {}


def test_bench_says_why_an_engine_is_left_out(folder: Path):
    net = small_net()
    net.graph.node.insert(8, helper.make_node("LpNormalization", ["f"], ["t"], name="norm", axis=1))
    net.graph.node[9].input[0] = "t"
    onnx.save(net, folder / "net.onnx")
    assert quantize_with(folder, folder / "calib.npz").exit_code == 0
    run = ("bench", folder / "net.onnx", folder / "out.onnx", "--rounds", 5, "--json")
    left_out = json.loads(call(*run).stdout)["left_out"]
    assert "norm" in left_out["native"]
    assert_refused(call(*run, "--engine", "native"), "norm")


def test_help_and_version():
    assert call("--version").stdout.strip().endswith(eb.__version__)
    for word in ("quantize", "run", "compare", "inspect", "bench"):
        assert call(word, "--help").exit_code == 0
        assert word in call("--help").stdout


# Bad calibration


def test_nan_in_the_calibration(folder: Path):
    x = images(4)
    x[1, 0, 2, 3] = np.nan
    np.savez(folder / "bad.npz", image=x)
    assert_refused(quantize_with(folder, folder / "bad.npz"), "image", "NaN", "(1, 0, 2, 3)")


def test_empty_calibration(folder: Path):
    np.savez(folder / "none.npz", image=np.zeros((0, *SHAPE), np.float32))
    assert_refused(quantize_with(folder, folder / "none.npz"))
    np.savez(folder / "nothing.npz")
    assert_refused(quantize_with(folder, folder / "nothing.npz"))


def test_wrong_input_name(folder: Path):
    np.savez(folder / "bad.npz", picture=images(4))
    assert_refused(quantize_with(folder, folder / "bad.npz"), "picture", "image")


def test_wrong_shape_and_dtype(folder: Path):
    np.savez(folder / "bad.npz", image=np.zeros((4, 8, 8, 3), np.float32))
    assert_refused(quantize_with(folder, folder / "bad.npz"), "image", "(4, 8, 8, 3)")
    np.savez(folder / "bad.npz", image=np.zeros((4, *SHAPE), np.uint8))
    assert_refused(quantize_with(folder, folder / "bad.npz"), "uint8", "float32")


def test_damaged_npz(folder: Path):
    whole = (folder / "calib.npz").read_bytes()
    (folder / "cut.npz").write_bytes(whole[: len(whole) // 2])
    assert_refused(quantize_with(folder, folder / "cut.npz"), "cut.npz", "truncated")
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF  # the archive's own checksum finds it
    (folder / "flipped.npz").write_bytes(bytes(flipped))
    assert_refused(quantize_with(folder, folder / "flipped.npz"), "flipped.npz")


def test_not_an_npz(folder: Path):
    (folder / "text.npz").write_text("no archive")
    assert_refused(quantize_with(folder, folder / "text.npz"), "text.npz", "not an .npz")
    np.save(folder / "one.npy", images(2))
    assert_refused(quantize_with(folder, folder / "one.npy"), "one.npy", "not an .npz")
    assert_refused(quantize_with(folder, folder / "absent.npz"), "absent.npz", "no such file")
    assert_refused(quantize_with(folder, folder), str(folder))


def test_python_objects_are_not_unpickled(folder: Path):
    np.savez(folder / "objects.npz", image=np.array([{"a": 1}], dtype=object))
    assert_refused(quantize_with(folder, folder / "objects.npz"), "Python objects")


# Bad models


def test_truncated_model(folder: Path):
    whole = (folder / "net.onnx").read_bytes()
    (folder / "net.onnx").write_bytes(whole[: len(whole) // 2])
    assert_refused(quantize_with(folder, folder / "calib.npz"), "net.onnx", "truncated")


def test_missing_model(folder: Path):
    (folder / "net.onnx").unlink()
    assert_refused(quantize_with(folder, folder / "calib.npz"), "net.onnx")


def test_unknown_op(folder: Path):
    odd = helper.make_node("Sparkle", ["f"], ["t"], name="odd", domain="com.example")
    onnx.save(small_net(odd, "com.example"), folder / "net.onnx")
    assert_refused(quantize_with(folder, folder / "calib.npz"), "com.example::Sparkle", "odd")


def test_a_float_file_is_not_run_as_int8(folder: Path):
    result = call("run", folder / "net.onnx", "-i", folder / "test.npz", "-o", folder / "y.npz")
    assert_refused(result, "float model")


def test_models_that_do_not_belong_together(quantized: Path):
    proto = small_net()
    proto.graph.input[0].name = proto.graph.node[0].input[0] = "x"
    onnx.save(proto, quantized / "other.onnx")
    result = call("compare", quantized / "other.onnx", quantized / "q.onnx", "-d", quantized / "test.npz")
    assert_refused(result, "different inputs")


# Bad places and recipes


def test_unwritable_outputs(folder: Path):
    for place, said in (
        (folder / "absent" / "q.onnx", "no directory"),
        (folder / "net.onnx" / "q.onnx", "no directory"),
        (folder, "is a directory"),
    ):
        words = ("quantize", folder / "net.onnx", "-c", folder / "calib.npz", "-o", place)
        assert_refused(call(*words), said)


def test_an_output_never_takes_the_place_of_what_the_command_reads(quantized: Path):
    model, data, net = quantized / "q.onnx", quantized / "test.npz", quantized / "net.onnx"
    (quantized / "recipe.toml").write_text("equalize = true")
    (quantized / "link").symlink_to(model)
    os.link(data, quantized / "twin.npz")
    before = {path.name: path.read_bytes() for path in quantized.iterdir()}
    for words in (
        ("run", model, "-i", data, "-o", model),
        ("run", model, "-i", data, "-o", data),
        ("run", model, "-i", data, "-o", quantized / "link"),
        ("run", model, "-i", data, "-o", quantized / "twin.npz"),
        ("quantize", net, "-c", data, "-o", data),
        ("quantize", net, "-c", data, "-o", quantized / "recipe.toml", "--recipe", quantized / "recipe.toml"),
        ("tune", net, "-c", data, "-o", quantized / "new", "--save-recipe", quantized / "new", "--size", 1),
        ("tune", net, "-c", data, "-o", quantized / "new", "--save-recipe", net, "--size", 1),
        ("compare", net, model, "-d", data, "--html", model),
    ):
        assert_refused(call(*words), "this command also uses it as", "give another name")
        assert {path.name: path.read_bytes() for path in quantized.iterdir()} == before


def test_an_output_may_be_a_pipe(quantized: Path):
    os.mkfifo(quantized / "pipe")
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append((quantized / "pipe").read_bytes()), daemon=True)
    reader.start()
    result = call("run", quantized / "q.onnx", "-i", quantized / "test.npz", "-o", quantized / "pipe")
    reader.join(10)
    assert result.exit_code == 0, result.stderr
    with np.load(io.BytesIO(received[0])) as found:
        assert found["logits"].shape == (40, CLASSES)


@pytest.mark.parametrize("words", [("inspect", "q.onnx"), ("--help",), ("--version",), ("run", "--help")])
def test_a_full_standard_output_is_one_line(quantized: Path, words: tuple[str, ...]):
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "eightbit.cli", *words],
            cwd=quantized,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    said = "Error: cannot write any more: No space left on device; make room, or send the output elsewhere\n"
    assert done.stderr == said


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_interrupted_save_keeps_the_old_file(
    quantized: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException
):
    old = (quantized / "q.onnx").read_bytes()
    before = sorted(p.name for p in quantized.iterdir())

    def interrupted(*_: object) -> None:
        raise stop

    monkeypatch.setattr(os, "replace", interrupted)
    words = ("quantize", quantized / "net.onnx", "-c", quantized / "test.npz", "-o", quantized / "q.onnx")
    result = call(*words)
    assert result.exit_code == 1
    assert "Traceback" not in result.stderr
    assert (quantized / "q.onnx").read_bytes() == old
    assert sorted(p.name for p in quantized.iterdir()) == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[weight]\nbits = 8", ("'weight'", "'weights', 'activations'")),
        ("[weights]\nbit = 8", ("'bit'", "[weights]", "'bits'")),
        ("[weights]\nbits = true", ("Weights(bits=True)", "an integer from 2 to 16")),
        (
            '[overrides]\n"a*" = { weights = { bits = "4" } }',
            ("'a*'", "Weights(bits='4')", "an integer from 2 to 16"),
        ),
        ("[weights]\nbits = 20", ("20",)),
        (
            '[weights]\nrange = "best"',
            ("'best'", "'minmax', 'moving-average', 'percentile', 'mse', 'entropy'"),
        ),
        ('[weights]\nrange = { name = "mse", step = 3 }', ("'step'", "'steps'")),
        ('[overrides]\n"a*" = "int4"', ("'a*'", "'int4'", "'float'")),
        ("weights = 8", ("[weights]",)),
        ("bits = = 8", ("not TOML",)),
    ],
)
def test_bad_recipes(folder: Path, text: str, said: tuple[str, ...]):
    (folder / "recipe.toml").write_text(text)
    assert_refused(
        quantize_with(folder, folder / "calib.npz", recipe=folder / "recipe.toml"), "recipe.toml", *said
    )


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_number_is_finite(quantized: Path, value: str):
    files = (quantized / "net.onnx", quantized / "q.onnx")
    data = ("-d", quantized / "test.npz")
    for words in (
        ("bench", *files, "--seconds", value),
        ("compare", *files, *data, "--margin", value),
        *(
            ("tune", files[0], "-c", data[1], "-o", quantized / "t", f"--{limit}", value)
            for limit in ("drop", "agreement", "size", "latency", "bits")
        ),
    ):
        assert_refused(call(*words), value, status=2)


def test_more_threads_than_a_machine_bears(quantized: Path):
    files = (quantized / "net.onnx", quantized / "q.onnx")
    for words in (
        ("bench", *files, "--threads"),
        ("compare", *files, "-d", quantized / "test.npz", "--threads"),
        ("tune", files[0], "-c", quantized / "test.npz", "-o", quantized / "t", "--size", 1, "--workers"),
    ):
        assert_refused(call(*words, 100_000), "100000", status=2)
    with pytest.raises(eb.EngineError, match="threads=100000: give 1 to"):
        eb.compare(*files, images(2), threads=100_000)


NAMES = ["conv\x1b]0;owned\x07\x1b[2J", "a\nb\r", "\u202egnp", "[bold red]w[/]", "$\\frac$", "x" * 300]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_a_terminal_would_obey(folder: Path, name: str):
    net = small_net()
    for node in net.graph.node:
        for names in (node.input, node.output):
            names[:] = [name if old == "r1" else old for old in names]
    net.graph.node[0].name = name + "2"
    net.graph.node.insert(8, helper.make_node("Tanh", ["f"], ["t"], name=name + "3"))
    net.graph.node[9].input[0] = "t"
    onnx.save(net, folder / "net.onnx")
    data = folder / "test.npz"
    page = folder / "page.html"
    for words in (
        ("quantize", folder / "net.onnx", "-c", folder / "calib.npz", "-o", folder / "q.onnx"),
        ("inspect", folder / "q.onnx"),
        ("compare", folder / "net.onnx", folder / "q.onnx", "-d", data, "--html", page),
        ("run", folder / "q.onnx", "-i", data, "-o", folder / "y.npz"),
    ):
        result = call(*words)
        assert result.exit_code == 0, result.stderr
        assert all(c.isprintable() or c == "\n" for c in result.stdout)
    refused = call(
        "quantize", folder / "net.onnx", "-c", folder / "calib.npz", "-o", folder / f"a{name[:50]}/b"
    )
    assert_refused(refused, "no directory")
    assert all(c.isprintable() or c == "\n" for c in refused.stderr)


def test_missing_recipe(folder: Path):
    result = quantize_with(folder, folder / "calib.npz", recipe=folder / "absent.toml")
    assert_refused(result, "absent.toml", "No such file")


def test_misuse_is_status_2(folder: Path):
    assert_refused(call("quantize", folder / "net.onnx"), "--calibration", status=2)
    assert_refused(call("quantise"), "quantise", status=2)
    run = ("run", folder / "net.onnx", "-i", folder / "test.npz", "-o", folder / "y.npz")
    assert_refused(call(*run, "--engine", "abacus"), "abacus", status=2)


def test_a_defect_is_one_line_too(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object) -> None:
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr("eightbit.cli.inspect.inspect", broken)
    result = call("inspect", folder / "net.onnx")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "unexpected ZeroDivisionError: by zero" in result.stderr


# Pictures

HOW = ("--resize", 8, "--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225")


def photographs(place: Path, count: int, seed: int = 0) -> np.ndarray:
    """So many pictures of the small net's size in `place`, and what the net takes for them."""
    place.mkdir(parents=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (count, *SHAPE[1:], 3), dtype=np.uint8)
    for number, picture in enumerate(pixels):
        Image.fromarray(picture).save(place / f"{number:02}.png")
    x = pixels.astype(np.float32) / np.float32(255) - np.float32([0.485, 0.456, 0.406])
    return (x / np.float32([0.229, 0.224, 0.225])).transpose(0, 3, 1, 2)


def test_a_folder_of_pictures_is_what_their_arrays_are(folder: Path):
    net = folder / "net.onnx"
    parts = [photographs(folder / "classes" / name, 6, seed=i) for i, name in enumerate("abcde")]
    labels = np.repeat(np.arange(5), 6)
    np.savez(folder / "photos.npz", image=photographs(folder / "photos", 20, seed=9))
    np.savez(folder / "classes.npz", image=np.concatenate(parts), labels=labels)
    results = []
    for ending, how in (("", HOW), (".npz", ())):
        photos, classes, q = (folder / f"{name}{ending}" for name in ("photos", "classes", "q"))
        budget = ("--held-out", classes, "--bits", 8, "-o", q, "--json")
        done = [
            call("quantize", net, "-c", photos, "-o", q, *how),
            call("run", q, "-i", photos, "-o", folder / f"y{ending}", *how),
            call("compare", net, q, "-d", classes, "--margin", 0.9, "--json", *how),
            call("tune", net, "-c", photos, "-d", classes, *budget, *how),
            call("bench", net, q, "-d", photos, "--batch", 3, "--rounds", 5, *how),
            call("export", q, "-d", photos, "-o", folder / f"c{ending}", *how),
            call("prune", net, "-c", photos, "--macs", 0.6, "-o", folder / f"p{ending}", *how),
        ]
        assert [d.exit_code for d in done] == [0] * 7, [d.stderr for d in done]
        files = (q, folder / f"c{ending}" / "selftest.c", folder / f"p{ending}")
        with np.load(folder / f"y{ending}") as y:
            written = [file.read_bytes() for file in files]
            results.append((written, y["logits"].tolist(), done[2].stdout, done[3].stdout))
        said = f"Note: the folders in {classes} are taken for classes 0 (a) to 4 (e)\n"
        assert done[2].stderr == ("" if ending else said)
    assert results[0] == results[1]
    assert json.loads(results[0][2])["accuracy"] is not None


def test_one_picture_runs(quantized: Path):
    x, picture = photographs(quantized / "photos", 3), quantized / "photos" / "01.png"
    result = call("run", quantized / "q.onnx", "-i", picture, "-o", quantized / "y.npz", *HOW)
    assert result.exit_code == 0, result.stderr
    with np.load(quantized / "y.npz") as y:
        np.testing.assert_array_equal(y["logits"], eb.open(quantized / "q.onnx")(x[1:2]))


def test_options_on_pictures_change_the_numbers(folder: Path):
    photographs(folder / "photos", 5)
    changes = (
        (),
        ("--mean", 0.1),
        ("--std", 2),
        ("--range", 255),
        ("--bgr",),
        ("--most", 2),
        ("--resize", 8),
    )
    files = []
    for words in changes:
        result = call(
            "quantize", folder / "net.onnx", "-c", folder / "photos", "-o", folder / "q.onnx", *words
        )
        assert result.exit_code == 0, result.stderr
        files.append((folder / "q.onnx").read_bytes())
    assert len(set(files)) == len(changes)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (
            ("-c", "photos", "--layout", "nhwc"),
            1,
            "no axis of image: float32 (?, 3, 8, 8) holds the channels",
        ),
        (("-c", "photos", "--size", "16"), 1, "pictures of 16 x 16 do not fit image: float32 (?, 3, 8, 8)"),
        (
            ("-c", "photos", "--mean", "127"),
            1,
            "mean=(127.0,) lies outside pixels of 0 to 1; say that they run to 255",
        ),
        (("-c", "photos", "--std", "0"), 1, "std"),
        (("-c", "photos", "--mean", "1,2"), 1, "give one number, or one for red, green and blue each"),
        (("-c", "photos", "--mean", "nan"), 1, "mean"),
        (("-c", "photos", "--mean", "a"), 2, "'a' is no number, or numbers with commas between them"),
        (
            ("-c", "photos", "--size", "8x8x8"),
            2,
            "'8x8x8' is no size such as 224, or 192x256 (height, width)",
        ),
        (("-c", "photos", "--most", "0"), 2, "0 is not in the range"),
        (
            ("-c", "calib.npz", "--mean", "0.5"),
            2,
            "no data are pictures; leave the options on pictures out",
        ),
        (("-c", "calib.npz", "--most", "5"), 2, "no data are pictures"),
        (("-c", "bad"), 1, "bad/x.jpg cannot be read as a picture: cannot identify image file"),
        (("-c", "empty"), 1, "empty holds no picture (.jpg"),
        (("-c", "gone"), 1, "gone: there is no such file"),
        (("-c", "gone.png"), 1, "gone.png cannot be read as a picture"),
    ],
)
def test_pictures_that_do_not_fit(
    folder: Path, monkeypatch: pytest.MonkeyPatch, words, status: int, said: str
):
    monkeypatch.chdir(folder)
    photographs(folder / "photos", 2)
    for name in ("bad", "empty"):
        (folder / name).mkdir()
    (folder / "bad" / "x.jpg").write_text("<html>")
    assert_refused(call("quantize", "net.onnx", *words, "-o", "q.onnx"), said, status=status)
    assert not (folder / "q.onnx").exists()


# A machine without the extras, and a terminal

BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "tensorflow", "keras", "matplotlib", "onnxscript", "tf2onnx", "PIL"}:
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocker())
from eightbit.cli import main
"""


def test_every_word_works_without_torch_tensorflow_and_matplotlib(folder: Path):
    script = (
        BLOCKED
        + """
for words in (
    "quantize net.onnx -c calib.npz -o q.onnx", "run q.onnx -i test.npz -o y.npz", "inspect q.onnx",
    "export q.onnx -o net_c",
    "compare net.onnx q.onnx -d test.npz", "bench net.onnx q.onnx --rounds 5",
):
    main(words.split(), standalone_mode=False)
import eightbit, numpy
try:
    eightbit.compare("net.onnx", "q.onnx", numpy.load("test.npz")["image"]).plot()
except eightbit.MissingExtra as error:
    print("missing:", error)
try:
    main("quantize net.onnx -c photos -o q.onnx".split(), standalone_mode=False)
except SystemExit as end:
    print("status:", end)
"""
    )
    photographs(folder / "photos", 1)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "Error: Pillow is not installed; run: pip install 'eightbit[pictures]'\n"
    assert "status: 1" in done.stdout
    assert "missing: matplotlib is not installed; run: pip install 'eightbit[plot]'" in done.stdout


def test_a_terminal_sees_progress(folder: Path):
    pty = pytest.importorskip("pty")
    primary, secondary = pty.openpty()
    seen: list[bytes] = []
    words = ["quantize", "net.onnx", "-c", "calib.npz", "-o", "q.onnx"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen(
        [sys.executable, "-m", "eightbit.cli", *words],
        cwd=folder,
        stderr=secondary,
        stdout=subprocess.DEVNULL,
        env=environment,
    ) as process:
        os.close(secondary)
        # A terminal holds a few KiB and gives what it has, so all of it is read before bytes become characters.
        with contextlib.suppress(
            OSError
        ):  # Linux ends a terminal that its writers left with an error, others with b""
            while part := os.read(primary, 65536):
                seen.append(part)
    os.close(primary)
    assert process.returncode == 0
    text = b"".join(seen).decode()
    assert "calibrate" in text
    assert "16/16" in text
