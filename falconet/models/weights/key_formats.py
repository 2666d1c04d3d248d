"""Layouts: how other libraries name a network's tensors, and what those names are here.

    layout       what it looks like                       where it comes from
    falconet     the network's own names, torchvision's   torchvision; timm's ResNets; trained models of falconet
    timm         conv_stem, blocks.0.0.conv_dw, ...       timm's EfficientNets
    tensorflow   _conv_stem, _blocks.0._bn1, ...          ports of TensorFlow's EfficientNets, padded as "same"; those
                                                          of Lite take (x - 127) / 128
    caffe        conv1, fire2/squeeze1x1, ..., conv10     SqueezeNet 1.0 as published, for BGR in 0..255
    bert         embeddings.word_embeddings, ...          BERTs of Hugging Face's transformers, such as MiniLM

Networks here take RGB in 0..1: kernels for BGR are turned around, and a range of 0..255 becomes part of mean and
std; neither changes an answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

from torch import Tensor

from falconet.models.meta_model import create_meta_model
from falconet.models.weights.formats import State
from falconet.spec import ResizeMode

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CAFFE_MEAN, _CAFFE_STD = (123 / 255, 117 / 255, 104 / 255), (1 / 255,) * 3
"""Mean and std of red, green and blue, in units of 0..1."""


@dataclass(frozen=True)
class _KeyFormat:
    """A way of naming a network's tensors, and what networks that are named so were trained with."""

    name: str
    marker: str
    """Key that no other layout has."""
    rename: Callable[[str, State], dict[str, Tensor]]
    """Returns the tensors of an architecture under the names that they have here."""
    options: Mapping[str, Any] = field(default_factory=dict)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    resize_mode: ResizeMode = "crop"


TENSORFLOW_OPTIONS: Mapping[str, Any] = MappingProxyType({"padding": "same", "norm_eps": 1e-3})


def _rename_own(name: str, state: State) -> dict[str, Tensor]:
    """Return a state as it is, but for an output layer that other code for CIFAR calls "linear"."""
    return {re.sub(r"^linear\.", "fc.", key): value for key, value in state.items()}


def _rename_caffe(name: str, state: State) -> dict[str, Tensor]:
    """Return SqueezeNet 1.0's tensors with torchvision's names; its first kernels, for BGR, turned to RGB."""
    places = {"conv1": "features.0", "conv10": "classifier.1"}
    places |= {
        f"fire{fire}": f"features.{index}" for fire, index in zip(range(2, 10), (3, 4, 5, 7, 8, 9, 10, 12), strict=True)
    }
    renamed = {}
    for key, value in state.items():
        layer, _, rest = key.replace("/", ".").replace("squeeze1x1", "squeeze").partition(".")
        renamed[f"{places.get(layer, layer)}.{rest}"] = value
    first = "features.0.weight"
    return {**renamed, first: renamed[first].flip(1)} if first in renamed else renamed


@dataclass(frozen=True)
class _BlockNames:
    """Names of the layers in a layout of EfficientNets."""

    pattern: str
    """Pattern of a block's name."""
    outside: Mapping[str, str]
    """Names here of the layers outside of blocks, by their names in the layout."""
    expanding: tuple[tuple[str, str], ...]
    """Layers of a block with an expansion, in order: a convolution and its normalization, or two convolutions."""
    plain: tuple[tuple[str, str], ...]
    """Layers of any other block, in order."""
    sign: str
    """Layer that only expanding blocks have."""


