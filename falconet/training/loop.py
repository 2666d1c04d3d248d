"""fit(), the only training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from falconet import interruption
from falconet.data.loader import Loader, Sampler, epoch_seed
from falconet.errors import ConfigError, DataError, DivergedError, OutOfMemoryError, UsageError, lacks_memory
from falconet.memory import kept_memory
from falconet.schema import to_mapping
from falconet.spec import TaskName
from falconet.tasks import TASKS, Task
from falconet.tasks.losses import Loss, compute_class_weights
from falconet.training.acceleration import check_acceleration, resize
from falconet.training.batches import Batches, count_classes, make_batches
from falconet.training.callbacks import Callback, EpochRow, list_callbacks
from falconet.training.checkpoints import load_checkpoint, save_checkpoint
from falconet.training.config import CHANGEABLE_ON_RESUME, TrainConfig, read_training
from falconet.training.devices import DevicePolicy, choose_device_policy
from falconet.training.distillation import DistillationLoss, logit_distillation_loss
from falconet.training.distributed import SINGLE_PROCESS, ProcessGroup
from falconet.training.finetuning import freeze, unfreeze
from falconet.training.linear_probe import (
    LinearProbe,
    extract_features,
    find_linear_classifier,
    limit_samples,
    set_output_weights,
    solve,
)
from falconet.training.optimizers import make_ema, make_optimizer
from falconet.training.schedules import learning_rate
from falconet.training.state import Forward, Progress, TracksProgress, TrainState, clone, make_checkpoint, restore


@dataclass(frozen=True)
class FitResult:
    """The result of a run; the model holds the weights of `best_epoch`."""

    history: tuple[EpochRow, ...]
    best_epoch: int
    """The epoch whose weights are kept, counted from 1: the last one with `restore="last"`. 0: no epoch was completed,
    and the model holds its initial weights."""
    ending: Literal["completed", "early_stopped", "interrupted", "diverged"]
    message: str = ""
    """Where and how the run diverged; empty where it did not."""

    def __repr__(self) -> str:
        best = f", best epoch {self.best_epoch}, val accuracy {self.best.val_accuracy:.1%}" if self.best else ""
        return f"FitResult({self.ending}, epochs {len(self.history)}{best})"

    @property
    def best(self) -> EpochRow | None:
        """The row of the best epoch; None: no epoch was completed."""
        return self.history[self.best_epoch - 1] if self.best_epoch else None


@dataclass(frozen=True)
class TrainContext:
    """Everything that stays the same during a run."""

    train: Batches
    val: Batches
    config: TrainConfig
    criterion: Loss
    task: Task
    callbacks: Sequence[Callback]
    checkpoints: Path | None
    policy: DevicePolicy
    distillation: DistillationLoss | None
    process_group: ProcessGroup
    class_weights: Tensor | None = None
    solution: LinearProbe | None = None
    groups: Int64[Tensor, " samples"] | None = None


def fit(  # noqa: PLR0913 - one for each thing that training follows from
    model: nn.Module,
    train: Batches | Iterable[Any],
    val: Batches | Iterable[Any],
    config: TrainConfig | Mapping[str, Any] | None = None,
    *,
    task: TaskName = "classification",
    class_weights: Tensor | None = None,
    teacher: nn.Module | None = None,
    solution: LinearProbe | None = None,
    groups: Int64[Tensor, " samples"] | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoints: str | Path | None = None,
    process_group: ProcessGroup = SINGLE_PROCESS,
) -> FitResult:
    """Train `model` in place and leave it on the CPU, in eval mode, with the weights of its best epoch.

    `train` and `val` are loaders of Falconet, or any iterables of `(x, y)` batches that can be iterated anew in each
    epoch, such as torch's DataLoader or a list: inputs as the network takes them, and labels, class numbers
    `Int64[batch]` or probabilities `Float32[batch classes]`. The shuffling of a DataLoader then follows from
    `config.seed`; batch size and sampler are the loader's own. `config` may be a mapping of what differs from the
    defaults of `TrainConfig`, such as `{"epochs": 2}`; None: these defaults.

    The best epoch has the highest validation accuracy; of equals, the lowest validation loss; or it is simply the last
    one, with `config.restore="last"`. The method `advance` of a model that has one is called before each step; see
    `falconet.training.state.TracksProgress`. `task` says what the outputs mean. `class_weights`, `Float32[classes]`,
    weigh the samples of the training loss; None: as `config.class_weights` says, from the labels of a Loader.
    `teacher`, a network for the same input and classes, adds the comparison with its outputs to the loss (see
    `falconet.training.distillation`). `solution` is the output layer of a run with `config.linear_probe` where it has
    been solved already; else samples of a Loader with the same number in `groups` share a fold of it. Ctrl-C and a loss
    that is not finite end the run early; see `FitResult.ending`. With `checkpoints`, a folder, the state is written
    there after each epoch, and in long epochs in between; a run that finds one there resumes from it, with the same
    weights in the end.

    In a `process_group`, each process calls this with the same model and configuration, and with loaders that give it
    its part of every batch; each ends with the same weights. Raises ConfigError where the configuration does not suit
    the network, the loader, the machine or the checkpoint that is there, DataError for a loader without batches or with
    batches that the network cannot take, UsageError for an object that is no loader, network, configuration or list of
    callbacks, OutOfMemoryError, StorageError where no checkpoint can be written, and what callbacks raise.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"model: wanted an nn.Module, found {type(model).__name__}; of a falconet.Model, give model.module"
        )
    config, callbacks = read_training(config, "config"), list_callbacks(callbacks)
    train, val = (make_batches(name, loader, model, config.seed) for name, loader in (("train", train), ("val", val)))
    for name, loader in (("train", train), ("val", val)):
        check_batches(name, loader)
    check_fit(model, train, config, teacher, process_group)
    _check_sampler(train, config)
    if class_weights is None:
        class_weights = _find_class_weights(train, config, model)
    context = replace(
        make_context(model, train, config, class_weights, teacher, task),
        val=val,
        callbacks=callbacks,
        checkpoints=None if checkpoints is None else Path(checkpoints),
        process_group=process_group,
        solution=solution,
        groups=groups,
    )
    with torch.random.fork_rng(devices=context.policy.rng_devices), kept_memory(), interruption.watched():
        state = init_state(model, config, context.policy)
        resume(state, context)
        ending, message = _run_with_callbacks(state, context)
        model.load_state_dict(state.best_weights)
        model.cpu()
        unfreeze(model, config)
        model.eval()
    return FitResult(tuple(state.history), state.best_epoch, ending, message)


