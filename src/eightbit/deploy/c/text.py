"""A plan with addresses as the text of C: constants, one struct and one line a call."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from eightbit.deploy.c.arena import Arena
from eightbit.deploy.c.names import Identifiers
from eightbit.deploy.c.steps import Array, Biases, Call, Plan, Step, Value
from eightbit.deploy.layout.ports import Port

STRUCTS = {"depthwise": "conv", "add": "binary", "mul": "binary", "max_pool": "pool", "average_pool": "pool"}
"""Kernels whose struct is that of another."""
TYPES = {"int8": "int8_t", "int32": "int32_t"}
WIDTH = 110


@dataclass(frozen=True, eq=False)
class Network:
    """A plan, its arena, and the names in C of all that is visible outside."""

    name: str
    plan: Plan
    arena: Arena

    @property
    def ports(self) -> tuple[tuple[Port, str], ...]:
        """Every input, then every output, with its identifier."""
        ids = Identifiers()
        return tuple((port, ids(port.tensor)) for port in (*self.plan.inputs, *self.plan.outputs))

    @property
    def scratch(self) -> str:
        """The macro that picks where a kernel lays out its inputs."""
        return f"{self.name.upper()}_SCRATCH"

    @property
    def declaration(self) -> str:
        """`void net_run(const int8_t *x, int8_t *y)`"""
        inputs = len(self.plan.inputs)
        given = [f"{'const ' if i < inputs else ''}int8_t *{name}" for i, (_, name) in enumerate(self.ports)]
        return f"void {self.name}_run({', '.join(given)})"


def header(net: Network) -> str:
    """The text of net.h."""
    guard = f"EB_{net.name.upper()}_H"
    lines = [
        f"/* {comment(net.name)}: an int8 network, written by eightbit. Rounding: {net.plan.arithmetic.value}. */",
        *(f"#ifndef {guard}", f"#define {guard}", "", "#include <stdint.h>", ""),
        f"#define {net.name.upper()}_ARENA_BYTES {net.arena.size}",
    ]
    for i, (port, name) in enumerate(net.ports):
        kind = "Input" if i < len(net.plan.inputs) else "Output"
        macro = f"{net.name}_{name}".upper()
        shape = " x ".join(map(str, port.shape)) or "one code"
        info = port.info
        assert info is not None  # C takes and gives codes alone
        lines += [
            *("", f"/* {kind} {comment(port.tensor)}: {shape}; real = SCALE * (code - ZERO_POINT) */"),
            f"#define {macro}_SIZE {int(np.prod(port.shape))}",
            f"#define {macro}_SCALE {float(info.scale).hex()}f /* {float(info.scale):.9g} */",
            f"#define {macro}_ZERO_POINT ({info.zero_point})",
        ]
    lines += [
        *(
            "",
            "/* Codes in, codes out. Not reentrant: all calls work in one static arena. */",
            f"{net.declaration};",
        ),
        *("", "#endif", ""),
    ]
    return "\n".join(lines)


def source(net: Network) -> str:
    """The text of net.c."""
    single = int(net.plan.arithmetic.value == "single")
    lines = [
        f"/* {comment(net.name)}: written by eightbit; what it needs lies beside it. */",
        *(f"#define EB_SINGLE_ROUNDING {single}", '#include "eb_kernels.h"', f'#include "{net.name}.h"', ""),
    ]
    body = _Body(net)
    calls = [line for step in net.plan.steps for line in body.step(step)]
    if net.arena.size:
        lines += [f"static int8_t {net.name}_arena[{net.name.upper()}_ARENA_BYTES];", ""]
    rows = max((step.scratch.lines for step in net.plan.steps if step.scratch), default=0)
    if rows:
        lines += [
            "#if defined(EB_VNNI) /* whose kernels take whole rows */",
            f"static int8_t {net.name}_rows[{rows}];",
            f"#define {net.scratch}(arena) {net.name}_rows",
            *("#else", f"#define {net.scratch}(arena) (arena)", "#endif", ""),
        ]
    unread = {port.buffer for port in net.plan.inputs} - {n for step in net.plan.steps for n in step.reads}
    voids = [f"    (void){name};" for port, name in net.ports if port.buffer in unread]
    return "\n".join([*lines, *body.constants, "", f"{net.declaration} {{", *voids, *calls, "}", ""])


class _Body:
    """Writes calls, and collects the constants that they need; equal arrays are written once."""

    def __init__(self, net: Network) -> None:
        self.net, self.ids = net, Identifiers()
        self.constants: list[str] = []
        self._known: dict[tuple[str, bytes], str] = {}
        self._pointers = {port.buffer: name for port, name in net.ports}
        self._pointers |= {name: f"{net.name}_arena + {at}" for name, at in net.arena.offsets.items()}
        for scratch in (step.scratch for step in net.plan.steps if step.scratch):
            at = self._pointers.get(scratch.name, "NULL")
            self._pointers[scratch.name] = f"{net.scratch}({at})"
        for name, codes in net.plan.constants.items():
            self._pointers[name] = self.array(name, codes)

    def step(self, step: Step) -> Iterator[str]:
        yield f"    /* {comment(step.name)} */"
        for i, call in enumerate(step.calls):
            yield self.call(f"{step.name}.{i}" if i else step.name, call)

    def call(self, name: str, call: Call) -> str:
        kind = STRUCTS.get(call.kernel, call.kernel)
        values = [
            f".{field} = {self.value(f'{name}.{field}', value)}" for field, value in call.fields.items()
        ]
        struct = self.name(name)
        self.constants.append(f"static const eb_{kind}_t {struct} = {{")
        self.constants += [*_wrapped(values), "};"]
        given = [f"&{struct}", *(self._pointers[buffer] for buffer in call.buffers)]
        return f"    eb_{call.kernel}({', '.join(given)});"

    def value(self, name: str, value: Value) -> str:
        if value is None:
            return "NULL"
        if isinstance(value, int):
            return str(value)
        if isinstance(value, tuple):
            return f"{{{', '.join(map(str, value))}}}"
        return self.array(name, value)

    def array(self, name: str, array: Array) -> str:
        ctype, texts, data = _written(array)
        key = (ctype, data)
        if key not in self._known:
            self._known[key] = self.name(name)
            self.constants.append(f"static const {ctype} {self._known[key]}[{len(texts)}] = {{")
            self.constants += [*_wrapped(texts), "};"]
        return self._known[key]

    def name(self, name: str) -> str:
        return f"{self.net.name}_{self.ids(name)}"


def _written(array: Array) -> tuple[str, list[str], bytes]:
    """The C type of an array, its elements as text, and its bytes."""
    if isinstance(array, Biases):
        wrapped = [(int(b) + 2**31) % 2**32 - 2**31 for b in array.bias]
        pairs = [
            f"EB_BIAS({literal(b)}, {literal(int(s))})" for b, s in zip(wrapped, array.sums, strict=True)
        ]
        return "uint32_t", pairs, array.bias.tobytes() + array.sums.tobytes()
    return TYPES[str(array.dtype)], [literal(n) for n in array.reshape(-1).tolist()], array.tobytes()


def literal(number: int) -> str:
    """An integer as C writes it; the smallest int32 is no literal there.

    >>> literal(5), literal(-(2**31))
    ('5', '(-2147483647 - 1)')
    """
    return "(-2147483647 - 1)" if number == -(2**31) else str(number)


def _wrapped(texts: Iterable[str]) -> Iterator[str]:
    line = "   "
    for text in texts:
        if len(line) + len(text) + 2 > WIDTH:
            yield line
            line = "   "
        line += f" {text},"
    if line.strip():
        yield line


def comment(name: str) -> str:
    """A stranger's name as a comment may hold it: nothing in it ends the comment or joins lines.

    >>> comment("a*/b??/")
    'a_/b__/'
    """
    return re.sub(r"[^A-Za-z0-9_./:, -]", "_", name)


def selftest(net: Network, vectors: Mapping[str, np.ndarray]) -> str:
    """The text of `selftest.c`: `vectors` (V, ...) int8 of each port, by its buffer's name in the plan."""
    count = len(next(iter(vectors.values())))
    lines = [
        f"/* {comment(net.name)} on {count} vectors with the NumPy engine's answers; exit status 1 if any differs. */",
        *("#include <stdio.h>", "#include <string.h>", "", f'#include "{net.name}.h"', ""),
        f"#define VECTORS {count}",
    ]
    for port, name in net.ports:
        size = f"{net.name}_{name}".upper() + "_SIZE"
        lines += [f"static const int8_t {name}[VECTORS][{size}] = {{"]
        for row in vectors[port.codes].reshape(count, -1):
            lines += ["{", *_wrapped(map(str, row.tolist())), "},"]
        lines += ["};"]
    inputs = len(net.plan.inputs)
    made = [name for _, name in net.ports[inputs:]]
    given = [f"{name}[i]" for _, name in net.ports[:inputs]] + [f"found_{name}" for name in made]
    lines += [
        *(f"static int8_t found_{name}[{net.name.upper()}_{name.upper()}_SIZE];" for name in made),
        *("", "int main(void) {", "    uint32_t digest = 2166136261u; /* FNV-1a over all output codes */"),
        *(
            "    int wrong = 0;",
            "    for (int i = 0; i < VECTORS; i++) {",
            f"        {net.name}_run({', '.join(given)});",
        ),
    ]
    for name in made:
        lines += [
            f"        wrong += memcmp(found_{name}, {name}[i], sizeof found_{name}) != 0;",
            f"        for (size_t k = 0; k < sizeof found_{name}; k++)",
            f"            digest = (digest ^ (uint8_t)found_{name}[k]) * 16777619u;",
        ]
    lines += [
        "    }",
        f'    printf("%s: {net.name}, %d vectors, digest %08lx\\n", wrong ? "WRONG" : "ok", VECTORS,',
        "           (unsigned long)digest);",
        *("    return wrong != 0;", "}", ""),
    ]
    return "\n".join(lines)


def makefile(net: Network) -> str:
    """The text of the Makefile: `make check` builds and runs the self-test."""
    rules = {
        f"selftest: selftest.o {net.name}.o": "$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^",
        f"%.o: %.c {net.name}.h eb_kernels.h eb_avx512.h": "$(CC) $(STRICT) $(CFLAGS) -c -o $@ $<",
        "check: selftest": "./selftest",
        "clean:": f"rm -f selftest selftest.o {net.name}.o",
    }
    lines = [f"# {comment(net.name)}: make check", "CFLAGS ?= -O3"]
    lines += ["STRICT = -std=c99 -Wall -Wextra -Wconversion -Werror", ""]
    for target, recipe in rules.items():
        lines += [target, f"\t{recipe}", ""]
    return "\n".join([*lines, ".PHONY: check clean", ""])
