"""fit() on two clouds of tiny images, where everything can be checked in milliseconds."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from falconet import Callback, FitResult, ImageAugmentation, ImageSpec, TrainConfig, fit
from falconet.data.loader import Loader, Sampler
from falconet.data.preprocessing import ImagePreprocess
from falconet.errors import ConfigError, DataError, OutOfMemoryError
from falconet.storage import write_json
from falconet.training import EpochRow
from falconet.training.loop import check_batches
from falconet.training.state import Progress

CONFIG = TrainConfig(epochs=4, batch_size=8, learning_rate=0.01, ema_decay=0.9)
SPEC = ImageSpec(shape=(1, 6, 6), mean=(0.5,), std=(0.25,))


ROTATION = ImageAugmentation(rotate=15, shift=0.1)
MIXING = ImageAugmentation(rotate=15, mixup=0.2, cutmix=1.0, erase=0.2)


def make_loader(count: int, *, training: bool, seed: int = 0, augmentation: ImageAugmentation = ROTATION) -> Loader:
    generator = np.random.default_rng(count)
    labels = generator.integers(0, 2, count)
    pixels = generator.normal(90 + 70 * labels[:, None, None, None], 60, size=(count, 1, 6, 6)).clip(0, 255)
    images = torch.from_numpy(pixels.astype(np.uint8))
    sampler: Sampler = "shuffle" if training else "sequential"
    distortion = augmentation if training else None
    return Loader(images, torch.from_numpy(labels), ImagePreprocess(SPEC), 8, distortion, sampler, seed)


def make_model(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        convolutions = (nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3))
        return nn.Sequential(*convolutions, nn.Flatten(), nn.Dropout(0.2), nn.Linear(12, 2))


def run(
    config: TrainConfig = CONFIG,
    callbacks: tuple[Callback, ...] = (),
    checkpoints: Path | None = None,
    augmentation: ImageAugmentation = ROTATION,
) -> tuple[FitResult, dict[str, Tensor]]:
    model = make_model(config.seed)
    training = make_loader(40, training=True, seed=config.seed, augmentation=augmentation)
    loaders = training, make_loader(24, training=False)
    result = fit(model, *loaders, config, callbacks=callbacks, checkpoints=checkpoints)
    return result, model.state_dict()


def assert_same_weights(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name


class StopAtStep(Callback):
    """Presses Ctrl-C."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, step: int, loss: float) -> None:
        if step == self.step:
            raise KeyboardInterrupt


