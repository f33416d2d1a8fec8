"""What of the first batch are the inputs of a torch module: as many as its forward takes, whatever may be left out."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import eightbit as eb
from eightbit.graph.source.example import Takes, example_from

RNG = np.random.default_rng(0)
IDS = RNG.integers(0, 50, (16, 7))
MASK = (np.arange(7) < RNG.integers(3, 8, (16, 1))).astype(np.int64)
Y = RNG.integers(0, 4, 16)
X = RNG.standard_normal((16, 7)).astype(np.float32)


class Masked(nn.Module):
    """Mean of embeddings over the tokens that the mask lets through; without one, over all."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(50, 12), nn.Linear(12, 4)

    def forward(self, ids: Any, mask: Any = None) -> Any:
        rows = self.table(ids)
        weight = torch.ones_like(ids) if mask is None else mask
        return self.head((rows * weight[..., None]).sum(1) / weight.sum(1, keepdim=True))


class Wants(nn.Module):
    def forward(self, x: Any, state: Any) -> Any:
        return x + state[0] + state[1]


class MayTake(nn.Module):
    def forward(self, x: Any, scale: Any = None, labels: Any = None, train: bool = False) -> Any:
        return x


class Any_(nn.Module):
    def forward(self, *xs: Any, **more: Any) -> Any:
        return xs[0]


STATE = (X + 1, X + 2)
CASES: dict[str, tuple[type[nn.Module], Any, Any]] = {
    "array": (MayTake, X, X),
    "labels": (MayTake, [(X, Y)], (X,)),
    "labels in a column": (MayTake, [(X, Y[:, None])], (X,)),
    "pair": (MayTake, (X, Y), (X,)),
    "what may be left out": (MayTake, [(X, X)], (X, X)),
    "the same and labels": (MayTake, [(X, X, Y)], (X, X)),
    "labels by their parameter's name": (MayTake, [(X, X, IDS)], (X, X)),
    "mask": (Masked, [(IDS, MASK)], (IDS, MASK)),
    "mask and labels": (Masked, [(IDS, MASK, Y)], (IDS, MASK)),
    "mask and labels, one batch": (Masked, (IDS, MASK, Y), (IDS, MASK)),
    "mask and labels a token": (Masked, [(IDS, MASK, IDS)], (IDS, MASK)),
    "nested": (Masked, [((IDS, MASK), Y)], (IDS, MASK)),
    "nested, one batch": (Masked, ((IDS, MASK), Y), (IDS, MASK)),
    "dict": (Masked, [{"ids": IDS, "mask": MASK, "labels": Y}], {"ids": IDS, "mask": MASK}),
    "dict and labels": (Masked, [({"ids": IDS}, Y)], {"ids": IDS}),
    "state": (Wants, [(X, STATE)], (X, STATE)),
    "state and labels": (Wants, [(X, STATE, Y)], (X, STATE)),
    "state, one batch": (Wants, (X, STATE), (X, STATE)),
    "state nested": (Wants, [((X, STATE), Y)], (X, STATE)),
    "any number": (Any_, [(X, X, X, Y)], (X, X, X)),
    "list of batches": (MayTake, [X, X], X),
}


def same(found: Any, expected: Any) -> bool:
    if isinstance(expected, tuple):
        return len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(found[k], expected[k]) for k in expected)
    return found is expected or (isinstance(found, tuple) and len(found) == 1 and found[0] is expected)


@pytest.mark.parametrize("name", CASES)
def test_the_inputs_of_a_batch(name: str) -> None:
    kind, data, expected = CASES[name]
    example, after = example_from(Takes.of(kind().forward), data)
    assert same(example, expected) and after is data


def test_a_generator_still_begins_with_its_first_batch() -> None:
    example, after = example_from(Takes.of(MayTake().forward), iter([(X, Y), (X + 1, Y)]))
    assert same(example, (X,))
    assert [float(x[0, 0]) for x, _ in after] == [float(X[0, 0]), float(X[0, 0] + 1)]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([(X, X, X, X, Y)], r"holds 5 entries, and the module takes 3 input\(s\) and labels"),
        ([], "hold no batch"),
        (iter([]), "hold no batch"),
        (7, "data of type int cannot be used"),
        ("calib.npz", "data of type str cannot be used"),
        (
            torch.utils.data.TensorDataset(torch.zeros(4, 3)),
            "holds single samples, .*; give a DataLoader of it",
        ),
    ],
)
def test_what_cannot_be_an_example(data: Any, said: str) -> None:
    with pytest.raises(eb.CalibrationError, match=said):
        example_from(Takes.of(MayTake().forward), data)


@pytest.mark.parametrize("form", ["tuples", "one batch", "dicts", "loader"])
def test_no_mask_is_lost(form: str) -> None:
    torch.manual_seed(0)
    module = Masked().eval()
    tensors = [torch.from_numpy(a) for a in (IDS, MASK, Y)]
    data: Any = {
        "tuples": [(IDS, MASK, Y)],
        "one batch": (IDS, MASK, Y),
        "dicts": [{"ids": IDS, "mask": MASK, "labels": Y}],
        "loader": torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*tensors), batch_size=8),
    }[form]
    q = eb.quantize(module, data)
    assert [s.name for s in q.inputs] == ["ids", "mask"]
    report = eb.compare(module, q, data)
    assert report.outputs[0].sqnr_db > 30
    assert report.accuracy is not None
    right = module(*tensors[:2]).argmax(dim=1) == tensors[2]
    assert report.accuracy.float_accuracy == pytest.approx(float(right.float().mean()))
