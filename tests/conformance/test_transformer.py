"""A transformer: its linear layers and attention products in integers, the same as ONNX Runtime's at every tensor."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

import eightbit as eb
from eightbit.deploy.sessions import OnnxRuntime, integer_tensors, optimized_ops, run_island
from eightbit.graph.run import FloatSession
from eightbit.integer import program as p
from eightbit.integer.engine import run

pytestmark = pytest.mark.slow
LAYERS = 2


@pytest.fixture(scope="module")
def bert() -> Any:
    """BERT of two layers with random weights, loaded."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    config = transformers.BertConfig(
        hidden_size=48, num_hidden_layers=LAYERS, num_attention_heads=4, intermediate_size=96, vocab_size=100
    )
    torch.manual_seed(0)
    net = transformers.BertModel(config, add_pooling_layer=False).eval()
    ids = torch.ones(1, 7, dtype=torch.int64)
    return eb.load(net, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})


def sentences(seed: int, count: int, length: int) -> dict[str, np.ndarray]:
    """Random tokens; every second sentence ends in padding, which the mask hides."""
    ids = np.random.default_rng(seed).integers(0, 100, (count, length))
    mask = np.ones_like(ids)
    mask[1::2, length // 2 :] = 0
    return {"input_ids": ids, "attention_mask": mask}


def test_static_transformer_has_no_differing_integer(bert: Any) -> None:
    q = eb.quantize(bert, [sentences(seed, 1, 9) for seed in range(8)])
    kinds = Counter(type(op) for op in q.program.ops)
    products = sum(kinds[kind] for kind in (p.Gemm, p.GemmToFloat, p.MatMul, p.MatMulToFloat))
    # Query, key, value, scores, context, output and two of the feed-forward. The context reads probabilities through a
    # Where that guards against NaN, which is no mask.
    assert products == LAYERS * 8
    assert not [island for island in q.report.islands if island.op in ("Gemm", "MatMul")]
    assert kinds[p.GemmToFloat] and kinds[p.MatMulToFloat]
    assert kinds[p.ReshapeTo] == 5 * LAYERS  # to shapes that hold a free batch and a free length
    left = [op for op, _ in optimized_ops(q.ir) if op in ("Gemm", "MatMul", "FusedMatMul")]
    assert left == []
    for feeds in (sentences(100, 3, 11), sentences(101, 1, 5)):
        found = run(q.program, feeds, island=run_island, keep=True)
        expected = integer_tensors(q.ir, feeds)
        assert set(expected) == set(q.program.tensors) - set(q.program.constants)
        for name, codes in expected.items():
            np.testing.assert_array_equal(found[name], codes, err_msg=name)
        for name, output in OnnxRuntime(q.ir).run(feeds).items():
            np.testing.assert_array_equal(found[name], output, err_msg=name)


def test_a_scale_a_token_has_no_differing_number(bert: Any) -> None:
    recipe = eb.Recipe(activations=eb.Activations(granularity=eb.PerToken(), dynamic=True))
    q = eb.quantize(bert, None, recipe)
    assert Counter(type(op) for op in q.program.ops)[p.GemmToFloat] == LAYERS * 6
    assert Counter(op for op, _ in optimized_ops(q.ir))["QGemm"] == LAYERS * 6
    for feeds in (sentences(100, 3, 11), sentences(101, 1, 5)):
        found = run(q.program, feeds, island=run_island, keep=True)
        expected = integer_tensors(q.ir, feeds) | OnnxRuntime(q.ir).run(feeds)
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_dynamic_transformer_has_no_differing_number(bert: Any) -> None:
    q = eb.quantize(bert, None, eb.Recipe(activations=eb.Activations(dynamic=True)))
    kinds = Counter(type(op) for op in q.program.ops)
    assert kinds[p.DynamicGemm] == LAYERS * 6
    operators = Counter(op for op, _ in optimized_ops(q.ir))
    assert operators["DynamicQuantizeMatMul"] + operators["MatMulIntegerToFloat"] == LAYERS * 6
    for feeds in (sentences(100, 3, 11), sentences(101, 1, 5)):
        found = run(q.program, feeds, island=run_island, keep=True)
        for name, output in OnnxRuntime(q.ir).run(feeds).items():
            np.testing.assert_array_equal(found[name], output, err_msg=name)
        codes = [op.outputs[0] for op in q.program.ops if isinstance(op, p.DynamicQuantize)]
        # Optimized, as everyone runs it: only so does ONNX Runtime keep the products exact on every processor.
        for name, expected in FloatSession(q.ir, codes).run(feeds).items():
            np.testing.assert_array_equal(found[name], expected.astype(np.int16) - 128, err_msg=name)