_TIMM = _BlockNames(
    pattern=r"blocks\.(\d+)\.(\d+)",
    outside={
        "conv_stem": "features.0.0",
        "bn1": "features.0.1",
        "conv_head": "features.8.0",
        "bn2": "features.8.1",
        "classifier": "classifier.1",
    },
    expanding=(("conv_pw", "bn1"), ("conv_dw", "bn2"), ("se.conv_reduce", "se.conv_expand"), ("conv_pwl", "bn3")),
    plain=(("conv_dw", "bn1"), ("se.conv_reduce", "se.conv_expand"), ("conv_pw", "bn2")),
    sign="conv_pwl",
)
_TENSORFLOW = _BlockNames(
    pattern=r"_blocks\.(\d+)",
    outside={
        "_conv_stem": "features.0.0",
        "_bn0": "features.0.1",
        "_conv_head": "features.8.0",
        "_bn1": "features.8.1",
        "_fc": "classifier.1",
    },
    expanding=(
        ("_expand_conv", "_bn0"),
        ("_depthwise_conv", "_bn1"),
        ("_se_reduce", "_se_expand"),
        ("_project_conv", "_bn2"),
    ),
    plain=(("_depthwise_conv", "_bn1"), ("_se_reduce", "_se_expand"), ("_project_conv", "_bn2")),
    sign="_expand_conv",
)


def _rename_blocks(names: _BlockNames, name: str, state: State) -> dict[str, Tensor]:
    """Return an EfficientNet's tensors with the names that they have here; unknown ones keep theirs."""
    ours = create_meta_model(name).state_dict()
    targets = dict.fromkeys(match[0] for key in ours if (match := re.match(r"features\.\d+\.\d+(?=\.block)", key)))
    blocks = {match[0]: match.groups() for key in state if (match := re.match(names.pattern, key))}
    # Numbers, not names: block 10 comes after block 9.
    ordered = sorted(blocks, key=lambda block: [int(number) for number in blocks[block]])
    layers = dict(names.outside)
    for block, target in zip(ordered, targets, strict=False):
        layers |= _rename_layers(names, state, block, target)
    renamed = {}
    for key, value in state.items():
        layer, _, part = key.rpartition(".")
        renamed[f"{layers.get(layer, layer)}.{part}"] = value
    return renamed


def _rename_layers(names: _BlockNames, state: State, block: str, target: str) -> dict[str, str]:
    """Return what the layers of one block are called here."""
    pairs = names.expanding if f"{block}.{names.sign}.weight" in state else names.plain
    present = [pair for pair in pairs if f"{block}.{pair[0]}.weight" in state]
    layers: dict[str, str] = {}
    for index, pair in enumerate(present):
        parts = ("fc1", "fc2") if "reduce" in pair[0] else ("0", "1")
        layers |= {f"{block}.{old}": f"{target}.block.{index}.{new}" for old, new in zip(pair, parts, strict=True)}
    return layers


_BERT_LAYERS: Mapping[str, str] = MappingProxyType(
    {
        "embeddings.word_embeddings": "encoder.embedding",
        "embeddings.position_embeddings": "positions",
        "embeddings.token_type_embeddings": "sentences",
        "embeddings.LayerNorm": "norm",
        "attention.self.query": "query",
        "attention.self.key": "key",
        "attention.self.value": "value",
        "attention.output.dense": "projection",
        "attention.output.LayerNorm": "norm1",
        "intermediate.dense": "fc1",
        "output.dense": "fc2",
        "output.LayerNorm": "norm2",
    }
)
"""Names here of BERT's layers, and of the layers of its blocks."""


def rename_bert(layer: str) -> str:
    """Return what a layer of BERT is called here; an unknown one keeps its name."""
    block = re.match(r"encoder\.layer\.(\d+)\.(.+)", layer)
    if block is None:
        return _BERT_LAYERS.get(layer, layer)
    return f"blocks.{block[1]}.{_BERT_LAYERS.get(block[2], block[2])}"


OWN = _KeyFormat("falconet", "", _rename_own)
KEY_FORMATS = (
    _KeyFormat("timm", "conv_stem.weight", partial(_rename_blocks, _TIMM), MappingProxyType({"norm_eps": 1e-5})),
    _KeyFormat("tensorflow", "_conv_stem.weight", partial(_rename_blocks, _TENSORFLOW), TENSORFLOW_OPTIONS),
    _KeyFormat("caffe", "fire2/squeeze1x1.weight", _rename_caffe, {}, _CAFFE_MEAN, _CAFFE_STD, "stretch"),
)
