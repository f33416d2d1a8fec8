"""Files of .onnx, int8 or float, behind HTTP: Ray Serve's replicas, batches and refusals.

    python examples/serving/app.py clothes.int8.onnx --replicas 2

Each file is a model by the name of the file, here `clothes.int8`. The server speaks the Open Inference Protocol, as
KServe and Triton do, so that a client need not know who answers:

    GET  /v2/models/NAME/             inputs and outputs
    GET  /v2/models/NAME/ready
    POST /v2/models/NAME/infer        tensors in, tensors out
    GET  /-/healthz                   Ray's own: whether this machine takes requests

A replica is a process with one session of ONNX Runtime and one thread: no thread waits for another. What it may run
together it runs together, and what does not fit the model is answered with 400 and the input's name. Requests past
`--waiting` are refused at once, with 503 and Retry-After: a queue without an end answers everybody too late.
"""

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a server that reports to nobody
os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "0")
os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's is 15, for work that may wait

import click
import numpy as np
import ray
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, NonNegativeInt, ValidationError
from ray import serve
from ray.serve.config import BackpressureConfig, RequestRouterConfig

import eightbit as eb
from eightbit.data.feeds import Feeds, feed
from eightbit.data.specs import TensorSpec
from eightbit.deploy.repository import TYPES, together
from eightbit.deploy.sessions import OnnxRuntime
from eightbit.errors import EightbitError, EngineError, LoadError

DATATYPES = {kind.removeprefix("TYPE_"): np.dtype(name) for name, kind in TYPES.items()}
"""The protocol's names of dtypes are Triton's."""
HEADER_LENGTH = "Inference-Header-Content-Length"
"""Where a request has it, so many bytes are JSON, and the tensors' own bytes follow (Triton's binary tensor data)."""


class Tensor(BaseModel):
    """An input of a request."""

    name: str
    shape: list[NonNegativeInt]
    datatype: str
    data: list[Any] | None = None
    parameters: dict[str, Any] = {}


class Asked(BaseModel):
    """A request: `{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [0.5, 1]}]}`."""

    inputs: list[Tensor]


def arrays(body: bytes, header: str | None) -> Feeds:
    """The tensors of a request's body. Raises EngineError, naming the field."""
    length = len(body) if header is None else int(header) if header.isdecimal() else -1
    if not 0 <= length <= len(body):
        raise EngineError(f"{HEADER_LENGTH} is {header}, and the body has {len(body)} bytes")
    try:
        asked = Asked.model_validate_json(body[:length])
    except ValidationError as cause:
        first = cause.errors()[0]
        raise EngineError(f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}") from cause
    found, rest = {}, memoryview(body)[length:]
    for tensor in asked.inputs:
        size = tensor.parameters.get("binary_data_size")
        if size is not None and not (isinstance(size, int) and 0 <= size <= len(rest)):
            raise EngineError(
                f"input '{tensor.name}': binary_data_size is {size}, and {len(rest)} bytes are left"
            )
        found[tensor.name] = array(tensor, None if size is None else rest[:size])
        rest = rest[size or 0 :]
    return found


def array(tensor: Tensor, raw: memoryview | None) -> np.ndarray:
    """One tensor, from its `raw` bytes or the numbers in its JSON. Raises EngineError, naming the field."""
    dtype = DATATYPES.get(tensor.datatype)
    if dtype is None:
        raise EngineError(
            f"input '{tensor.name}': datatype {tensor.datatype!r}; choose {', '.join(DATATYPES)}"
        )
    try:
        values = np.asarray(tensor.data) if raw is None else np.frombuffer(raw, dtype)
        if raw is None and dtype.kind == "f" and values.dtype.kind in "iu":
            values = values.astype(dtype)  # JSON writes 1.0 as 1
        if values.dtype.kind != dtype.kind and {values.dtype.kind, dtype.kind} != {"i", "u"}:
            raise ValueError(f"data are no {tensor.datatype}")
        return values.reshape(tensor.shape)
    except ValueError as cause:
        raise EngineError(f"input '{tensor.name}' of shape {tensor.shape}: {cause}") from cause


def described(spec: TensorSpec) -> dict[str, Any]:
    """An input or output as the protocol describes it; -1 is any length."""
    datatype = next(name for name, dtype in DATATYPES.items() if dtype == spec.dtype)
    return {"name": spec.name, "datatype": datatype, "shape": [-1 if n is None else n for n in spec.shape]}


def in_json(content: dict[str, Any], status: int = 200) -> Response:
    """An answer of the protocol."""
    return Response(json.dumps(content), status, media_type="application/json")


api = FastAPI(openapi_url=None)


