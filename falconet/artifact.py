"""Artifact: the on-disk form of a trained model, all that verbs pass to each other. Imports torch late."""

from __future__ import annotations

import dataclasses
import itertools
import os
import platform
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import yaml

from falconet import codec, hub
from falconet.catalog import as_name, is_hub_source
from falconet.data.splits import Columns, DataConfig, Nearness
from falconet.data.texts import abridge_tokenizer, check_tokenizer, restore_tokenizer
from falconet.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    FalconetError,
    OutOfMemoryError,
    PathError,
    UsageError,
    abridge,
    lacks_memory,
)
from falconet.escaping import escape_line
from falconet.modalities import modality_of
from falconet.model_files import (
    ARTIFACT_FILES,
    CODED_FILE,
    CONFIG_FILE,
    DERIVED_FILES,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    check_artifact,
    check_repository,
    is_coded,
    redact_name,
)
from falconet.models import create_model
from falconet.schema import KEY, SPARSE, check_finite_fields, from_mapping, to_mapping
from falconet.spec import FLOAT32_LEAST, FLOAT32_MOST, InputSpec, ModalityName, OutputSpec, upgrade_record
from falconet.storage import check_safetensors, format_json, open_regular, parse_json, read_regular, read_settled, swap

if TYPE_CHECKING:
    from torch import Tensor, nn

    from falconet.data.preprocessing import AnyPreprocess
    from falconet.models.meta_model import TensorMeta

_DIGESTS = {WEIGHTS_FILE: "weights_sha256", CODED_FILE: "coded_sha256", TOKENIZER_FILE: "tokenizer_sha256"}
"""Keys of `config.json` that hold the hash of a file beside it."""
_FORMAT_VERSION = 2
_MAX_BATCH = 256


@dataclass(frozen=True)
class DataOrigin:
    """The data set that a model was trained on, so that the same test set can be found again."""

    source: str
    """Name or path of the source, as the user wrote it; of an absolute path, `config.json` has only the last part."""
    fingerprint: str
    """Fingerprint of the whole source; see `falconet.data.Dataset.fingerprint`."""
    split_seed: int | None
    """Seed of the splits that were made; None where the source has its own."""
    val_fraction: float
    test_fraction: float
    kind: ModalityName | None = None
    """Kind of the samples, as set; None: it was guessed."""
    columns: Columns = field(default_factory=Columns)
    follow: bool = False
    near_duplicates: Nearness = "apart"
    """How near duplicates were placed where splits were made; models of earlier versions only know `apart`."""
    splits_fingerprint: str | None = field(default=None, metadata={SPARSE: True})
    """Fingerprint of the splits; see `falconet.data.Dataset.splits_fingerprint`. None in models of earlier versions."""

    def __post_init__(self) -> None:
        check_finite_fields(self)

    @property
    def config(self) -> DataConfig:
        """Settings by which the source was read and split."""
        seed = 0 if self.split_seed is None else self.split_seed
        return DataConfig(
            kind=self.kind,
            columns=self.columns,
            follow=self.follow,
            split_seed=seed,
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            near_duplicates=self.near_duplicates,
        )


@dataclass(frozen=True)
class Provenance:
    """Provenance of a model: its data, seed, epochs and recipe."""

    data: DataOrigin
    seed: int
    epochs: int
    best_epoch: int
    recipe: str | None = None
    refit: bool | None = field(default=None, metadata={SPARSE: True})
    """True where the model was refitted on training and validation samples: the latter no longer evaluate it."""
    refit_teacher: bool | None = field(default=None, metadata={SPARSE: True})
    """True where its teacher was refitted on the same data: validation metrics of the model are too optimistic."""


UNKNOWN = Provenance(DataOrigin("", "", None, 0.1, 0.2), seed=0, epochs=0, best_epoch=0)
"""Provenance of a model whose file came alone."""


