"""A quantized model as a `torch.nn.Module` that learns: forward is the integer program, backward its gradients.

In: a `QuantizedModel`, the solution of post-training quantization. Out: a module with the model's weights, biases and
scales as parameters, to be trained by any loop; `eightbit.quantize(module)` gives the int8 model that it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from eightbit.errors import EngineError, QuantizationError
from eightbit.model import QuantizedModel
from eightbit.train.convert import converted, engine_codes, planned
from eightbit.train.forward import Forward
from eightbit.train.normal import MOMENTUM, folded, normal_layers
from eightbit.train.torch_ops import TorchOps


class Trainable(nn.Module):
    """What `eightbit.trainable` returns. `module(x)` takes and gives what the model's graph does, as tensors.

    The parameters are what is learned on top of post-training quantization, zero at first: `plan.Plan` says how
    weights, biases and scales come from them, and every run rounds those to integers. In eval mode sums that float32
    might round are taken in float64, so that every tensor is that of the engines. In training mode the sums of
    convolutions are normalized over the batch (`normal`), until `freeze` is called; eval mode and the int8 model have
    running means and deviations instead, folded into weights, biases and scales.
    """

    def __init__(self, q: QuantizedModel) -> None:
        super().__init__()
        self.plan, self.report = planned(q)
        self._wanted: tuple[str, ...] = ()
        self._seen: dict[str, Tensor] = {}
        self._counted = self.frozen = False
        self._normal = tuple(normal_layers(self.plan))
        for name, channels in normal_layers(self.plan).items():
            self.register_buffer(_sums(name), torch.zeros(4, channels))
        self.learned = nn.ParameterDict()
        for key in self.plan.start:
            value = torch.zeros(self.plan.start[key].shape)
            if key in self.plan.fixed:
                self.register_buffer(parameter_name(key), value)
            else:
                self.learned[parameter_name(key)] = nn.Parameter(value)

    def numbers(self) -> dict[str, Tensor]:
        """Every number of the plan by its key, as it is learned."""
        return {
            key: getattr(self, parameter_name(key))
            if key in self.plan.fixed
            else self.learned[parameter_name(key)]
            for key in self.plan.start
        }

    def settled(self) -> dict[str, Tensor]:
        """Every number of the plan by its key, as the integers are made of it: what was normalized is folded."""
        if self.frozen or not self._counted:
            return self.numbers()
        statistics = {name: self._statistics(name) for name in self._normal}
        return folded(self.plan, TorchOps(self._device), self.numbers(), statistics)

    def freeze(self) -> None:
        """Stop normalizing: from now on training mode, too, runs the integer program. Called first, it never begins."""
        with torch.no_grad():
            settled = self.settled()
            for key in self.plan.learned:
                self.learned[parameter_name(key)].copy_(settled[key])
        self.frozen = True

    def get_extra_state(self) -> Tensor:
        """Whether sums have been counted, and whether they are still normalized; for `state_dict`."""
        return torch.tensor([self._counted, self.frozen])

    def set_extra_state(self, state: Tensor) -> None:
        """Take up what `get_extra_state` gave."""
        self._counted, self.frozen = map(bool, state.tolist())

    def kinds(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Each parameter with what it is: "weight", "bias" or "scale"."""
        for key in self.plan.learned:
            yield key.partition(":")[0], self.learned[parameter_name(key)]

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The model's outputs: one bare, more as a tuple. Raises EngineError for another number of inputs."""
        feeds, keep = self._feeds(inputs), bool(self._wanted)
        if self.training and not self.frozen and self._normal:
            made = self._normalized(feeds, keep=keep)
        else:
            made = self._run(feeds, keep=keep, exact=not self.training)
        self._seen.update({name: self._real(made, name) for name in self._wanted})
        outputs = tuple(made[name] for name in self.plan.program.outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def watch(self, tensors: Sequence[str], seen: dict[str, Tensor]) -> None:
        """Let every run put the real values of these tensors of codes into `seen`; none ends it."""
        missing = [name for name in tensors if name not in self.plan.grids]
        if missing:
            known = ", ".join(list(self.plan.grids)[:9])
            raise QuantizationError(f"{missing[0]!r} is no tensor of codes of this model; it has {known}")
        self._wanted, self._seen = tuple(tensors), seen

    def _real(self, made: Mapping[str, Tensor], name: str) -> Tensor:
        forward = Forward(self.plan, TorchOps(self._device), self.numbers())
        return made[name] * forward.scale(self.plan.grids[name].scale)

    def codes(self, *inputs: Tensor) -> dict[str, np.ndarray]:
        """Every tensor of codes on the way, as the engines have it: canonical integers by name."""
        with torch.no_grad():
            made = self._run(self._feeds(inputs), keep=True, exact=True)
        return engine_codes(self.plan.program, {name: value.cpu().numpy() for name, value in made.items()})

    def quantized(self) -> QuantizedModel:
        """The int8 model with the integers that the parameters stand for now."""
        with torch.no_grad():
            values = Forward(self.plan, TorchOps(self._device), self.settled()).values()
        return converted(self.plan, self.report, {key: value.cpu().numpy() for key, value in values.items()})

    def _normalized(self, feeds: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
        """A run in training mode; the first batch says what is normal."""
        if not self._counted:
            with torch.no_grad():
                forward = self._forward(dict.fromkeys(self._normal))
                forward.run(feeds)
                for name, moments in forward.moments.items():
                    self._statistics(name).copy_(torch.stack([*moments, *moments]))
            self._counted = True
        forward = self._forward({name: self._statistics(name)[2:] for name in self._normal})
        made = forward.run(feeds, keep=keep)
        with torch.no_grad():
            for name, moments in forward.moments.items():
                self._statistics(name)[:2].lerp_(torch.stack(moments), MOMENTUM)
        return made

    def _forward(self, normal: Mapping[str, Tensor | None]) -> Forward:
        return Forward(self.plan, TorchOps(self._device), self.numbers(), normal=normal)

    def _statistics(self, name: str) -> Tensor:
        return self.get_buffer(_sums(name))

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device

    def _feeds(self, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        names = self.plan.program.inputs
        if len(inputs) == 1 and isinstance(inputs[0], Mapping):
            return {name: _tensor(inputs[0][name], self._device) for name in names}
        if len(inputs) != len(names):
            raise EngineError(
                f"{len(inputs)} input(s) given, the model takes {len(names)}: {', '.join(names)}"
            )
        return {name: _tensor(x, self._device) for name, x in zip(names, inputs, strict=True)}

    def _run(self, feeds: Mapping[str, Tensor], *, keep: bool, exact: bool) -> dict[str, Tensor]:
        forward = Forward(self.plan, TorchOps(self._device), self.settled(), exact=exact)
        return forward.run(feeds, keep=keep)


def _tensor(value: Any, device: torch.device) -> Tensor:
    return torch.as_tensor(value).to(device)


def _sums(name: str) -> str:
    """The buffer of a layer's statistics: `normal.folded` says which."""
    return parameter_name(f"sums:{name}")


def parameter_name(key: str) -> str:
    """A key as PyTorch wants the names of parameters: without dots."""
    return key.replace(".", "/")
