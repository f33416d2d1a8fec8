"""PyTorch modules as people bring them: wrapped, called in every way Python has, in halves, as files."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import eightbit as eb
from tests.strangers.walk import arrays, assert_same_function, call, refused, sqnr_db, walk

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
nn = torch.nn


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def leaves(value: Any) -> tuple[Any, ...]:
    """The tensors in what goes into a module or comes out of it, in order."""
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        return tuple(leaf for part in value for leaf in leaves(part))
    return (value,) if isinstance(value, torch.Tensor) else ()


def expected(net: Any, example: Any) -> tuple[np.ndarray, ...]:
    with torch.no_grad():
        args, kwargs = ((), example) if isinstance(example, dict) else (example, {})
        given = args if isinstance(args, tuple) else (args,)
        return tuple(leaf.numpy() for leaf in leaves(net.eval()(*given, **kwargs)))


def linear() -> Any:
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 5))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = linear()


class AnyNumber(Net):
    def forward(self, *xs: Any) -> Any:
        return self.net(xs[0]) + sum(xs[1:])


class ByName(Net):
    def forward(self, x: Any, **more: Any) -> Any:
        return self.net(x) + sum(more.values())


class Nested(Net):
    def forward(self, parts: Any, offset: Any = None, *, negative: bool = False) -> Any:
        y = self.net(parts["x"]) + parts["more"][0]
        y = y if offset is None else y + offset
        return {"y": -y if negative else y, "none": None, "more": [y * 2, (y * 3,)]}


class Positional(Nested):
    def forward(self, parts: Any, offset: Any = None, negative: bool = True) -> Any:
        return super().forward(parts, offset, negative=negative)


def batch(count: int) -> tuple[Any, Any]:
    return torch.randn(count, 3, 2, 2), torch.randn(count, 5)


CALLED: dict[str, tuple[Callable[[], Any], Callable[[Any, Any], Any]]] = {
    "DataParallel": (lambda: nn.DataParallel(linear()), lambda x, y: x),
    "torch.compile": (lambda: torch.compile(linear(), backend="eager"), lambda x, y: x),
    "forward(*xs), one": (AnyNumber, lambda x, y: x),
    "forward(*xs), two": (AnyNumber, lambda x, y: (x, y)),
    "forward(**more), none": (ByName, lambda x, y: x),
    "forward(**more), one": (ByName, lambda x, y: {"x": x, "shift": y}),
    "nested": (Nested, lambda x, y: ({"x": x, "more": [y]},)),
    "nested, None and a flag": (Positional, lambda x, y: ({"x": x, "more": [y]}, None, False)),
    "nested, all": (Positional, lambda x, y: {"parts": {"x": x, "more": (y,)}, "offset": y}),
}


@pytest.mark.parametrize("kind", CALLED)
def test_every_way_to_call(kind: str, tmp_path: Path) -> None:
    make, example = CALLED[kind]
    net, given = make(), example(*batch(16))
    feed = tuple(leaf.numpy() for leaf in leaves(given))
    right = expected(net, given)
    walked = walk(
        net,
        [feed],
        [feed],
        tmp_path,
        floor=20,
        recipes=["plain"],
        example=example(*batch(1)),
        expected=[right],
    )
    names = {str(node.name) for node in walked.model.ir.graph}
    assert (
        {"1", "3"} if isinstance(net, nn.DataParallel) or kind == "torch.compile" else {"net.1", "net.3"}
    ) <= names


@pytest.mark.parametrize(
    "kind", ["DataParallel", "torch.compile", "forward(*xs), one", "forward(**more), none"]
)
def test_beside_a_loader_with_labels(kind: str) -> None:
    net, x = CALLED[kind][0](), torch.randn(32, 3, 2, 2)
    pairs = torch.utils.data.TensorDataset(x, torch.zeros(32, dtype=torch.int64))
    q = eb.quantize(net, torch.utils.data.DataLoader(pairs, batch_size=8), eb.Recipe.plain())
    assert sqnr_db(expected(net, x)[0], q(x.numpy())) > 20


class States(nn.Module):
    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        self.up = nn.Linear(3, 6)
        self.lstm, self.head = nn.LSTM(6, 4, batch_first=batch_first), nn.Linear(4, 2)

    def forward(self, x: Any, state: Any) -> Any:
        y, state = self.lstm(self.up(x), state)
        return self.head(y), state


@pytest.mark.parametrize(
    ("samples", "batch_first"), [(1, True), (3, True), pytest.param(1, False, marks=pytest.mark.slow)]
)
def test_state_tuples(batch_first: bool, samples: int, tmp_path: Path) -> None:
    """The batch is axis 1 of the states, and stays free whatever the example's size."""

    def example(count: int) -> Any:
        x = torch.randn(count, 5, 3) if batch_first else torch.randn(5, count, 3)
        return x, (torch.randn(1, count, 4), torch.randn(1, count, 4))

    net = States(batch_first=batch_first)
    given = [example(8) for _ in range(4)]
    feeds = [tuple(leaf.numpy() for leaf in leaves(g)) for g in given]
    right = [expected(net, g) for g in given]
    walk(net, feeds, feeds, tmp_path, floor=20, recipes=["plain"], example=example(samples), expected=right)


class OneSample(nn.Module):
    def forward(self, x: Any, state: Any) -> Any:
        assert x.shape[0] == 1
        return x.reshape(1, -1) @ state.reshape(-1, 4)


