"""Zeros that training makes and keeps: as many as were asked for, in the floats and in the integers that run."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import eightbit as eb
from eightbit.quant.write.weights_file import encoded_layers
from eightbit.train.zeros import TrainedZeros
from tests.graph.graphs import normal
from tests.small_net import images, small_net

QUICK = eb.Training(epochs=4, batch=16, rate=0.01)


def data(count: int = 64):
    x = images(count)
    return x, eb.load(small_net())(x).argmax(axis=1)


def plain():
    torch.manual_seed(0)
    parts = (
        torch.nn.Conv2d(3, 8, 3),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 4, 3),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
    )
    return torch.nn.Sequential(*parts, torch.nn.Linear(64, 5))


def trainable():
    return eb.trainable(eb.load(small_net()), images(16))


def weights(module):
    """The weights of a module's layers, or the codes of those of a trainable one."""
    if hasattr(module, "quantized"):
        return {name: layer.weight for name, (_, layer) in encoded_layers(module.quantized().ir).items()}
    return {n: p.detach().numpy() for n, p in module.named_parameters() if p.ndim > 1}


def share(arrays):
    return sum((a == 0).sum() for a in arrays.values()) / sum(a.size for a in arrays.values())


@pytest.mark.parametrize("average", [0.0, 0.9])
@pytest.mark.parametrize("how", [{}, {"method": "movement"}, {"adaptive": True}])
@pytest.mark.parametrize("build", [plain, trainable])
def test_the_share_is_reached_and_stays(build, how, average):
    module = build()
    before = weights(module)
    eb.fit(module, data(), replace(QUICK, average=average, sparsity=eb.Sparsity(0.75, **how)))
    after = weights(module)
    # Of a trainable module further weights may round to zero.
    assert 0.749 < share(after) < (0.751 if build is plain else 0.85)
    for name, array in before.items():
        assert not after[name][array == 0].any()


@pytest.mark.parametrize("build", [plain, trainable])
def test_two_of_four_inputs_stay(build):
    module = build()
    eb.fit(module, data(), replace(QUICK, sparsity=eb.Sparsity(pattern="2:4")))
    found = {name: w for name, w in weights(module).items() if w.ndim == 2 or w.shape[1] == 8}
    for w in found.values():
        parts = np.moveaxis(w, 1, -1)
        assert (np.count_nonzero(parts.reshape(*parts.shape[:-1], -1, 4), axis=-1) <= 2).all()
    assert found and share(found) < 0.7


def test_a_run_that_is_resumed_has_the_same_zeros(tmp_path):
    training = replace(QUICK, average=0.9, sparsity=eb.Sparsity(0.6, method="movement", end=1.0))
    whole, part, path = plain(), plain(), tmp_path / "c.pt"
    eb.fit(whole, data(), training)

    def stop(module):
        if path.exists():
            raise KeyboardInterrupt
        return 0.0

    with pytest.raises(KeyboardInterrupt):
        eb.fit(part, data(), training, checkpoint=path, evaluate=stop)
    fresh = plain()
    eb.fit(fresh, data(), training, checkpoint=path)
    for one, other in zip(whole.parameters(), fresh.parameters(), strict=True):
        np.testing.assert_array_equal(one.detach().numpy(), other.detach().numpy())


def test_movement_takes_what_training_draws_to_zero_and_magnitude_what_is_small():
    """Two weights: a large one whose input says nothing of the answer, a small one whose input is the answer."""
    x = normal(256, 2)
    target = torch.from_numpy(x[:, 1:].copy())
    gone = {}
    for method in ("movement", "magnitude"):
        module = torch.nn.Linear(2, 1, bias=False)
        with torch.no_grad():
            module.weight.copy_(torch.tensor([[0.5, 0.2]]))
        zeros = TrainedZeros(module, eb.Sparsity(0.5, method=method, end=1.0))
        optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
        for _ in range(5):
            optimizer.zero_grad()
            (module(torch.from_numpy(x)) - target).square().mean().backward()
            zeros.note()
            optimizer.step()
        zeros.finish()
        gone[method] = int(np.flatnonzero(module.weight.detach().numpy() == 0)[0])
    assert gone == {"movement": 0, "magnitude": 1}


def test_what_was_trained_sparse_trains_on_sparse():
    module = trainable()
    eb.fit(module, data(), replace(QUICK, sparsity=eb.Sparsity(0.8)))
    q = eb.quantize(module)
    before = {name: layer.weight for name, (_, layer) in encoded_layers(q.ir).items()}
    again = eb.trainable(q)
    eb.fit(again, data(), replace(QUICK, rate=0.05))
    after = weights(again)
    for name, codes in before.items():
        assert not after[name][codes == 0].any()
    assert any((after[name] != before[name]).any() for name in before)
