"""The server of `examples/serving` on loopback: right answers, refusals that are statuses, an end that loses nobody."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import psutil
import pytest

import eightbit as eb
from tests.deploy.served import Served, serving
from tests.graph.graphs import normal, parse

pytestmark = pytest.mark.slow
BATCH, WAITING = 2, 4
RAGGED = "g (float[N,T,8] x) => (float[N,T,8] y) { y = MatMul (x, w) }"
SLOW = """g (float[N,1,128,128] x) => (float[N,64] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, v)
    b = Conv <pads = [1, 1, 1, 1]> (a, w)
    c = GlobalAveragePool (b)
    y = Flatten (c)
}"""
"""Of 600 million products a sample: slower than a request is passed on."""


def quantized(text: str, shape: tuple[int, ...], **weights: np.ndarray) -> eb.QuantizedModel:
    return eb.quantize(eb.load(parse(text, **weights)), normal(4, *shape), eb.Recipe.plain())


@pytest.fixture(scope="module")
def models() -> dict[str, eb.QuantizedModel]:
    return {
        "ragged.int8": quantized(RAGGED, (3, 8), w=normal(8, 8)),
        "slow.int8": quantized(SLOW, (1, 128, 128), v=normal(64, 1, 3, 3), w=normal(64, 64, 3, 3)),
    }


@pytest.fixture(scope="module")
def server(
    ray_serve: None, models: dict[str, eb.QuantizedModel], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("models")
    files = [q.save(folder / f"{name}.onnx") for name, q in models.items()]
    with serving(files, "--batch", BATCH, "--waiting", WAITING) as served:
        yield served


def body(array: np.ndarray, name: str = "x", datatype: str = "FP32", **more: Any) -> bytes:
    tensor = {
        "name": name,
        "shape": array.shape,
        "datatype": datatype,
        "data": array.ravel().tolist(),
        **more,
    }
    return json.dumps({"inputs": [tensor]}).encode()


def asked(url: str, data: bytes | None = None, **headers: str) -> tuple[int, Any, str | None]:
    """Status, what came back, and Retry-After."""
    try:
        with urlopen(Request(url, data, headers)) as reply:
            status, text, after = reply.status, reply.read(), None
    except HTTPError as refused:
        status, text, after = refused.code, refused.read(), refused.headers["Retry-After"]
    return status, json.loads(text) if text.startswith(b"{") else text.decode(), after


def test_it_says_what_it_serves(server: Served) -> None:
    assert asked(f"{server.place}/-/healthz")[0] == 200
    assert asked(f"{server.url('slow.int8')}/ready")[0] == 200
    assert asked(f"{server.url('ragged.int8')}/")[1] == {
        "name": "ragged.int8",
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, -1, 8]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, -1, 8]}],
    }
    assert asked(f"{server.url('other')}/ready")[0] == 404


def test_answers_are_the_numpy_engines_and_those_past_capacity_are_refused(
    server: Served, models: dict[str, eb.QuantizedModel]
) -> None:
    x = normal(5, 1, 128, 128)
    arrays = {"x": x, "y": models["slow.int8"].run(x, engine="numpy")}
    few = server.load("slow.int8", arrays, "--clients", BATCH, "--seconds", 1)
    assert (set(few["statuses"]), few["wrong"]) == ({"200"}, 0)
    many = server.load("slow.int8", arrays, "--clients", 10 * (2 * BATCH + WAITING), "--seconds", 1)
    assert (set(many["statuses"]), many["wrong"]) == ({"200", "503"}, 0)
    wrong = server.load("slow.int8", arrays | {"y": arrays["y"] + 1}, "--rate", 20, "--seconds", 1)
    assert 0 < wrong["wrong"] == wrong["statuses"]["200"]


def test_a_refusal_says_when_to_come_again(server: Served) -> None:
    url, data = f"{server.url('slow.int8')}/infer", body(normal(1, 1, 128, 128))
    with ThreadPoolExecutor(40) as pool:
        found = [*pool.map(lambda _: asked(url, data), range(80))]
    assert {(status, after) for status, _, after in found} == {(200, None), (503, "1")}


def test_those_who_ask_together_get_each_their_own_answer(
    server: Served, models: dict[str, eb.QuantizedModel]
) -> None:
    url = f"{server.url('ragged.int8')}/infer"
    inputs = [normal(1 + i % BATCH, 1 + i % 3, 8, seed=i) for i in range(24)]
    with ThreadPoolExecutor(4) as pool:
        found = [*pool.map(lambda x: asked(url, body(x)), inputs)]
    for x, (status, said, _) in zip(inputs, found, strict=True):
        (output,) = said["outputs"]
        assert (status, output["datatype"], output["shape"]) == (200, "FP32", [*x.shape])
        answer = np.array(output["data"], np.float32).reshape(x.shape)
        np.testing.assert_array_equal(answer, models["ragged.int8"].run(x, engine="numpy"))


LENGTH = {"Inference-Header-Content-Length": "9999"}
ONE = np.ones((1, 1, 8), np.float32)


@pytest.mark.parametrize(
    ("data", "headers", "said"),
    [
        (b'{"inp', {}, "body: Invalid JSON"),
        (b"{}", {}, "inputs: Field required"),
        (body(ONE, shape=[1, -1, 8]), {}, "inputs.0.shape.1: Input should be greater than or equal to 0"),
        (body(ONE, shape=[1, 2, 8]), {}, "input 'x' of shape [1, 2, 8]: cannot reshape array of size 8"),
        (body(ONE[0]), {}, "input 'x' has shape (1, 8) of rank 2, expected rank 3"),
        (body(ONE, "z"), {}, "inputs given: ['z']; inputs of the model: ['x']"),
        (body(ONE, datatype="FP8"), {}, "input 'x': datatype 'FP8'; choose FP16, FP32"),
        (body(ONE, datatype="INT8"), {}, "input 'x' of shape [1, 1, 8]: data are no INT8"),
        (body(ONE, data=["1"] * 8), {}, "input 'x' of shape [1, 1, 8]: data are no FP32"),
        (body(ONE * np.nan), {}, "input 'x' holds 8 value(s) that are NaN"),
        (body(np.ones((BATCH + 1, 1, 8))), {}, f"a request holds [3] samples; give up to {BATCH}"),
        (body(ONE, parameters={"binary_data_size": 4}), {}, "binary_data_size is 4, and 0 bytes are left"),
        (body(ONE), LENGTH, "Inference-Header-Content-Length is 9999, and the body has"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    server: Served, data: bytes, headers: dict[str, str], said: str
) -> None:
    status, found, _ = asked(f"{server.url('ragged.int8')}/infer", data, **headers)
    assert status == 400 and said in found["error"]


def test_it_ends_when_told_to_and_answers_whom_it_let_in(server: Served) -> None:
    url, data = f"{server.url('slow.int8')}/infer", body(normal(1, 1, 128, 128))
    assert len(server.replicas("slow.int8")) == 1
    started = server.processes()
    with ThreadPoolExecutor(2 * BATCH) as pool:
        found = [pool.submit(asked, url, data) for _ in range(2 * BATCH)]
        assert found[0].result()[0] == 200
        assert server.stop() == 0
        assert Counter(one.result()[0] for one in found) == {200: 2 * BATCH}
    assert not any(psutil.pid_exists(p.pid) and p.is_running() for p in started)
