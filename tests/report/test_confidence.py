"""The intervals and the test of `confidence`: against published figures, full enumeration, a search for the maximum."""

import math

import numpy as np
import pytest

from eightbit.report.confidence import Verdict, Z, mean_of_runs, no_worse, paired, share, t_quantile


def counts(total: int, lost: int, won: int):
    return paired(total=total, float_right=max(lost, total // 2), lost=lost, won=won)


def test_wilson_interval():
    """Newcombe 1998 (Statistics in Medicine 17, 857-872), table I, method 3: 81/263, 15/148, 0/20, 1/29."""
    for count, total, lo, hi in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        found = share(count, total)
        assert (round(found.lo, 4), round(found.hi, 4)) == (lo, hi)


def test_paired_interval_covers_the_truth_and_mcnemar_matches_the_binomial():
    rng = np.random.default_rng(0)
    lost, won, total, trials = 0.03, 0.01, 500, 4000
    cells = rng.multinomial(total, [0.9, lost, won, 0.06], size=trials)
    inside = 0
    for right, a, b, _ in cells.tolist():
        interval = paired(total=total, float_right=right + a, lost=a, won=b)
        inside += interval.lo <= won - lost <= interval.hi
    # 4000 trials know a coverage of 0.95 to about +-0.01 (three standard errors).
    assert inside / trials == pytest.approx(0.95, abs=0.015)
    assert paired(total=100, float_right=50, lost=8, won=2).p_value == pytest.approx(2 * 56 / 1024)
    assert paired(total=100, float_right=50, lost=0, won=0).p_value == 1.0
    assert paired(total=100, float_right=50, lost=0, won=0).lo < 0


def test_the_interval_of_a_few_runs_is_students():
    """Quantiles of any table of t; and of 4,000 triples from a known mean, 95 in 100 intervals hold it."""
    wanted = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 9: 2.262, 10: 2.228, 30: 2.042}
    assert {n: round(t_quantile(n), 3) for n in wanted} == wanted
    triples = np.random.default_rng(0).normal(0.7, 2.0, (4000, 3))
    found = [mean_of_runs(triple) for triple in triples.tolist()]
    assert np.mean([m.lo <= 0.7 <= m.hi for m in found]) == pytest.approx(0.95, abs=0.011)
    with pytest.raises(ValueError, match=r"1 run\(s\) say nothing of their spread"):
        mean_of_runs([0.5])


@pytest.mark.parametrize("counts", [(3, 2), (-1, 2), (0, 0)])
def test_impossible_counts_are_refused(counts):
    with pytest.raises(ValueError, match="no share"):
        share(*counts)
    with pytest.raises(ValueError, match="fit no"):
        paired(total=2, float_right=1, lost=2, won=0)


def log_likelihood(q: np.ndarray, total: int, lost: int, won: int, margin: float) -> np.ndarray:
    """Of the three counts, if a share q is lost and q - margin is won."""
    same = 1 - 2 * q + margin
    terms = ((lost, q), (won, q - margin), (total - lost - won, same))
    with np.errstate(divide="ignore"):
        return sum(n * np.log(p) if n else 0.0 * p for n, p in terms)


@pytest.mark.parametrize("lost", [0, 1, 7, 40])
@pytest.mark.parametrize("won", [0, 3, 40])
@pytest.mark.parametrize("margin", [0.005, 0.05])
def test_the_score_is_taken_at_the_likeliest_share_under_the_margin(lost, won, margin):
    total = 500
    q = np.linspace(margin, (1 + margin) / 2, 2_000_001)[1:-1]
    best = q[np.argmax(log_likelihood(q, total, lost, won, margin))]
    # At a true difference of -margin the variance of won - lost is total * (2 q - margin - margin**2).
    z = (won - lost + total * margin) / math.sqrt(total * (2 * best - margin - margin**2))
    # The grid is 2.5e-7 wide; z depends on q by less than 2e3 for these counts.
    assert no_worse(counts(total, lost, won), margin).z == pytest.approx(z, abs=1e-3)


def multinomial(total: int, lost_share: float, won_share: float):
    """Every (lost, won) with its probability, but for a mass below 1e-9."""
    parted = lost_share + won_share
    for m in range(total + 1):
        p_m = math.exp(
            math.lgamma(total + 1)
            - math.lgamma(m + 1)
            - math.lgamma(total - m + 1)
            + m * math.log(parted)
            + (total - m) * math.log1p(-parted)
        )
        if p_m > 1e-12:
            for lost in range(m + 1):
                ways = math.comb(m, lost) / 2**m
                tilt = (2 * lost_share / parted) ** lost * (2 * won_share / parted) ** (m - lost)
                yield lost, m - lost, p_m * ways * tilt


@pytest.mark.parametrize(
    ("total", "margin", "parted"),
    [(200, 0.05, 0.06), (200, 0.05, 0.15), (600, 0.01, 0.02), (1000, 0.005, 0.02)],
)
def test_a_loss_of_just_the_margin_passes_as_no_worse_in_at_most_one_case_of_forty(total, margin, parted):
    """The test's size, added up over every table that 200 to 1000 images can give."""
    mass = passed = failed = 0.0
    for lost, won, p in multinomial(total, (parted + margin) / 2, (parted - margin) / 2):
        verdict = no_worse(counts(total, lost, won), margin).verdict
        mass += p
        passed += p * (verdict is Verdict.NO_WORSE)
        failed += p * (verdict is Verdict.WORSE)
    assert mass == pytest.approx(1, abs=1e-8)
    # The score test is asymptotic. Its size at 0.025 was 0.018 to 0.026 in these cases, and 0.024 to 0.032 below.
    assert 0.015 < passed <= 0.027
    assert 0.02 < failed <= 0.033


def test_so_many_images_settle_it_four_times_in_five():
    few = no_worse(counts(1000, 10, 9), 0.005)
    assert few.verdict is Verdict.UNDECIDED
    rng = np.random.default_rng(0)
    cells = rng.multinomial(few.images_needed, [0.010, 0.009, 0.981], size=2000)
    settled = [no_worse(counts(few.images_needed, a, b), 0.005).verdict for a, b, _ in cells.tolist()]
    # 2000 trials know a share of 0.8 to +-0.027 (three standard errors); the normal approximation costs the rest.
    assert np.mean([v is Verdict.NO_WORSE for v in settled]) == pytest.approx(0.8, abs=0.04)


@pytest.mark.parametrize(
    ("total", "lost", "won", "verdict", "words"),
    [
        (10_000, 40, 30, Verdict.NO_WORSE, "no worse than 0.5 points: no worse"),
        (10_000, 120, 30, Verdict.WORSE, "no worse than 0.5 points: worse"),
        (1_000, 0, 0, Verdict.NO_WORSE, "no worse"),  # no image parts them: even so 500 would not do
        (500, 0, 0, Verdict.UNDECIDED, "not enough images to say; about 1,562 would"),
        (1_000, 15, 10, Verdict.UNDECIDED, "not enough images to say; no number would"),
        (3, 3, 0, Verdict.UNDECIDED, "would"),
    ],
)
def test_verdicts(total, lost, won, verdict, words):
    found = no_worse(counts(total, lost, won))
    assert found.verdict is verdict
    assert words in str(found)
    if verdict is Verdict.UNDECIDED:
        assert abs(found.z) < Z
        assert found.images_needed is None or found.images_needed > total


def test_a_wider_margin_is_easier_to_keep():
    scores = [no_worse(counts(1000, 12, 5), margin).z for margin in (0.001, 0.005, 0.01, 0.05)]
    assert scores == sorted(scores)
    with pytest.raises(ValueError, match="half a point"):
        no_worse(counts(10, 0, 0), 0.0)