def check_batches(name: str, loader: Batches | None) -> None:
    """Raise DataError for a loader that has no batches."""
    if loader is None or not len(loader):
        found = "none" if loader is None else "one without batches"
        raise DataError(f"{name}: wanted a loader of one batch or more, found {found}")


def check_fit(
    model: nn.Module,
    train: Batches,
    config: TrainConfig,
    teacher: nn.Module | None = None,
    process_group: ProcessGroup = SINGLE_PROCESS,
) -> None:
    """Raise ConfigError where a configuration does not suit the network or the machine, as `fit` would."""
    for name, usual in (("compile", False), ("initial_scale", 1.0)):
        if teacher is not None and getattr(config, name) != usual:
            raise ConfigError(f"{name}: wanted {usual} with a teacher, found {getattr(config, name)}")
    if config.linear_probe is not None:
        find_linear_classifier(model)
    device = choose_device_policy(config, model).device
    check_acceleration(model, config, device, lambda: next(iter(train.epoch(1)))[0], process_group.world_size)


def _check_sampler(train: Batches, config: TrainConfig) -> None:
    """Raise ConfigError where classes should be drawn equally often, and the loader draws them otherwise."""
    if config.sampler == "balanced" and not (isinstance(train, Loader) and train.sampler == "balanced"):
        remedy = (
            "give train=dataclasses.replace(loader, sampler='balanced')"
            if isinstance(train, Loader)
            else "leave it out, and give batches that do, such as by torch.utils.data.WeightedRandomSampler"
        )
        raise ConfigError(
            f"sampler: wanted a loader that draws so, found balanced in the configuration alone; {remedy}"
        )


def _find_class_weights(train: Batches, config: TrainConfig, model: nn.Module) -> Tensor | None:
    """Return the weights of the classes that the configuration asks for. Raises ConfigError without all labels."""
    if config.class_weights is None:
        return None
    if not isinstance(train, Loader):
        raise ConfigError(
            f"class_weights: wanted a Loader, whose labels are at hand, with {config.class_weights}, found other "
            "batches; give fit(class_weights=tensor), a weight for each class"
        )
    return compute_class_weights(train.labels, count_classes("train", train, model), config)


