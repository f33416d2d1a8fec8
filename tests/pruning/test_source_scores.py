"""Rankings that the source of a graph knows: BatchNorm's scales, and the gradients of a torch module."""

import numpy as np
import pytest
import torch

import eightbit as eb
from eightbit.errors import CalibrationError, QuantizationError
from tests.graph.graphs import normal, parse

X, Y = normal(96, 3, 8, 8), np.arange(96) % 5


class Net(torch.nn.Module):
    """A residual stage of 8 channels with BatchNorm, and a layer of 6 without."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm = torch.nn.Conv2d(3, 8, 3, padding=1, bias=False), torch.nn.BatchNorm2d(8)
        self.body, self.norm2 = torch.nn.Conv2d(8, 8, 3, padding=1, bias=False), torch.nn.BatchNorm2d(8)
        self.last, self.head = torch.nn.Conv2d(8, 6, 3), torch.nn.Linear(6, 5)
        for norm in (self.norm, self.norm2):
            torch.nn.init.uniform_(norm.weight, 0.5, 2.0)
            torch.nn.init.uniform_(norm.running_var, 0.5, 2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(x + self.norm2(self.body(x)))
        return self.head(torch.relu(self.last(x)).mean((2, 3)))


def kept(net: Net, pruned: eb.Model, layer: str) -> list[int]:
    """Which of a layer's kernels are left, found by the direction of the first input's taps."""
    nodes = {str(n.name): n for n in pruned.ir.graph}
    weight = nodes[layer].inputs[1].const_value.numpy()
    before = getattr(net, layer).weight.detach().numpy()
    flat = [w[:, 0].reshape(len(w), -1) for w in (weight, before)]
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in flat]
    return sorted(int(i) for i in np.abs(unit[0] @ unit[1].T).argmax(axis=1))


def test_the_channels_of_least_scale_go_and_layers_without_a_norm_stay():
    net = Net().eval()
    pruned = eb.prune(net, X, macs=0.6, importance=eb.BatchNormScale(), compensate=False)
    scale = (net.norm.weight + net.norm2.weight).detach().numpy()
    left = kept(net, pruned, "stem")
    assert 2 < len(left) < 8
    assert left == sorted(np.argsort(scale)[-len(left) :])
    assert len(kept(net, pruned, "last")) == 6


def test_a_file_that_has_its_norms_is_ranked_by_them(tmp_path):
    gamma = np.float32([3, 0.1, 2, 1])
    text = """g (float[N,3,6,6] x) => (float[N,2] y) { a = Conv (x, w) b = BatchNormalization (a, gamma, z, z, o)
    r = Relu (b) m = GlobalAveragePool (r) f = Flatten (m) y = Gemm <transB = 1> (f, v) }"""
    arrays = {
        "w": normal(4, 3, 3, 3),
        "v": normal(2, 4),
        "z": np.zeros(4, np.float32),
        "o": np.ones(4, np.float32),
    }
    proto = parse(text, gamma=gamma, **arrays)
    pruned = eb.prune(proto, macs=0.5, importance=eb.BatchNormScale())
    w = next(n for n in pruned.ir.graph if n.op_type == "Conv").inputs[1].const_value.numpy()
    np.testing.assert_allclose(w, (arrays["w"] * gamma[:, None, None, None])[[0, 2]], rtol=1e-4)
    with pytest.raises(QuantizationError, match="load folds BatchNorm"):
        eb.prune(eb.load(proto), macs=0.5, importance=eb.BatchNormScale())


def test_a_channel_that_the_loss_does_not_feel_has_no_score():
    net = Net()
    with torch.no_grad():
        net.last.weight[:, 3] = 0  # nobody reads channel 3 of the stage but its own body
        net.body.weight[:, 3] = 0
    for parameter in net.parameters():
        parameter.grad = None
    modes = [m.training for m in net.modules()]
    pruned = eb.prune(net, (X, Y), macs=0.9, importance=eb.Taylor(), compensate=False)
    assert 3 not in kept(net, pruned, "stem") and len(kept(net, pruned, "stem")) < 8
    assert all(p.grad is None for p in net.parameters())
    assert [m.training for m in net.modules()] == modes


def test_what_a_ranking_lacks_is_said():
    net = Net().eval()
    with pytest.raises(CalibrationError, match="needs labels"):
        eb.prune(net, X, macs=0.5, importance=eb.Taylor())
    with pytest.raises(CalibrationError, match="read more than once"):
        eb.prune(net, iter([(X, Y)]), macs=0.5, importance=eb.Taylor())
    with pytest.raises(QuantizationError, match=r"Taylor\(\) needs gradients, and a Model has none"):
        eb.prune(eb.load(net, X), (X, Y), macs=0.5, importance=eb.Taylor())
    bare = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(192, 9), torch.nn.ReLU(), torch.nn.Linear(9, 5)
    )
    with pytest.raises(QuantizationError, match="no BatchNorm behind a layer"):
        eb.prune(bare, X, macs=0.5, importance=eb.BatchNormScale())
