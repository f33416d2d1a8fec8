"""The models of the course: sizes, trained accuracy, names, and clear errors."""

import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from eightbit.course import zoo
from eightbit.course.datasets import fashion_mnist
from eightbit.course.zoo import preprocess
from eightbit.course.zoo.catalog import ENTRIES
from eightbit.course.zoo.learned import LEARNED
from eightbit.errors import LoadError
from eightbit.integer.program import FloatIsland

torch = pytest.importorskip("torch")
from eightbit.course.zoo.score import accuracy  # noqa: E402
from eightbit.course.zoo.students import LESSONS, SEEDS  # noqa: E402


def parameters(name):
    return sum(p.numel() for p in ENTRIES[name].build().parameters())


def test_networks_have_the_sizes_of_their_papers():
    assert 76_000 < parameters("resnet8") < 79_000  # MLPerf Tiny: 78,666 with three input channels
    assert 50_000 < parameters("mobilenet") < 300_000
    assert parameters("resnet50") == 25_557_032  # He et al. 2016 with 1,000 classes


@pytest.mark.slow
def test_efficientnet_lite0_has_its_weights():
    net = zoo.load("efficientnet_lite0")
    assert sum(p.numel() for p in net.parameters()) == 4_652_008
    assert not net.training


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet8", "mobilenet"])
def test_checkpoints_know_their_clothes(name):
    """91 % of the 10,000 test images is the promise; every tenth image leaves a standard error of 0.9 points."""
    test = fashion_mnist().test
    images, labels = test.images[::10], test.labels[::10]
    with torch.no_grad():
        answers = zoo.load(name)(torch.from_numpy(zoo.preprocess_for(name, images))).argmax(1).numpy()
    assert (answers == labels).mean() > 0.90


@pytest.mark.parametrize("name", LEARNED)
def test_int8_models_keep_the_answers_with_the_bits_and_zeros_that_they_name(name: str):
    """Every tenth image leaves a standard error of 0.9 points."""
    entry, q, test = LEARNED[name], zoo.load_int8(name), fashion_mnist().test
    codes = np.concatenate([op.weight.ravel() for op in q.program.ops if hasattr(op, "weight")]).astype(int)
    assert np.abs(codes).max() == 2 ** (entry.bits[0] - 1) - 1
    assert np.mean(codes == 0) > entry.zeros - 1e-4
    assert not any(isinstance(op, FloatIsland) for op in q.program.ops)  # and so it goes to C
    assert (codes.size < 70_000) == (entry.macs < 1)  # of 77,072
    answers = q(zoo.preprocess_for(entry.start, test.images[::10])).argmax(1)
    assert (answers == test.labels[::10]).mean() > 0.89
    with pytest.raises(LoadError, match=f"no int8 model is called 'resnet8'; choose one of .*{name}"):
        zoo.load_int8("resnet8")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet8_w2a8", "resnet8_small", "resnet8_sparse"])
def test_an_int8_model_is_trained_from_its_entry(name: str, monkeypatch: pytest.MonkeyPatch):
    """Two epochs on 1,000 pictures lift two-bit weights above what rounding left, and what was pruned above chance.

    Nine zeros in ten would take more of them.
    """
    from eightbit.course.zoo import learned

    data = fashion_mnist()
    small = replace(data, train=type(data.train)(data.train.images[:1000], data.train.labels[:1000]))
    monkeypatch.setattr(learned.datasets, "fashion_mnist", lambda: small)
    entry = replace(LEARNED[name], epochs=2, zeros=min(0.6, LEARNED[name].zeros))
    seen: list[int] = []
    q = entry.train(say=lambda _, step: seen.append(step))
    assert seen == list(range(1, 17))
    assert accuracy(q, ENTRIES[entry.start], data.test) > 0.8


def test_students_come_in_pairs_and_the_teachers_doubts_taught_the_better_one():
    """The first pictures of the test set; the lessons are ten points apart, 2,000 pictures leave 0.9."""
    test, entry = fashion_mnist().test, ENTRIES["resnet8_narrow"]
    part = type(test)(test.images[:2000], test.labels[:2000])
    assert parameters("resnet8_narrow") == 5_118
    taught = {name: zoo.load_students(name) for name in LESSONS}
    assert all(len(students) == SEEDS for students in taught.values())
    few, doubts = (accuracy(taught[name][0], entry, part) for name in ("few", "doubts"))
    assert doubts > 0.85 > few
    first = zoo.load("resnet8_narrow").state_dict()
    assert all(torch.equal(first[n], t) for n, t in taught["doubts"][0].state_dict().items())
    with pytest.raises(
        LoadError, match="no lesson is called 'none'; choose one of few, labels, choices, doubts"
    ):
        zoo.load_students("none")