@dataclass(frozen=True)
class ArtifactConfig:
    """Content of `config.json`."""

    architecture: str
    input: InputSpec
    output: OutputSpec
    provenance: Provenance
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the architecture."""
    widths: Mapping[str, Any] | None = None
    """How compression changed the structure, by layer (see `falconet.models.widths`); None: it did not."""
    calibration_temperature: float = field(default=1.0, metadata={KEY: "temperature"})
    """Temperature that divides logits before the softmax, fitted on the validation split (Guo et al., 2017); 1, which
    changes nothing, for a model that was never calibrated."""
    versions: Mapping[str, Any] = field(default_factory=dict)
    format_version: int = _FORMAT_VERSION

    def __repr__(self) -> str:
        return f"ArtifactConfig({_describe(self)})"

    def __post_init__(self) -> None:
        temperature = self.calibration_temperature
        if not FLOAT32_LEAST <= temperature <= FLOAT32_MOST:
            raise ConfigError(f"calibration_temperature: wanted a positive, finite number, found {temperature}")
        check_finite_fields(self)


def _describe(config: ArtifactConfig) -> str:
    """Return what a model is, for its representation."""
    shape = "x".join(map(str, config.input.shape))
    return f"{escape_line(config.architecture)}, {config.input.kind} {shape}, {config.output.num_outputs:,} classes"


@dataclass(frozen=True, eq=False)
class Artifact:
    """A trained model with all that is needed to use it."""

    config: ArtifactConfig
    weights: Mapping[str, Tensor]
    tokenizer: str | None = None
    """Tokenizer as JSON of the `tokenizers` library; None: the model does not read texts."""
    coded: bytes | None = None
    """Content of `model.fnet`; None: the model is not compressed."""
    path: Path | None = None
    """Folder, file or hub's name that the model was read from, as given; None: it was made in memory."""

    def __repr__(self) -> str:
        path = "" if self.path is None else f", {escape_line(str(self.path))}"
        return f"Artifact({_describe(self.config)}{path})"

    @cached_property
    def model(self) -> nn.Module:
        """The network with its weights, in eval mode.

        Raises ArtifactError where they do not fit each other, before there is memory for more than the weights have,
        and where a sample would take more than `falconet.models.forward_cost` allows; OutOfMemoryError where even less
        is not left.
        """
        import torch

        from falconet.models.meta_model import outline_tensor

        # Whoever asks first may be in inference mode; the weights must be fit for gradients all the same.
        with torch.inference_mode(mode=False), _enough_memory(f"the weights of {self.config.architecture}"):
            found = {name: outline_tensor(tensor) for name, tensor in self.weights.items()}
            model = _realize(_outline(self.config, found), self.config)
            model.load_state_dict(dict(self.weights))
            # As in training: processors convolve and pool up to nine times faster with the channels innermost.
            model = model.eval().to(memory_format=torch.channels_last)
            check_forward(model, self.make_blank(), self.config)
            return model

    def follow_module(self) -> Artifact:
        """Return the artifact of the weights that `model` has now.

        Where they are others than those that it was built with, the network goes with the new artifact, whose logits
        nothing has calibrated, and which has no coded file. Raises ArtifactError for weights that do not fit the
        configuration, are no numbers, or are not on the CPU in single precision.
        """
        model = vars(self).get("model")  # Without building one that nobody has asked for.
        if model is None:
            return self
        import torch

        found: dict[str, Tensor] = model.state_dict()
        shapes, wanted = ({(name, tensor.shape) for name, tensor in some.items()} for some in (found, self.weights))
        if shapes != wanted:
            name, _ = min(shapes ^ wanted)
            raise ArtifactError(
                f"module: wanted the tensors of {self.config.architecture}, found {name} added, removed or of another "
                "shape; a network whose layers are changed is one of your own, which torch.save keeps"
            )
        for tensor in found.values():
            strange = tensor.is_floating_point() and tensor.dtype != torch.float32
            if strange or tensor.device.type != "cpu":
                what = f"{tensor.dtype} on {tensor.device}".removeprefix("torch.")
                raise ArtifactError(f"module: wanted float32 on the CPU, found {what}; call module.float().cpu() first")
        if all(torch.equal(found[name], tensor) for name, tensor in self.weights.items()):
            return self
        _check_finite(found)
        weights = {name: tensor.detach().clone() for name, tensor in found.items()}
        config = dataclasses.replace(self.config, calibration_temperature=1.0)
        changed = dataclasses.replace(self, config=config, weights=weights, coded=None)
        vars(changed)["model"] = vars(self).pop("model")
        return changed

    @cached_property
    def batch_size(self) -> int:
        """Batch size of predictions: 256, or fewer where the layers take much memory."""
        from falconet.models.forward_cost import BATCH_BYTES, measure_forward

        _, size = measure_forward(self.model, self.make_blank())
        return max(1, min(_MAX_BATCH, BATCH_BYTES // size))

    @cached_property
    def preprocess(self) -> AnyPreprocess:
        """Module that turns raw samples into the network's input. Raises DataError for a damaged tokenizer."""
        import torch

        from falconet.data.preprocessing import create_preprocess

        with torch.inference_mode(mode=False):  # As with the model: attacks follow gradients through normalization.
            return create_preprocess(self.config.input, self.tokenizer)

    def make_blank(self) -> Tensor:
        """Return a batch of one input of ones as the network takes it, to measure the cost of a prediction."""
        spec = self.config.input
        return modality_of(spec).make_blank(1, *spec.shape)

    @property
    def weights_file(self) -> str:
        """Name of the file that holds the weights."""
        return WEIGHTS_FILE if self.coded is None else CODED_FILE

    def serialize(self) -> bytes:
        """Return the content of `model.fnet` for a compressed model, else of `model.safetensors`."""
        if self.coded is not None:
            return self.coded
        import safetensors.torch

        return safetensors.torch.save({name: tensor.detach().contiguous() for name, tensor in self.weights.items()})

    @property
    def digest(self) -> str:
        """SHA-256 of the weights' file, which cards, reports and metrics of these weights name."""
        return sha256(self.serialize()).hexdigest()

    def save(self, folder: str | Path, derived: Mapping[str, str] | None = None) -> None:
        """Write the weights, the tokenizer where there is one, `derived` files and `config.json`, all in one step.

        What `folder` holds of an earlier model goes in the same step, so that no card or figures of it stand beside
        these weights. `derived` are texts by name, of those in DERIVED_FILES. Raises StorageError, and RunExistsError
        where another process is at work in the folder.
        """
        contents = {self.weights_file: self.serialize()}
        if self.tokenizer is not None:
            contents[TOKENIZER_FILE] = self.tokenizer.encode()
        digests = {_DIGESTS[name]: sha256(content).hexdigest() for name, content in contents.items()}
        contents |= {name: text.encode("utf-8", "backslashreplace") for name, text in (derived or {}).items()}
        contents[CONFIG_FILE] = format_json({**to_mapping(redact_config(self.config)), **digests}).encode()
        # Without a model in the folder, a README.md there is somebody's own.
        removed = ARTIFACT_FILES if (Path(folder) / CONFIG_FILE).is_file() else ()
        swap(Path(folder), contents, removed)


@runtime_checkable
class HoldsArtifact(Protocol):
    """Object that has an artifact, such as a `falconet.Model`."""

    @property
    def artifact(self) -> Artifact: ...


AnyModel = str | Path | Artifact | HoldsArtifact
"""Model that commands take: its path or name on the hub, or an object in memory."""


def open_artifact(model: object) -> Artifact:
    """Return the artifact of a model at hand, else read the one that a path or a hub's name leads to.

    Raises UsageError for what is none of these, and what `load_artifact` raises.
    """
    if isinstance(model, Artifact):
        return model
    if isinstance(found := getattr(model, "artifact", None), Artifact):
        # Its network may come from somebody's own loop, in training mode.
        if "model" in vars(found):
            found.model.eval()
        return found
    if isinstance(model, str | Path):
        return load_artifact(model)
    wanted = "a falconet.Model, or the path of a trained model's folder or file"
    raise UsageError(f"model: wanted {wanted}, found {type(model).__name__}")


def redact_config(config: ArtifactConfig) -> ArtifactConfig:
    """Return a config as others may read it: without paths of this machine."""
    origin = config.provenance
    data = dataclasses.replace(origin.data, source=redact_name(origin.data.source))
    recipe = origin.recipe and redact_name(origin.recipe)
    return dataclasses.replace(config, provenance=dataclasses.replace(origin, data=data, recipe=recipe))


_LOCAL_FILES = ("config.yaml", "search/search.json")
"""Files beside an artifact that are never uploaded; both are read as YAML."""


_BEGINNING, _EVENTS = 1 << 14, 6
"""Bytes at a file's beginning, and events of YAML within them, that hold the source, which comes first."""


def find_source(folder: Path, origin: DataOrigin) -> DataOrigin:
    """Return where a model's data lie on this machine, by what only stays here: the run's settings, or its search."""
    for name in _LOCAL_FILES:
        with suppress(OSError, ValueError, yaml.YAMLError):
            with open_regular(folder / name) as file:
                text = file.read(_BEGINNING).decode(errors="ignore")
            events = itertools.islice(yaml.parse(text, Loader=yaml.SafeLoader), _EVENTS)
            words = [event.value for event in events if isinstance(event, yaml.ScalarEvent)]
            found = words[words.index("source") + 1] if "source" in words[:-1] else ""
            if redact_name(found) == origin.source:
                return dataclasses.replace(origin, source=found)
    return origin


_ALONE = ("architecture", "options", "widths", "input", "output", "temperature")
"""Keys of `config.json` that a coded file holds."""


def encode_artifact(artifact: Artifact) -> Artifact:
    """Return the same model as it is kept in a coded file, which holds all that predicting needs."""
    known = to_mapping(artifact.config)
    header = {key: known[key] for key in _ALONE if known[key] not in (None, {})}
    if artifact.tokenizer is not None:
        header["tokenizer"] = abridge_tokenizer(artifact.tokenizer)
    weights = {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in artifact.weights.items()}
    return dataclasses.replace(artifact, coded=codec.encode(header, weights))


def decode_artifact(content: bytes) -> Artifact:
    """Return the model in a coded file, of unknown origin. Raises ArtifactError, CodecError for a damaged file.

    No value is decoded before the header's network has been found to have just the arrays that the file names.
    """
    import torch

    from falconet.models.meta_model import TensorMeta

    with _enough_memory("a coded model"):
        header, entries = codec.read_outline(content)
        tokenizer = header.pop("tokenizer", None)
        try:
            config = from_mapping(ArtifactConfig, {**upgrade_record(header), "provenance": to_mapping(UNKNOWN)})
            text = None if tokenizer is None else restore_tokenizer(tokenizer)
            has_tokens = modality_of(config.input).has_tokens
            if has_tokens and text is not None:
                check_tokenizer(text, modality_of(config.input).in_channels(config.input))
        except (UsageError, DataError) as error:
            raise ArtifactError(f"the coded model's header is damaged: {error}") from error
        if has_tokens != (text is not None):
            found = "without" if text is None else "with"
            raise ArtifactError(
                f"the coded model's header is damaged: a model of {config.input.kind} {found} tokenizer"
            )
        kinds = {"f": "float", "i": "integer", "u": "integer", "b": "bool"}
        _outline(config, {entry.name: TensorMeta(entry.shape, kinds[entry.dtype.kind]) for entry in entries})
        tensors = {name: torch.from_numpy(array) for name, array in codec.decode(content)[1].items()}
        _check_finite(tensors)
        return Artifact(config, tensors, text, content)


def _outline(config: ArtifactConfig, found: Mapping[str, TensorMeta]) -> nn.Module:
    """Return the network that a config describes, without memory for weights.

    Raises ArtifactError where there is none, and where its tensors are not those that were found.
    """
    from falconet.models.meta_model import create_meta_model, find_state_dict_mismatch

    _check_outputs(config, found)
    with _translated_errors():
        structure = {**get_model_kwargs(config.input, config.output), "pretrained": None, "tensors": len(found)}
        model = create_meta_model(config.architecture, config.widths, **structure, **config.options)
    misfit = find_state_dict_mismatch(model, found)
    if misfit is not None:
        raise ArtifactError(f"the weights do not fit {config.architecture}: {misfit}")
    return model


def _check_outputs(config: ArtifactConfig, found: Mapping[str, TensorMeta]) -> None:
    """Raise ArtifactError unless a tensor has an entry for each output: an output layer takes time to be outlined."""
    outputs = config.output.num_outputs
    if not any(outputs in tensor.shape for tensor in found.values()):
        raise ArtifactError(f"the weights do not fit {config.architecture}: none has {outputs} entries, one an output")


def _realize(model: nn.Module, config: ArtifactConfig) -> nn.Module:
    """Return a network, with weights of no use, whose outline was found to have the tensors that are at hand."""
    from falconet.models import MODELS
    from falconet.models.meta_model import allocate_weights

    # Networks of other libraries may keep tensors where only their own code finds them.
    return allocate_weights(model) if config.architecture in MODELS else build_model(config)


def _check_finite(weights: Mapping[str, Tensor]) -> None:
    """Raise ArtifactError for the first tensor that holds NaN or infinity, since predictions would too."""
    import torch

    for name, tensor in weights.items():
        known = tensor.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
        if known and tensor.numel() and not torch.stack(tensor.aminmax()).isfinite().all():
            raise ArtifactError(
                f"wanted weights that are numbers, found NaN or infinity in {name}: train it again, or load it anew"
            )


@contextmanager
def _enough_memory(what: str) -> Iterator[None]:
    """Turn what Python and torch raise without memory into OutOfMemoryError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, FalconetError) or not lacks_memory(error):
            raise
        raise OutOfMemoryError(f"wanted memory for {what}, found too little left") from error


@contextmanager
def _translated_errors() -> Iterator[None]:
    """Turn the errors of a config that describes no network into ArtifactError."""
    try:
        yield
    except (UsageError, TypeError) as error:  # TypeError: an option of a reserved name, such as num_classes
        reason = " ".join(str(error).split())[:400]
        raise ArtifactError(f"{CONFIG_FILE} describes no model that this falconet can build: {reason}") from error


def build_model(config: ArtifactConfig) -> nn.Module:
    """Return the network that a config describes, with weights of no use. Raises ArtifactError where there is none."""
    import torch

    from falconet.models.widths import apply_widths

    with _translated_errors(), torch.random.fork_rng(devices=[]):
        # Never `pretrained`, whatever the options say: a model's file must not name others to be read or fetched.
        structure = get_model_kwargs(config.input, config.output)
        model = create_model(config.architecture, pretrained=None, **structure, **config.options)
        return model if config.widths is None else apply_widths(model, config.widths)


def check_forward(model: nn.Module, sample: Tensor, config: ArtifactConfig) -> None:
    """Raise ArtifactError unless a network computes all outputs of a sample, at an acceptable cost."""
    from falconet.models.forward_cost import measure_forward

    what = config.architecture if config.widths is None else "widths"
    try:
        logits, _ = measure_forward(model, sample)
    except ConfigError as error:
        raise ArtifactError(f"{what}: {error}") from error
    except (RuntimeError, ValueError, IndexError, TypeError, AssertionError, OverflowError) as error:
        if lacks_memory(error):
            raise
        reason = " ".join(str(error).split())[:400]
        raise ArtifactError(f"{what}: wanted layers that fit each other, found others: {reason}") from error
    if logits.shape != (1, config.output.num_outputs):
        found = list(logits.shape[1:])
        raise ArtifactError(f"{what}: wanted {config.output.num_outputs} outputs, found {found[0] if found else found}")


def get_model_kwargs(spec: InputSpec, output: OutputSpec) -> dict[str, Any]:
    """Return what `create_model` takes: kind, classes, channels (of texts: vocabulary size) and size."""
    modality = modality_of(spec)
    return {
        "kind": spec.kind,
        "num_classes": output.num_outputs,
        "in_channels": modality.in_channels(spec),
        "input_size": modality.input_size(spec),
    }


def load_artifact(folder: str | Path) -> Artifact:
    """Read an artifact from a folder, from a coded model's file, or from the Hugging Face Hub.

    The last is written `hf:owner/name` or `hf:owner/name@revision`. Raises PathError where the path holds none,
    ArtifactError where one is damaged or too new, HubError where the hub has none or cannot be asked.
    """
    check_artifact(folder)
    given = Path(as_name(folder))
    folder = hub.fetch_model(as_name(folder)) if is_hub_source(as_name(folder)) else Path(folder)
    if is_coded(folder):
        artifact = decode_file(folder, read_file(folder))
    else:
        artifact = read_settled(folder, CONFIG_FILE, partial(_load_folder, folder))
    return dataclasses.replace(artifact, path=given)


def _load_folder(folder: Path) -> Artifact:
    """Read an artifact from the files of a folder as they are now. Raises ArtifactError."""
    config, digests = read_config(folder / CONFIG_FILE)
    data = find_source(folder, config.provenance.data)
    config = dataclasses.replace(config, provenance=dataclasses.replace(config.provenance, data=data))
    path = folder / _find_weights_file(digests)
    content = read_file(path)
    artifact = decode_file(path, content) if path.name == CODED_FILE else Artifact(config, _read_weights(path, content))
    _check_digest(path, content, digests)
    artifact = dataclasses.replace(artifact, config=config)
    modality = modality_of(config.input)
    if not modality.has_tokens:
        return artifact
    tokenizer = read_file(folder / TOKENIZER_FILE)
    _check_digest(folder / TOKENIZER_FILE, tokenizer, digests)
    try:
        text = tokenizer.decode()
        check_tokenizer(text, modality.in_channels(config.input))
    except (UnicodeDecodeError, DataError) as error:
        raise ArtifactError(f"{folder / TOKENIZER_FILE}: {error}") from error
    return dataclasses.replace(artifact, tokenizer=text)


def _find_weights_file(digests: Mapping[str, str]) -> str:
    """Return the name of the file that holds the weights, by the hashes in `config.json`."""
    return CODED_FILE if CODED_FILE in digests else WEIGHTS_FILE


def _read_weights(path: Path, content: bytes) -> dict[str, Tensor]:
    """Return the tensors of `model.safetensors`. Raises ArtifactError."""
    import safetensors.torch

    try:
        with _enough_memory(str(path)):
            check_safetensors(content)
            weights = safetensors.torch.load(content)
            _check_finite(weights)
            return weights
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from error
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        # It looks up types that torch has under other names, or not at all.
        raise ArtifactError(f"{path} is damaged: {' '.join(str(error).split())[:400]}") from error


def decode_file(path: Path, content: bytes) -> Artifact:
    """`decode_artifact`, with the file's name in errors."""
    try:
        return decode_artifact(content)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from error


def push(folder: str | Path, repository: str, *, private: bool = False) -> str:
    """Upload an artifact to `owner/name` on the Hugging Face Hub, which is made where it is not there yet.

    Returns the address of the commit. Only the artifact's own files leave the machine, only whole and unaltered ones,
    and none that a link leads to; paths of this machine, which `config.json` held once, stay behind. Raises PathError
    and ArtifactError as `load_artifact`, ArtifactError too for a card, report or figures of other weights or with the
    path of the data, MissingExtraError without `huggingface_hub`, HubError without a token or where the hub refuses.
    """
    check_repository(repository)
    if is_hub_source(as_name(folder)):
        raise PathError(f"{as_name(folder)}: wanted a folder of this machine")
    check_artifact(folder)
    path = Path(folder)
    contents = read_settled(path, CONFIG_FILE, partial(_read_shared, path))
    return hub.upload(contents, frozenset(ARTIFACT_FILES), repository, private)


def _read_shared(folder: Path) -> dict[str, bytes]:
    """Return the files of an artifact that are shared, checked. Raises ArtifactError."""
    contents = {
        name: read_file(folder / name, follow=False) for name in ARTIFACT_FILES if os.path.lexists(folder / name)
    }
    config, digests = _parse_config(folder / CONFIG_FILE, contents.get(CONFIG_FILE, b""))
    weights = _find_weights_file(digests)
    needed = (weights, TOKENIZER_FILE) if modality_of(config.input).has_tokens else (weights,)
    for name in needed:
        if name not in contents:
            raise ArtifactError(f"{folder / name} is missing")
        _check_digest(folder / name, contents[name], digests)
    for name in _find_stale(contents, digests[weights]):
        raise ArtifactError(
            f"{folder / name} does not say that it speaks of these weights (weights_sha256: {digests[weights]}): "
            "remove it, train again, or if it is your own, let it say so"
        )
    _check_private(folder, config, {name: contents[name] for name in DERIVED_FILES if name in contents})
    if redact_config(config) != config:
        record = {**to_mapping(redact_config(config)), **{_DIGESTS[name]: digest for name, digest in digests.items()}}
        contents[CONFIG_FILE] = format_json(record).encode()
    kept = (CONFIG_FILE, *needed, *DERIVED_FILES)
    return {name: content for name, content in contents.items() if name in kept}


def _check_private(folder: Path, config: ArtifactConfig, derived: Mapping[str, bytes]) -> None:
    """Raise ArtifactError for a card, report or figures with an absolute path that the model's data have here."""
    for source in {config.provenance.data.source, find_source(folder, redact_config(config).provenance.data).source}:
        for name, content in derived.items():
            if redact_name(source) != source and source.encode("utf-8", "backslashreplace") in content:
                raise ArtifactError(
                    f"{folder / name} holds {source}, a path of this machine, as files of earlier versions do: remove "
                    "it, or train again"
                )


def list_stale(folder: str | Path) -> tuple[str, ...]:
    """Return the names of the card, report and figures in an artifact's folder that speak of other weights than its.

    Raises ArtifactError where it has no readable `config.json`.
    """
    folder = Path(folder)
    if not (folder / CONFIG_FILE).is_file():
        return ()
    _, digests = read_config(folder / CONFIG_FILE)
    contents = {name: read_file(folder / name) for name in DERIVED_FILES if (folder / name).is_file()}
    return _find_stale(contents, digests.get(_find_weights_file(digests), ""))


def read_derived(artifact: Artifact) -> dict[str, str]:
    """Return the card, report and figures that lie beside a model and speak of its weights, by name."""
    folder = artifact.path
    if folder is None or not folder.is_dir():
        return {}
    contents = {name: read_file(folder / name) for name in DERIVED_FILES if (folder / name).is_file()}
    stale = _find_stale(contents, artifact.digest)
    return {name: content.decode("utf-8", "replace") for name, content in contents.items() if name not in stale}


_SUBJECTS = {
    "metrics.json": re.compile(rb'"weights_sha256": "([0-9a-f]{64})"'),
    "README.md": re.compile(rb"^weights_sha256: '?([0-9a-f]{64})'?$", re.MULTILINE),
    "report.html": re.compile(rb'<meta name="weights_sha256" content="([0-9a-f]{64})">'),
}
"""Pattern of the hash of the weights in each derived file."""


def _find_stale(contents: Mapping[str, bytes], digest: str) -> tuple[str, ...]:
    """Return the names of those derived files that do not name the weights of this hash as what they speak of."""
    named = {name: _SUBJECTS[name].search(contents[name]) for name in DERIVED_FILES if name in contents}
    return tuple(name for name, found in named.items() if found is None or found[1].decode() != digest)


def read_file(path: Path, *, follow: bool = True) -> bytes:
    """Return the content of a file that an artifact needs. Raises ArtifactError; for a link too without `follow`."""
    try:
        with _enough_memory(str(path)):
            return read_regular(path, follow=follow)
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing") from error
    except OSError as error:
        raise ArtifactError(f"{path} is damaged: {error.strerror or error}") from error


def _check_digest(path: Path, content: bytes, digests: Mapping[str, str]) -> None:
    """Raise ArtifactError unless a file's content is the one that `config.json` was written with."""
    if sha256(content).hexdigest() != digests.get(path.name):
        raise ArtifactError(f"{path} is altered, or not the one that {CONFIG_FILE} was written with")


def read_config(path: Path) -> tuple[ArtifactConfig, dict[str, str]]:
    """Read `config.json`; return it and the hashes of the files that belong to it."""
    return _parse_config(path, read_file(path))


def _parse_config(path: Path, content: bytes) -> tuple[ArtifactConfig, dict[str, str]]:
    """Parse the content of `config.json`; see `read_config`."""
    record = parse_json(path, content)
    digests = {name: str(record.pop(key)) for name, key in _DIGESTS.items() if key in record}
    found = record.get("format_version")
    if not isinstance(found, int) or found > _FORMAT_VERSION:
        wanted = f"wanted format version {_FORMAT_VERSION} or lower"
        raise ArtifactError(f"{path}: {wanted}, found {abridge(found)}: update falconet")
    try:
        return from_mapping(ArtifactConfig, upgrade_record(record)), digests
    except UsageError as error:
        raise ArtifactError(f"{path} is damaged: {error}") from error


def current_versions() -> dict[str, str]:
    """Return the versions of packages that affect a model's predictions."""
    packages = {name: version(name) for name in ("falconet", "torch", "numpy", "pillow")}
    return {"python": platform.python_version(), **packages}
