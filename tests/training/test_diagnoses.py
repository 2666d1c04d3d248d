"""Diagnoses from histories and layer statistics that are written down by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falconet.errors import DataError
from falconet.training import EpochRow
from falconet.training.diagnoses import LayerStats, diagnose, load_layer_stats, save_layer_stats

LAYERS = ("conv1", "conv2", "fc")


def make_history(
    train_accuracy: Sequence[float],
    val_accuracy: Sequence[float] | None = None,
    train_loss: Sequence[float] | None = None,
    val_loss: Sequence[float] | None = None,
) -> list[EpochRow]:
    """Losses follow from accuracies, unless they are given."""
    val_accuracy = val_accuracy or train_accuracy
    train_loss = train_loss or [2.4 * (1 - share) for share in train_accuracy]
    val_loss = val_loss or [2.4 * (1 - share) for share in val_accuracy]
    columns = zip(train_loss, train_accuracy, val_loss, val_accuracy, strict=True)
    return [EpochRow(epoch, 0.001, *values, 1.0) for epoch, values in enumerate(columns, start=1)]


def make_vitals(
    epochs: int,
    *,
    gradients: Sequence[float] = (0.05, 0.05, 0.05),
    updates: Sequence[float] = (0.002, 0.002, 0.002),
    dead: Sequence[float] = (math.nan, 0.1, 0.1),
    samples: int = 64,
) -> list[LayerStats]:
    """The same in each epoch; figures are those of the three layers."""
    return [
        LayerStats(epoch, layer, samples, gradient, update, 1.0, share)
        for epoch in range(1, epochs + 1)
        for layer, gradient, update, share in zip(LAYERS, gradients, updates, dead, strict=True)
    ]


def name(
    history: list[EpochRow], layer_stats: list[LayerStats], *, diverged: bool = False
) -> list[tuple[str, str, int]]:
    found = diagnose(history, layer_stats, 0.1, diverged=diverged)
    assert all(line.evidence.endswith(".") and line.remedy.endswith((".", "class.")) for line in found)
    return [(line.name, line.subject, line.epoch) for line in found]


RISING = [0.3, 0.5, 0.7, 0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98]
CHANCE = [0.1] * 12


def test_nothing_is_said_of_health() -> None:
    assert name(make_history(RISING), make_vitals(12)) == []


def test_nothing_is_said_without_anything_to_look_at() -> None:
    assert name([], []) == []
    assert name(make_history(RISING), []) == []
    assert name([], make_vitals(1)) == []


@pytest.mark.parametrize(
    ("epochs", "loss", "found"), [(26, 0.45, True), (10, 0.45, True), (9, 0.45, False), (26, 0.43, False)]
)
def test_validation_loss_that_rises_for_long_is_named(epochs: int, loss: float, found: bool) -> None:
    falling, rising = [0.8, 0.6, 0.5, 0.4], [0.4 + (loss - 0.4) * min(step / 6, 1) for step in range(1, epochs + 1)]
    accuracy = [0.8] * (4 + epochs)
    history = make_history([0.85] * len(accuracy), accuracy, val_loss=falling + rising)
    assert name(history, make_vitals(len(history))) == ([("validation_loss_rises", "", 4)] if found else [])
    if epochs == 26 and found:
        (diagnosis,) = diagnose(history, [], 0.1)
        assert diagnosis.evidence == (
            "Validation loss was lowest in epoch 4, 0.4, and is 0.45 after 26 more; validation accuracy went from "
            "80.0% to 80.0%."
        )
        assert "training.epochs=4" in diagnosis.remedy
        assert "training.patience" in diagnosis.remedy


def test_answers_that_get_better_while_loss_rises_are_too_sure_rather_than_trained_too_long() -> None:
    history = make_history([0.9] * 16, [0.8] * 4 + [0.85] * 12, val_loss=[0.8, 0.6, 0.5, 0.4] + [0.6] * 12)
    (diagnosis,) = diagnose(history, [], 0.1)
    assert diagnosis.name == "validation_loss_rises"
    assert "label_smoothing" in diagnosis.remedy


def test_a_loss_near_zero_that_rises_by_next_to_nothing_is_not_named() -> None:
    history = make_history([0.99] * 16, [0.99] * 16, val_loss=[0.03, 0.02, 0.01, 0.01] + [0.025] * 12)
    assert name(history, []) == []


@pytest.mark.parametrize(
    ("accuracy", "share", "expected"),
    [
        (CHANCE, 0.5e-4, [("vanishing_gradients", "conv1", 1)]),
        (CHANCE, 2e-4, [("unlearnable_labels", "", 1)]),
        (RISING, 0.5e-4, []),
    ],
)
def test_vanishing_gradients_stall_a_network(
    accuracy: list[float], share: float, expected: list[tuple[str, str, int]]
) -> None:
    history = make_history(accuracy, train_loss=[2.3] * 12 if accuracy is CHANCE else None)
    assert name(history, make_vitals(12, gradients=(share * 0.05, 0.01, 0.05))) == expected


@pytest.mark.parametrize(("update", "found"), [(0.5e-5, True), (2e-5, False)])
def test_vanishing_gradients_leave_a_layer_as_it_was(update: float, found: bool) -> None:
    layer_stats = make_vitals(12, gradients=(1e-9, 0.01, 0.05), updates=(update, 0.002, 0.002))
    half = make_history([0.2 + 0.02 * epoch for epoch in range(12)])
    assert name(half, layer_stats) == ([("vanishing_gradients", "conv1", 1)] if found else [])


@pytest.mark.parametrize("gradient", [2e3, math.inf])
@pytest.mark.parametrize("diverged", [False, True])
def test_exploding_gradients_are_named_with_their_layer(gradient: float, diverged: bool) -> None:
    layer_stats = make_vitals(12, gradients=(0.1, gradient, 0.1))
    assert name(make_history(CHANCE), layer_stats, diverged=diverged) == [("exploding_gradients", "conv2", 1)]
    assert name(make_history(RISING), layer_stats) == []


def test_a_loss_that_is_not_finite_comes_of_the_learning_rate() -> None:
    (found,) = diagnose(make_history(RISING), make_vitals(12), 0.1, diverged=True)
    assert (found.name, found.epoch) == ("learning_rate_too_high", 13)
    assert "up to 0.002 of its weights; the loss was no longer finite." in found.evidence
    assert name([], [], diverged=True) == [("learning_rate_too_high", "", 1)]


@pytest.mark.parametrize(
    ("accuracy", "updates", "found"),
    [
        (CHANCE, (0.2, 0.2, 0.01), True),
        (CHANCE, (0.2, 0.05, 0.01), False),
        (RISING, (0.2, 0.2, 0.01), False),
    ],
)
def test_a_learning_rate_is_too_high_where_most_layers_are_replaced_in_vain(
    accuracy: list[float], updates: tuple[float, ...], found: bool
) -> None:
    names = [line for line, _, _ in name(make_history(accuracy), make_vitals(12, updates=updates))]
    assert ("learning_rate_too_high" in names) == found


@pytest.mark.parametrize(
    ("loss", "updates", "found"),
    [(2.2, 5e-5, True), (2.0, 5e-5, False), (2.2, 2e-4, False)],
)
def test_a_learning_rate_is_too_low_where_tiny_steps_change_little(loss: float, updates: float, found: bool) -> None:
    history = make_history([0.12, 0.13, 0.14, 0.16, 0.17], train_loss=[2.3, 2.28, loss, loss, loss])
    expected = [("learning_rate_too_low", "", 1)] if found else []
    assert name(history, make_vitals(5, updates=(updates,) * 3)) == expected


@pytest.mark.parametrize(("fallen", "found"), [(0.65, True), (0.75, False)])
def test_a_spike_takes_answers_back(fallen: float, found: bool) -> None:
    history = make_history([0.5, 0.8, 0.9, fallen, 0.9], train_loss=[1.5, 0.6, 0.3, 0.7, 0.3])
    assert name(history, make_vitals(5)) == ([("unstable_loss", "", 4)] if found else [])


def test_dead_units_are_counted_until_the_end() -> None:
    layer_stats = [*make_vitals(2), *make_vitals(12, dead=(math.nan, 0.1, 0.6))[6:]]
    history = make_history(RISING)
    assert name(history, layer_stats) == [("dead_units", "fc", 3)]
    assert name(history, [*layer_stats, LayerStats(13, "fc", 64, 0.05, 0.002, 1.0, 0.4)]) == []
    assert name(history[:2], make_vitals(2, dead=(math.nan, 0.1, 1.0))) == []
    assert name(history, make_vitals(12, dead=(math.nan, 0.1, 1.0), samples=31)) == []


def test_the_first_dead_layer_explains_those_behind_it_and_lost_gradients() -> None:
    layer_stats = make_vitals(12, dead=(math.nan, 1.0, 0.7), gradients=(0.0, 0.0, 0.05))
    (found,) = diagnose(make_history(CHANCE, train_loss=[2.3] * 12), layer_stats, 0.1)
    assert (found.name, found.subject) == ("dead_units", "conv2")
    assert "so were most before 1 more, from fc on" in found.evidence


VAL_LOSS = [2.0, 1.2, 1.0, 1.05, 1.1, 1.15, 1.2, 1.22, 1.25, 1.3, 1.3, 1.3]


@pytest.mark.parametrize(
    ("val_accuracy", "val_loss", "epochs", "found"),
    [
        ([0.3, 0.5, *[0.7] * 10], VAL_LOSS, 12, True),
        ([0.3, 0.5, 0.7, *[0.76] * 9], VAL_LOSS, 12, True),
        ([0.3, 0.5, *[0.7 + 0.01 * epoch for epoch in range(10)]], VAL_LOSS, 12, False),  # Still rising.
        ([0.3, 0.5, *[0.89] * 10], VAL_LOSS, 12, False),  # Little gap.
        ([0.3, 0.5, *[0.7] * 10], [2.0, 1.2, 1.0, *[1.15] * 9], 12, False),  # Hardly worse.
        ([0.3, 0.5, *[0.7] * 10], VAL_LOSS, 9, False),  # Too early to tell.
        ([0.3, 0.5, *[0.7] * 10], [*[2.0] * 9, 1.0, 1.3, 1.3], 12, False),  # Not for long.
    ],
)
def test_overfitting_needs_every_sign(
    val_accuracy: list[float], val_loss: list[float], epochs: int, found: bool
) -> None:
    history = make_history(RISING, val_accuracy, val_loss=val_loss)[:epochs]
    assert name(history, make_vitals(epochs)) == ([("overfitting", "", 3)] if found else [])


@pytest.mark.parametrize(
    ("val_accuracy", "val_loss", "expected"),
    [
        (0.14, VAL_LOSS, ["unlearnable_labels"]),
        (0.16, VAL_LOSS, ["overfitting"]),
        (0.14, [2.3] * 12, []),  # Batch normalization that lags behind.
    ],
)
def test_labels_that_are_learned_by_heart_and_tell_nothing(
    val_accuracy: float, val_loss: list[float], expected: list[str]
) -> None:
    history = make_history(RISING, [val_accuracy] * 12, val_loss=val_loss)
    assert [line for line, _, _ in name(history, make_vitals(12))] == expected


@pytest.mark.parametrize(
    ("train", "val", "expected"),
    [
        (0.2, 0.1, ["dead_units", "unlearnable_labels"]),
        (0.37, 0.09, ["dead_units", "unlearnable_labels"]),
        (0.2, 0.14, ["dead_units"]),  # Learns slowly, but for all.
        (0.1, 0.1, ["dead_units"]),  # Of which nothing can be learned.
    ],
)
def test_labels_that_hold_for_training_alone_are_named_beside_dead_units(
    train: float, val: float, expected: list[str]
) -> None:
    history = make_history([train] * 12, [val] * 12, train_loss=[2.2] * 12)
    layer_stats = make_vitals(12, dead=(0.0, 0.9, 0.0))
    assert [line for line, _, _ in name(history, layer_stats)] == expected
    assert "unlearnable_labels" not in [line for line, _, _ in name(history[:9], make_vitals(9))]


def test_labels_that_ordinary_steps_cannot_learn() -> None:
    history = make_history(CHANCE)
    assert name(history, make_vitals(12)) == [("unlearnable_labels", "", 1)]
    assert name(history[:9], make_vitals(9)) == []


NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
NAMES = st.text(st.characters(exclude_categories=["C"]), max_size=8)
"""No layer is called by a line break."""
ROWS = st.builds(LayerStats, st.integers(1, 9), NAMES, st.integers(0, 99), NUMBERS, NUMBERS, NUMBERS, NUMBERS)


@settings(deadline=None, max_examples=50)
@given(rows=st.lists(ROWS, max_size=6))
def test_vitals_come_back_from_a_file_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, rows: list[LayerStats]
) -> None:
    path = tmp_path_factory.mktemp("run") / "vitals.csv"
    save_layer_stats(path, rows)
    assert list(map(repr, load_layer_stats(path))) == list(map(repr, rows))


@settings(deadline=None, max_examples=100)
@given(rows=st.lists(ROWS, max_size=12), accuracies=st.lists(st.floats(0, 1), max_size=12), diverged=st.booleans())
def test_whatever_is_measured_gets_an_answer(rows: list[LayerStats], accuracies: list[float], diverged: bool) -> None:
    for found in diagnose(make_history(accuracies), rows, 0.1, diverged=diverged):
        assert found.evidence
        assert found.remedy


def test_no_file_of_vitals_is_none_and_another_is_refused(tmp_path: Path) -> None:
    assert load_layer_stats(tmp_path / "vitals.csv") == ()
    (tmp_path / "vitals.csv").write_text("epoch,layer\n1,conv1\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"vitals\.csv: wanted a table of layer statistics, .*remove it"):
        load_layer_stats(tmp_path / "vitals.csv")