def test_a_module_that_takes_one_sample_is_loaded_for_one_and_says_so() -> None:
    x, state = torch.randn(1, 3), torch.randn(1, 3, 4)
    model = eb.load(OneSample(), (x, state))
    assert [spec.shape for spec in model.inputs] == [(1, 3), (1, 3, 4)]
    assert model.notes == ("the module's code allows no free axis: the batch is that of the example",)
    assert_same_function(expected(OneSample(), (x, state)), (np.asarray(model(x.numpy(), state.numpy())),))


def test_numpy_examples_of_any_float_type_do(tmp_path: Path) -> None:
    net, (x, _) = linear(), batch(4)
    model = eb.load(net, np.zeros((1, 3, 2, 2)))
    assert_same_function(expected(net, x), arrays(call(model, (x.numpy(),))))


@pytest.mark.parametrize("form", ["lists", "lists in a dict", "backwards", "Fortran's order"])
def test_arrays_of_any_layout_are_data_beside_a_bare_module(form: str) -> None:
    net, (x, _) = linear(), batch(32)
    flat = nn.Sequential(nn.Unflatten(1, (3, 2, 2)), net)
    rows = x.flatten(1).numpy()
    given: Any = {
        "lists": rows.tolist(),
        "lists in a dict": {"input": rows.tolist()},
        "backwards": rows[::-1],
        "Fortran's order": np.asfortranarray(rows),
    }[form]
    assert sqnr_db(expected(net, x)[0], eb.quantize(flat, given, eb.Recipe.plain())(rows)) > 20


@pytest.mark.parametrize("given", [np.array([["a"] * 12]), np.array([[None] * 12])], ids=["text", "objects"])
def test_arrays_of_no_numbers_are_refused_beside_a_bare_module(given: np.ndarray) -> None:
    said = f"the example holds an array of {given.dtype}; give arrays of numbers"
    assert refused(lambda: eb.quantize(linear(), given), eb.LoadError) == said


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_precisions_are_float32_here(dtype: str, tmp_path: Path) -> None:
    """The right value is that of the same weights in float32, whatever the example's type."""
    net, (x, _) = linear().to(getattr(torch, dtype)), batch(16)
    feed = (x.numpy(),)
    wide = linear()
    wide.load_state_dict({name: value.float() for name, value in net.state_dict().items()})
    walked = walk(
        net, [feed], [feed], tmp_path, floor=20, recipes=["plain"], example=x, expected=[expected(wide, x)]
    )
    assert walked.model.notes == (
        f"what is {dtype} in the model is float32 here, inputs and outputs included",
    )
    assert next(net.parameters()).dtype == getattr(torch, dtype)


def exported() -> Any:
    free = ({0: torch.export.Dim.DYNAMIC},)
    return torch.export.export(linear().eval(), (torch.randn(2, 3, 2, 2),), dynamic_shapes=free)


def test_exported_programs_and_their_files(tmp_path: Path) -> None:
    program, (x, _) = exported(), batch(16)
    torch.export.save(program, tmp_path / "net.pt2")
    right = expected_of_program = tuple(leaf.numpy() for leaf in leaves(program.module()(x).detach()))
    assert_same_function(expected_of_program, arrays(eb.load(program)(x.numpy())))
    feed = (x.numpy(),)
    walk(tmp_path / "net.pt2", [feed], [feed], tmp_path, floor=20, recipes=["plain"], expected=[right])


class Branching(nn.Module):
    def forward(self, x: Any) -> Any:
        return x * 2 if x.sum() > 0 else x


class Decomposing(nn.Module):
    def forward(self, x: Any) -> Any:
        return torch.linalg.svd(x)[1]


class Counting(nn.Module):
    def forward(self, x: Any) -> Any:
        return x * 2, 3


class Distances(nn.Module):
    def forward(self, x: Any) -> Any:
        return torch.cdist(x, torch.ones(5, 8))


def traced() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch calls it old
        return torch.jit.trace(linear(), torch.randn(2, 12))


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a branch on data": (Branching, "(at `return x * 2 if x.sum() > 0 else x`, line "),
    "no form in ONNX": (
        Decomposing,
        "PyTorch could not export Decomposing: it computes aten._linalg_svd, which has no form in ONNX; leave it out,",
    ),
    "no form in ONNX, in a layer": (
        lambda: nn.Sequential(nn.Linear(12, 8), nn.ModuleDict({"d": Distances()})["d"]),
        "PyTorch could not export Sequential: its layer '1' computes aten._cdist_forward, which has no form in ONNX;",
    ),
    "a number as output": (
        Counting,
        "Error when translating node return (mul, 3): 'int' object has no attribute 'name'",
    ),
    "traced": (
        traced,
        "Sequential is a TorchScript module, which PyTorch does not export; give the nn.Module that was traced",
    ),
    "another number of arguments": (
        lambda: nn.Bilinear(12, 12, 2),
        "the example does not fit Bilinear.forward(input1: torch.Tensor, input2: torch.Tensor): missing a required "
        "argument: 'input2'; give a tuple with an entry for each argument, or a dict by name",
    ),
}


def test_torchscript_beside_a_loader_says_the_same() -> None:
    assert "Sequential is a TorchScript module" in refused(
        lambda: eb.quantize(traced(), [torch.randn(2, 12)]), eb.LoadError
    )


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_exported_says_why(kind: str) -> None:
    make, said = REFUSED[kind]
    assert said in refused(lambda: eb.load(make(), torch.randn(2, 12)), eb.LoadError)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "net.pt",
            "holds PyTorch's weights or pickled objects; make the module, load its weights and give it to",
        ),
        ("net.safetensors", "holds weights alone; give eightbit.load the model that they belong to"),
        ("net.pt2", "PyTorch could not read"),
    ],
)
def test_files_without_a_graph_say_what_to_give(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"something else")
    assert said in refused(lambda: eb.load(tmp_path / name), eb.LoadError)
