"""What is trained is what runs: a module's forward pass is the engines' arithmetic, before and after training."""

import numpy as np
import pytest

import eightbit as eb
from eightbit.train.forward import Forward
from tests.graph.graphs import graph, normal, parse
from tests.small_net import images, small_net
from tests.train.codes import assert_same_codes

torch = pytest.importorskip("torch")
from eightbit.train.torch_ops import TorchOps  # noqa: E402


@pytest.fixture(scope="module")
def net() -> eb.Model:
    return eb.load(small_net())


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_before_training_it_computes_the_codes_of_the_engines(net: eb.Model, bits: int):
    q = eb.quantize(net, images(32), eb.Recipe(weights=eb.Weights(bits=bits)))
    module = eb.trainable(q)
    assert_same_codes(module, q, images(16, seed=1))
    again = eb.quantize(module)
    np.testing.assert_array_equal(again(images(16, seed=1)), q(images(16, seed=1)))


def trained(net: eb.Model, steps: int = 60, bits: int = 2):
    module = eb.trainable(net, images(64), eb.Recipe(weights=eb.Weights(bits=bits)))
    x = images(64)
    target = torch.from_numpy(net(x))
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    losses = []
    for _ in range(steps):
        loss = (module.train()(torch.from_numpy(x)) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return module.eval(), losses


def test_a_loop_of_the_users_own_learns_and_what_it_learned_is_what_runs(net: eb.Model):
    module, losses = trained(net)
    assert losses[-1] < 0.5 * losses[0]
    q = eb.quantize(module)
    x = images(32, seed=2)
    assert_same_codes(module, q, x)
    np.testing.assert_array_equal(q.run(x, engine="numpy"), q(x))
    with torch.no_grad():
        np.testing.assert_array_equal(module(torch.from_numpy(x)).numpy(), q(x))


def test_every_kind_of_number_is_learned(net: eb.Model):
    before = eb.quantize(net, images(64), eb.Recipe(weights=eb.Weights(bits=2)))
    module, _ = trained(net)
    after = eb.quantize(module)
    kinds = {
        kind for kind, parameter in module.kinds() if parameter.grad is not None and parameter.grad.any()
    }
    assert kinds == {"weight", "bias", "scale"}
    changed = [name for name, p in before.report.params.items() if after.report.params[name].scale != p.scale]
    assert changed
    pairs = zip(before.program.ops, after.program.ops, strict=True)
    layers = [(a.weight, b.weight) for a, b in pairs if hasattr(a, "weight")]
    assert any(not np.array_equal(a, b) for a, b in layers)


def test_weights_stay_within_their_bits(net: eb.Model):
    module, _ = trained(net, bits=3)
    weights = [op.weight for op in eb.quantize(module).program.ops if hasattr(op, "weight")]
    assert weights
    assert max(int(np.abs(w.astype(int)).max()) for w in weights) <= 3


def test_a_trained_model_is_saved_and_opened(net: eb.Model, tmp_path):
    module, _ = trained(net, steps=3)
    q = eb.quantize(module)
    again = eb.open(q.save(tmp_path / "trained.onnx"))
    np.testing.assert_array_equal(again(images(8)), q(images(8)))


def test_the_gradient_of_a_scale_is_that_of_lsq():
    """Inside the range round(v) - v, at its ends the limit: Esser et al. 2020, equation 3."""
    model = eb.load(
        graph("agraph (float[N,2] x) => (float[N,2] y) { y = Gemm(x, w) }", w=np.eye(2, dtype=np.float32))
    )
    q = eb.quantize(model, np.array([[-1.0, 1.0]], np.float32), eb.Recipe.plain())
    module = eb.trainable(q).train()
    grid = next(iter(module.plan.grids.values()))
    s = float(module.plan.start[grid.scale])
    x = torch.tensor([[0.3, 9.0]])
    codes = module.codes(x)[q.program.ops[0].outputs[0]].astype(int) - grid.zero_point
    forward = module._run({q.program.inputs[0]: x}, keep=True, exact=False)[q.program.ops[0].outputs[0]]
    (forward * module_scale(module, grid)).sum().backward()
    found = module.numbers()[grid.scale].grad.item() / s  # d/ds = d/dlog s / s
    v = 0.3 / s
    assert codes.tolist() == [[round(v), grid.hi]]
    assert found == pytest.approx((round(v) - v) + grid.hi, rel=1e-4)


def module_scale(module, grid):
    return torch.as_tensor(module.plan.start[grid.scale]) * torch.exp(module.numbers()[grid.scale])


def test_models_without_calibrated_codes_are_refused(net: eb.Model):
    q = eb.quantize(net, None, eb.Recipe(activations=eb.FLOAT, weights=eb.Weights(rounding=eb.Nearest())))
    with pytest.raises(eb.QuantizationError, match="no layer between calibrated codes"):
        eb.trainable(q)


def test_modules_without_a_gradient_are_all_named():
    class Running(torch.nn.Module):
        def forward(self, x):
            return torch.cumsum(x, 1)

    linear = torch.nn.Linear
    block = torch.nn.Sequential(Running(), linear(6, 6), torch.nn.CELU())
    net = torch.nn.Sequential(linear(6, 6), block, linear(6, 3))
    q = eb.quantize(net, normal(32, 6), eb.Recipe(overrides={"op:Celu": eb.FLOAT}))
    wanted = r"no gradient here: CumSum in '1\.0' \(node '1\.0\.cumsum'\), Celu in '1\.2'; train a model"
    with pytest.raises(eb.QuantizationError, match=wanted):
        eb.trainable(q)


def test_rows_of_a_table_are_those_of_the_engines():
    body = "agraph (int64[N,T] ids) => (float[N,T,4] y) { e = Gather(table, ids) y = MatMul(e, w) }"
    model = eb.load(graph(body, table=normal(500, 16), w=normal(16, 4, seed=1)))
    ids = np.random.default_rng(0).integers(-500, 500, (32, 5))
    q = eb.quantize(model, ids, eb.Recipe.plain())
    assert any(type(op).__name__ == "Embedding" for op in q.program.ops)
    assert_same_codes(eb.trainable(q), q, ids)


def test_a_transformer_is_trained_as_it_runs():
    """Places counted by Range, shapes that go from one node in float to another: known, and no matter for gradients."""

    class Sentences(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.places = torch.nn.Embedding(500, 32), torch.nn.Embedding(64, 32)
            self.layer = torch.nn.TransformerEncoderLayer(32, 4, 64, 0.0, "gelu", batch_first=True)

        def forward(self, ids):
            return self.layer(self.words(ids) + self.places(torch.arange(ids.shape[1]))).mean(1)

    torch.manual_seed(0)
    ids = np.random.default_rng(0).integers(0, 500, (32, 7))
    module = eb.trainable(Sentences(), ids, eb.Recipe(weights=eb.Weights(bits=4)))
    x = np.random.default_rng(1).integers(0, 500, (16, 5))
    assert_same_codes(module, eb.quantize(module), x)
    module.train()(torch.from_numpy(x)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for _, p in module.kinds())


def test_a_model_from_a_file_has_no_recipe(net: eb.Model, tmp_path):
    q = eb.quantize(net, images(8), eb.Recipe.plain())
    with pytest.raises(eb.QuantizationError, match="lost its recipe"):
        eb.trainable(eb.open(q.save(tmp_path / "q.onnx")))


@pytest.mark.parametrize("bits", [2, 4])
def test_narrow_activations_are_trained_as_they_run(net: eb.Model, bits: int):
    recipe = eb.Recipe(weights=eb.Weights(bits=bits), activations=eb.Activations(bits=bits))
    q = eb.quantize(net, images(64), recipe)
    module = eb.trainable(q)
    x = images(32, seed=3)
    assert_same_codes(module, q, x)
    training = eb.Training(epochs=10, batch=32, rate=3e-3, scale_rate=3e-3)
    history = eb.fit(module, images(64), training, teacher=net)
    assert bits > 2 or history.epochs[-1].loss < history.epochs[0].loss  # 4 bits leave little to learn
    assert_same_codes(module, eb.quantize(module), x)


@pytest.mark.parametrize("between", ["Clip(a, lo, hi)", "Relu(a)", "Sigmoid(a)", "Softmax(a)"])
def test_a_table_is_trained_as_it_runs(between: str):
    """A Clip that no layer absorbs is a table from one scale to another, unlike the Clip that narrows codes."""
    rng = np.random.default_rng(4)
    numbers = {name: rng.normal(size=(6, 6)).astype(np.float32) for name in ("w", "v")}
    bounds = {"lo": np.float32(0.3), "hi": np.float32(0.9)}
    body = f"agraph (float[N,6] x) => (float[N,6] y) {{ a = Gemm(x, w) b = {between} y = Gemm(b, v) }}"
    q = eb.quantize(eb.load(parse(body, **numbers, **bounds)), normal(64, 6), eb.Recipe.plain())
    assert_same_codes(eb.trainable(q), q, normal(512, 6, seed=1))


@pytest.mark.parametrize(
    "node", ["HardSigmoid<alpha=0.3, beta=0.4>(a)", "HardSigmoid(a)", "HardSwish(a)", "Mish(a)"]
)
def test_a_node_in_float_is_trained_as_it_runs(node: str):
    numbers = {name: normal(6, 6, seed=i) for i, name in enumerate("wv")}
    body = f"agraph (float[N,6] x) => (float[N,6] y) {{ a = Gemm(x, w) b = {node} y = Gemm(b, v) }}"
    recipe = eb.Recipe(overrides={f"op:{node.partition('<')[0].partition('(')[0]}": eb.FLOAT})
    q = eb.quantize(eb.load(parse(body, opset=22, **numbers)), normal(64, 6), recipe)
    assert q.report.islands
    assert_same_codes(eb.trainable(q), q, normal(512, 6, seed=1))


@pytest.mark.parametrize(("bits", "wide"), [(8, True), (2, False)])
def test_sums_are_exact_for_any_weights_that_may_be_learned(bits: int, wide: bool):
    """One weight a column at first: with 1,024 learned of 8 bits, sums pass 2^24."""
    w = np.zeros((1024, 2), np.float32)
    w[0] = 1.0
    model = eb.load(graph("agraph (float[N,1024] x) => (float[N,2] y) { y = Gemm(x, w) }", w=w))
    module = eb.trainable(model, np.ones((4, 1024), np.float32), eb.Recipe(weights=eb.Weights(bits=bits)))
    forward = Forward(module.plan, TorchOps(), module.numbers(), exact=True)
    assert [forward.wide(op) for op in module.plan.program.ops if hasattr(op, "weight")] == [wide]


MOVED = """
    a, b = Split <axis=1> (c, n)
    u = Resize <mode="nearest"> (a, , s)
    t = Tile (b, r)
    m = Concat <axis=1> (u, t)
    d = DepthToSpace <blocksize=2> (m)
    g = Gather <axis=1> (d, i)
    h = ReduceMax (g, k)
    e = Expand (h, z)
    y = Conv (e, v)
"""


def test_what_carries_codes_carries_steps_and_gradients():
    """A network of moves: the codes of the engines, and a gradient for the layer before them."""
    constants = {
        "n": np.array([4, 4]),
        "s": np.array([1, 1, 2, 2], np.float32),
        "r": np.array([1, 1, 2, 2]),
        "i": np.array([1, 0, 1]),
        "k": np.array([2, 3]),
        "z": np.array([1, 3, 2, 2]),
    }
    weights = {"w": normal(8, 3, 3, 3), "v": normal(2, 3, 1, 1, seed=1)}
    text = f"g (float[N,3,6,6] x) => (float[N,B,C,D] y) {{ c = Conv (x, w) {MOVED} }}"
    x = normal(8, 3, 6, 6, seed=2)
    q = eb.quantize(eb.load(parse(text, **constants, **weights)), x, eb.Recipe.plain())
    assert not eb.inspect(q).islands
    module = eb.trainable(q)
    assert_same_codes(module, q, x)
    module.train()(torch.from_numpy(x)).square().sum().backward()
    assert all(torch.any(weight.grad != 0) for weight in module.parameters() if weight.ndim > 1)
