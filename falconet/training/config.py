"""TrainConfig: everything that decides how weights change. Importing it does not import torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from falconet.errors import ConfigError
from falconet.renames import DEFAULT_BETAS, accept_renamed_fields, rename_section
from falconet.schema import check_fields, take_config

MARGIN_LOSSES = ("cosface", "arcface")
"""Losses that need an output layer of cosines."""


CHANGEABLE_ON_RESUME = ("device", "checkpoint_seconds")
"""Settings without an effect on the trained weights, which may differ when a run is resumed."""


@accept_renamed_fields("training")
@dataclass(frozen=True)
class TrainConfig:
    """The configuration of `fit`."""

    epochs: int = 30
    """Passes over the training samples."""

    batch_size: int = 64
    """Samples per step."""

    initial_scale: float = 1.0
    """Fraction of the images' sides that training begins with; they grow to the whole over three quarters of the steps.

    It needs a network that takes any size; early steps cost less (Tan, Le: EfficientNetV2. ICML, 2021, section 4).
    """

    loss: Literal["cross_entropy", "brier", "cosine", "cosface", "arcface"] = "cross_entropy"
    """`brier`: the squared distance between predicted probabilities and the one-hot label (Brier, 1950).

    `cosface` and `arcface`: cross-entropy where the true class must win by `margin`, for an output layer of cosines.

    `cosine`: 1 less the cosine between the logits and the one-hot label, plus `cross_entropy_weight` times the
    cross-entropy, for few samples (Barz, Denzler: Deep learning on small datasets without pre-training using cosine
    loss. WACV, 2020).
    """

    margin: float = 0.2
    """Margin of `cosface`, a difference of cosines, or of `arcface`, in radians."""

    cross_entropy_weight: float = 0.1
    """Factor of the cross-entropy in the loss `cosine`: lambda in equation 6 of Barz and Denzler."""

    distill_alpha: float = 0.9
    """Fraction of the loss that compares with a teacher's outputs; the rest compares with the labels."""

    distill_temperature: float = 4.0
    """Temperature that divides both networks' logits before they are compared, so that small probabilities count."""

    feature_weight: float = 0.0
    """Factor of the feature distillation loss, which is added to that of logits; 0: features are not compared."""

    label_smoothing: float = 0.0
    """Fraction of each label that is spread evenly over all classes."""

    class_weights: Literal["balanced", "effective"] | None = None
    """`balanced`: a sample weighs n / (classes * samples of its class), against imbalance; None: each weighs 1.

    `effective`: in inverse proportion to the effective number of its class's samples, (1 - beta^n) / (1 - beta), which
    lies between weighing all classes alike and all samples alike (Cui et al.: Class-balanced loss based on effective
    number of samples. CVPR, 2019).
    """

    effective_beta: float = 0.999
    """beta of `class_weights=effective`: 0 weighs all samples alike; near 1 is `balanced`."""

    sampler: Literal["shuffle", "balanced"] = "shuffle"
    """`balanced`: an epoch draws with replacement, each class equally often; `shuffle`: each sample once."""

    optimizer: Literal["sgd", "adam", "adamw"] = "adamw"
    """`adam` adds weight decay to the gradient, `adamw` applies it to the weights."""

    learning_rate: float = 2e-3
    """Peak of the schedule."""

    momentum: float = 0.9
    """Momentum of SGD."""

    betas: tuple[float, float] = DEFAULT_BETAS
    """Decay rates of the first and the second moment, for Adam and AdamW."""

    nesterov: bool = True
    """Nesterov momentum, for SGD."""

    weight_decay: float = 0.01
    """Weight decay of parameters of two or more dimensions: biases and normalization have none."""

    schedule: Literal["constant", "cosine", "one_cycle"] = "one_cycle"
    """Learning rate schedule; see `falconet.training.schedules`."""

    warmup: float = 0.1
    """Fraction of all steps over which the learning rate rises to its peak."""

    clip_norm: float | None = 5.0
    """Largest norm of all gradients together; larger ones are scaled down. None: no limit."""

    ema_decay: float | None = None
    """Decay of the exponential moving average of the weights, which is then validated and kept; None: no average."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Device to train on; `auto` is a CUDA GPU where there is one, else the CPU."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Format of convolutions and matrix products in training; weights stay float32, and evaluation is in float32.

    `auto`: bfloat16 where the device supports it and the network is faster in it, else float16 with CUDA, float32
    elsewhere; see `falconet.training.devices`.
    """

    linear_probe: Literal["logistic", "ridge"] | None = None
    """Solver of the output layer in the first epoch, on the features of the network before training; None: no probe.

    There are no steps, augmentation or learning rate then; see `falconet.training.linear_probe`. Further epochs train
    as usual.
    """

    freeze: Literal["backbone", "norm"] | None = None
    """`backbone`: only the output layer is trained; `norm`: all layers, but batch normalization keeps its statistics.

    None: all layers are trained. Few samples in small batches would spoil the statistics of published weights.
    """

    unfreeze_after: int | None = None
    """Epochs after which the frozen backbone is trained too; None: never."""

    compile: bool = False
    """Whether torch.compile compiles the network, which takes a minute or more at first, and a C++ compiler."""

    layer_decay: float = 1.0
    """Learning rate of each block as a fraction of the next block's; the output layer has the full one."""

    recover: bool = False
    """Whether a loss that is not finite rolls back to the last epoch's end, at half the learning rate; False: stop."""

    restore: Literal["best", "last"] = "best"
    """Epoch whose weights are kept. `last` is for validation splits so small that the best epoch is luck."""

    patience: int | None = None
    """Epochs without a better one after which training stops; None: no early stopping."""

    checkpoint_seconds: float = 300.0
    """Seconds between checkpoints within an epoch; one is also written after each epoch."""

    seed: int = 0
    """Seed of initial weights, order of samples, augmentation and dropout."""

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("epochs", "batch_size"):
            require(getattr(self, name) >= 1, name, "1 or more", getattr(self, name))
        require(self.patience is None or self.patience >= 1, "patience", "1 or more, or null", self.patience)
        patient = self.patience is None or self.restore == "best"
        require(patient, "patience", "null where restore=last", self.patience)
        wanted = f"1 to {self.epochs - 1}, with freeze=backbone, or null"
        after = self.unfreeze_after
        possible = after is None or (1 <= after < self.epochs and self.freeze == "backbone")
        require(possible, "unfreeze_after", wanted, after)
        solved = self.loss == "cross_entropy" or self.linear_probe is None
        require(solved, "linear_probe", "null with a loss other than cross_entropy", self.linear_probe)
        for name in ("initial_scale", "layer_decay"):
            require(0 < getattr(self, name) <= 1, name, "above 0 and up to 1", getattr(self, name))
        require(0 < self.learning_rate < float("inf"), "learning_rate", "above 0", self.learning_rate)
        require(self.checkpoint_seconds > 0, "checkpoint_seconds", "above 0", self.checkpoint_seconds)
        require(0 < self.distill_alpha <= 1, "distill_alpha", "above 0 and up to 1", self.distill_alpha)
        temperature = self.distill_temperature
        require(0 < temperature < float("inf"), "distill_temperature", "above 0", temperature)
        require(0 <= self.feature_weight < float("inf"), "feature_weight", "0 or more", self.feature_weight)
        require(0 <= self.margin <= 1, "margin", "0 to 1", self.margin)
        require(0 <= self.weight_decay < float("inf"), "weight_decay", "0 or more", self.weight_decay)
        weight = self.cross_entropy_weight
        require(0 <= weight < float("inf"), "cross_entropy_weight", "0 or more", weight)
        for name in ("label_smoothing", "momentum", "warmup", "effective_beta"):
            require(0 <= getattr(self, name) < 1, name, "0 or more and below 1", getattr(self, name))
        right = all(0 <= beta < 1 for beta in self.betas)
        require(right, "betas", "two of 0 or more and below 1", list(self.betas))
        require(self.clip_norm is None or self.clip_norm > 0, "clip_norm", "above 0, or null", self.clip_norm)
        decay = self.ema_decay
        require(decay is None or 0 < decay < 1, "ema_decay", "between 0 and 1, or null", decay)
        require(0 <= self.seed < 2**31, "seed", "0 to 2147483647", self.seed)


def read_training(given: TrainConfig | Mapping[str, Any] | None, argument: str) -> TrainConfig:
    """Return the configuration that a function was given: a TrainConfig, a mapping of what differs, or None.

    Raises UsageError for anything else, UnknownNameError and ConfigError for what is no setting, each by `argument`.
    """
    named = rename_section("training", given) if isinstance(given, Mapping) else given
    return take_config(TrainConfig, named, argument)


def warn_balance(config: TrainConfig) -> tuple[str, ...]:
    """Return a warning where imbalance is corrected twice, so that rare classes weigh too much."""
    if config.class_weights is None or config.sampler != "balanced":
        return ()
    return (
        f"warning: class_weights={config.class_weights} and sampler=balanced correct the same imbalance twice, so that "
        "rare classes count for too much; leave one of them out",
    )


def require(condition: bool, name: str, wanted: str, found: object) -> None:
    """Raise ConfigError unless a field's condition holds."""
    if not condition:
        raise ConfigError(f"{name}: wanted {wanted}, found {found}")
