"""What a network in training is told is wrong: labels, the doubts of a teacher, and what the teacher sees inside.

With logits z of the student, t of the teacher, and labels y, the loss of a batch is::

    (1 - a) CE(z, y) + a T² KL(softmax(t / T) || softmax(z / T)) + b sum |A(f_s) - A(f_t)|²                        (1)

with a the `weight` of the teacher, T its `temperature`, b the weight of the `features`, pairs of a student's and a
teacher's tensor, compared by where they are active: A is the mean square over channels, of unit length. So the two
may differ in channels, and nothing has to be learned to compare them.
Sources: Hinton et al. 2015, arXiv 1503.02531 (soft targets, T²); Zagoruyko and Komodakis 2017, arXiv 1612.03928 (A).
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as f


def task_loss(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Cross entropy of logits (N, classes) with labels int64 (N,), which are smoothed."""
    return f.cross_entropy(logits, labels, label_smoothing=smoothing)


def soft_loss(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The second part of (1), for logits (N, classes) each."""
    told = f.log_softmax(teacher / temperature, dim=1)
    said = f.log_softmax(logits / temperature, dim=1)
    return temperature**2 * f.kl_div(said, told, log_target=True, reduction="batchmean")


def output_loss(outputs: Tensor, teacher: Tensor) -> Tensor:
    """The squared error relative to the teacher's spread, for outputs that are no logits."""
    return (outputs - teacher).square().mean() / teacher.var().clamp_min(1e-12)


def feature_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The third part of (1), for one pair of tensors (N, channels, ...) with the same spatial axes."""
    return (_attention(student) - _attention(teacher)).square().sum(dim=1).mean()


def _attention(x: Tensor) -> Tensor:
    flat = x.square().mean(dim=1).flatten(1) if x.ndim > 2 else x
    return f.normalize(flat, dim=1)
