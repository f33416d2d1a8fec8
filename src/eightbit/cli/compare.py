"""`eightbit compare`: what quantization changed."""

from __future__ import annotations

from pathlib import Path

import click

from eightbit.cli.group import main
from eightbit.cli.options import CONSTANTS, FILE, JSON, THREADS, Held, Number
from eightbit.cli.places import check_places
from eightbit.cli.reading import Reader, read_model, takes_data
from eightbit.cli.terminal import bars, show
from eightbit.data.given import LABELS
from eightbit.errors import EngineError
from eightbit.plot.look import pyplot
from eightbit.report.comparison import LAYER_SAMPLES, compare, int8_form
from eightbit.report.confidence import MARGIN, NonInferiority, Verdict
from eightbit.report.explanation import PICTURES, explain


@main.command("compare", short_help="Say what quantization changed.")
@click.argument("float_model", type=FILE)
@click.argument("int8_model", type=FILE)
@click.option(
    "-d", "--data", "data_file", type=FILE, required=True, help="Inputs, and labels if any, .npz or pictures."
)
@click.option(
    "--margin",
    type=Number(0, 1, min_open=True, max_open=True),
    help=f"Fail (status 1) unless the accuracy is shown to fall by less, a share. Reported: {MARGIN}.",
)
@click.option("--html", type=FILE, help="Also write a page with figures and the answers that changed.")
@click.option("--tensorboard", type=FILE, help="Also write logs for TensorBoard, a folder.")
@click.option("--latency", is_flag=True, help="Also measure the time of one sample.")
@click.option("--threads", type=THREADS, help="Threads of ONNX Runtime; default: every core.")
@JSON
@CONSTANTS
@takes_data("--size", "--crop")
def compare_command(
    float_model: Path,
    int8_model: Path,
    data_file: Path,
    margin: float | None,
    html: Path | None,
    tensorboard: Path | None,
    latency: bool,
    threads: int | None,
    as_json: bool,
    constants: Held,
    read: Reader,
) -> None:
    """Say what quantization changed between FLOAT_MODEL and INT8_MODEL."""
    model = read_model(float_model, constants)
    q = int8_form(model, int8_model)
    data = read(model.ir, data_file, EngineError)
    if margin is not None and not data.has_labels:
        raise EngineError(
            f"{data_file}: --margin needs accuracies; add the true classes under '{LABELS}', or sort pictures into "
            "folders of their classes"
        )
    if html is not None:
        pyplot()  # a missing extra is better known before the work than after it
        check_places(html, beside=(float_model, int8_model, data_file))
    few = min(LAYER_SAMPLES, data.rows)
    totals = {"compare": data.rows, "layers": few, "histograms": few, "pictures": PICTURES}
    with bars(totals) as tick:
        report = compare(
            model, q, data, margin=margin or MARGIN, latency=latency, threads=threads, progress=tick
        )
        if html is not None or tensorboard is not None:
            explanation = explain(model, q, data, report, threads=threads, progress=tick)
            if html is not None:
                explanation.html(html)
            if tensorboard is not None:
                explanation.tensorboard(tensorboard)
    show(report, as_json)
    if margin is not None and report.no_worse is not None:
        _require(report.no_worse)


def _require(test: NonInferiority) -> None:
    """End with status 1 unless the int8 model was shown to be no worse."""
    if test.verdict is not Verdict.NO_WORSE:
        raise EngineError(f"the test of the accuracy failed: {test}")
