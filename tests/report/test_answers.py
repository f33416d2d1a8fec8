"""Changed answers and their two numbers: the lead that the float model gave, and the noise that took it."""

import math

import numpy as np
import pytest

import eightbit as eb
from eightbit.report.answers import AnswerLog, Flip
from tests.small_net import images, small_net


def log(exact, int8, labels=None):
    gathered = AnswerLog()
    gathered.update(np.float32(exact), np.float32(int8))
    return gathered.answers(None if labels is None else np.array(labels))


def test_numbers_of_one_changed_answer():
    found = log([[5, 3, 4.5], [1, 0, 0]], [[4, 4.5, 3.5], [1, 0.25, 0]], [1, 0])
    assert found.flips() == (
        Flip(index=0, label=1, float_class=0, int8_class=1, margin=0.5, lead=2.0, noise=2.5),
    )
    assert found.rival.tolist() == [1, 1]
    assert found.margin.tolist() == [0.5, 1.0]
    assert found.noise.tolist() == [2.5, 0.25]


def test_an_answer_changes_exactly_where_noise_exceeds_the_lead():
    rng = np.random.default_rng(0)
    exact = rng.normal(size=(5000, 10))
    # Logits that are codes of a coarse grid, so that ties are common.
    found = log(exact, np.round(exact + rng.normal(scale=0.3, size=exact.shape), 1))
    assert 0 < found.flipped.sum() < 2000
    np.testing.assert_array_equal(found.flipped[found.noise > found.lead + 1e-6], True)
    np.testing.assert_array_equal(found.flipped[found.noise < found.lead - 1e-6], False)
    tied = np.abs(found.noise - found.lead) <= 1e-6
    assert tied.sum() > 10
    np.testing.assert_array_equal(found.flipped[tied], (found.rival < found.float_class)[tied])
    assert (found.lead >= found.margin).all()
    np.testing.assert_array_equal(found.int8_class[found.flipped], found.rival[found.flipped])


def test_noise_that_falls_regardless_of_the_lead_flips_as_many_as_expected():
    rng = np.random.default_rng(1)
    lead = np.abs(rng.normal(scale=2.0, size=40_000))
    noise = rng.normal(scale=0.5, size=lead.size)
    found = log(np.stack([lead, 0 * lead], axis=1), np.stack([lead - noise, 0 * lead], axis=1))
    assert found.noise_rms == pytest.approx(0.5, rel=0.02)  # 40,000 draws know it to 0.35 %
    # The count is a sum of independent draws; its standard error is below its square root.
    assert abs(found.flipped.sum() - found.expected_flips) < 3 * math.sqrt(found.expected_flips)


def test_expected_flips_by_hand():
    found = log([[1, 0], [3, 0]], [[0, 0.5], [2.5, 0]])  # leads 1 and 3, noise 1.5 and 0.5
    assert found.expected_flips == 0.5  # of four meetings one takes the lead, 1.5 > 1
    assert log([[1, 0]], [[1, 0]]).expected_flips == 0.0


def test_compare_keeps_the_answers_and_batches_do_not_matter():
    model = eb.load(small_net())
    q = eb.quantize(model, images(8))
    x = images(60, seed=1)
    labels = np.arange(60) % 5
    report = eb.compare(model, q, x, labels=labels)
    np.testing.assert_array_equal(report.answers.float_class, model(x).argmax(axis=1))
    np.testing.assert_array_equal(report.answers.int8_class, q(x).argmax(axis=1))
    np.testing.assert_array_equal(report.answers.labels, labels)
    assert report.agreement.count == 60 - len(report.answers.flips())
    assert report.to_dict()["answers"]["noise_rms"] == report.answers.noise_rms
    assert report.answers == eb.compare(model, q, [x[:7], x[7:]], labels=labels).answers
    assert report.answers != eb.compare(model, q, x[:7]).answers


def test_the_table_names_classes_and_says_what_changed():
    found = log([[2, 1, 0]] * 3, [[1, 2, 0]] * 3, [0, 1, 2])
    text = str(found.table(["coat", "shirt", "bag"]))
    assert "coat" in text
    assert [word in text for word in ("lost", "won", "wrong before and after")] == [True] * 3
    assert "3 of 3 answers changed" in text
    assert len(found.table(most=2).rows) == 2
