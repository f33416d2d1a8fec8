"""Quantized weights on their own: there and back, readable, and every mismatch named."""

import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import eightbit as eb
from eightbit.errors import LoadError, QuantizationError
from eightbit.quant.choose.recipe import FLOAT, PerChannel, PerGroup, PerTensor, Recipe, Weights
from eightbit.quant.methods.rounding import GPTQ
from eightbit.quant.quantize import quantize_graph
from eightbit.quant.write.weights_file import encoded_layers
from tests.quant.test_weight_only import CONSTANTS, DATA, network

RECIPES = {
    "W8A8": Recipe(),
    "W4A8 by GPTQ, corrected": Recipe(Weights(bits=4, rounding=GPTQ()), bias_correction=True),
    "W2A8 per tensor": Recipe(Weights(bits=2, granularity=PerTensor())),
    "W4 in groups": Recipe(Weights(bits=4, granularity=PerGroup(4)), FLOAT),
    "W6, corrected": Recipe(Weights(bits=6, granularity=PerChannel()), FLOAT, bias_correction=True),
}


def quantized(recipe):
    return eb.QuantizedModel(quantize_graph(network(), DATA, recipe)[0])


def metadata(path):
    with safe_open(path, framework="numpy") as file:
        return json.loads(file.metadata()["eightbit"])


@pytest.mark.parametrize("name", RECIPES)
def test_the_same_integers_and_scales_come_back(name, tmp_path):
    q = quantized(RECIPES[name])
    back = eb.load_weights(eb.Model(network()), eb.save_weights(q, tmp_path / "w.safetensors"))
    before, after = encoded_layers(q.ir), encoded_layers(back.ir)
    assert list(before) == list(after)
    assert len(before) == 4
    for node, (_, layer) in before.items():
        other = after[node][1]
        np.testing.assert_array_equal(other.weight, layer.weight)
        np.testing.assert_array_equal(other.scale, layer.scale)
        assert other.group == layer.group
        if layer.bias is not None:
            exact = layer.bias * (1.0 if layer.bias_scale is None else layer.bias_scale.astype(np.float64))
            np.testing.assert_array_equal(other.bias, exact.astype(np.float32))
    if RECIPES[name].weights_only:
        np.testing.assert_array_equal(back(DATA), q(DATA))
    elif (
        RECIPES[name].weights.bits > 2
    ):  # two bits leave the ranges that the float network was calibrated for
        # What differs is the rounding of activations to eight bits.
        assert ((back(DATA) - q(DATA)) ** 2).sum() < 0.01 * (q(DATA) ** 2).sum()
    np.testing.assert_array_equal(back.run(DATA, engine="numpy"), back(DATA))


def test_the_map_says_what_the_file_holds(tmp_path):
    path = eb.save_weights(quantized(RECIPES["W4 in groups"]), tmp_path / "w.safetensors")
    first = metadata(path)["layers"][0]
    node = next(n.name for n in network().graph if n.op_type == "Conv")
    assert first == {
        "node": node,
        "tensor": "w1",
        "bits": 4,
        "granularity": "per group of 4",
        "group": 4,
        "axis": 0,
        "shape": [8, 5, 3, 3],
        "packed": 4,
    }
    tensors = load_file(path)
    assert tensors[f"{node}.weight"].nbytes == 8 * 5 * 9 // 2
    assert tensors[f"{node}.scale"].shape == (8, 12)  # 45 inputs in groups of 4
    layers = metadata(eb.save_weights(quantized(RECIPES["W8A8"]), path))["layers"]
    assert [(e["bits"], e["granularity"], e["axis"]) for e in layers] == [(8, "per channel", 0)] * 4


def test_a_model_without_quantized_weights_has_nothing_to_save(tmp_path):
    with pytest.raises(QuantizationError, match="no layer with quantized weights"):
        eb.save_weights(eb.QuantizedModel(network()), tmp_path / "w.safetensors")


def broken(path, change):
    """The file with its map or tensors changed by `change(map, tensors)`."""
    table, tensors = metadata(path), load_file(path)
    change(table, tensors)
    save_file(tensors, path, metadata={"eightbit": json.dumps(table)})
    return path