def make_context(
    model: nn.Module,
    train: Batches,
    config: TrainConfig,
    class_weights: Tensor | None = None,
    teacher: nn.Module | None = None,
    task: TaskName = "classification",
) -> TrainContext:
    """Return a context for single steps; a run adds validation data, callbacks, checkpoints and process group."""
    policy, asked = choose_device_policy(config, model), TASKS[task]
    return TrainContext(
        train=train,
        val=train,
        config=config,
        criterion=asked.make_loss(config, None if class_weights is None else class_weights.to(policy.device)),
        task=asked,
        callbacks=(),
        checkpoints=None,
        policy=policy,
        distillation=None if teacher is None else DistillationLoss(teacher.eval().to(policy.device), config, policy),
        process_group=SINGLE_PROCESS,
        class_weights=class_weights,
    )


def resume(state: TrainState, context: TrainContext) -> None:
    """Restore the state of the last checkpoint, where there is one."""
    if not context.checkpoints:
        return
    process_group = context.process_group
    found = load_checkpoint(context.checkpoints, partial(notify, context.callbacks)) if process_group.is_main else None
    restore(state, process_group.broadcast(found), _identify(context))
    if not process_group.is_main:
        # The sums of all stand in the main process's state; generators go on as at the start of an epoch.
        state.progress, state.rng_state = Progress(state.progress.steps), {}


_Ending = Literal["completed", "early_stopped", "interrupted", "diverged"]


def _run_with_callbacks(state: TrainState, context: TrainContext) -> tuple[_Ending, str]:
    """Run to an end, with the callbacks' first calls before and their `on_end` after it, whatever happens."""
    with ExitStack() as last_calls:
        for callback in reversed(context.callbacks):
            last_calls.callback(callback.on_end)
        for callback in context.callbacks:
            callback.on_model(state.model)
            callback.on_start(context.config.epochs, len(context.train), state.history)
        return _run_epochs(state, context)


def notify(callbacks: Sequence[Callback], *lines: str) -> None:
    """Call `on_note` of each callback with lines that the user should know."""
    for callback in callbacks:
        for line in lines:
            callback.on_note(line)


def _run_epochs(state: TrainState, context: TrainContext) -> tuple[_Ending, str]:
    """Run until the configuration, the user or the loss ends training; return how it ended, with a message."""
    config = context.config
    try:
        while (epoch := len(state.history) + 1) <= config.epochs:
            if config.patience and epoch - 1 - state.best_epoch >= config.patience:
                return "early_stopped", ""
            _snapshot_last_good(state, context)
            try:
                row = _run_epoch(state, context, epoch)
            except DivergedError as error:
                if not _rollback(state, context, str(error)):
                    raise
                continue
            best = all(is_better(row, other) for other in state.history)
            _record_epoch(state, row, config)
            save(state, context)
            for callback in context.callbacks:
                callback.on_epoch(row, best)
            interruption.check()
    except KeyboardInterrupt:
        interruption.forget()
        return "interrupted", ""
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        if not isinstance(context.train, Loader):
            raise OutOfMemoryError("out of memory: give a loader of smaller batches") from error
        size = math.ceil(context.train.drawn / len(context.train))
        remedy = (
            f"set training.batch_size={size // 2}, or give a loader of such batches"
            if size > 1
            else "even one sample needs more than there is"
        )
        raise OutOfMemoryError(f"out of memory in batches of {size}: {remedy}") from error
    except DivergedError as error:
        return "diverged", str(error)
    return "completed", ""


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error means that memory ran out; on CPUs, torch has no class of its own for that."""
    return isinstance(error, torch.OutOfMemoryError) or lacks_memory(error)


def _snapshot_last_good(state: TrainState, context: TrainContext) -> None:
    """Keep a copy of the state at an epoch's start, for `recover`."""
    if context.config.recover and not state.progress.steps:
        whole = make_checkpoint(state, _identify(context), context.policy)
        state.last_good = replace(whole, tensors=clone(whole.tensors))


MIN_LR_SCALE = 1 / 64
"""Fraction of the learning rate at which a loss that is not finite must have other causes: no more rollback."""


