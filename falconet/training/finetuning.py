"""Fine-tuning: freezing of layers, and learning rates by layer."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from falconet.models.info import find_trainable_classifiers
from falconet.training.config import TrainConfig


def freeze(model: nn.Module, config: TrainConfig, epoch: int) -> None:
    """Train only the output layer in an epoch, counted from 1, in which the backbone is frozen.

    Batch normalization keeps its statistics in a frozen backbone, and with `freeze=norm` in a trained one too.
    """
    if config.freeze is None:
        return
    if config.freeze == "norm":
        _keep_statistics(model)
        return
    frozen = is_frozen(config, epoch)
    outputs = tuple(f"{name}." for name in find_trainable_classifiers(model))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not frozen or name.startswith(outputs))
    if frozen:
        _keep_statistics(model)


def _keep_statistics(model: nn.Module) -> None:
    """Let batch normalization use its running statistics without an update."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


def unfreeze(model: nn.Module, config: TrainConfig) -> None:
    """Make all of a network trainable again that training has frozen."""
    if config.freeze is not None:
        model.requires_grad_(True)


def is_frozen(config: TrainConfig, epoch: int) -> bool:
    """Return whether only the output layer is trained in an epoch."""
    return config.freeze == "backbone" and (config.unfreeze_after is None or epoch <= config.unfreeze_after)


def scale_rates(model: nn.Module, decay: float) -> Iterator[tuple[nn.Parameter, float]]:
    """Yield each parameter with the factor of its learning rate: `decay` for each block below the output layer.

    A block is a parameter's name up to its first number, or else its layer: `layer1.0`, `features.denseblock2`, `conv1`
    (Howard and Ruder, ACL 2018, section 3.2, went layer by layer).
    """
    names = [name for name, _ in model.named_parameters()]
    blocks = list(dict.fromkeys(map(find_block, names)))
    for name, parameter in model.named_parameters():
        yield parameter, decay ** (len(blocks) - 1 - blocks.index(find_block(name)))


def find_block(name: str) -> str:
    """Return the part of a parameter's name up to its first number, or the layer's name where there is none.

    A number may end a part, such as `encoder_layer_3`, but not the first: `layer1` is a stage of blocks.
    """
    parts = name.split(".")
    layer = parts[:-1] or parts
    ends = [index + 1 for index, part in enumerate(layer) if part.isdecimal() or (index and part[-1].isdecimal())]
    return ".".join(layer[: ends[0]] if ends else layer)
