"""What a teacher says, and what parts of teacher and student hold: for the losses of `fit`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from eightbit.data.given import is_array
from eightbit.errors import QuantizationError
from eightbit.train.torch_module import Trainable


class Hooks:
    """What named parts of a module, or named tensors of a `Trainable`, last gave."""

    def __init__(self, module: nn.Module, names: Iterable[str]) -> None:
        self.seen: dict[str, Tensor] = {}
        wanted = list(names)
        if isinstance(module, Trainable):
            module.watch(wanted, self.seen)
            self.handles: list[Any] = []
            self._watched: Trainable | None = module
            return
        self._watched = None
        parts = dict(module.named_modules())
        missing = [name for name in wanted if name not in parts]
        if missing:
            raise QuantizationError(
                f"features name {missing[0]!r}, which is no part of {type(module).__name__}; its parts are "
                f"{', '.join(list(parts)[1:9])}"
            )
        self.handles = [
            parts[n].register_forward_hook(lambda _m, _i, out, n=n: self._take(n, out)) for n in wanted
        ]

    def _take(self, name: str, out: Any) -> None:
        self.seen[name] = first(out)

    def remove(self) -> None:
        """Stop watching."""
        for handle in self.handles:
            handle.remove()
        if self._watched is not None:
            self._watched.watch([], {})


class Teacher(Hooks):
    """Called with inputs, gives the teacher's outputs without gradients: one bare, more as a tuple.

    An array of what a teacher said before is one as well, and is not called. Raises QuantizationError for what cannot
    teach.
    """

    def __init__(self, teacher: Any, features: Mapping[str, str]) -> None:
        if not callable(teacher) and not is_array(teacher):
            raise QuantizationError(
                f"a {type(teacher).__name__} cannot teach; give a function of the inputs, or an array of its answers"
            )
        self.teacher = teacher.eval() if isinstance(teacher, nn.Module) else teacher
        if isinstance(teacher, nn.Module):
            super().__init__(teacher, features.values())
        elif features:
            raise QuantizationError(
                f"features need a torch module as teacher, not a {type(teacher).__name__}"
            )
        else:
            self.seen, self.handles, self._watched = {}, [], None

    def __call__(self, inputs: tuple[Tensor, ...], device: torch.device) -> Any:
        """What the teacher gives, on `device`; it runs where it is."""
        with torch.no_grad():
            if isinstance(self.teacher, nn.Module):
                at = next((p.device for p in self.teacher.parameters()), device)
                told = self.teacher(*(x.to(at) for x in inputs))
            else:
                told = self.teacher(*(x.cpu().numpy() for x in inputs))
        if isinstance(told, tuple | list):
            return tuple(torch.as_tensor(t).to(device) for t in told)
        return torch.as_tensor(told).to(device)


def first(value: Any) -> Any:
    """The first of several outputs, or the only one."""
    return value[0] if isinstance(value, tuple | list) else value