def _rollback(state: TrainState, context: TrainContext, reason: str) -> bool:
    """Restore the state of the epoch's start, at half the learning rate; return whether that was possible."""
    if state.last_good is None or state.lr_scale <= MIN_LR_SCALE:
        return False
    rate = state.lr_scale / 2
    restore(state, state.last_good, _identify(context))
    state.lr_scale = rate
    save(state, context)
    place = f"the end of epoch {len(state.history)}" if state.history else "the start"
    notify(context.callbacks, f"{reason}: going back to {place}, at {rate:g} of the rate")
    return True


def _run_epoch(state: TrainState, context: TrainContext, epoch: int) -> EpochRow:
    """Train one epoch, or the rest of it, and validate."""
    started = time.perf_counter()
    config, steps = context.config, len(context.train)
    if epoch == 1 and config.linear_probe is not None:
        return _probe_epoch(state, context, started)
    if not state.rng_state:
        # Dropout draws from the global generator; its place, too, follows from seed and epoch alone.
        # Other processes draw for other samples.
        torch.manual_seed(
            epoch_seed(
                config.seed, epoch, "dropout", *([context.process_group.rank] if context.process_group.rank else [])
            )
        )
    else:
        context.policy.set_rng_state(state.rng_state)
        state.rng_state = {}
    _train_epoch(state, context, epoch)
    val_loss, val_accuracy = _validate_epoch(state, context, epoch)
    rate = find_lr(state, context, epoch * steps - 1)
    done, state.progress = _all_reduce_progress(state.progress, context.process_group), Progress()
    train_loss, train_accuracy = done.loss / done.samples, done.hits / done.samples
    seconds = time.perf_counter() - started
    return EpochRow(epoch, rate, train_loss, train_accuracy, val_loss, val_accuracy, seconds)


def _probe_epoch(state: TrainState, context: TrainContext, started: float) -> EpochRow:
    """Solve the output layer on the features of training samples without augmentation, and validate."""
    solution = context.solution
    if solution is None:
        solution = fit_linear_probe(state.model, context.train, context.config, context.class_weights, context.groups)
    set_output_weights(state.model, solution)
    if state.ema_model is not None:
        # Nothing has been averaged yet, so it takes the weights as they are.
        state.ema_model.update_parameters(state.model)
    val_loss, val_accuracy = _validate_epoch(state, context, 1)
    learned = solution.train_loss, solution.train_accuracy
    return EpochRow(1, 0.0, *learned, val_loss, val_accuracy, time.perf_counter() - started)


def fit_linear_probe(
    model: nn.Module,
    train: Batches,
    config: TrainConfig,
    class_weights: Tensor | None = None,
    groups: Int64[Tensor, " samples"] | None = None,
) -> LinearProbe:
    """Return the output layer that the first epoch of a run with `config.linear_probe` solves.

    `groups` numbers the groups of a `Loader`'s samples; see `linear_probe.solve`. Raises
    ConfigError for a network without one dense output layer, or a configuration without a linear probe, and
    DivergedError for features that are not finite.
    """
    if config.linear_probe is None:
        raise ConfigError("linear_probe: wanted logistic or ridge, found null")
    output = find_linear_classifier(model)
    plain = without_augmentation(train, limit_samples(output))
    features, labels = extract_features(model, plain.epoch(1), lambda batch: batch.to(output.weight.device))
    if labels.ndim > 1:
        raise ConfigError("linear_probe: wanted labels that are class numbers, found probabilities")
    if groups is not None and isinstance(plain, Loader):
        groups = groups[plain.order(1)[: len(labels)]]
    weights = None if class_weights is None else class_weights.cpu()
    return solve(features, labels, output.out_features, config.linear_probe, weights, config.seed, groups=groups)


def without_augmentation(train: Batches, most: int | None) -> Batches:
    """Return batches of all training samples without augmentation, all in each process; at most `most` samples.

    Those are drawn at random; None: no limit, in random order, so that a caller may stop anywhere. Batches that are no
    `Loader` stay as they are.
    """
    if not isinstance(train, Loader):
        return train
    whole = most is not None and len(train.labels) <= most
    sampler: Sampler = "by_length" if whole else "shuffle"
    limit = None if whole else most
    return replace(train, augmentation=None, teacher_logits=None, sampler=sampler, rank=0, world_size=1, limit=limit)


