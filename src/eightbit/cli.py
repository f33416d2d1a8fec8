"""The command line: the same words as the package, on files.

Models are files. Data are `.npz` files whose keys are the models' input names (labels under `labels`), or folders of
pictures. Exit status: 0, or 1 where the work failed (one line on stderr says why), or 2 where the command was misused.
"""

from __future__ import annotations

import errno
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx_ir as ir
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import eightbit
from eightbit.arith.fixedpoint import Arithmetic
from eightbit.data.batch_axis import joined
from eightbit.data.feeds import Feeds, feed
from eightbit.data.given import LABELS
from eightbit.data.npz import Npz, write_npz
from eightbit.data.pictures import Pictures, Preparation, is_picture
from eightbit.data.specs import TensorSpec, specs
from eightbit.errors import (
    CalibrationError,
    EightbitError,
    EngineError,
    ExportError,
    QuantizationError,
    printable,
)
from eightbit.files import check_place
from eightbit.graph.run import MOST_THREADS
from eightbit.graph.samples import npz_for, samples
from eightbit.model import ENGINES, Model, export, load, quantize
from eightbit.model import open as open_quantized
from eightbit.plot.look import pyplot
from eightbit.pruning.prune import prune
from eightbit.quant.choose.recipe import Recipe
from eightbit.quant.choose.recipe_file import read_recipe
from eightbit.report.comparison import LAYER_SAMPLES, compare, int8_form, measure
from eightbit.report.confidence import MARGIN, NonInferiority, Verdict
from eightbit.report.explanation import PICTURES, explain
from eightbit.report.inspection import inspect
from eightbit.report.pruning import pruned_layers
from eightbit.report.table import Table
from eightbit.train.refine import refine
from eightbit.train.refinement import Refinement
from eightbit.tuning.search import tune
from eightbit.tuning.target import Target

TRACEBACK = "EIGHTBIT_TRACEBACK"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class _Number(click.FloatRange):
    """A finite number; NaN lies in every range of click's."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return number


class _Numbers(click.ParamType):
    """Numbers with commas between them."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return tuple(float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is no number, or numbers with commas between them.", param, ctx)


