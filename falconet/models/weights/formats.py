"""Files of weights in any known format, from bytes to tensors.

They are `.pth`, `.pt`, `.safetensors`, `.npz`, or `.net`: SqueezeNet after Deep Compression, as its authors have it.
Nothing is unpickled but tensors. Coded models (`.fnet`) are read by `falconet.codec`.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from falconet.errors import ArtifactError, OutOfMemoryError, PathError
from falconet.model_files import CODED_FILE
from falconet.storage import check_safetensors, read_regular

State = Mapping[str, Tensor]

CODED_SUFFIX = Path(CODED_FILE).suffix


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file of weights. Raises PathError for another kind of file, ArtifactError for damage."""
    _find_reader(path)  # Before it is read.
    return parse_weights(path, read_weight_content(path))


def _find_reader(path: Path) -> Callable[[bytes], dict[str, Tensor]]:
    """Return what reads files of this kind. Raises PathError where nothing does."""
    readers = {
        ".pth": _read_torch,
        ".pt": _read_torch,
        ".safetensors": _read_safetensors,
        ".npz": _read_arrays,
        ".net": _read_compressed,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        known = ", ".join((*readers, CODED_SUFFIX))
        raise PathError(f"{path}: wanted weights as {known}, found {path.suffix or 'no extension'}")
    return reader


def read_weight_content(path: Path) -> bytes:
    """Return a file's bytes. Raises PathError."""
    try:
        return read_regular(path)
    except OSError as error:
        raise PathError(f"{path}: {error.strerror or error}") from error


def parse_weights(path: Path, content: bytes) -> dict[str, Tensor]:
    """Return the tensors in a file's bytes; its name says how they are written. Raises ArtifactError for damage."""
    try:
        _check_inflation(content)
        return _find_reader(path)(content)
    except MemoryError as error:
        raise OutOfMemoryError(f"{path}: wanted memory for its weights, found too little left") from error
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from error


_INFLATION = 64
"""Most bytes of an inflated file of weights for each byte of the file, beyond 2**24."""


def _check_inflation(content: bytes) -> None:
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
    if size > _INFLATION * len(content) + (1 << 24):
        raise ArtifactError(f"wanted at most {_INFLATION} times its {len(content)} bytes when inflated, found {size}")


def _read_torch(content: bytes) -> dict[str, Tensor]:
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


def _read_safetensors(content: bytes) -> dict[str, Tensor]:
    import safetensors.torch

    try:
        check_safetensors(content)
        return safetensors.torch.load(content)
    except (safetensors.SafetensorError, ValueError) as error:
        raise ArtifactError(f"damaged: {error}") from error


def _read_arrays(content: bytes) -> dict[str, Tensor]:
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
"""Layers of SqueezeNet 1.0 in the order of its compressed file: output channels, input channels and kernel size."""

_LEVELS = 256
"""Entries of a layer's codebook."""


def _read_compressed(content: bytes) -> dict[str, Tensor]:
    """Decode SqueezeNet's Deep Compression file (Han, Mao and Dally, ICLR 2016; file of 2016).

    Little-endian: for each of the 26 layers the number of its stored weights, as uint32; then for each layer a codebook
    of 256 float32, float32 biases, a codebook's index of 8 bits for each stored weight, and for each the number of zero
    weights that it follows, of 4 bits, the lower half of a byte first. Raises ArtifactError unless all of it fits.
    """
    reader = _Reader(content)
    counts = reader.take("<u4", len(CAFFE_LAYERS)).tolist()
    weights: dict[str, Tensor] = {}
    for (layer, (outputs, inputs, side)), count in zip(CAFFE_LAYERS.items(), counts, strict=True):
        codebook, bias = reader.take("<f4", _LEVELS), reader.take("<f4", outputs)
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


class _Reader:
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
