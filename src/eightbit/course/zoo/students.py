"""Narrow students of the ResNet-8: one network of 5,118 parameters, taught by four lessons from five beginnings each.

A lesson says what is known of the 60,000 training pictures; steps, rates and the beginnings are the same for all, so
two lessons are compared in pairs. In: a lesson and a seed. Out: a float network, and all of them in one file,
`checkpoints/resnet8_narrow.safetensors`, as float16: tensors called `lesson/name`, the seeds along the first axis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from eightbit.course import datasets
from eightbit.course.zoo.catalog import find, pick
from eightbit.course.zoo.checkpoint import fill
from eightbit.course.zoo.resnet8 import ResNet8
from eightbit.course.zoo.score import accuracy, logits
from eightbit.errors import LoadError
from eightbit.files import write_whole
from eightbit.train.fit import fit
from eightbit.train.training import Training

NAME, TEACHER = "resnet8_narrow", "resnet8"
SEEDS = 5
PASSES = 4
"""Of the 60,000 pictures, or as many steps on fewer."""


@dataclass(frozen=True)
class Lesson:
    """What the student is told: the labels of the first `labelled` pictures, or the teacher's answers for all.

    With `doubts` it hears the teacher's whole answer, otherwise its first choice as if it were a label.
    """

    name: str
    summary: str
    labelled: int = 0
    doubts: bool = False


LESSONS: dict[str, Lesson] = {
    lesson.name: lesson
    for lesson in (
        Lesson("few", "the labels of 2,000 pictures", labelled=2_000),
        Lesson("labels", "the labels of all 60,000 pictures", labelled=60_000),
        Lesson("choices", "the teacher's first choice for 60,000 pictures, no labels"),
        Lesson("doubts", "the teacher's whole answer for 60,000 pictures, no labels", doubts=True),
    )
}


def build() -> nn.Module:
    """A fresh student: a quarter of ResNet-8's channels, and a stem of stride 2."""
    return ResNet8(width=4, stride=2)


def load() -> nn.Module:
    """The student that learned the teacher's doubts, from the first beginning. Raises LoadError."""
    return load_students("doubts")[0]


def load_students(lesson: str) -> tuple[nn.Module, ...]:
    """The students of a lesson in eval mode, one of each beginning: those of two lessons make pairs.

    Raises:
        LoadError: no such lesson, no file, or one that does not fit.
    """
    pick(LESSONS, lesson, "lesson")
    path = find(NAME).checkpoint
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise LoadError(
            f"there is no checkpoint {path}; run: python -m eightbit.course.zoo train {NAME}"
        ) from None
    except (OSError, SafetensorError) as error:
        raise LoadError(f"checkpoint {path} cannot be read: {error}") from error
    own = {name.removeprefix(f"{lesson}/"): t for name, t in tensors.items() if name.startswith(f"{lesson}/")}
    students = []
    for seed in range(SEEDS):
        student = build()
        fill(student, {name: t[seed] for name, t in own.items()}, f"{path}, {lesson}")
        students.append(student.eval())
    return tuple(students)


def teach(
    lesson: Lesson,
    seed: int,
    told: NDArray[np.float32],
    *,
    passes: int = PASSES,
    say: Callable[[str, int], None] | None = None,
) -> nn.Module:
    """A student of `lesson` in eval mode; `told` are the teacher's logits (60,000, 10) for the training pictures."""
    data = datasets.fashion_mnist().train
    torch.manual_seed(seed)
    student = build()
    count = lesson.labelled or len(data)
    training = Training(epochs=passes * len(data) // count, rate=5e-3, weight=1.0, temperature=1.0, seed=seed)
    x = find(NAME).preprocess(data.images[:count])
    if lesson.doubts:
        fit(student, x, training, teacher=told, progress=say)
    else:
        known = data.labels[:count] if lesson.labelled else told.argmax(1)
        fit(student, (x, known), training, progress=say)
    return student.eval()


def teachers_answers() -> NDArray[np.float32]:
    """The teacher's logits (60,000, 10) for the training pictures, in about a minute."""
    teacher = find(TEACHER)
    return logits(teacher.load(), teacher, datasets.fashion_mnist().train.images)


def train_and_save(path: Path, say: Callable[[str, int], None]) -> float:
    """Teach every lesson from every beginning, in some ten minutes; write all to `path`.

    Returns the share of the 10,000 test images that the student of `load` names rightly.
    """
    told = teachers_answers()
    taught: dict[str, list[nn.Module]] = {}
    for name, lesson in LESSONS.items():
        taught[name] = [
            teach(lesson, seed, told, say=partial(_say, say, name, seed)) for seed in range(SEEDS)
        ]
    tensors = {
        f"{name}/{tensor}": torch.stack([student.state_dict()[tensor] for student in students]).half()
        for name, students in taught.items()
        for tensor in students[0].state_dict()
        if not tensor.endswith("num_batches_tracked")
    }
    write_whole(save(tensors), path)
    return accuracy(taught["doubts"][0], find(NAME), datasets.fashion_mnist().test)


def _say(say: Callable[[str, int], None], lesson: str, seed: int, stage: str, step: int) -> None:
    say(f"{lesson}, beginning {seed + 1}, {stage}", step)
