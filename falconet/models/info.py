"""Facts of a network besides its modules: which input it was built for, and which layer outputs its logits.

`create_model` notes both on the network that it returns. They are no part of its state, but of its copies, and so of
those that lose channels or get other layers.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from falconet.errors import ConfigError
from falconet.modalities import MODALITIES
from falconet.spec import ModalityName

_ATTRIBUTE = "model_info"
"""Attribute of a network that holds its ModelInfo."""


@dataclass(frozen=True)
class ModelInfo:
    """Kind and shape of the input that a network was built for, and its classifier."""

    kind: ModalityName
    """Kind of sample that the network takes."""

    shape: tuple[int, ...]
    """Shape of one input, without the batch dimension; of a text, the number of tokens."""

    classifier: str | None = None
    """Name of the layer that outputs the logits, from the table of models; None: see `find_classifiers`."""

    def make_blank(self) -> Tensor:
        """Return a batch of one input of ones."""
        return MODALITIES[self.kind].make_blank(1, *self.shape)


def set_model_info(model: nn.Module, info: ModelInfo) -> None:
    """Note what a network was built as, as its attribute `model_info`."""
    setattr(model, _ATTRIBUTE, info)


def get_model_info(model: nn.Module) -> ModelInfo:
    """Return what a network was built as. Raises ConfigError where nobody noted it."""
    info = _find_model_info(model)
    if info is None:
        wanted = "a network of create_model, or one described by falconet.models.info.set_model_info"
        raise ConfigError(f"model: wanted {wanted}, found {type(model).__name__}")
    return info


def _find_model_info(model: nn.Module) -> ModelInfo | None:
    # Its own alone: a wrapper, such as torch.compile's, may hand on attributes, but has other names for the layers.
    info = vars(model).get(_ATTRIBUTE)
    return info if isinstance(info, ModelInfo) else None


def find_classifiers(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the layers that make the logits.

    It is the one that the table of models names, as long as it is one layer. Other networks tell by timm's method
    `get_classifier`, a few of them two, whose logits they average; of any other, it is the last layer with parameters.
    """
    info = _find_model_info(model)
    if info is not None and info.classifier is not None and _is_layer(model, info.classifier):
        return (info.classifier,)
    ask = getattr(model, "get_classifier", None)
    if ask is None:
        return (_find_last(model),)
    heads = ask()
    wanted = list(heads) if isinstance(heads, tuple | list) else [heads]
    return tuple(name for name, module in model.named_modules() if any(module is head for head in wanted))


def find_trainable_classifiers(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the last layers with parameters: those that make the logits, or that before a fixed one."""
    outputs = find_classifiers(model)
    if any(list(model.get_submodule(name).parameters()) for name in outputs):
        return outputs
    return (_find_last(model),)


def _find_last(model: nn.Module) -> str:
    """Return the name of the layer that has the last parameters."""
    return list(dict(model.named_parameters()))[-1].rpartition(".")[0]


def _is_layer(model: nn.Module, name: str) -> bool:
    """Tell whether a network has a layer of this name, in whose place nobody has put several."""
    module = dict(model.named_modules()).get(name)
    return module is not None and not list(module.children())
