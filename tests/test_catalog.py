from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torchvision
from hypothesis import given
from hypothesis import strategies as st

from falconet.catalog import DOWNLOADABLE, FILE_SUFFIXES, SOURCE_NAMES, check_source, list_paths
from falconet.data.augmentation import POLICIES, default_policy
from falconet.errors import PathError, UnknownNameError, UsageError
from falconet.predictions import check_top
from falconet.spec import ModalityName


@pytest.mark.parametrize("name", DOWNLOADABLE)
def test_torchvision_knows_every_set(name: str) -> None:
    known = getattr(torchvision.datasets, DOWNLOADABLE[name].name)
    assert issubclass(known, torchvision.datasets.VisionDataset)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "kmnist"])
def test_classes_are_those_of_torchvision(name: str) -> None:
    theirs = getattr(torchvision.datasets, DOWNLOADABLE[name].name).classes
    assert DOWNLOADABLE[name].classes == tuple(label.partition(" - ")[0] for label in theirs)


def test_letters_are_in_the_order_of_torchvision() -> None:
    assert list(DOWNLOADABLE["emnist"].classes) == torchvision.datasets.EMNIST.classes_split_dict["balanced"]


@pytest.mark.parametrize(("name", "count"), [("cifar10", 10), ("cifar100", 100), ("svhn", 10)])
def test_classes_differ_and_are_sorted_as_published(name: str, count: int) -> None:
    classes = DOWNLOADABLE[name].classes
    assert len(set(classes)) == count
    assert list(classes) == sorted(classes)


@pytest.mark.parametrize(
    ("source", "kind", "policy"),
    [
        ("digits", "image", "digits"),
        ("mnist", "image", "digits"),
        ("kmnist", "image", "digits"),
        ("emnist", "image", "digits"),
        ("svhn", "image", "digits"),
        ("fashion-mnist", "image", "light"),
        ("cifar10", "image", "light"),
        ("cifar100", "image", "light"),
        ("photos", "image", "light"),
        ("hf:owner/name", "image", "light"),
        ("reviews.csv", "text", "light"),
    ],
)
def test_the_policy_follows_from_the_source(source: str, kind: ModalityName, policy: str) -> None:
    assert default_policy(source, kind) == policy


@pytest.mark.parametrize("source", [*SOURCE_NAMES, "photos"])
@pytest.mark.parametrize("kind", POLICIES)
def test_the_policy_exists(kind: ModalityName, source: str) -> None:
    assert default_policy(source, kind) in POLICIES[kind]


@pytest.mark.parametrize("source", [*SOURCE_NAMES, ".", "hf:owner/name", "hf:name", "hf:/any/folder", "hf:o/n#part"])
def test_a_good_source_passes_unread(source: str) -> None:
    check_source(source)


@pytest.mark.parametrize("suffix", FILE_SUFFIXES)
def test_a_file_of_a_known_kind_passes(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"data{suffix}").touch()
    check_source(tmp_path / f"data{suffix}")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("digts", r"unknown source 'digts': did you mean digits\?"),
        ("fashion_mnist", r"did you mean fashion-mnist\b"),
        ("cifar", r"did you mean cifar10 or cifar100\?"),
        ("photographs", r"known: cifar10, .*, svhn \(nor is there a file or folder of this name\)"),
        ("hf:", "unknown source 'hf:'"),
    ],
)
def test_a_mistyped_name_offers_the_nearest(source: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        check_source(source)


@pytest.mark.parametrize("source", ["no/such/folder", "missing.npz", "photos.zip", "no/such.csv"])
def test_a_path_that_is_not_there_is_named(source: str) -> None:
    with pytest.raises(PathError, match=rf"^no such file or folder: {source}$"):
        check_source(source)


def test_a_name_like_the_hubs_is_shown_with_its_prefix() -> None:
    with pytest.raises(PathError, match=r"^no such file or folder: owner/name; .* is written hf:owner/name$"):
        check_source("owner/name")


@pytest.mark.parametrize(("name", "found"), [("table.xlsx", r"a file \.xlsx"), ("x.PDF", r"a file \.PDF")])
def test_a_file_of_another_kind_is_refused(name: str, found: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    wanted = r"wanted a folder or a file ending in \.npz, \.csv, \.tsv, \.jsonl, \.parquet or \.ts"
    with pytest.raises(PathError, match=f"{wanted}, found {found}"):
        check_source(tmp_path / name)


def test_tasks_of_label_studio_are_a_source(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text("[]")
    check_source(tmp_path / "t.json")


@pytest.mark.parametrize("name", ["photos.zip", "photos.tar", "photos.tar.gz", "photos.tgz", "table.csv.gz", "A.ZIP"])
def test_an_archive_must_be_unpacked(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    with pytest.raises(PathError, match=f"{name} is compressed: unpack it"):
        check_source(tmp_path / name)


@given(st.text(st.characters(exclude_characters="/.\0"), min_size=1, max_size=12))
def test_a_plain_word_is_known_or_refused_in_one_line(word: str) -> None:
    if word in SOURCE_NAMES or (word.startswith("hf:") and word != "hf:"):
        check_source(word)
        return
    with pytest.raises(UnknownNameError) as caught:
        check_source(word)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("module", ["catalog", "model_files"])
def test_importing_it_does_not_import_numpy(module: str) -> None:
    code = f"import sys, falconet.{module}; print(sorted({{'numpy', 'torch', 'PIL'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "asked", ["a/b.png", Path("a/b.png"), np.str_("a/b.png"), ["a/b.png"], np.array(["a/b.png"]), ("a/b.png",)]
)
def test_a_string_is_one_path(asked: object) -> None:
    assert list_paths(asked, "files") == [Path("a/b.png")]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ([], "none"),
        (np.zeros((28, 28)), "ndarray"),
        ([np.zeros((28, 28))], "ndarray"),
        (np.arange(3), "int64"),
        (np.array([["a.png"]]), "ndarray"),
        (np.array("a.png"), "ndarray"),
        ({"a.png": 1}, "dict"),
        (b"a.png", "bytes"),
        (None, "NoneType"),
        (["a.png", 3], "int"),
    ],
)
def test_what_is_no_path_is_refused(asked: object, found: str) -> None:
    with pytest.raises(UsageError, match=f"^wanted files, .*found {found}$"):
        list_paths(asked, "files")


@pytest.mark.parametrize("source", [np.zeros((2, 4, 4)), ["digits"], None, 7])
def test_a_source_is_a_name_or_a_path(source: object) -> None:
    with pytest.raises(UsageError, match=f"source: wanted the name.*found {type(source).__name__}"):
        check_source(source)


@pytest.mark.parametrize("top", [0, 2.5, "3", None])
def test_candidates_are_counted_by_whole_numbers(top: object) -> None:
    with pytest.raises(UsageError, match="top: wanted 1 or more, found"):
        check_top(top)
    check_top(np.int64(1))
