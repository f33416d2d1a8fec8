"""What a teacher's answers are worth to a narrow student that runs in int8, trained anew from three beginnings.

Fashion-MNIST, ResNet-8 as the teacher, `course.zoo.students`: the lessons that a row compares differ in what is known
of the 60,000 training pictures, and in nothing else. Each student is quantized with the default recipe.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import eightbit as eb
from benchmarks.figure import Figure
from eightbit.course import zoo
from eightbit.course.datasets import fashion_mnist
from eightbit.course.zoo import students
from eightbit.course.zoo.catalog import find
from eightbit.course.zoo.score import accuracy, logits
from eightbit.report.confidence import Z, mean_of_runs

BEGINNINGS, CALIBRATED = 3, 512
MAX_POINTS = 0.5


def distilled() -> Iterator[Figure]:
    """What the project promises of distillation: int8 students, right on 10,000 test images."""
    entry, data = find(students.NAME), fashion_mnist()
    calibration = zoo.preprocess_for(students.NAME, data.train.images[:CALIBRATED])
    told = students.teachers_answers()
    right: dict[str, np.ndarray] = {}
    lost = []
    for name in ("few", "choices", "doubts"):
        taught = [students.teach(students.LESSONS[name], seed, told) for seed in range(BEGINNINGS)]
        in_int8 = [eb.quantize(student, calibration) for student in taught]
        firsts = [logits(q, entry, data.test.images).argmax(1) for q in in_int8]
        right[name] = 100.0 * (np.stack(firsts) == data.test.labels)
        exact = [100 * accuracy(student, entry, data.test) for student in taught]
        lost += list(exact - right[name].mean(1))
    yield lifted("a teacher for unlabelled images", right["few"], right["doubts"])
    yield lifted("its doubts, beside its choices", right["choices"], right["doubts"])
    detail = f"{len(lost)} students, the largest loss {max(lost):.2f}; default recipe"
    yield Figure("narrow student: points lost in int8", float(np.mean(lost)), MAX_POINTS, "", detail)


def lifted(what: str, below: np.ndarray, above: np.ndarray) -> Figure:
    """The lower end of the interval of the points won, from images answered right (beginnings, images) in percent."""
    won = above - below
    runs = mean_of_runs(won.mean(1).tolist())
    noise = Z * won.mean(0).std() / np.sqrt(won.shape[1])
    detail = (
        f"{below.mean():.2f} to {above.mean():.2f} %: {runs} points, {runs.count} pairs of trainings; "
        f"{won.shape[1]:,} images leave ±{noise:.2f}"
    )
    return Figure(f"narrow int8 student: points won by {what}, at least", runs.lo, 0.0, "", detail, True)
