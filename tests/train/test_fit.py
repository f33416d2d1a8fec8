"""The training loop: what it minimises, what it keeps, how it goes on after it was killed."""

import io
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import eightbit as eb
from tests.small_net import images, small_net

torch = pytest.importorskip("torch")
from eightbit.train.fit import _Loop  # noqa: E402

QUICK = eb.Training(epochs=3, batch=32, rate=3e-3, seed=1)


@pytest.fixture(scope="module")
def net() -> eb.Model:
    return eb.load(small_net())


@pytest.fixture
def module(net: eb.Model):
    return eb.trainable(net, images(32), eb.Recipe(weights=eb.Weights(bits=2)))


def labelled(net: eb.Model, count: int = 128) -> tuple[np.ndarray, np.ndarray]:
    x = images(count)
    return x, net(x).argmax(1)


def test_labels_alone_teach(net: eb.Model, module):
    history = eb.fit(module, labelled(net), replace(QUICK, epochs=6, rate=1e-2))
    assert [e.number for e in history.epochs] == [1, 2, 3, 4, 5, 6]
    assert history.epochs[-1].loss < 0.8 * history.epochs[0].loss
    assert not module.training


def test_a_teacher_needs_no_labels(net: eb.Model, module):
    history = eb.fit(module, images(128), QUICK, teacher=net)
    assert history.epochs[-1].loss < history.epochs[0].loss


def test_the_teachers_share_of_the_loss_counts(net: eb.Model, module):
    """With weight 0 the teacher says nothing: the loss is that of the labels alone."""
    x, y = labelled(net)
    wrong = (y + 1) % 5
    alone = eb.fit(module, (x, wrong), replace(QUICK, epochs=1)).epochs[0].loss
    fresh = [eb.trainable(net, images(32), eb.Recipe(weights=eb.Weights(bits=2))) for _ in range(2)]
    silent = eb.fit(fresh[0], (x, wrong), replace(QUICK, epochs=1, weight=0.0), teacher=net).epochs[0].loss
    heard = eb.fit(fresh[1], (x, wrong), replace(QUICK, epochs=1, weight=1.0), teacher=net).epochs[0].loss
    assert silent == alone
    assert heard < alone


def test_a_teachers_answers_can_be_noted_and_teach_as_it_would(net: eb.Model):
    """With labels and without: the same losses as with the teacher in the loop, which is not run again."""
    x, y = labelled(net)
    for data in (x, (x, y)):
        runs = [eb.trainable(net, images(32), eb.Recipe(weights=eb.Weights(bits=2))) for _ in range(2)]
        asked, noted = (eb.fit(m, data, QUICK, teacher=t) for m, t in zip(runs, (net, net(x)), strict=True))
        assert [e.loss for e in noted.epochs] == pytest.approx([e.loss for e in asked.epochs], rel=1e-5)


@pytest.mark.parametrize(
    ("data", "teacher", "features", "message"),
    [
        (images(8), np.zeros((7, 5), np.float32), {}, "differ in number: 8 and 7"),
        ([images(8)], np.zeros((8, 5), np.float32), {}, "for batches give the teacher itself"),
        (images(8), np.zeros((8, 5), np.float32), {"1": "1"}, "features need a torch module as teacher"),
        (images(8), "resnet8", {}, "a str cannot teach"),
    ],
)
def test_what_cannot_teach_is_named(data: object, teacher: object, features: dict[str, str], message: str):
    with pytest.raises(eb.QuantizationError, match=message):
        eb.fit(classifier(2), data, replace(QUICK, features=features), teacher=teacher)


def classifier(channels: int):
    parts = torch.nn.Conv2d(3, channels, 3), torch.nn.ReLU(), torch.nn.Flatten()
    return torch.nn.Sequential(*parts, torch.nn.Linear(36 * channels, 5))


def test_any_torch_module_can_be_student_and_any_can_teach():
    torch.manual_seed(0)
    teacher, student, plain = classifier(8), classifier(2), classifier(2)
    training = replace(QUICK, epochs=5, features={"1": "1"})
    history = eb.fit(student, images(128), training, teacher=teacher)
    assert history.epochs[-1].loss < history.epochs[0].loss
    with pytest.raises(eb.QuantizationError, match="'nothing', which is no part of Sequential"):
        eb.fit(plain, images(8), replace(QUICK, features={"nothing": "1"}), teacher=teacher)


