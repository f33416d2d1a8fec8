"""Requests to a server of the Open Inference Protocol, each answer checked: how many, how fast, how many refused.

    python examples/serving/load.py http://127.0.0.1:8000/v2/models/clothes.int8 answers.npz --clients 16 --seconds 10
    python examples/serving/load.py http://127.0.0.1:8000/v2/models/clothes.int8 answers.npz --rate 500 --seconds 10

answers.npz holds samples under the names of the model's inputs, and under those of its outputs what it has to answer.
With `--clients`, so many each send a request when they have the answer to the one before (a closed loop); one that is
refused waits as Retry-After says. With `--rate`, so many come a second, at random and whether or not the server keeps
up (an open loop), as from people who know nothing of one another; a time then counts from the moment when the request
should have gone. One line of JSON comes out.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import Any

import aiohttp
import click
import numpy as np

HEADER_LENGTH = "Inference-Header-Content-Length"
DATATYPES = {"float32": "FP32", "float64": "FP64", "float16": "FP16", "bool": "BOOL"}


@dataclass(frozen=True)
class Sample:
    """A request's body with the length of its JSON, and the answer that is right."""

    body: bytes
    header: int
    answer: dict[str, np.ndarray]


@dataclass
class Counts:
    """What came back."""

    statuses: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    answered: list[float] = field(default_factory=list)
    """Seconds to each answer."""
    refused: list[float] = field(default_factory=list)
    """Seconds to each refusal, status 503."""
    most_off: float = 0.0
    """The largest difference from the right answer."""

    def summary(self, seconds: float) -> dict[str, Any]:
        """As one line says it: milliseconds, and answers a second."""
        return {
            "statuses": dict(sorted(self.statuses.items())),
            "wrong": self.wrong,
            "most_off": self.most_off,
            "seconds": seconds,
            "per_second": len(self.answered) / seconds,
            "answered_ms": percentiles(self.answered),
            "refused_ms": percentiles(self.refused),
        }


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Mean, median, 95th and 99th percentile and the longest, in milliseconds; empty for none."""
    if not seconds:
        return {}
    ms = 1e3 * np.array(seconds)
    names = {"p50": 50, "p95": 95, "p99": 99, "longest": 100}
    return {"mean": float(ms.mean()), **{name: float(np.percentile(ms, q)) for name, q in names.items()}}


def samples(arrays: dict[str, np.ndarray], model: dict[str, Any]) -> list[Sample]:
    """One request for each sample of `arrays`; `model` is what the server says of its inputs and outputs."""
    inputs, outputs = ([end["name"] for end in model[kind]] for kind in ("inputs", "outputs"))
    found = []
    for i in range(len(arrays[inputs[0]])):
        tensors, raw = [], b""
        for name in inputs:
            array = np.ascontiguousarray(arrays[name][i : i + 1])
            kind = DATATYPES.get(array.dtype.name, array.dtype.name.upper())
            data = array.tobytes()
            tensors.append(
                {
                    "name": name,
                    "shape": array.shape,
                    "datatype": kind,
                    "parameters": {"binary_data_size": len(data)},
                }
            )
            raw += data
        header = json.dumps({"inputs": tensors}).encode()
        found.append(Sample(header + raw, len(header), {name: arrays[name][i : i + 1] for name in outputs}))
    return found


async def ask(http: aiohttp.ClientSession, url: str, sample: Sample, since: float, counts: Counts) -> float:
    """Send one request and count what comes back; `since` is when its time began. Returns Retry-After, or 0."""
    try:
        async with http.post(
            f"{url}/infer", data=sample.body, headers={HEADER_LENGTH: str(sample.header)}
        ) as reply:
            body, status = await reply.read(), str(reply.status)
    except (aiohttp.ClientError, TimeoutError) as cause:
        counts.statuses[type(cause).__name__] += 1
        return 0
    taken = perf_counter() - since
    counts.statuses[status] += 1
    if status != "200":
        counts.refused += [taken] if status == "503" else []
        return float(reply.headers.get("Retry-After", 0))
    counts.answered.append(taken)
    found = {o["name"]: np.array(o["data"]).reshape(o["shape"]) for o in json.loads(body)["outputs"]}
    off = max(float(np.abs(found[name] - right).max()) for name, right in sample.answer.items())
    counts.wrong += off > 0
    counts.most_off = max(counts.most_off, off)
    return 0


async def closed(clients: int, seconds: float, send: Callable[[float], Any]) -> None:
    """`clients` that each wait for an answer before they ask again."""
    end = perf_counter() + seconds

    async def client() -> None:
        while perf_counter() < end:
            await asyncio.sleep(await send(perf_counter()))

    await asyncio.gather(*(client() for _ in range(clients)))


async def open_loop(rate: float, seconds: float, send: Callable[[float], Any]) -> None:
    """Requests at random, `rate` a second on average: the times between them are exponential."""
    rng, due = np.random.default_rng(0), perf_counter()
    end, going = due + seconds, []
    while (due := due + rng.exponential(1 / rate)) < end:
        await asyncio.sleep(max(0.0, due - perf_counter()))
        going.append(asyncio.create_task(send(due)))
    await asyncio.gather(*going)


async def load(
    url: str, arrays: dict[str, np.ndarray], *, seconds: float, clients: int = 0, rate: float = 0
) -> dict[str, Any]:
    """Load a server for `seconds`, by `clients` or at a `rate`; returns `Counts.summary`."""
    counts = Counts()
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as http:
        async with http.get(f"{url}/") as reply:
            asked = cycle(samples(arrays, await reply.json()))

        def send(since: float) -> Any:
            return ask(http, url, next(asked), since, counts)

        start = perf_counter()
        await (closed(clients, seconds, send) if clients else open_loop(rate, seconds, send))
        return counts.summary(perf_counter() - start)


@click.command()
@click.argument("url")
@click.argument("answers", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--seconds", default=10.0, show_default=True)
@click.option("--clients", type=click.IntRange(1), help="A closed loop of so many.")
@click.option(
    "--rate", type=click.FloatRange(0, min_open=True), help="An open loop of so many requests a second."
)
def main(url: str, answers: Path, seconds: float, clients: int | None, rate: float | None) -> None:
    """Load the model at URL and check its answers against those in ANSWERS, an .npz file."""
    if (clients is None) == (rate is None):
        raise click.UsageError("give --clients or --rate")
    with np.load(answers) as file:
        arrays = dict(file)
    print(json.dumps(asyncio.run(load(url, arrays, seconds=seconds, clients=clients or 0, rate=rate or 0))))


if __name__ == "__main__":
    main()