FAULTS = {
    "another model": (lambda m, t: m["layers"][0].update(node="elsewhere"), "layer 'elsewhere' is none of"),
    "another shape": (
        lambda m, t: m["layers"][0].update(shape=[8, 4, 3, 3]),
        r"\(8, 5, 3, 3\) in the model, \(8, 4",
    ),
    "codes too few": (
        lambda m, t: t.update({_first(m, "weight"): np.zeros(7, np.uint8)}),
        "take 180 bytes; found 7",
    ),
    "no scale": (lambda m, t: t.pop(_first(m, "scale")), "codes do not match the map"),
    "scales too few": (
        lambda m, t: t.update({_first(m, "scale"): np.ones(3, np.float32)}),
        r"\(3,\) do not fit 8",
    ),
    "bias too short": (
        lambda m, t: t.update({_first(m, "bias"): np.ones(3, np.float32)}),
        r"bias of shape \(3,\)",
    ),
    "codes of another type": (
        lambda m, t: t.update({_first(m, "weight"): np.zeros(180, np.int32)}),
        "codes are int32 in the file, not uint8",
    ),
    "scales of another type": (
        lambda m, t: t.update({_first(m, "scale"): np.ones((8, 12))}),
        "scales are float64 in the file, not float32",
    ),
    "scales that are none": (
        lambda m, t: t.update({_first(m, "scale"): np.full((8, 12), np.inf, np.float32)}),
        "scales hold NaN or Inf",
    ),
    "integers without a scale": (
        lambda m, t: t.update({_first(m, "bias"): np.ones(8, np.int32)}),
        "numbers of its bias are int32 in the file, not float32",
    ),
    "an unknown width": (
        lambda m, t: m["layers"][0].update(packed=3),
        r"packed=3\): give an integer equal to",
    ),
    "no group": (lambda m, t: m["layers"][0].update(group=None), r"scales of shape \(8, 12\) do not fit 8"),
    "a group of nothing": (lambda m, t: m["layers"][0].update(group=0), r"group=0\): give an integer of at"),
    "a shape of words": (
        lambda m, t: m["layers"][0].update(shape=["8", 5]),
        r"shape\[0\]='8'\): give an integer",
    ),
    "a name that is none": (lambda m, t: m["layers"][0].update(node=[1]), r"node=\[1\]\): give a text"),
    "a key gone": (lambda m, t: m["layers"][0].pop("shape"), "holds no map of quantized weights"),
    "no list": (lambda m, t: m.update(layers=7), "holds no map of quantized weights"),
    "a list of numbers": (lambda m, t: m.update(layers=[7]), "holds no map of quantized weights"),
    "a later format": (lambda m, t: m.update(format=9), "of format 9; this version reads 1 and 2"),
}


def _first(table, part):
    return f"{table['layers'][0]['node']}.{part}"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_does_not_fit_names_the_layer_and_the_fault(fault, tmp_path):
    change, said = FAULTS[fault]
    path = broken(eb.save_weights(quantized(RECIPES["W4 in groups"]), tmp_path / "w.safetensors"), change)
    with pytest.raises(LoadError, match=said) as caught:
        eb.load_weights(eb.Model(network()), path)
    assert "w.safetensors" in str(caught.value)


def test_truncated_missing_and_foreign_files_are_refused(tmp_path):
    path = eb.save_weights(quantized(RECIPES["W8A8"]), tmp_path / "w.safetensors")
    whole, model = path.read_bytes(), eb.Model(network())
    for length in (0, 5, 200, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(LoadError, match="truncated or no safetensors file"):
            eb.load_weights(model, path)
    with pytest.raises(LoadError, match="is no file"):
        eb.load_weights(model, tmp_path / "none.safetensors")
    save_file({"w": CONSTANTS["w1"]}, path, metadata={"eightbit": "[" * 5000})
    with pytest.raises(LoadError, match="holds no map of quantized weights"):
        eb.load_weights(model, path)
    save_file({"w": CONSTANTS["w1"]}, path)
    with pytest.raises(LoadError, match="holds no map of quantized weights"):
        eb.load_weights(model, path)