def test_layers_compute_in_bfloat16_where_asked_and_what_learns_stays_float32(net: eb.Model, module):
    torch.manual_seed(0)
    teacher, student = classifier(8), classifier(2)
    kinds: set[torch.dtype] = set()
    student[0].register_forward_hook(lambda _m, _i, out: kinds.add(out.dtype))
    training = replace(QUICK, epochs=5, features={"1": "1"}, bfloat16=True)
    history = eb.fit(student, images(128), training, teacher=teacher)
    assert kinds == {torch.bfloat16}
    assert {p.dtype for p in student.parameters()} == {torch.float32}
    assert history.epochs[-1].loss < history.epochs[0].loss
    with pytest.raises(eb.QuantizationError, match="bfloat16 cannot hold the integers of a Trainable"):
        eb.fit(module, labelled(net), replace(QUICK, bfloat16=True))


def test_features_of_a_trainable_are_its_tensors_of_codes(net: eb.Model, module):
    teacher = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Flatten(), torch.nn.Linear(512, 5)
    )
    name = next(n for n in module.plan.grids if "r1" in n)
    eb.fit(module, images(32), replace(QUICK, epochs=1, features={name: "0"}), teacher=teacher)
    with pytest.raises(eb.QuantizationError, match="'x' is no tensor of codes"):
        eb.fit(module, images(32), replace(QUICK, features={"x": "0"}), teacher=teacher)