class _Size(click.ParamType):
    """A side, or height and width with an x between them."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        sides = value.lower().split("x")
        if len(sides) > 2 or not all(side.isdecimal() for side in sides):
            self.fail(f"{value!r} is no size such as 224, or 192x256 (height, width).", param, ctx)
        return int(sides[0]), int(sides[-1])


class _Constant(click.ParamType):
    """The name of an input and what it always holds: sr=16000, mask=[true, false]."""

    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        name, equals, text = value.partition("=")
        if not name or not equals:
            self.fail(f"{value!r} is no NAME=VALUE such as sr=16000.", param, ctx)
        try:
            array = np.asarray(json.loads(text))
        except ValueError:  # a text that is no JSON, or lists of different lengths
            array = np.asarray(None)
        if array.dtype.kind not in "biuf":
            self.fail(f"{text!r} is no number, true or false, or list of them in brackets.", param, ctx)
        return name, array


FILE = click.Path(path_type=Path)
THREADS = click.IntRange(1, MOST_THREADS)
ARITHMETIC = click.Choice([arithmetic.value for arithmetic in Arithmetic])
CONSTANTS = click.option(
    "--constant",
    "constants",
    multiple=True,
    type=_Constant(),
    help="An input that always holds the same: sr=16000.",
)
Tick = Callable[[str, int], None]
_Held = tuple[tuple[str, np.ndarray], ...]


class _Commands(click.Group):
    """Turns whatever a command raises into one line and an exit status."""

    def main(self, *args: Any, **extra: Any) -> Any:
        try:
            return super().main(*args, **extra)
        except OSError as cause:  # click prints help and version before a command is invoked
            _fail(_defect(cause), cause)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except EightbitError as cause:
            _fail(str(cause), cause)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError, KeyboardInterrupt):
            raise  # click has its own words and statuses for these
        except MemoryError as cause:
            _fail("out of memory", cause)
        except Exception as cause:
            _fail(_defect(cause), cause)


def _fail(reason: str, cause: BaseException) -> None:
    if os.environ.get(TRACEBACK):
        raise cause
    line = printable(" ".join(reason.split()))
    with suppress(OSError):
        click.echo(f"{click.style('Error:', fg='red', bold=True)} {line}", err=True)
    sys.exit(1)


def _defect(cause: Exception) -> str:
    """What to say of an exception that is not ours: standard output or the temporary folder is full, or a defect."""
    if isinstance(cause, OSError) and cause.errno in NO_ROOM:
        return f"cannot write any more: {cause.strerror}; make room, or send the output elsewhere"
    return f"unexpected {type(cause).__name__}: {cause} (a defect; {TRACEBACK}=1 shows where)"


def _say(text: object, *, bold: bool = False) -> None:
    """Print to standard output what cannot command a terminal."""
    click.echo(click.style(printable(str(text)), bold=bold or None))


ON_PICTURES = (
    click.option(
        "--resize", type=click.IntRange(1), help="Pictures: shorter side before the crop; default: 256 for 224."
    ),
    click.option("--mean", type=_Numbers(), help="Pictures: subtracted; one number or R,G,B.  [default: 0]"),
    click.option("--std", type=_Numbers(), help="Pictures: divided by; one number or R,G,B.  [default: 1]"),
    click.option(
        "--range", "top", type=click.Choice(["1", "255"]), callback=lambda ctx, param, top: top and int(top),
        help="Pictures: what white is before --mean and --std.  [default: 1]",
    ),
    click.option("--layout", type=click.Choice(["nchw", "nhwc"]), help="Pictures: where the model's channels are."),
    click.option("--bgr", is_flag=True, default=None, help="Pictures: blue first."),
    click.option("--most", type=click.IntRange(1), help="Pictures: at most so many, spread over all."),
)  # fmt: skip


def _takes_data(*size: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command whose data may be pictures: for the options on them it gets `read`, which opens data for a model.

    `size` are the names of the option on the size of pictures.
    """
    crop = click.option(
        *size, "crop_size", type=_Size(), help="Pictures: side of the crop, or HxW; default: the model's."
    )

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def run(**words: Any) -> None:
            given = {"size": words.pop("crop_size")}  # `tune` has a size of its own
            given |= {n: words.pop(n) for n in ("resize", "mean", "std", "top", "layout", "bgr", "most")}
            options = {name: value for name, value in given.items() if value is not None}
            if options and not any(_are_pictures(path) for path in words.values() if isinstance(path, Path)):
                raise click.UsageError("no data are pictures; leave the options on pictures out")
            command(read=_Reader(**options), **words)

        for option in reversed((crop, *ON_PICTURES)):
            run = option(run)
        return run

    return decorate


class _Reader:
    """Opens data for a model: an .npz file, a folder of pictures or one picture, prepared as the options say."""

    def __init__(self, most: int | None = None, **how: Any) -> None:
        self.most, self.how = most, Preparation(**how)

    def __call__(self, model: ir.Model, path: Path, error: type[EightbitError]) -> Npz | Pictures:
        if not _are_pictures(path):
            return npz_for(model, path, error)
        found = Pictures(path, specs(model), error, self.how, self.most)
        if found.classes:
            first, last = found.classes[0], found.classes[-1]
            click.echo(
                f"Note: the folders in {path} are taken for classes 0 ({first}) to {len(found.classes) - 1} ({last})",
                err=True,
            )
        return found


def _are_pictures(path: Path) -> bool:
    return path.is_dir() or is_picture(path.name)


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(eightbit.__version__, package_name="eightbit")
def main() -> None:
    """Int8 neural networks: quantize, run, compare, inspect and time ONNX files.

    Data are .npz files whose keys are the model's input names, with labels under `labels`; or folders of pictures for
    models with one input. Pictures in folders of their class are labelled by the place of the folder's name among the
    sorted ones.
    """