def find_lr(state: TrainState, context: TrainContext, step: int) -> float:
    """Return the learning rate of a step, counted from 0; the schedule begins after a first epoch without steps."""
    length = len(context.train)
    solved = length if context.config.linear_probe is not None else 0
    return state.lr_scale * learning_rate(step - solved, context.config.epochs * length - solved, context.config)


def _train_epoch(state: TrainState, context: TrainContext, epoch: int) -> None:
    """Make one pass over the training samples, from `state.progress` on."""
    config, length = context.config, len(context.train)
    state.model.train()
    freeze(state.model, config, epoch)
    wrap_model(state, context)
    saved = time.monotonic()
    for batch in context.train.epoch(epoch, state.progress.steps):
        step = (epoch - 1) * length + state.progress.steps
        # The main process's clock counts.
        due = context.process_group.is_main and time.monotonic() - saved > config.checkpoint_seconds
        _, any_due = train_step(state, context, batch, step, find_lr(state, context, step), checkpoint_due=due)
        if any_due and state.progress.steps < length:
            save(state, context)
            saved = time.monotonic()


def train_step(
    state: TrainState,
    context: TrainContext,
    batch: tuple[Tensor, ...],
    step: int,
    lr: float,
    *,
    checkpoint_due: bool = False,
) -> tuple[float, bool]:
    """Take a step, counted from 0, at a learning rate; return its loss, and whether a checkpoint is due in any process.

    Raises DivergedError for a loss that is not finite.
    """
    interruption.check()
    config, process_group = context.config, context.process_group
    steps = config.epochs * len(context.train)
    for group in state.optimizer.param_groups:
        group["lr"] = group["scale"] * lr
    if isinstance(state.model, TracksProgress):
        state.model.advance((step + 1) / steps)
    for callback in context.callbacks:
        callback.on_batch(step + 1)

    inputs, labels, *teacher_logits = map(context.policy.to_device, batch)
    inputs = resize(inputs, step, steps, config)
    forward = _choose_forward(state, context)
    distillation_loss: Tensor | None = None
    if context.distillation is not None:
        assert isinstance(forward, nn.Module)  # Compiled code would pass by the hooks that see features.
        logits, distillation_loss = context.distillation(forward, inputs)
    else:
        logits = context.policy.forward(forward, inputs)
        if teacher_logits:
            distillation_loss = logit_distillation_loss(logits, teacher_logits[0], config.distill_temperature)
    loss = context.criterion(logits, labels)
    if distillation_loss is not None:
        loss = (1 - config.distill_alpha) * loss + config.distill_alpha * distillation_loss

    local_loss = loss.item()
    # Whether it is time for a checkpoint rides along, so that a step takes one collective call.
    samples, total, any_due = process_group.all_reduce([len(labels), local_loss * len(labels), checkpoint_due])
    global_loss = total / samples
    if not math.isfinite(global_loss):
        epoch = step // len(context.train) + 1
        raise DivergedError(f"the loss became {global_loss} at step {step + 1} of {steps} (epoch {epoch})")
    # Gradients are averaged over processes, whose parts of a batch may differ by a sample.
    gradient_weight = len(labels) * process_group.world_size / samples
    state.scaler.scale(loss * gradient_weight).backward()  # type: ignore[no-untyped-call]
    state.scaler.unscale_(state.optimizer)
    for callback in context.callbacks:
        callback.on_gradients(step + 1)
    if config.clip_norm is not None:
        nn.utils.clip_grad_norm_(state.model.parameters(), config.clip_norm)
    # Where scaled gradients were not finite, it leaves the step out and scales by less from then on.
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    if state.ema_model is not None:
        state.ema_model.update_parameters(state.model)

    state.progress.update(local_loss, context.task.count_hits(logits, labels), len(labels))
    for callback in context.callbacks:
        callback.on_step(step + 1, global_loss)
    return global_loss, bool(any_due)


def wrap_model(state: TrainState, context: TrainContext) -> None:
    """Wrap the network for training, and again where other parameters are trainable than before."""
    mask = [parameter.requires_grad for parameter in state.model.parameters()]
    if state.wrapped_model is None or mask != state.trainable_mask:
        state.wrapped_model, state.trainable_mask = context.process_group.wrap(state.model), mask
        # Batches differ by a sample at most, and sides take few values: shapes that are known make faster code.
        state.compiled_model = torch.compile(state.wrapped_model, dynamic=False) if context.config.compile else None