class Recorder(Callback):
    """Writes down every call."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def on_start(self, epochs: int, steps_per_epoch: int, history: object) -> None:
        self.calls.append(f"start {epochs}x{steps_per_epoch}")

    def on_model(self, model: nn.Module) -> None:
        self.calls.append("model")
        self.model = model

    def on_batch(self, step: int) -> None:
        self.calls.append(f"batch {step}")

    def on_gradients(self, step: int) -> None:
        assert all((parameter.grad is not None) == parameter.requires_grad for parameter in self.model.parameters())
        self.calls.append(f"gradients {step}")

    def on_step(self, step: int, loss: float) -> None:
        assert all(parameter.grad is None for parameter in self.model.parameters())
        self.calls.append(f"step {step}")

    def on_epoch(self, row: EpochRow, best: bool) -> None:
        self.calls.append(f"epoch {row.epoch}")

    def on_end(self) -> None:
        self.calls.append("end")


@pytest.mark.parametrize("loss", ["cross_entropy", "brier"])
def test_it_learns(loss: Literal["cross_entropy", "brier"]) -> None:
    result, _ = run(dataclasses.replace(CONFIG, loss=loss, epochs=6))
    assert result.best is not None
    assert result.best.val_accuracy > 0.85
    assert result.history[-1].train_loss < result.history[0].train_loss


def test_same_seed_same_weights_bit_for_bit() -> None:
    assert_same_weights(run()[1], run()[1])


def test_another_seed_other_weights() -> None:
    other = dataclasses.replace(CONFIG, seed=1)
    assert not torch.equal(run()[1]["0.weight"], run(other)[1]["0.weight"])


def test_the_global_generator_is_left_as_it_was() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run()
    assert torch.equal(torch.rand(3), expected)


def test_the_model_ends_with_the_weights_of_its_best_epoch() -> None:
    result, weights = run(dataclasses.replace(CONFIG, learning_rate=0.05, epochs=6))
    scores = [(row.val_accuracy, -row.val_loss) for row in result.history]
    assert result.best_epoch == scores.index(max(scores)) + 1
    _, early = run(dataclasses.replace(CONFIG, learning_rate=0.05, epochs=6), (StopAtStep(5 * result.best_epoch + 1),))
    assert_same_weights(weights, early)


def test_the_last_epoch_is_kept_where_the_best_is_not_asked_for() -> None:
    seen: list[dict[str, torch.Tensor]] = []
    told: list[bool] = []

    class Watcher(Callback):
        def on_epoch(self, row: EpochRow, is_best: bool) -> None:
            told.append(is_best)
            seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})

    model = make_model()
    loaders = make_loader(40, training=True), make_loader(24, training=False)
    config = dataclasses.replace(CONFIG, learning_rate=0.05, epochs=6, ema_decay=None)
    best = fit(make_model(), *loaders, config)
    result = fit(model, *loaders, dataclasses.replace(config, restore="last"), callbacks=(Watcher(),))
    assert best.best_epoch < result.best_epoch == 6, "else this shows nothing"
    assert max(epoch for epoch, is_best in enumerate(told, 1) if is_best) == best.best_epoch
    assert_same_weights(model.state_dict(), seen[-1])


def test_callbacks_see_everything_in_order() -> None:
    recorder = Recorder()
    run(dataclasses.replace(CONFIG, epochs=2), (recorder,))
    steps = [[f"batch {step}", f"gradients {step}", f"step {step}"] for step in range(1, 11)]
    first, second = (list(itertools.chain(*part)) for part in (steps[:5], steps[5:]))
    assert recorder.calls == ["model", "start 2x5", *first, "epoch 1", *second, "epoch 2", "end"]


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 5, 6, 13, 20])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_stopped_run_resumes_to_the_same_weights(
    tmp_path: Path, step: int, optimizer: Literal["sgd", "adamw"]
) -> None:
    config = dataclasses.replace(CONFIG, optimizer=optimizer)
    whole, expected = run(config)
    stopped, _ = run(config, (StopAtStep(step),), tmp_path)
    resumed, weights = run(config, checkpoints=tmp_path)
    assert (stopped.ending, resumed.ending) == ("interrupted", "completed")
    assert_same_weights(weights, expected)
    assert [row.val_loss for row in resumed.history] == [row.val_loss for row in whole.history]


MIDWAY = dataclasses.replace(CONFIG, epochs=3, checkpoint_seconds=1e-9)
"""So short that every step is kept."""


def count_checkpoints(folder: Path) -> list[str]:
    return sorted(path.stem.removeprefix("epoch-") for path in folder.glob("*.json"))


@pytest.mark.parametrize(
    "step", [pytest.param(step, marks=() if step in (1, 5, 6, 12) else pytest.mark.slow) for step in range(1, 16)]
)
def test_a_run_stopped_at_any_step_goes_on_from_the_one_before(tmp_path: Path, step: int) -> None:
    """Dropout, distortions, mixing, batch statistics and the average of the weights go on as if nothing had been."""
    augmentation = MIXING if step % 2 else ROTATION
    config = dataclasses.replace(MIDWAY, precision=("fp32", "bf16", "fp16")[step % 3])
    whole, expected = run(config, augmentation=augmentation)
    run(config, (StopAtStep(step),), tmp_path, augmentation=augmentation)
    epoch, within = divmod(step - 1, 5)
    if step > 1:
        assert count_checkpoints(tmp_path)[-1] == f"{epoch:06d}.{within:09d}"
    recorder = Recorder()
    torch.manual_seed(step)
    resumed, weights = run(config, (recorder,), tmp_path, augmentation=augmentation)
    assert [call for call in recorder.calls if call.startswith("step")] == [f"step {k}" for k in range(step, 16)]
    assert_same_weights(weights, expected)
    for row, other in zip(whole.history, resumed.history, strict=True):
        assert dataclasses.replace(row, seconds=0) == dataclasses.replace(other, seconds=0)
    assert (resumed.best_epoch, resumed.ending) == (whole.best_epoch, "completed")


TUNING = dataclasses.replace(MIDWAY, freeze="backbone", unfreeze_after=1, layer_decay=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("step", [3, 5, 6, 7, 13])
def test_a_run_stopped_while_its_backbone_is_frozen_or_after_goes_on(
    tmp_path: Path, step: int, optimizer: Literal["sgd", "adamw"]
) -> None:
    """The backbone is frozen for steps 1 to 5; its moments begin with step 6, those of the output with step 1."""
    config = dataclasses.replace(TUNING, optimizer=optimizer)
    whole, expected = run(config)
    stopped, _ = run(config, (StopAtStep(step),), tmp_path)
    recorder = Recorder()
    resumed, weights = run(config, (recorder,), tmp_path)
    assert (stopped.ending, resumed.ending) == ("interrupted", "completed")
    assert f"step {step}" in recorder.calls
    assert f"step {step - 1}" not in recorder.calls
    assert_same_weights(weights, expected)
    assert [row.val_loss for row in resumed.history] == [row.val_loss for row in whole.history]


def test_only_the_output_layer_learns_while_the_backbone_is_frozen() -> None:
    before = make_model().state_dict()
    _, after = run(dataclasses.replace(TUNING, unfreeze_after=None))
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed == {"6.weight", "6.bias"}


def test_the_average_of_the_weights_leaves_a_frozen_backbone_alone() -> None:
    _, plain = run(dataclasses.replace(TUNING, unfreeze_after=None, ema_decay=None))
    _, averaged = run(dataclasses.replace(TUNING, unfreeze_after=None, ema_decay=0.9))
    assert not torch.equal(plain["6.weight"], averaged["6.weight"])
    for name in ("0.weight", "1.weight", "1.running_mean", "3.bias"):
        assert torch.equal(plain[name], averaged[name]), name


def test_the_rate_that_the_history_tells_is_that_of_the_output_layer() -> None:
    config = dataclasses.replace(TUNING, schedule="constant", warmup=0.0)
    assert [row.learning_rate for row in run(config)[0].history] == [config.learning_rate] * 3


@pytest.mark.parametrize("change", [{"freeze": None, "unfreeze_after": None}, {"layer_decay": 0.9}])
def test_a_run_does_not_go_on_with_other_parts_frozen(tmp_path: Path, change: dict[str, Any]) -> None:
    run(TUNING, (StopAtStep(8),), tmp_path)
    with pytest.raises(ConfigError, match=rf"wanted one with {next(iter(change))}="):
        run(dataclasses.replace(TUNING, **change), checkpoints=tmp_path)


def test_a_run_stopped_at_every_step_in_turn_ends_with_the_same_weights(tmp_path: Path) -> None:
    _, expected = run(MIDWAY)
    for step in range(2, 16):
        stopped, _ = run(MIDWAY, (StopAtStep(step),), tmp_path)
        assert stopped.ending == "interrupted"
    _, weights = run(MIDWAY, checkpoints=tmp_path)
    assert_same_weights(weights, expected)


def test_a_run_killed_while_it_writes_goes_on_from_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights of the third are there then, and their facts are not."""

    class KilledError(BaseException):
        pass

    def write_facts(path: Path, content: object) -> None:
        if len(count_checkpoints(tmp_path)) == 2:
            raise KilledError
        write_json(path, content)

    _, expected = run(MIDWAY)
    with monkeypatch.context() as patch:
        patch.setattr("falconet.training.checkpoints.write_json", write_facts)
        with pytest.raises(KilledError):
            run(MIDWAY, checkpoints=tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == 3
    _, weights = run(MIDWAY, checkpoints=tmp_path)
    assert_same_weights(weights, expected)


@pytest.mark.parametrize(
    ("seconds", "kept"),
    [
        (0.5, [(0, 1), (0, 2), (0, 3), (0, 4), (1, 0), (1, 1), (1, 2), (1, 3), (1, 4), (2, 0)]),
        (1.5, [(0, 2), (0, 4), (1, 0), (1, 2), (1, 4), (2, 0)]),
        (4.5, [(1, 0), (2, 0)]),
        (300.0, [(1, 0), (2, 0)]),
    ],
)
def test_long_epochs_are_kept_in_between(
    seconds: float, kept: list[tuple[int, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that goes on by a second whenever it is looked at."""
    saved: list[tuple[int, int]] = []
    clock = SimpleNamespace(monotonic=itertools.count().__next__, perf_counter=time.perf_counter)

    def save(folder: Path, epoch: int, checkpoint: object, step: int) -> None:
        saved.append((epoch, step))

    monkeypatch.setattr("falconet.training.loop.time", clock)
    monkeypatch.setattr("falconet.training.loop.save_checkpoint", save)
    run(dataclasses.replace(CONFIG, epochs=2, checkpoint_seconds=seconds), checkpoints=tmp_path)
    assert saved == kept


@pytest.mark.parametrize("setting", ["balanced", "effective"])
def test_class_weights_follow_from_the_labels_of_a_loader(setting: Literal["balanced", "effective"]) -> None:
    config = dataclasses.replace(CONFIG, epochs=1, class_weights=setting, effective_beta=0.9)
    counts = torch.tensor([12.0, 28.0])
    expected = 40 / (2 * counts) if setting == "balanced" else 0.1 / (1 - 0.9**counts)
    if setting == "effective":
        expected = expected / expected.mean()
    weights = []
    for given, asked in ((None, config), (expected, CONFIG), (None, CONFIG)):
        train, model = make_loader(40, training=True), make_model()
        train = dataclasses.replace(train, labels=torch.arange(40).ge(12).long())
        fit(model, train, make_loader(24, training=False), dataclasses.replace(asked, epochs=1), class_weights=given)
        weights.append(model.state_dict())
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name])
    assert not torch.allclose(weights[0]["6.weight"], weights[2]["6.weight"])


def test_settings_that_batches_cannot_follow_are_refused() -> None:
    batches = [(torch.zeros(3, 1, 6, 6), torch.tensor([0, 1, 1]))]
    for change, message in (
        ({"class_weights": "balanced"}, r"class_weights: wanted a Loader, .* give fit\(class_weights=tensor\)"),
        ({"sampler": "balanced"}, "sampler: wanted a loader that draws so, .* leave it out, and give .*WeightedRandom"),
    ):
        with pytest.raises(ConfigError, match=message):
            fit(make_model(), batches, batches, change)


def test_a_loader_that_draws_otherwise_is_refused() -> None:
    config, train = dataclasses.replace(CONFIG, epochs=1, sampler="balanced"), make_loader(40, training=True)
    with pytest.raises(ConfigError, match=r"give train=dataclasses.replace\(loader, sampler='balanced'\)"):
        fit(make_model(), train, make_loader(24, training=False), config)
    balanced = dataclasses.replace(train, sampler="balanced")
    assert fit(make_model(), balanced, make_loader(24, training=False), config).ending == "completed"


def test_class_weights_weigh_the_training_loss_alone() -> None:
    config = dataclasses.replace(CONFIG, epochs=1, learning_rate=1e-12, ema_decay=None, weight_decay=0.0)
    weights = torch.tensor([0.0, 3.0])
    losses = {}
    for name, given in (("plain", None), ("weighted", weights)):
        model = make_model()
        loaders = make_loader(40, training=False), make_loader(24, training=False)
        losses[name] = fit(model, *loaders, config, class_weights=given).history[0]
    assert losses["weighted"].val_loss == pytest.approx(losses["plain"].val_loss, rel=1e-4)
    assert losses["weighted"].train_loss != pytest.approx(losses["plain"].train_loss, rel=1e-3)


def test_a_class_of_weight_zero_is_not_learned() -> None:
    config = dataclasses.replace(CONFIG, epochs=6, learning_rate=0.05)
    loaders = make_loader(40, training=True), make_loader(24, training=False)
    model = make_model()
    fit(model, *loaders, config, class_weights=torch.tensor([0.0, 1.0]))
    (images, _) = next(loaders[1].epoch(1))
    assert (model(images).argmax(dim=1) == 1).all()


def test_steps_add_up_by_their_samples() -> None:
    progress = Progress(steps=2, loss=10.0, hits=3, samples=8)
    progress.update(0.5, hits=2, samples=3)
    assert progress == Progress(steps=3, loss=11.5, hits=5, samples=11)
    progress.update(1.0, hits=2, samples=3)
    assert progress == Progress(steps=4, loss=14.5, hits=7, samples=14)


def test_a_finished_run_resumes_without_a_step(tmp_path: Path) -> None:
    first, weights = run(checkpoints=tmp_path)
    recorder = Recorder()
    result, again = run(callbacks=(recorder,), checkpoints=tmp_path)
    assert recorder.calls == ["model", "start 4x5", "end"]
    assert result == first
    assert_same_weights(weights, again)


def test_the_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    run(callbacks=(StopAtStep(8),), checkpoints=tmp_path)
    with pytest.raises(ConfigError, match=r"wanted one with learning_rate=0.02, found learning_rate=0.01"):
        run(dataclasses.replace(CONFIG, learning_rate=0.02), checkpoints=tmp_path)


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    _, expected = run()
    run(callbacks=(StopAtStep(18),), checkpoints=tmp_path)
    newest = tmp_path / "epoch-000003.000000000.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1] + b"\x01")
    recorder = Recorder()
    _, weights = run(callbacks=(recorder,), checkpoints=tmp_path)
    assert "step 10" not in recorder.calls
    assert "step 11" in recorder.calls
    assert_same_weights(weights, expected)


def test_a_loss_that_is_not_finite_ends_the_run_with_the_last_good_weights() -> None:
    class Poison(Callback):
        def on_step(self, step: int, loss: float) -> None:
            if step == 12:
                nn.init.constant_(next(model.parameters()), float("nan"))

    model = make_model()
    loaders = make_loader(40, training=True), make_loader(24, training=False)
    result = fit(model, *loaders, CONFIG, callbacks=(Poison(),))
    assert result.ending == "diverged"
    assert "nan at step 13 of 20 (epoch 3)" in result.message
    assert result.best_epoch in (1, 2)
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


def test_divergence_in_the_first_epoch_leaves_the_initial_weights() -> None:
    result, weights = run(dataclasses.replace(CONFIG, optimizer="sgd", learning_rate=1e30, clip_norm=None))
    assert (result.ending, result.best_epoch, result.best) == ("diverged", 0, None)
    assert_same_weights(weights, make_model().state_dict())


class Poison(Callback):
    """Makes the weights NaN after some steps, counted over all epochs that are run, repeated ones too."""

    def __init__(self, *steps: int) -> None:
        self.steps = steps
        self.count = 0
        self.notes: list[str] = []

    def on_model(self, model: nn.Module) -> None:
        self.model = model

    def on_note(self, line: str) -> None:
        self.notes.append(line)

    def on_step(self, step: int, loss: float) -> None:
        self.count += 1
        if self.count in self.steps:
            nn.init.constant_(next(self.model.parameters()), float("nan"))


RECOVERING = dataclasses.replace(CONFIG, recover=True, schedule="constant", warmup=0.0)


def test_a_run_recovers_from_a_loss_that_is_not_finite_at_half_the_rate() -> None:
    poison = Poison(12, 20)  # the second step of epoch 3 twice, since it is repeated
    result, weights = run(RECOVERING, (poison,))
    assert result.ending == "completed"
    rates = [row.learning_rate / CONFIG.learning_rate for row in result.history]
    assert rates == [1.0, 1.0, 0.5, 0.25]
    assert len(poison.notes) == 2
    assert "nan at step 13 of 20 (epoch 3): going back to the end of epoch 2, at 0.5 of the rate" in poison.notes[0]
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_an_epoch_that_is_repeated_begins_as_it_began() -> None:
    """Up to the step that went wrong, a run at a rate of zero is the same run."""
    config = dataclasses.replace(RECOVERING, learning_rate=1e-12, weight_decay=0.0)
    torch.testing.assert_close(run(config, (Poison(12),))[1], run(config)[1], rtol=0, atol=1e-9)


def test_a_run_that_cannot_recover_ends() -> None:
    poison = Poison(*range(1, 100))
    result, _ = run(RECOVERING, (poison,))
    assert (result.ending, result.best_epoch) == ("diverged", 0)
    assert len(poison.notes) == 6


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 7, 12, 13, 15, 17])
def test_a_stopped_run_recovers_as_one_that_was_not_stopped(tmp_path: Path, step: int) -> None:
    """Stopped before or after the loss was not finite, in the middle of an epoch too."""
    config = dataclasses.replace(RECOVERING, checkpoint_seconds=1e-9)
    whole, expected = run(config, (Poison(14),))
    stopped = Poison(14)
    run(config, (stopped, StopAtStep(step)), tmp_path)
    later = Poison(*(number - stopped.count for number in (14,) if number > stopped.count))
    resumed, weights = run(config, (later,), tmp_path)
    assert_same_weights(weights, expected)
    assert [row.learning_rate for row in resumed.history] == [row.learning_rate for row in whole.history]


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate")],
)
@pytest.mark.parametrize(("size", "remedy"), [(8, "training.batch_size=4"), (1, "even one sample needs more")])
def test_a_batch_too_large_for_memory_is_named(error: Exception, size: int, remedy: str) -> None:
    class Hungry(Callback):
        def on_gradients(self, step: int) -> None:
            raise error

    train = dataclasses.replace(make_loader(40, training=True), batch_size=size)
    with pytest.raises(OutOfMemoryError, match=rf"out of memory in batches of {size}: .*{remedy}"):
        fit(make_model(), train, make_loader(24, training=False), CONFIG, callbacks=(Hungry(),))
    batches = [(torch.zeros(3, 1, 6, 6), torch.tensor([0, 1, 1]))]
    with pytest.raises(OutOfMemoryError, match=r"out of memory: give a loader of smaller batches"):
        fit(make_model(), batches, batches, CONFIG, callbacks=(Hungry(),))


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    class Broken(Callback):
        def on_step(self, step: int, loss: float) -> None:
            raise RuntimeError("size mismatch")

    with pytest.raises(RuntimeError, match="size mismatch"):
        run(callbacks=(Broken(),))


def test_a_damaged_checkpoint_is_told(tmp_path: Path) -> None:
    _, expected = run(checkpoints=tmp_path)
    newest = max(tmp_path.glob("*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-1])
    watcher = Poison()
    _, weights = run(callbacks=(watcher,), checkpoints=tmp_path)
    assert watcher.notes == [f"checkpoint {newest.stem} is damaged: the one before it is used"]
    assert_same_weights(weights, expected)


def test_that_no_checkpoint_is_whole_is_told(tmp_path: Path) -> None:
    _, expected = run(checkpoints=tmp_path)
    older, newest = sorted(tmp_path.glob("*.json"))
    for path in (older, newest):
        path.write_text("{", encoding="utf-8")
    watcher = Poison()
    _, weights = run(callbacks=(watcher,), checkpoints=tmp_path)
    assert watcher.notes == [
        f"checkpoint {newest.stem} is damaged: the one before it is used",
        f"checkpoint {older.stem} is damaged: no whole one is left, so this run starts anew",
    ]
    assert_same_weights(weights, expected)


class Listed:
    """Batches from a list; it may promise others than it has."""

    def __init__(self, batches: Sequence[tuple[Tensor, Tensor]], length: int | None = None) -> None:
        self.batches, self.length = batches, len(batches) if length is None else length

    def __len__(self) -> int:
        return self.length

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.batches[start:])


@pytest.mark.parametrize("name", ["train", "val"])
@pytest.mark.parametrize("empty", [Listed(()), make_loader(0, training=False)], ids=["list", "loader"])
def test_a_loader_without_batches_is_refused_before_anything_is_trained(name: str, empty: Any) -> None:
    whole, model = make_loader(16, training=False), make_model()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    loaders = {"train": whole, "val": whole} | {name: empty}
    with pytest.raises(DataError, match=f"^{name}: wanted a loader of one batch or more, found "):
        fit(model, loaders["train"], loaders["val"], CONFIG)
    assert_same_weights(model.state_dict(), before)


def test_no_loader_at_all_is_not_taken_for_the_other_one() -> None:
    with pytest.raises(DataError, match=r"^val: wanted a loader of one batch or more, found none"):
        check_batches("val", None)


def test_a_validation_loader_that_yields_nothing_is_refused() -> None:
    with pytest.raises(DataError, match=r"^val: wanted samples, found none in 3 batches"):
        fit(make_model(), make_loader(16, training=False), Listed((), length=3), CONFIG)


@pytest.mark.parametrize("ema_decay", [None, 0.5])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_validation_is_in_float32_whatever_training_is_in(
    precision: Literal["bf16", "fp16"], ema_decay: float | None
) -> None:
    config = dataclasses.replace(CONFIG, epochs=1, precision=precision, ema_decay=ema_decay)
    model, val = make_model(), make_loader(24, training=False)
    result = fit(model, make_loader(40, training=True), val, config)
    with torch.inference_mode():
        answers = [(model(images), labels) for images, labels in val.epoch(1)]
        with torch.autocast("cpu", dtype=torch.bfloat16 if precision == "bf16" else torch.float16):
            rounded = [(model(images).float(), labels) for images, labels in val.epoch(1)]

    def loss(pairs: Sequence[tuple[Tensor, Tensor]]) -> float:
        logits, labels = (torch.cat(part) for part in zip(*pairs, strict=True))
        return nn.functional.cross_entropy(logits, labels).item()

    assert loss(rounded) != pytest.approx(loss(answers), rel=2e-6)
    assert result.history[0].val_loss == pytest.approx(loss(answers), rel=1e-6)


def test_it_stops_early_when_nothing_improves() -> None:
    config = dataclasses.replace(CONFIG, epochs=30, learning_rate=1e-9, patience=2, ema_decay=None)
    result, _ = run(config)
    assert result.ending == "early_stopped"
    assert len(result.history) == result.best_epoch + 2 < 30


def test_gradients_are_clipped_to_the_norm() -> None:
    config = dataclasses.replace(
        CONFIG, optimizer="sgd", momentum=0.0, schedule="constant", warmup=0.0, weight_decay=0.0
    )
    config = dataclasses.replace(config, epochs=1, clip_norm=1e-3, learning_rate=1.0, ema_decay=None)
    before, (_, after) = make_model().state_dict(), run(config)
    trained = [name for name, _ in make_model().named_parameters()]
    moved = math.sqrt(sum((after[name] - before[name]).square().sum().item() for name in trained))
    assert 0 < moved <= 5 * 1e-3 * (1 + 1e-4)


def test_history_holds_what_it_says() -> None:
    result, _ = run(dataclasses.replace(CONFIG, schedule="constant", warmup=0.0))
    assert [row.epoch for row in result.history] == [1, 2, 3, 4]
    assert all(row.learning_rate == CONFIG.learning_rate for row in result.history)
    assert all(0 <= row.train_accuracy <= 1 and row.seconds > 0 for row in result.history)