@main.command("quantize")
@click.argument("model", type=FILE)
@click.option(
    "-c", "--calibration", type=FILE, required=True, help="Inputs to calibrate with, .npz or pictures."
)
@click.option("-o", "--output", type=FILE, required=True, help="Where to write the int8 model.")
@click.option("--recipe", type=FILE, help="How to quantize, TOML; see below.")
@click.option(
    "--refine", "refined", is_flag=True, help="Learn codes, biases and scales from MODEL's answers, too."
)
@CONSTANTS
@_takes_data("--size", "--crop")
def quantize_command(
    model: Path,
    calibration: Path,
    output: Path,
    recipe: Path | None,
    refined: bool,
    constants: _Held,
    read: _Reader,
) -> None:
    """Turn the float MODEL (.onnx) into int8.

    A recipe holds tables [weights], [activations] and [overrides]. Overrides are for single nodes, by patterns of
    names ("classifier*" = "float") or of op types ("op:Conv" = { weights = { bits = 4 } }); the last that matches a
    node decides. All keys: the documentation of eightbit.quant.choose.recipe_file.
    """
    _check_places(output, beside=(calibration, recipe))
    chosen = Recipe() if recipe is None else read_recipe(recipe)
    graph = _load(model, constants)
    data = read(graph.ir, calibration, CalibrationError)
    with _bars({"calibrate": data.rows, "moments": data.rows, "train": Refinement().steps}) as tick:
        q = (refine if refined else quantize)(graph, data, chosen, progress=tick)
    before = sum(p.stat().st_size for p in (model, *model.rglob("*")) if p.is_file())
    q.save(output)
    after = output.stat().st_size if output.is_file() else 0
    _say(f"{output}: {after:,} bytes, {after / before:.2f} of {model}" if after else f"{output}: written")
    if q.report is not None and q.report.islands:
        nodes = ((i.node, i.op, i.reason) for i in q.report.islands)
        _say(Table("Left in float:", ("node", "op", "reason"), tuple(nodes)))
    if refined and q.report is not None:
        _say(q.report.notes[-1])