@pytest.mark.slow
def test_a_student_is_taught_what_its_lesson_says_and_all_are_saved(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """On 600 pictures. Each lesson leaves another network, and what is saved is what comes back."""
    from eightbit.course.zoo import students

    data = fashion_mnist()
    small = replace(data, train=type(data.train)(data.train.images[:600], data.train.labels[:600]))
    monkeypatch.setattr(students.datasets, "fashion_mnist", lambda: small)
    lessons = {name: replace(one, labelled=min(one.labelled, 300)) for name, one in LESSONS.items()}
    monkeypatch.setattr(students, "LESSONS", lessons)
    monkeypatch.setattr(students, "SEEDS", 2)
    monkeypatch.setattr(type(ENTRIES["resnet8"]), "checkpoint", tmp_path / "students.safetensors")
    told = np.random.default_rng(0).normal(0, 3, (600, 10)).astype(np.float32)
    monkeypatch.setattr(students, "teachers_answers", lambda: told)
    seen: set[str] = set()
    score = students.train_and_save(tmp_path / "students.safetensors", lambda text, _: seen.add(text))
    assert seen == {f"{name}, beginning {i}, train" for name in lessons for i in (1, 2)}
    assert 0 <= score < 0.5  # the answers above are noise
    firsts = [
        students.load_students(name)[0](zoo.example("resnet8_narrow"))
        for name in ("few", "choices", "doubts")
    ]
    assert not any(torch.equal(a, b) for a, b in pairwise(firsts))
    again = students.teach(lessons["doubts"], 1, told)(zoo.example("resnet8_narrow"))
    # float16 keeps eleven bits of each of the layers' parameters
    loaded = students.load_students("doubts")[1](zoo.example("resnet8_narrow"))
    torch.testing.assert_close(loaded, again, rtol=0, atol=0.05)


@pytest.mark.parametrize("name", ["resnet8", "mobilenet", "resnet50"])
def test_examples_fit_their_models(name):
    net, example = ENTRIES[name].build().eval(), zoo.example(name, batch=2)
    with torch.no_grad():
        assert net(example).shape[0] == 2
    assert torch.equal(example, zoo.example(name, batch=2))


def test_preprocessing_follows_its_formula_and_wants_raw_bytes():
    images = np.random.default_rng(0).integers(0, 256, (2, 28, 28), np.uint8)
    x = zoo.preprocess_for("resnet8", images)
    assert (x.shape, x.dtype) == ((2, 1, 28, 28), np.float32)
    # Two roundings of float32 on numbers up to 2.
    np.testing.assert_allclose(x[:, 0], (images / 255 - 0.2860) / 0.3530, rtol=0, atol=1e-6)
    with pytest.raises(
        LoadError, match=r"images are float64 with shape \(2, 28, 28\), expected uint8 of rank 3"
    ):
        zoo.preprocess_for("resnet8", images / 255)


def test_grey_pictures_are_framed_and_repeated_and_colours_of_that_size_go_through():
    grey = np.random.default_rng(0).integers(0, 256, (2, 28, 28), np.uint8)
    x = zoo.preprocess_for("resnet50_fashion", grey)
    assert (x.shape, x.dtype, x.flags.c_contiguous) == ((2, 3, 32, 32), np.float32, True)
    framed = np.pad(grey, ((0, 0), (2, 2), (2, 2)))[..., None].repeat(3, axis=3)
    np.testing.assert_array_equal(zoo.preprocess_for("resnet50_fashion", framed), x)
    with pytest.raises(LoadError, match=r"\(2, 28, 28, 3\), expected \(N, 32, 32, 3\)"):
        zoo.preprocess_for("resnet50_fashion", framed[:, 2:-2, 2:-2])


def test_lite_preprocessing_is_exact():
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    np.testing.assert_array_equal(
        preprocess.efficientnet_lite(images)[0, 0].ravel() * 128, np.arange(-127, 129)
    )


def test_unknown_names_list_the_known_ones():
    with pytest.raises(
        LoadError, match="no model is called 'resnet9'; choose one of resnet8, resnet8_narrow, mobilenet"
    ):
        zoo.load("resnet9")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "eightbit.course.zoo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def test_the_command_lists_the_models():
    listed = run("list")
    assert listed.returncode == 0
    assert all(name in listed.stdout for name in zoo.names())


def test_the_command_trains_only_what_it_can():
    refused = run("train", "efficientnet_lite0")
    assert refused.returncode == 2
    assert "is not trained here; choose one of resnet8, mobilenet" in refused.stderr
    for own in ("resnet8_w2a8", "resnet8_narrow"):
        refused = run("train", own, "--epochs", "2", "--seed", "1")
        assert refused.returncode == 2
        assert f"{own} has a schedule of its own; leave out --epochs, --seed" in refused.stderr


@pytest.mark.slow
def test_training_learns_and_writes_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Three epochs on 2,000 images; what is saved is what comes back."""
    from eightbit.course.zoo import checkpoint, train

    data = fashion_mnist()
    small = type(data)(
        type(data.train)(data.train.images[:2000], data.train.labels[:2000]),
        type(data.test)(data.test.images[:500], data.test.labels[:500]),
        data.classes,
    )
    entry = ENTRIES["resnet8"]
    net = train.train(entry, train.Schedule(epochs=3, batch=64, peak=0.05), data=small)
    losses = [float(line.rsplit(maxsplit=1)[1]) for line in capsys.readouterr().err.splitlines()]
    assert len(losses) == 3
    assert losses[-1] < 0.7 * losses[0]
    path = tmp_path / "net.safetensors"
    checkpoint.save_checkpoint(net, path)
    again = entry.build()
    checkpoint.load_checkpoint(again, path)
    x = zoo.example("resnet8", 4)
    with torch.no_grad():
        assert torch.equal(net(x), again.eval()(x))
