from typing import Any

import pytest

from falconet import TrainConfig
from falconet.errors import ConfigError
from falconet.training.config import warn_balance


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("weight_decay", -0.1),
        ("weight_decay", float("inf")),
        ("label_smoothing", 1.0),
        ("momentum", -0.1),
        ("warmup", 1.0),
        ("clip_norm", 0.0),
        ("ema_decay", 1.0),
        ("patience", 0),
        ("checkpoint_seconds", 0.0),
        ("checkpoint_seconds", float("nan")),
        ("unfreeze_after", 1),
        ("layer_decay", 0.0),
        ("layer_decay", 1.01),
        ("layer_decay", float("nan")),
        ("seed", -1),
        ("seed", 2**31),
        ("cross_entropy_weight", -0.1),
        ("cross_entropy_weight", float("inf")),
        ("effective_beta", 1.0),
        ("effective_beta", -0.1),
    ],
)
def test_impossible_values_name_the_field_and_what_was_found(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{field}: wanted .*, found "):
        TrainConfig(**{field: value})


def test_imbalance_that_is_corrected_twice_is_warned_of() -> None:
    (line,) = warn_balance(TrainConfig(class_weights="balanced", sampler="balanced"))
    assert line.startswith("warning: class_weights=balanced and sampler=balanced correct the same imbalance twice")
    (line,) = warn_balance(TrainConfig(class_weights="effective", sampler="balanced"))
    assert line.startswith("warning: class_weights=effective and sampler=balanced correct the same imbalance twice")
    for once in (TrainConfig(), TrainConfig(class_weights="balanced"), TrainConfig(sampler="balanced")):
        assert warn_balance(once) == ()


@pytest.mark.parametrize("after", [0, -1, 30, 31])
def test_a_backbone_is_unfrozen_after_an_epoch_and_before_the_end(after: int) -> None:
    with pytest.raises(ConfigError, match=rf"^unfreeze_after: wanted 1 to 29, .*, found {after}"):
        TrainConfig(epochs=30, freeze="backbone", unfreeze_after=after)


def test_fine_tuning_takes_its_borders() -> None:
    assert TrainConfig(freeze="backbone", unfreeze_after=1, layer_decay=1.0).unfreeze_after == 1
    assert TrainConfig(freeze="backbone").unfreeze_after is None


def test_patience_needs_a_best_epoch() -> None:
    with pytest.raises(ConfigError, match=r"^patience: wanted null where restore=last, found 3"):
        TrainConfig(restore="last", patience=3)