@main.command("prune", short_help="Remove channels, or set weights to zero.")
@click.argument("model", type=FILE)
@click.option(
    "-c",
    "--calibration",
    type=FILE,
    help="Inputs to look at, .npz or pictures; default: weights alone decide.",
)
@click.option("-o", "--output", type=FILE, required=True, help="Where to write the pruned float model.")
@click.option("--macs", type=_Number(), help="Share of the multiplications that may be left.")
@click.option("--sparsity", type=_Number(), help="Share of the weights that shall be zero.")
@click.option("--pattern", help="Zeros by neighbours along the input channels, such as 2:4.")
@click.option("--multiple", type=int, default=1, show_default=True, help="What divides numbers of channels.")
@click.option("--floor", type=_Number(), default=0.1, show_default=True, help="Share of channels that stays.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@CONSTANTS
@_takes_data("--size", "--crop")
def prune_command(
    model: Path,
    calibration: Path | None,
    output: Path,
    macs: float | None,
    sparsity: float | None,
    pattern: str | None,
    multiple: int,
    floor: float,
    as_json: bool,
    constants: _Held,
    read: _Reader,
) -> None:
    """Take channels out of the float MODEL (.onnx), or set weights to zero, without training.

    With data the weights that are left are fitted anew, so that the layers give what they gave.
    """
    _check_places(output, beside=(model, calibration))
    graph = _load(model, constants)
    data = None if calibration is None else read(graph.ir, calibration, CalibrationError)
    with _bars({} if data is None else {"moments": data.rows}) as tick:
        pruned = prune(
            graph,
            data,
            macs=macs,
            sparsity=sparsity,
            pattern=pattern,
            multiple=multiple,
            floor=floor,
            progress=tick,
        )
    pruned.save(output)
    _show(pruned_layers(graph, pruned, data), as_json)


@main.command("tune", short_help="Search for bits that meet a budget.")
@click.argument("model", type=FILE)
@click.option(
    "-c", "--calibration", type=FILE, required=True, help="Inputs to calibrate with, .npz or pictures."
)
@click.option(
    "-d", "--data", "data_file", type=FILE, help="Inputs to measure on, and labels if any, .npz or pictures."
)
@click.option(
    "--held-out", type=FILE, help="Inputs for the final figure, never searched on, .npz or pictures."
)
@click.option("-o", "--output", type=FILE, required=True, help="Where to write the int8 model.")
@click.option("--recipe", type=FILE, help="The recipe to begin with, TOML.")
@click.option("--save-recipe", type=FILE, help="Where to write the recipe that was found, TOML.")
@click.option("--drop", type=_Number(), help="Accuracy that may be lost, as a share; needs labels.")
@click.option("--agreement", type=_Number(), help="Least share of samples with float's first class.")
@click.option("--size", type=_Number(), help="Largest file, as a fraction of the float file.")
@click.option("--latency", type=_Number(), help="Longest time of a sample, as a fraction of float's.")
@click.option("--bits", type=_Number(), help="Most bits a weight in the mean, as the file stores them.")
@click.option("--workers", type=THREADS, default=1, show_default=True, help="Processes to try in.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@CONSTANTS
@_takes_data("--crop")
def tune_command(
    model: Path,
    calibration: Path,
    data_file: Path | None,
    held_out: Path | None,
    output: Path,
    recipe: Path | None,
    save_recipe: Path | None,
    workers: int,
    as_json: bool,
    constants: _Held,
    read: _Reader,
    **limits: float | None,
) -> None:
    """Search for a recipe by which the float MODEL (.onnx) meets a budget; exit status 1 if none does."""
    _check_places(output, save_recipe, beside=(calibration, data_file, held_out))
    _check_places(output, beside=(recipe,))
    _check_places(save_recipe, beside=(model,))
    target = Target(**limits)
    start = None if recipe is None else read_recipe(recipe)
    graph = _load(model, constants)
    seen = read(graph.ir, calibration, CalibrationError)
    others = [None if f is None else read(graph.ir, f, EngineError) for f in (data_file, held_out)]
    with _bars({"calibrate": seen.rows, "moments": seen.rows}) as tick:
        found = tune(
            graph,
            seen,
            target=target,
            recipe=start,
            data=others[0],
            held_out=others[1],
            workers=workers,
            progress=tick,
        )
    found.model.save(output)
    if save_recipe is not None:
        found.save_recipe(save_recipe)
    _show(found, as_json)
    if not found.met:
        raise QuantizationError(
            f"no recipe was found that meets the target; {output} is the nearest: {'; '.join(found.misses)}"
        )


@main.command("run")
@click.argument("model", type=FILE)
@click.option("-i", "--input", "inputs", type=FILE, required=True, help="Inputs, .npz or pictures.")
@click.option("-o", "--output", type=FILE, required=True, help="Where to write the outputs, .npz.")
@click.option("--engine", type=click.Choice(list(ENGINES)), default="onnxruntime", show_default=True)
@click.option(
    "--arithmetic", type=ARITHMETIC, help="How accumulators become codes; default: the engine's own."
)
@_takes_data("--size", "--crop")
def run_command(
    model: Path, inputs: Path, output: Path, engine: str, arithmetic: str | None, read: _Reader
) -> None:
    """Run the int8 MODEL on every sample of an .npz file, or every picture in the order of their paths."""
    _check_places(output, beside=(model, inputs))
    q = open_quantized(model)
    data = read(q.ir, inputs, EngineError)
    found = samples(q.ir, data, EngineError)
    names = [str(v.name) for v in q.ir.graph.outputs]
    first: list[Feeds] = []
    parts: list[tuple[np.ndarray, ...]] = []
    with _bars({"run": data.rows}) as tick:
        done = 0
        for sample in found:
            first = [*first, sample][:2]
            parts.append(_tuple(q.run(sample, engine=engine, arithmetic=arithmetic)))
            done += found.count(sample)
            tick("run", done)
    axes: list[int | None] = [0] * len(names)
    if found.axes == {}:
        axes = [None] * len(names)
    elif found.axes and not found.fixed and len(first) == 2:
        pair = joined(first, found.axes)
        together = _tuple(q.run(pair, engine=engine, arithmetic=arithmetic))
        axes = [_grown(one, two) for one, two in zip(parts[0], together, strict=True)]
    columns = zip(names, axes, zip(*parts, strict=True), strict=True)
    results = {name: _column(name, column, axis) for name, axis, column in columns}
    write_npz(results, output)
    _say(f"{output}: {', '.join(f'{n} {a.dtype} {a.shape}' for n, a in results.items())}")


@main.command("export", short_help="Write the network as C.")
@click.argument("model", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, help="The folder to write to.")
@click.option("--arithmetic", type=ARITHMETIC, default="tflite", show_default=True, help="How to round.")
@click.option("--name", default="net", show_default=True, help="What files and functions are called.")
@click.option(
    "-d",
    "--data",
    "data_file",
    type=FILE,
    help="Inputs for the self-test, .npz or pictures; default: random.",
)
@_takes_data("--size", "--crop")
def export_command(
    model: Path, output: Path, arithmetic: str, name: str, data_file: Path | None, read: _Reader
) -> None:
    """Write the int8 MODEL as C99 that needs no library: sources, a self-test, a Makefile; `make check` tries it."""
    q = open_quantized(model)
    data = None if data_file is None else read(q.ir, data_file, ExportError)
    _say(export(q, output, arithmetic=arithmetic, name=name, data=data))


@main.command("compare", short_help="Say what quantization changed.")
@click.argument("float_model", type=FILE)
@click.argument("int8_model", type=FILE)
@click.option(
    "-d", "--data", "data_file", type=FILE, required=True, help="Inputs, and labels if any, .npz or pictures."
)
@click.option(
    "--margin",
    type=_Number(0, 1, min_open=True, max_open=True),
    help=f"Fail (status 1) unless the accuracy is shown to fall by less, a share. Reported: {MARGIN}.",
)
@click.option("--html", type=FILE, help="Also write a page with figures and the answers that changed.")
@click.option("--tensorboard", type=FILE, help="Also write logs for TensorBoard, a folder.")
@click.option("--latency", is_flag=True, help="Also measure the time of one sample.")
@click.option("--threads", type=THREADS, help="Threads of ONNX Runtime; default: every core.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@CONSTANTS
@_takes_data("--size", "--crop")
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
    constants: _Held,
    read: _Reader,
) -> None:
    """Say what quantization changed between FLOAT_MODEL and INT8_MODEL."""
    model = _load(float_model, constants)
    q = int8_form(model, int8_model)
    data = read(model.ir, data_file, EngineError)
    if margin is not None and not data.has_labels:
        raise EngineError(
            f"{data_file}: --margin needs accuracies; add the true classes under '{LABELS}', or sort pictures into "
            "folders of their classes"
        )
    if html is not None:
        pyplot()  # a missing extra is better known before the work than after it
        _check_places(html, beside=(float_model, int8_model, data_file))
    few = min(LAYER_SAMPLES, data.rows)
    totals = {"compare": data.rows, "layers": few, "histograms": few, "pictures": PICTURES}
    with _bars(totals) as tick:
        report = compare(
            model, q, data, margin=margin or MARGIN, latency=latency, threads=threads, progress=tick
        )
        if html is not None or tensorboard is not None:
            explanation = explain(model, q, data, report, threads=threads, progress=tick)
            if html is not None:
                explanation.html(html)
            if tensorboard is not None:
                explanation.tensorboard(tensorboard)
    _show(report, as_json)
    if margin is not None and report.no_worse is not None:
        _require(report.no_worse)


@main.command("inspect", short_help="List tensors, scales, operations, bytes.")
@click.argument("model", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def inspect_command(model: Path, as_json: bool) -> None:
    """List the tensors, scales, operations and bytes of the int8 MODEL."""
    _show(inspect(model), as_json)


@main.command("bench", short_help="Time both models, taking turns.")
@click.argument("float_model", type=FILE)
@click.argument("int8_model", type=FILE)
@click.option(
    "-d", "--data", "data_file", type=FILE, help="Inputs, .npz or pictures; default: random numbers."
)
@click.option(
    "--batch", type=click.IntRange(1, 2**20), default=1, show_default=True, help="Samples in one run."
)
@click.option(
    "--rounds",
    type=click.IntRange(5, 2**20),
    default=200,
    show_default=True,
    help="Runs of each model, at most.",
)
@click.option("--seconds", type=_Number(0), default=10.0, show_default=True, help="Time to spend, about.")
@click.option("--threads", type=THREADS, help="Threads of ONNX Runtime; default: every core.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@CONSTANTS
@_takes_data("--size", "--crop")
def bench_command(
    float_model: Path,
    int8_model: Path,
    data_file: Path | None,
    batch: int,
    rounds: int,
    seconds: float,
    threads: int | None,
    as_json: bool,
    constants: _Held,
    read: _Reader,
) -> None:
    """Time both models in ONNX Runtime, taking turns, and give the medians and their ratio."""
    model, q = _load(float_model, constants), open_quantized(int8_model)
    if data_file is None:
        feeds = _random(model.inputs, batch)
    else:
        found = samples(model.ir, read(model.ir, data_file, EngineError), EngineError)
        feeds = next(found.side_by_side(batch))
    feeds = feed(feeds, q.inputs, EngineError)
    with _bars({"bench": rounds}) as tick:
        speed = measure(model, q, feeds, threads=threads, rounds=rounds, seconds=seconds, progress=tick)
    if as_json:
        fields = {
            "float_seconds": speed.float_seconds,
            "int8_seconds": speed.int8_seconds,
            "ratio": speed.ratio,
        }
        _say(
            json.dumps(
                fields | {"rounds": speed.rounds, "batch": speed.batch, "threads": speed.threads}, indent=2
            )
        )
        return
    rows = (
        (float_model.name, f"{1e3 * speed.float_seconds:.3f}", "1.00"),
        (int8_model.name, f"{1e3 * speed.int8_seconds:.3f}", f"{speed.ratio:.2f}"),
    )
    how = f"medians of {speed.rounds} rounds in turns, batch {speed.batch}, threads {threads or 'all'}"
    _say(Table("", ("model", "ms>", "ratio>"), rows, how))


def _load(path: Path, constants: _Held) -> Model:
    """The float model of a file; what loading did that its owner should know of goes to stderr."""
    with _status("load"):
        model = load(path, constants=dict(constants))
    for text in model.notes:
        click.echo(f"Note: {text}", err=True)
    return model


def _require(test: NonInferiority) -> None:
    """End with status 1 unless the int8 model was shown to be no worse."""
    if test.verdict is not Verdict.NO_WORSE:
        raise EngineError(f"the test of the accuracy failed: {test}")


def _show(report: Any, as_json: bool) -> None:
    if as_json:
        _say(json.dumps(report.to_dict(), indent=2, allow_nan=False))
        return
    for line in str(
        report
    ).splitlines():  # titles and warnings stand at the margin; click drops the bold in a pipe
        _say(line, bold=bool(line) and not line.startswith(" "))


def _check_places(*places: Path | None, beside: tuple[Path | None, ...] = ()) -> None:
    """Refuse a place that cannot be written before the work begins, and one that would replace what is read or written.

    `beside` are files that the command reads, and whose place no output may take.
    """
    outputs = [place for place in places if place is not None]
    for i, place in enumerate(outputs):
        check_place(place)
        for other in [*outputs[:i], *beside]:
            if other is not None and _same(place, other):
                raise ExportError(
                    f"cannot write {place}: this command also uses it as {other}; give another name"
                )


def _same(one: Path, other: Path) -> bool:
    """Whether two paths are one file; devices and pipes bear more than one use."""
    if os.path.realpath(one) == os.path.realpath(other):
        return not one.exists() or one.is_file()
    return one.is_file() and other.is_file() and one.samefile(other)


def _random(specs: tuple[TensorSpec, ...], batch: int) -> Feeds:
    """Standard normal floats, zeros for integers; only the batch axis may be free."""
    rng, found = np.random.default_rng(0), {}
    for spec in specs:
        if None in spec.shape[1:]:
            raise EngineError(f"input {spec} has free axes beside the batch; give data with -d")
        shape = tuple(batch if d is None else d for d in spec.shape)
        values = rng.standard_normal(shape) if spec.dtype.kind == "f" else np.zeros(shape)
        found[spec.name] = values.astype(spec.dtype)
    return found


def _tuple(result: Any) -> tuple[np.ndarray, ...]:
    return result if isinstance(result, tuple) else (result,)


def _grown(one: np.ndarray, two: np.ndarray) -> int:
    """The axis on which the output of two samples is longer than that of one; 0 where none is."""
    return next(
        (axis for axis, sizes in enumerate(zip(one.shape, two.shape, strict=True)) if sizes[0] != sizes[1]), 0
    )


def _column(name: str, parts: tuple[np.ndarray, ...], axis: int | None) -> np.ndarray:
    """An output over all samples, one behind the other on its batch axis; stacked where it has none (None)."""
    if axis is None:
        if len(parts) == 1:
            return parts[0]
        if len({part.shape for part in parts}) > 1:
            shapes = ", ".join(dict.fromkeys(str(part.shape) for part in parts))
            raise EngineError(f"output '{name}' has shapes {shapes}, which do not fit into one array")
        return np.stack(parts)
    return np.concatenate(parts, axis=axis) if parts[0].ndim else parts[0]


@contextmanager
def _bars(totals: dict[str, int]) -> Iterator[Tick]:
    """Progress bars on stderr, one a stage, which vanish when done; silent where stderr is not a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description:>9}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as bars:
        tasks: dict[str, Any] = {}

        def tick(stage: str, done: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=totals.get(stage))
            bars.update(tasks[stage], completed=done)

        yield tick


@contextmanager
def _status(what: str) -> Iterator[None]:
    console = Console(stderr=True)
    if not sys.stderr.isatty():
        yield
        return
    with console.status(what):
        yield


if __name__ == "__main__":
    main()