def _choose_forward(state: TrainState, context: TrainContext) -> Forward:
    """Return the module or function for the next step's forward pass: not compiled with hooks, which it would skip."""
    assert state.wrapped_model is not None
    hooked = any(callback.hooked for callback in context.callbacks)
    return state.wrapped_model if state.compiled_model is None or hooked else state.compiled_model


def _all_reduce_progress(progress: Progress, process_group: ProcessGroup) -> Progress:
    """Return the progress with sums over all processes."""
    loss, hits, samples = process_group.all_reduce([progress.loss, progress.hits, progress.samples])
    return Progress(progress.steps, loss, int(hits), int(samples))


def _validate_epoch(state: TrainState, context: TrainContext, epoch: int) -> tuple[float, float]:
    """Validate after an epoch. Raises DivergedError for a loss that is not finite."""
    val_loss, val_accuracy = validate(state.eval_model, context)
    if not math.isfinite(val_loss):
        raise DivergedError(f"the validation loss became {val_loss} in epoch {epoch}")
    return val_loss, val_accuracy


@torch.inference_mode()
def validate(model: nn.Module, context: TrainContext) -> tuple[float, float]:
    """Return mean loss, without label smoothing, and accuracy over the validation samples.

    They choose the epoch, so the network computes as in inference: in float32, whatever it is trained in. Raises
    DataError where the loader yields no samples.
    """
    model.eval()
    criterion = context.task.make_validation_loss(context.config)
    progress = Progress()
    for batch in context.val.epoch(1):
        images, labels = map(context.policy.to_device, batch)
        logits = model(images).float()
        progress.update(criterion(logits, labels).item(), context.task.count_hits(logits, labels), len(labels))
    whole = _all_reduce_progress(progress, context.process_group)
    if not whole.samples:
        raise DataError(f"val: wanted samples, found none in {len(context.val)} batches")
    return whole.loss / whole.samples, whole.hits / whole.samples


def init_state(model: nn.Module, config: TrainConfig, policy: DevicePolicy) -> TrainState:
    """Return the state before the first step, with the network on its device."""
    # Convolutions of few channels run up to 1.6 times faster on a processor with the channels innermost.
    model.to(policy.device).to(memory_format=torch.channels_last)
    model.zero_grad(set_to_none=True)
    average = None if config.ema_decay is None else make_ema(model, config.ema_decay)
    return TrainState(model, make_optimizer(model, config), average, clone(model.state_dict()), scaler=policy.scaler())


def _record_epoch(state: TrainState, row: EpochRow, config: TrainConfig) -> None:
    """Add an epoch to the history, and keep its weights where none were better or `config` wants the last."""
    best = state.history[state.best_epoch - 1] if state.best_epoch else None
    chosen, weights = state.best_epoch, state.best_weights
    if best is None or config.restore == "last" or is_better(row, best):
        chosen, weights = row.epoch, clone(state.eval_model.state_dict())
    # Ctrl-C comes between calls, of which there is none here, and so cannot part an epoch from its weights.
    state.history, state.best_epoch, state.best_weights = [*state.history, row], chosen, weights


def is_better(row: EpochRow, other: EpochRow) -> bool:
    """Return whether an epoch has a higher validation accuracy than another, or the same with a lower loss."""
    return (row.val_accuracy, -row.val_loss) > (other.val_accuracy, -other.val_loss)


def _identify(context: TrainContext) -> dict[str, Any]:
    """Return the settings in which a checkpoint must agree with the run that resumes from it."""
    settings = {key: value for key, value in to_mapping(context.config).items() if key not in CHANGEABLE_ON_RESUME}
    # `auto` may mean another format on another processor; another device of the same format may go on.
    return {**settings, "precision": str(context.policy.dtype), "steps_per_epoch": len(context.train)}


def save(state: TrainState, context: TrainContext) -> None:
    """Write the state into the run's checkpoint folder."""
    if not context.checkpoints:
        return
    whole = replace(state, progress=_all_reduce_progress(state.progress, context.process_group))
    if context.process_group.is_main:
        position = len(state.history), state.progress.steps
        save_checkpoint(
            context.checkpoints, position[0], make_checkpoint(whole, _identify(context), context.policy), position[1]
        )
    context.process_group.barrier()
