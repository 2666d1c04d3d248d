"""The search as a pure function, played against made-up networks whose size and accuracy follow from the spec."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falconet.compression import Budget, CompressConfig, Trial, TrialSpec
from falconet.compression.constants import CONSTANTS
from falconet.compression.search import (
    _interpolate,
    choose_best,
    estimate_bits,
    find_frontier,
    leave_room,
    propose,
    solve_density,
)
from falconet.errors import ConfigError

WEIGHTS = 400_000
CONFIG = CompressConfig(polish=0)


def weigh(spec: TrialSpec) -> int:
    """Bits for values and for positions, and a header."""
    return int(spec.macs_fraction * WEIGHTS * (spec.bits / 8 if spec.density == 1 else spec.density * 1.1)) + 300


def play(
    budget: Budget,
    drop: Callable[[TrialSpec], float],
    config: CompressConfig = CONFIG,
    seconds: float = 10.0,
    trials: Sequence[Trial] = (),
    fractions: Sequence[float] = (1.0,),
) -> list[Trial]:
    """Search to the end; a polished network is a little better."""
    trials = list(trials)
    while (spec := propose(trials, budget, config, fractions)) is not None:
        lost = drop(spec) * (0.9 if spec.polish else 1)
        trials.append(Trial(len(trials) + 1, spec, weigh(spec), 0.99 - lost / 100, lost, 10**6, None, seconds))
        assert len(trials) < 60, "the search does not end"
    return trials


def lose(spec: TrialSpec) -> float:
    """Points lost: twice as many with half the weights, none for integers of 8 bits."""
    return 0.002 / spec.density if spec.density < 1 else 0.0


def test_the_first_trial_is_whole_and_needs_no_training() -> None:
    assert propose([], Budget(), CONFIG) == TrialSpec(density=1, bits=8, epochs=0)
    assert propose([], Budget(), CONFIG, (0.5, 0.25)) == TrialSpec(
        macs_fraction=0.5, density=1, bits=8, epochs=CONFIG.epochs
    )


def test_for_a_drop_it_goes_down_by_halves_until_one_loses_too_much_and_then_between() -> None:
    trials = play(Budget(max_drop=0.1), lose)
    assert [trial.spec.density for trial in trials[:7]] == [1, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64]
    assert [trial.spec.start for trial in trials[:7]] == [None, 1, 2, 3, 4, 5, 6]
    assert trials[6].drop > 0.1
    assert len(trials) == 7 + CONFIG.refinements
    best = choose_best(trials, Budget(max_drop=0.1))
    # The true limit is at 0.02 of the weights, and three bisections come within 9 % of it.
    assert 0.02 <= best.spec.density <= 0.02 * 1.09
    assert best.drop <= 0.1


def test_each_trial_begins_with_the_nearest_that_kept_more() -> None:
    for trial in play(Budget(max_drop=0.1), lose)[1:]:
        assert trial.spec.start is not None
    trials = play(Budget(max_drop=0.1), lose)
    kept = {trial.number: trial.spec.density for trial in trials}
    for trial in trials[1:]:
        start = kept[trial.spec.start or 0]
        assert start >= trial.spec.density
        assert not [other for other in trials[: trial.number - 1] if trial.spec.density <= other.spec.density < start]


def test_for_a_size_it_takes_large_steps_and_fills_the_size() -> None:
    budget = Budget(max_bytes=3000)
    trials = play(budget, lose)
    assert len(trials) <= 8
    steps = [after.spec.density / before.spec.density for before, after in pairwise(trials)]
    assert min(steps) >= 0.25
    best = choose_best(trials, budget)
    assert 0.9 * 3000 <= best.bytes <= 3000


def test_with_both_it_stops_where_both_are_kept() -> None:
    budget = Budget(max_bytes=30_000, max_drop=0.2)
    trials = play(budget, lose)
    assert trials[-1].fits(budget)
    assert not any(trial.fits(budget) for trial in trials[:-1])


def test_more_training_where_integers_alone_lose_too_much() -> None:
    trials = play(Budget(max_drop=0.0), lambda spec: 0.0 if spec.density == 1 and spec.epochs else 0.3)
    assert [(trial.spec.density, trial.spec.bits, trial.spec.epochs) for trial in trials[:2]] == [
        (1, 8, 0),
        (1, 8, CONFIG.epochs),
    ]
    assert trials[2].spec.density == 0.5
    hopeless = play(Budget(max_drop=0.0), lambda spec: 1.0)
    assert len(hopeless) == 2


def test_a_budget_that_cannot_be_met_ends_and_names_the_nearest() -> None:
    budget = Budget(max_bytes=100)
    trials = play(budget, lose)
    best = choose_best(trials, budget)
    assert not best.fits(budget)
    assert best.bytes == min(trial.bytes for trial in trials)
    assert all(trial.spec.density >= CONSTANTS.least_density for trial in trials)


def test_the_last_trial_polishes_the_best_one() -> None:
    config = replace(CONFIG, polish=40)
    budget = Budget(max_bytes=3000)
    trials = play(budget, lose, config)
    *others, last = trials
    best = choose_best(others, budget)
    assert last.spec == replace(best.spec, density=last.spec.density, epochs=40, start=best.number, polish=True)
    assert not any(trial.spec.polish for trial in others)


def test_a_full_file_loses_weights_before_it_learns_longer() -> None:
    full = Trial(2, TrialSpec(density=0.3, epochs=5, bits=4), 2990, 0.99, 0.1, 1, None, 1)
    small, large = replace(full, bytes=2500), replace(full, bytes=3500)
    budget = Budget(max_bytes=3000)
    kept = leave_room(full, budget)
    assert kept < 0.3
    assert estimate_bits(kept, 4) / estimate_bits(0.3, 4) == pytest.approx(0.9 * 3000 / 2990)
    assert leave_room(small, budget) == pytest.approx(0.3)
    assert leave_room(large, budget) == 0.3


def test_bits_are_the_entropy_of_places_and_the_values() -> None:
    assert estimate_bits(1.0, 8) == pytest.approx(8 * 0.82)
    assert estimate_bits(0.5, 4) == pytest.approx(1 + 0.5 * 4 * 0.82)
    assert estimate_bits(0.11, 2) == pytest.approx(0.4999 + 0.11 * 2 * 0.82, abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(bits=st.integers(2, 8), low=st.floats(1e-4, 0.4), fraction=st.floats(0.01, 0.99))
def test_the_fraction_of_weights_follows_from_the_bits(bits: int, low: float, fraction: float) -> None:
    high = min(0.9, 1 / (1 + 2 ** (-bits * 0.82)))
    least, most = estimate_bits(low, bits), estimate_bits(high, bits)
    wanted = least + fraction * (most - least)
    assert estimate_bits(solve_density(wanted, bits, low, 0.9), bits) == pytest.approx(wanted, rel=1e-4)


def test_between_two_trials_the_size_tells_where() -> None:
    small = Trial(1, TrialSpec(density=0.1, bits=4), 1000, 0.9, 0.0, 1, None, 1)
    large = replace(small, spec=TrialSpec(density=0.4, bits=4), bytes=4000)
    assert _interpolate(small, large, Budget(max_bytes=2000)) == pytest.approx(0.1 * 0.96 * 2)
    assert 0.1 < _interpolate(small, large, Budget(max_bytes=1001)) < 0.13
    assert 0.3 < _interpolate(small, large, Budget(max_bytes=3999)) < 0.4


@pytest.mark.parametrize("wanted", [2000, 9000, 60_000])
def test_files_whose_size_is_their_entropy_are_met_at_once(wanted: int) -> None:
    trials: list[Trial] = []
    while (spec := propose(trials, Budget(max_bytes=wanted), CONFIG)) is not None:
        size = int(WEIGHTS * estimate_bits(spec.density, spec.bits) / 8)
        trials.append(Trial(len(trials) + 1, spec, size, 0.99, 0.0, 1, None, 1))
    assert 0.9 * wanted <= trials[-1].bytes <= wanted
    steps = math.ceil(math.log(trials[0].bytes / wanted, 4)) + 1
    assert len(trials) <= 1 + steps


def test_polishing_leaves_all_weights_where_no_size_is_wanted() -> None:
    trials = play(Budget(max_drop=0.1), lose, replace(CONFIG, polish=40))
    assert trials[-1].spec.polish
    assert trials[-1].spec.density == choose_best(trials[:-1], Budget(max_drop=0.1)).spec.density


FRACTIONS = (1.0, 0.5, 0.25, 0.125)


@pytest.mark.parametrize("budget", [Budget(max_drop=0.4), Budget(max_bytes=3000)])
def test_channels_go_as_long_as_that_costs_little(budget: Budget) -> None:
    cost = {1.0: 0.0, 0.5: 0.1, 0.25: 0.15, 0.125: 2.0}
    trials = play(budget, lambda spec: cost[spec.macs_fraction] + lose(spec) / 10, fractions=FRACTIONS)
    assert [(trial.spec.macs_fraction, trial.spec.density) for trial in trials[:4]] == [
        (fraction, 1) for fraction in FRACTIONS
    ]
    assert [trial.spec.start for trial in trials[:4]] == [None, 1, 2, 3]
    assert [trial.spec.epochs for trial in trials[:4]] == [0, *[CONFIG.epochs] * 3]
    assert {trial.spec.macs_fraction for trial in trials[4:]} == {0.25}
    assert trials[4].spec.start == 3
    assert choose_best(trials, budget).fits(budget)


def test_channels_stay_where_they_cost_much() -> None:
    trials = play(Budget(max_drop=0.4), lambda spec: 3 * (spec.macs_fraction < 1) + lose(spec), fractions=FRACTIONS)
    assert [trial.spec.macs_fraction for trial in trials[:3]] == [1.0, 0.5, 1.0]
    assert trials[2].spec.start == 1


def test_no_channels_go_once_the_size_is_kept() -> None:
    trials = play(Budget(max_bytes=500_000, max_drop=1), lambda spec: 0.0, fractions=FRACTIONS)
    assert [trial.spec.macs_fraction for trial in trials] == [1.0]


def test_a_search_goes_on_to_another_budget_from_what_it_has() -> None:
    config = replace(CONFIG, polish=40)
    trials = play(Budget(max_bytes=30_000), lose, config)
    budget = Budget(max_bytes=3000)
    before = len(trials)
    more = play(budget, lose, config, trials=trials)
    assert len(more) > before
    assert more[before].spec.start == before, "the polished one is the best to begin with"
    assert choose_best(more, budget).spec.polish
    assert 0.9 * 3000 <= choose_best(more, budget).bytes <= 3000
    assert play(budget, lose, config, trials=more) == more


def test_time_ends_the_search_before_another_trial_would_pass_it() -> None:
    budget = Budget(max_drop=0.1, seconds=35)
    assert len(play(budget, lose, seconds=10)) == 3
    assert len(play(budget, lose, seconds=100)) == 1


def test_the_nearest_is_nearest_in_all_limits_together() -> None:
    budget = Budget(max_bytes=1000, max_macs=10**6)
    base = Trial(1, TrialSpec(), 2000, 0.9, 0.0, 10**6, None, 1)
    slow = replace(base, number=2, bytes=900, macs=3 * 10**6)
    assert base.excess(budget) == pytest.approx(1.0)
    assert slow.excess(budget) == pytest.approx(2.0)
    assert choose_best([slow, base], budget) is base


def test_the_front_holds_what_nothing_beats() -> None:
    def make(number: int, size: int, accuracy: float) -> Trial:
        return Trial(number, TrialSpec(), size, accuracy, 0.0, 1, None, 1)

    trials = [make(1, 500, 0.99), make(2, 100, 0.9), make(3, 200, 0.9), make(4, 90, 0.8), make(5, 100, 0.89)]
    assert [trial.number for trial in find_frontier(trials)] == [4, 2, 1]


@settings(max_examples=60, deadline=None)
@given(
    max_drop=st.none() | st.floats(0, 5),
    max_bytes=st.none() | st.integers(50, 10**6),
    slope=st.floats(1e-5, 1),
    noise=st.lists(st.floats(-0.3, 0.3), min_size=60, max_size=60),
    polish=st.integers(0, 3),
    fractions=st.sampled_from([(1.0,), FRACTIONS, (0.5, 0.25)]),
)
def test_it_always_ends_with_the_best_of_what_it_tried(
    max_drop: float | None,
    max_bytes: int | None,
    slope: float,
    noise: list[float],
    polish: int,
    fractions: tuple[float, ...],
) -> None:
    budget = Budget(max_drop=max_drop, max_bytes=max_bytes)
    left = iter(noise)
    trials = play(
        budget, lambda spec: slope / spec.density + next(left), replace(CONFIG, polish=polish), fractions=fractions
    )
    best = choose_best(trials, budget)
    assert [trial.number for trial in trials] == list(range(1, len(trials) + 1))
    if any(trial.fits(budget) for trial in trials):
        assert best.fits(budget)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": 1}, "bits: wanted 2 to 8, found 1"),
        ({"epochs": 0}, "epochs: wanted 1 to"),
        ({"rest_bits": 17}, "rest_bits: wanted 2 to 16"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(CONFIG, **changes)  # type: ignore[arg-type]