def test_the_average_of_the_parameters_remains(net: eb.Model):
    last, mean = (eb.trainable(net, images(32), eb.Recipe(weights=eb.Weights(bits=2))) for _ in range(2))
    eb.fit(last, labelled(net), QUICK)
    eb.fit(mean, labelled(net), replace(QUICK, average=0.9))
    pairs = list(zip(last.parameters(), mean.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in pairs)
    assert all(torch.allclose(a, b, atol=0.1) for a, b in pairs)


def test_seeds_decide(net: eb.Model):
    runs = [eb.trainable(net, images(32), eb.Recipe(weights=eb.Weights(bits=2))) for _ in range(3)]
    losses = [
        [e.loss for e in eb.fit(m, labelled(net), replace(QUICK, seed=s)).epochs]
        for m, s in zip(runs, (1, 1, 2), strict=True)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_a_resumed_run_ends_where_a_whole_one_does(net: eb.Model, tmp_path: Path):
    whole, part = (eb.trainable(net, images(32), eb.Recipe(weights=eb.Weights(bits=2))) for _ in range(2))
    data = labelled(net)
    wanted = eb.fit(whole, data, replace(QUICK, average=0.9))

    class Stop(Exception):
        pass

    calls = []

    def stop_after_two(module: object) -> float:
        calls.append(1)
        if len(calls) == 3:
            raise Stop
        return 0.0

    path = tmp_path / "state.pt"
    with pytest.raises(Stop):
        eb.fit(part, data, replace(QUICK, average=0.9), checkpoint=path, evaluate=stop_after_two)
    fresh = eb.trainable(net, images(32), eb.Recipe(weights=eb.Weights(bits=2)))
    found = eb.fit(fresh, data, replace(QUICK, average=0.9), checkpoint=path)
    assert [e.loss for e in found.epochs] == [e.loss for e in wanted.epochs]
    for a, b in zip(whole.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(a, b)


KILLED = """
import os, signal, sys
import eightbit as eb
from tests.small_net import images, small_net
net = eb.load(small_net())
x = images(128)
module = eb.trainable(net, images(32), eb.Recipe(weights=eb.Weights(bits=2)))
def die(module):
    if os.path.exists(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return 0.0
training = eb.Training(epochs=3, batch=32, rate=3e-3, seed=1)
eb.fit(module, (x, net(x).argmax(1)), training, checkpoint=sys.argv[1], evaluate=die)
"""


@pytest.mark.slow
def test_a_killed_run_loses_no_finished_epoch(net: eb.Model, tmp_path: Path):
    path = tmp_path / "state.pt"
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], env=env, cwd=root, check=False)
    assert done.returncode == -signal.SIGKILL
    module = eb.trainable(net, images(32), eb.Recipe(weights=eb.Weights(bits=2)))
    seen = []
    history = eb.fit(
        module,
        labelled(net),
        QUICK,
        checkpoint=path,
        evaluate=lambda m: float(len(seen) or seen.append(1) or 0),
    )
    assert len(history.epochs) == 3
    assert len(seen) == 1


def test_a_checkpoint_of_another_training_is_refused(net: eb.Model, module, tmp_path: Path):
    path = tmp_path / "state.pt"
    eb.fit(module, labelled(net), replace(QUICK, epochs=1), checkpoint=path)
    with pytest.raises(eb.LoadError, match="another training"):
        eb.fit(module, labelled(net), QUICK, checkpoint=path)
    path.write_bytes(b"nothing")
    with pytest.raises(eb.LoadError, match=r"no checkpoint of this module .*delete it"):
        eb.fit(module, labelled(net), QUICK, checkpoint=path)


def test_accuracy_counts_the_answers_in_passing(net: eb.Model, module):
    x, y = labelled(net)
    right = eb.fit(module, (x, (y + 1) % 5), replace(QUICK, epochs=8, rate=0.1)).epochs
    assert 0 <= right[0].accuracy < right[-1].accuracy <= 1
    assert eb.fit(module, x, replace(QUICK, epochs=1), teacher=net).epochs[0].accuracy is None


def test_a_bar_shows_loss_accuracy_and_quality(net: eb.Model, module, monkeypatch):
    terminal = Console(file=io.StringIO(), force_terminal=True, width=120)
    monkeypatch.setattr("eightbit.train.progress.Console", lambda stderr: terminal)
    eb.fit(module, labelled(net), replace(QUICK, epochs=2), evaluate=lambda m: 0.25, progress=True)
    assert re.search(
        r"epoch 2: loss 0\.\d+, accuracy [01]\.\d+, quality 0\.2500 .*8/8", terminal.file.getvalue()
    )


def test_no_terminal_no_bar_and_a_function_is_told_the_steps(net: eb.Model, module, capsys):
    seen = []
    eb.fit(module, labelled(net), replace(QUICK, epochs=1), progress=True)
    eb.fit(
        module,
        labelled(net),
        replace(QUICK, epochs=2),
        progress=lambda stage, done: seen.append((stage, done)),
    )
    assert seen == [("train", i) for i in range(1, 9)]
    assert capsys.readouterr().err == ""
    with pytest.raises(eb.QuantizationError, match="progress is 'yes'"):
        eb.fit(module, labelled(net), QUICK, progress="yes")


@pytest.mark.parametrize("kind", ["trainable", "plain"])
def test_data_follow_the_module_to_its_device(net: eb.Model, module, kind: str):
    """On "meta" every tensor but data must be, or PyTorch refuses: a loss there has used nothing left behind."""
    student = (module if kind == "trainable" else classifier(2)).to("meta")
    x, y = labelled(net)
    loop = _Loop(student, (x, y), QUICK, classifier(8), None)
    batch = next(loop.data.epoch(0))
    outputs = student.train()(*(t.to("meta") for t in batch.inputs))
    assert outputs.device.type == "meta"
    assert loop.teacher(batch.inputs, outputs.device).device.type == "meta"
    with pytest.raises(NotImplementedError, match="meta"):  # the first number that is looked at
        loop._loss(batch)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda net: images(8), "no labels; give"),
        (lambda net: (images(8), np.zeros(7, np.int64)), "differ in number"),
        (lambda net: (batch for batch in [images(8)]), "not a generator"),
        (lambda net: (np.full((8, 3, 8, 8), np.nan, np.float32), np.zeros(8, np.int64)), "look for NaN"),
    ],
)
def test_data_that_cannot_teach(net: eb.Model, module, data, message: str):
    with pytest.raises(eb.QuantizationError, match=message):
        eb.fit(module, data(net), QUICK)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"rate": float("nan")},
        {"rate": "fast"},
        {"weight": 2},
        {"batch": True},
        {"temperature": 0},
    ],
)
def test_a_training_checks_itself(wrong: dict):
    with pytest.raises(eb.QuantizationError, match=next(iter(wrong))):
        eb.Training(**wrong)
