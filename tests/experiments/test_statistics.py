"""Claims of the statistics, simulated: no difference is rarely shown, a large one mostly; repeats are no cases."""

import math

import numpy as np
import pytest

from rtnb.experiments.statistics import Values, difference, estimate, holm, more_runs, sign_flip_p


def runs(chances: np.ndarray, n_repeats: int, rng: np.random.Generator) -> Values:
    return {str(case): (rng.random(n_repeats) < chance).astype(float).tolist() for case, chance in enumerate(chances)}


def shown_share(
    n_experiments: int, n_cases: int, n_repeats: int, shift: float, *, seed: int, spread: float = 1.5
) -> float:
    """Share of experiments that show a difference; cases differ in how hard they are."""
    rng, shown = np.random.default_rng(seed), 0
    for number in range(n_experiments):
        chances = 1 / (1 + np.exp(-rng.normal(0, spread, n_cases)))
        chances = 0.65 * chances  # leaves room for the shift
        found = difference(
            runs(chances, n_repeats, rng), runs(chances + shift, n_repeats, rng), share=True, seed=number
        )
        shown += found.p <= 0.05 and (found.low > 0 or found.high < 0)
    return shown / n_experiments


@pytest.mark.parametrize("n_cases, n_repeats", [(30, 3), (10, 5), (8, 20), (3, 20)])
def test_equal_variants_are_shown_to_differ_in_at_most_five_per_cent(n_cases: int, n_repeats: int) -> None:
    share = shown_share(200, n_cases, n_repeats, 0.0, seed=n_cases)
    upper = share + 1.645 * math.sqrt(max(share * (1 - share), 0.01) / 200)
    assert share <= 0.05
    assert upper <= 0.09


def test_thirty_points_are_shown_with_thirty_cases_and_three_repeats() -> None:
    assert shown_share(100, 30, 3, 0.3, seed=1) >= 0.8


def test_twenty_repeats_of_three_cases_are_not_sixty_cases() -> None:
    a = {case: [0.0] * 20 for case in "xyz"}
    b = {case: [1.0] * 20 for case in "xyz"}
    found = difference(a, b, share=True)
    assert (found.n_cases, found.n_runs) == (3, 120)
    assert found.p == 0.25, "of three signs, two in eight are as one-sided"
    alone = estimate(b, share=True)
    assert alone.low < 0.5, "three cases without a failure may fail in half of all others"


def test_the_interval_covers_the_difference() -> None:
    rng, covered = np.random.default_rng(5), 0
    for number in range(300):
        chances = rng.uniform(0.1, 0.6, 20)
        found = difference(runs(chances, 4, rng), runs(chances + 0.2, 4, rng), share=True, seed=number)
        covered += found.low <= 0.2 <= found.high
    assert covered / 300 >= 0.93


def test_so_many_more_runs_as_it_says_show_the_difference_in_four_of_five() -> None:
    rng = np.random.default_rng(3)
    first = {str(n): [0.25 + pair] for n, pair in enumerate(rng.normal(0.2, 0.4, 16))}
    found = difference({case: [0.25] for case in first}, first, share=False)
    needed = 16 + (more_runs(found) or 0) // 2
    assert needed > 20
    samples = rng.normal(found.estimate, found.deviation, (120, needed))
    shown = np.mean([sign_flip_p(sample, seed=number) <= 0.05 for number, sample in enumerate(samples)])
    assert 0.72 <= shown <= 0.9
    assert more_runs(difference(first, first, share=True)) is None


def test_exact_and_random_signs_agree() -> None:
    pairs = np.random.default_rng(2).normal(0.3, 0.5, 13)
    exact, doubled = sign_flip_p(pairs), sign_flip_p(np.append(pairs, [0.0]))
    assert doubled == pytest.approx(exact, abs=0.02)


def test_holm_orders_and_caps() -> None:
    assert holm([0.5, 0.01, 0.9]) == [1.0, 0.03, 1.0]