@serve.deployment
@serve.ingress(api)
class Replica:
    """One process that answers."""

    def __init__(self, model: eb.Model | eb.QuantizedModel, name: str, batch: int, wait: float) -> None:
        self._name, self._inputs, self._outputs = name, model.inputs, model.outputs
        self._joins = bool(together(model.ir))
        self._most = batch
        self._runtime = OnnxRuntime(model.ir, threads=1)
        self._first: tuple[Feeds, Feeds] | None = None
        self._answers.set_max_batch_size(batch if self._joins else 1)
        self._answers.set_batch_wait_timeout_s(wait)

    def check_health(self) -> None:
        """Ray asks now and then, and replaces a replica that no longer gives the answer it once gave."""
        if self._first is not None:
            feeds, known = self._first
            found = self._runtime.run(feeds)
            if any(not np.array_equal(found[name], known[name], equal_nan=True) for name in known):
                raise RuntimeError("the same input has another answer")

    @api.get("/ready")
    async def ready(self) -> Response:
        """A replica that answers has its model loaded."""
        return Response()

    @api.get("/")
    async def model(self) -> dict[str, Any]:
        """What goes in and comes out."""
        ends = {"inputs": self._inputs, "outputs": self._outputs}
        return {
            "name": self._name,
            "platform": "onnxruntime_onnx",
            **{kind: [*map(described, specs)] for kind, specs in ends.items()},
        }

    @api.post("/infer")
    async def infer(self, request: Request) -> Response:
        """The answer to one request."""
        try:
            asked = arrays(await request.body(), request.headers.get(HEADER_LENGTH))
            feeds = feed(asked, self._inputs, EngineError)
            found = await self._answers((feeds, self._count(feeds)))
            if isinstance(found, EngineError):
                raise found
        except EngineError as cause:
            return in_json({"error": str(cause)}, 400)
        outputs = [
            described(spec) | {"shape": found[spec.name].shape, "data": found[spec.name].ravel().tolist()}
            for spec in self._outputs
        ]
        return in_json({"model_name": self._name, "outputs": outputs})

    @serve.batch(batch_size_fn=lambda asked: sum(count for _, count in asked))
    async def _answers(self, asked: list[tuple[Feeds, int]]) -> list[Feeds | EngineError]:
        """All in one run; each for itself where lengths differ or one cannot run, which is no fault of the others."""
        try:
            if len(asked) > 1:
                return await asyncio.to_thread(self._joined, asked)
        except (EngineError, ValueError):
            pass
        return [await asyncio.to_thread(self._alone, feeds) for feeds, _ in asked]

    def _joined(self, asked: list[tuple[Feeds, int]]) -> list[Feeds | EngineError]:
        feeds = {name: np.concatenate([one[name] for one, _ in asked]) for name in asked[0][0]}
        ends = np.cumsum([count for _, count in asked])[:-1]
        found = {name: np.split(a, ends) for name, a in self._runtime.run(feeds).items()}
        return [{name: parts[i] for name, parts in found.items()} for i in range(len(asked))]

    def _alone(self, feeds: Feeds) -> Feeds | EngineError:
        try:
            found = self._runtime.run(feeds)
        except EngineError as cause:
            return cause
        self._first = self._first or (feeds, found)
        return found

    def _count(self, feeds: Feeds) -> int:
        """The samples of a request; 1 where the model does not count them."""
        lengths = {len(a) for a in feeds.values()} if self._joins else {1}
        if len(lengths) > 1 or max(lengths) > self._most:
            raise EngineError(
                f"a request holds {sorted(lengths)} samples; give up to {self._most}, as many in each input"
            )
        return lengths.pop()


def opened(path: Path) -> eb.Model | eb.QuantizedModel:
    """The model of a file, int8 or float. Raises LoadError, also for tensors that the protocol lacks."""
    try:
        model: eb.Model | eb.QuantizedModel = eb.open(path)
    except LoadError:
        model = eb.load(path)
    for spec in (*model.inputs, *model.outputs):
        if spec.dtype not in DATATYPES.values():
            raise LoadError(f"{path}: the protocol has no tensors like {spec}; choose {', '.join(DATATYPES)}")
    return model


@click.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 listens to the network.")
@click.option("--port", default=8000, show_default=True)
@click.option(
    "--replicas", type=click.IntRange(1), default=1, show_default=True, help="Processes for each model."
)
@click.option(
    "--batch", type=click.IntRange(1), default=8, show_default=True, help="Most samples in one run."
)
@click.option(
    "--wait", type=click.FloatRange(0), default=2.0, show_default=True, help="Milliseconds for a batch."
)
@click.option(
    "--waiting", type=click.IntRange(1), default=64, show_default=True, help="Requests that may queue."
)
@click.option("--address", help="A Ray cluster that runs already; default: a new one on this machine.")
def main(
    files: tuple[Path, ...],
    host: str,
    port: int,
    replicas: int,
    batch: int,
    wait: float,
    waiting: int,
    address: str | None,
) -> None:
    """Serve the models of FILES until SIGINT or SIGTERM comes."""
    try:
        models = {path.stem: opened(path) for path in files}
    except EightbitError as cause:
        raise click.ClickException(str(cause)) from cause
    stop = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    here = {"num_cpus": len(models) * replicas, "include_dashboard": False}
    for more in (2, 1, 0):
        try:
            ray.init(address or "local", log_to_driver=False, **({} if address else here))
            break
        except Exception:  # Ray gives its processes 30 s to start and raises no class of its own after that
            if not more:
                raise
            ray.shutdown()
    serve.start(http_options={"host": host, "port": port, "request_timeout_s": 10})
    deployment = Replica.options(
        num_replicas=replicas,
        max_ongoing_requests=2 * batch,  # one batch runs, the next one gathers
        max_queued_requests=waiting,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=1),
        request_router_config=RequestRouterConfig(initial_backoff_s=0.002, max_backoff_s=0.02),
        graceful_shutdown_timeout_s=10,
        graceful_shutdown_wait_loop_s=0.2,
        ray_actor_options={"num_cpus": 1},
        logging_config={"enable_access_log": False},
    )
    for name, model in models.items():
        app = deployment.bind(model, name, batch, wait / 1000)
        serve.run(app, name=name, route_prefix=f"/v2/models/{name}")
        print(f"{name}: {replicas} replica(s), http://{host}:{port}/v2/models/{name}", flush=True)
    print("ready; Ctrl-C stops", flush=True)
    signal.sigwait(stop)
    for name in models:
        serve.delete(name)  # takes the address away, and waits for those who have been let in
    ray.shutdown()


if __name__ == "__main__":
    main()
