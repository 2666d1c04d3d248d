from __future__ import annotations

import os
import unicodedata
import wave
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from falconet.data import DataConfig, Dataset, ImageFiles, Texts, load_dataset
from falconet.data.adapters import TextFiles
from falconet.data.cache import open_cache
from falconet.data.dataset import Unreadable
from falconet.data.files import (
    OUTSIDE,
    ListedFile,
    adapt_samples,
    check_inside,
    guess_kind,
    open_files,
    read_files,
    read_folder,
    walk,
)
from falconet.data.wav import WavFiles
from falconet.errors import ConfigError, DataError, PathError
from falconet.predictions import find_files, rank_samples
from falconet.spec import ImageSpec, ModalityName, SeriesSpec, TextSpec
from tests.conftest import FolderMaker
from tests.data.builders import encode

PHOTO = encode(Image.effect_noise((20, 16), 50).convert("RGB"))
JPEG = encode(Image.effect_noise((20, 16), 50), "JPEG")
CONFIG = DataConfig()


def put(root: Path, *names: str, content: bytes = PHOTO) -> Path:
    """Write files of the same content; folders are made."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def put_wav(path: Path, steps: int = 50, rate: int = 8000, channels: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, 2, rate, steps, "NONE", ""))
        file.writeframes(bytes(2 * steps * channels))


def labeled(dataset: Dataset) -> list[tuple[str, str, str]]:
    """Split, class and name of every sample, sorted."""
    return sorted(
        (name, dataset.classes[label], split.samples.name(index))
        for name, split in dataset.splits.items()
        for index, label in enumerate(split.labels)
    )


def test_a_folder_of_classes_is_read(make_folder: FolderMaker) -> None:
    root = make_folder(classes=("dark", "gray", "light"), count=10)
    dataset = read_folder(root, CONFIG)
    assert dataset.classes == ("dark", "gray", "light")
    assert (dataset.kind, dataset.channels, dataset.size) == ("image", 3, (16, 20))
    assert (dataset.unreadable, dataset.ignored, dataset.rate) == ((), {}, None)
    assert isinstance(dataset.splits["train"].samples, ImageFiles)
    expected = [(path.parent.name, path.relative_to(root).as_posix()) for path in root.rglob("*.png")]
    assert labeled(dataset) == sorted(("train", label, name) for label, name in expected)
    assert len(set(dataset.splits["train"].hashes.tolist())) == 30


def test_images_are_not_decoded_when_they_are_listed(make_folder: FolderMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(image: Image.Image) -> None:
        raise AssertionError("decoded")

    root = make_folder(count=3)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    assert len(read_folder(root, CONFIG).splits["train"]) == 6


def test_many_files_keep_their_order(tmp_path: Path) -> None:
    for index in range(300):
        put(tmp_path, f"{'ab'[index % 2]}/{index:03d}.txt", content=b"" if index == 200 else f"text {index}".encode())
    dataset = read_folder(tmp_path, CONFIG)
    samples = dataset.splits["train"].samples
    numbers = [index for index in (*range(0, 300, 2), *range(1, 300, 2)) if index != 200]
    assert [samples.read(index) for index in range(299)] == [f"text {number}" for number in numbers]
    assert dataset.splits["train"].labels.tolist() == [number % 2 for number in numbers]
    assert [entry.file for entry in dataset.unreadable] == ["a/200.txt"]


def test_gray_images_have_one_channel_and_one_color_image_makes_three(make_folder: FolderMaker) -> None:
    root = make_folder(mode="L")
    assert read_folder(root, CONFIG).channels == 1
    put(root, "dark/new.png")
    assert read_folder(root, CONFIG).channels == 3


def test_the_size_is_the_median(make_folder: FolderMaker) -> None:
    root = make_folder(count=3)
    Image.new("RGB", (500, 400)).save(root / "dark" / "huge.png")
    assert read_folder(root, CONFIG).size == (16, 20)


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (("train", "test"), {"train", "test"}),
        (("Train", "Valid"), {"train", "val"}),
        (("train", "dev", "test"), {"train", "val", "test"}),
        (("training", "validation", "TEST"), {"train", "val", "test"}),
        (("Training", "Testing"), {"train", "test"}),
    ],
)
def test_split_folders_are_known_by_name(folders: tuple[str, ...], names: set[str], make_folder: FolderMaker) -> None:
    root = make_folder(count=2, splits=folders)
    dataset = read_folder(root, CONFIG)
    assert set(dataset.splits) == names
    for name, split in dataset.splits.items():
        parts = {split.samples.name(index).split("/")[0].lower()[:2] for index in range(len(split))}
        assert len(split) == 4
        assert parts <= {"tr"} if name == "train" else parts <= {"te"} if name == "test" else parts <= {"va", "de"}


def test_two_folders_for_one_split_are_refused(make_folder: FolderMaker) -> None:
    root = make_folder(count=1, splits=("train", "val", "valid"))
    with pytest.raises(DataError, match="wanted one folder for val, found val and valid"):
        read_folder(root, CONFIG)


def test_classes_may_be_named_like_splits(make_folder: FolderMaker) -> None:
    dataset = read_folder(make_folder(classes=("train", "test", "bus")), CONFIG)
    assert dataset.classes == ("bus", "test", "train")
    assert len(dataset.splits["train"]) == 36


def test_a_layout_without_training_is_refused_for_training(make_folder: FolderMaker) -> None:
    root = make_folder(splits=("test", "val"), count=2)
    assert {name: len(split) for name, split in read_folder(root, CONFIG).splits.items()} == {"test": 4, "val": 4}
    with pytest.raises(DataError, match="no training split; found test, val"):
        load_dataset(root)


def test_samples_may_lie_deeper_than_their_class(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png", "a/2019/may/2.PNG", "b/x/3.png")
    put(tmp_path, "a/.hidden/4.png", "a/.5.png", "b/__MACOSX/6.png", "__MACOSX/7.png", ".git/8.png")
    assert labeled(read_folder(tmp_path, CONFIG)) == [
        ("train", "a", "a/1.png"),
        ("train", "a", "a/2019/may/2.PNG"),
        ("train", "b", "b/x/3.png"),
    ]


def test_files_that_are_no_samples_are_counted(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png", "b/2.png")
    put(tmp_path, "a/photo.txt", "b/c/photo.TXT", "b/Makefile", "9.png", "notes.md", "a/notes.md", "b/notes.md")
    dataset = read_folder(tmp_path, CONFIG)
    assert len(dataset.splits["train"]) == 2
    assert next(iter(dataset.ignored.items())) == (".md", 3)
    assert dataset.ignored == {".md": 3, ".txt": 2, "no extension": 1, ".png": 1}


def test_what_lies_beside_the_splits_is_ignored(tmp_path: Path) -> None:
    put(tmp_path, "train/a/1.png", "train/b/2.png", "docs/figures/3.png", "train/4.png", content=PHOTO)
    dataset = read_folder(tmp_path, CONFIG)
    assert dataset.classes == ("a", "b")
    assert dataset.ignored == {".png": 2}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "found 0 subfolders and no images in them"),
        (["a.png", "b.png"], "found 2 images directly in it and no subfolders"),
        (["one/notes.md", "two/notes.md"], "found 2 subfolders and no images in them"),
        (["a.png", "one/notes.md"], "found 1 subfolders and no images in them"),
    ],
    ids=["empty", "no classes", "no images", "images beside a folder"],
)
def test_a_folder_without_classes_says_what_it_holds(files: list[str], message: str, tmp_path: Path) -> None:
    put(tmp_path, *files)
    with pytest.raises(DataError, match=f"wanted one subfolder of images for each class, {message}$"):
        read_folder(tmp_path, CONFIG)


@pytest.mark.parametrize(("kind", "word"), [("series", "recordings"), ("text", "texts")])
def test_a_folder_without_samples_of_the_kind_that_was_asked_for(
    kind: ModalityName, word: str, make_folder: FolderMaker
) -> None:
    with pytest.raises(DataError, match=f"one subfolder of {word} for each class, found 2 subfolders and no {word}"):
        read_folder(make_folder(count=1), DataConfig(kind=kind))


BAD_FILES = {
    "empty.png": (b"", "empty file (0 bytes)"),
    "cut.png": (PHOTO[:20], "damaged image"),
    "cut.jpg": (JPEG[:20], "not an image"),
    "text.png": (b"a shopping list", "not an image"),
}


def test_files_that_are_no_images_are_skipped_and_listed(make_folder: FolderMaker) -> None:
    root = make_folder(count=4)
    for name, (content, _) in BAD_FILES.items():
        put(root, f"dark/{name}", content=content)
    dataset = read_folder(root, CONFIG)
    reasons = {entry.file: entry.reason for entry in dataset.unreadable}
    assert set(reasons) == {f"dark/{name}" for name in BAD_FILES}
    assert all(reasons[f"dark/{name}"].startswith(reason) for name, (_, reason) in BAD_FILES.items())
    assert [name for _, _, name in labeled(dataset)] == [
        f"{c}/{i:03d}.png" for c in ("dark", "light") for i in range(4)
    ]


def test_a_decompression_bomb_is_listed_unread(make_folder: FolderMaker) -> None:
    root = make_folder(count=2)
    header = encode(Image.new("1", (4, 3)))
    huge = header[:16] + (60_000).to_bytes(4, "big") * 2 + header[24:]
    # The checksum of the chunk that tells the size must fit.
    put(root, "dark/bomb.png", content=huge[:29] + crc32(huge[12:29]).to_bytes(4, "big") + huge[33:])
    (entry,) = read_folder(root, CONFIG).unreadable
    assert entry.file == "dark/bomb.png"
    assert "pixels" in entry.reason


def test_content_tells_the_format_not_the_name(tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg", "b/2.bmp", content=PHOTO)
    dataset = read_folder(tmp_path, CONFIG)
    assert dataset.unreadable == ()
    reference = np.asarray(Image.open(tmp_path / "a" / "1.jpg"))
    assert np.array_equal(dataset.splits["train"].samples.read(0), reference)


def test_a_split_without_readable_images_is_refused(make_folder: FolderMaker) -> None:
    root = make_folder(splits=("train", "test"), count=3)
    for path in (root / "test").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"no readable images in test; add some, or remove the folder"):
        read_folder(root, CONFIG)


def test_a_folder_of_damaged_images_is_refused(make_folder: FolderMaker) -> None:
    root = make_folder(count=2)
    for path in root.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"none of 4 images can be read; the first: dark/000\.png \(empty file"):
        read_folder(root, CONFIG)


def test_a_class_without_readable_files_stays_a_class(make_folder: FolderMaker) -> None:
    root = put(make_folder(count=1), "dim/a.png", content=b"")
    put(root, "none/notes.md")
    assert read_folder(root, CONFIG).classes == ("dark", "dim", "light", "none")


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["a/1.png", "a/2.txt", "b/3.png", "b/4.wav"], "image"),
        (["a/1.png", "a/2.txt", "b/3.txt", "b/4.wav"], "text"),
        (["a/1.WAV", "a/2.txt", "b/3.wav", "b/4.md", "b/5.md", "b/6.md"], "series"),
        ([], "image"),
    ],
)
def test_the_kind_is_that_of_most_files(names: list[str], kind: ModalityName) -> None:
    assert guess_kind(names) == kind


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Two classes, each of an image, three texts and two recordings."""
    root = tmp_path / "mixed"
    for label in "ab":
        put(root, f"{label}/1.png")
        for number in range(3):
            put(root, f"{label}/{number}.txt", content=f"{label}, {number} times".encode())
        for number in range(2):
            put_wav(root / label / f"{number}.wav", steps=40 + 20 * number)
    return root


def test_of_mixed_files_most_win(mixed: Path) -> None:
    dataset = read_folder(mixed, CONFIG)
    assert (dataset.kind, len(dataset.splits["train"]), dataset.channels) == ("text", 6, 1)
    assert dataset.ignored == {".wav": 4, ".png": 2}
    samples = dataset.splits["train"].samples
    assert isinstance(samples, Texts)
    assert samples.name(4) == "b/1.txt"
    assert samples.read(4) == "b, 1 times"
    assert dataset.size == (len("b, 1 times"),)


@pytest.mark.parametrize(
    ("kind", "count", "size", "rate"),
    [("image", 2, (16, 20), None), ("series", 4, (50,), 8000), ("text", 6, (10,), None)],
)
def test_the_kind_can_be_forced(
    kind: ModalityName, count: int, size: tuple[int, ...], rate: int | None, mixed: Path
) -> None:
    dataset = read_folder(mixed, DataConfig(kind=kind))
    assert (dataset.kind, len(dataset.splits["train"]), dataset.size, dataset.rate) == (kind, count, size, rate)


@pytest.mark.parametrize(("usual", "odd", "wanted"), [(1, 256, "1 channel or 2"), (2, 6, "2 channels or 1")])
def test_one_odd_recording_does_not_change_the_others(usual: int, odd: int, wanted: str, tmp_path: Path) -> None:
    for number in range(8):
        put_wav(tmp_path / "ab"[number % 2] / f"{number}.wav", rate=8000, steps=20, channels=usual)
    put_wav(tmp_path / "a" / "odd.wav", rate=8000, steps=20, channels=odd)
    dataset = read_folder(tmp_path, CONFIG)
    assert (dataset.channels, len(dataset.splits["train"])) == (usual, 8)
    assert dataset.unreadable == (Unreadable("a/odd.wav", f"wanted {wanted}, as most have, found {odd}"),)
    assert dataset.splits["train"].samples.read(0).shape == (usual, 20)


def test_the_rate_is_that_of_most_recordings(tmp_path: Path) -> None:
    for number, rate in enumerate((16000, 8000, 8000)):
        put_wav(tmp_path / "a" / f"{number}.wav", rate=rate, steps=rate)
    put_wav(tmp_path / "b" / "stereo.wav", rate=8000, channels=2)
    dataset = read_folder(tmp_path, CONFIG)
    assert (dataset.rate, dataset.channels) == (8000, 1)
    assert {len(dataset.splits["train"].samples.read(index)) for index in range(4)} == {1}  # Stereo is averaged.


def test_unreadable_texts_and_recordings_are_listed(tmp_path: Path) -> None:
    put(tmp_path, "a/1.txt", "a/2.txt", "b/3.txt", content=b"words")
    put(tmp_path, "a/latin.txt", content=b"caf\xe9")
    put(tmp_path, "b/blank.txt", content=b" \n")
    put(tmp_path, "b/cut.wav", content=b"RIFF")
    put_wav(tmp_path / "a" / "whole.wav")
    reasons = {kind: read_folder(tmp_path, DataConfig(kind=kind)).unreadable for kind in ("text", "series")}
    assert [(entry.file, entry.reason) for entry in reasons["text"]] == [
        ("a/latin.txt", "invalid UTF-8 at byte 3"),
        ("b/blank.txt", "empty text"),
    ]
    assert [entry.file for entry in reasons["series"]] == ["b/cut.wav"]


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A folder of two classes with links of every sort; two images and a folder of one lie outside."""
    outside = put(tmp_path / "outside", "far.png", "folder/farther.png")
    root = put(tmp_path / "root", "dark/1.png", "dark/deep/2.png", "light/3.png")
    links = {
        "dark/file.png": outside / "far.png",
        "dark/folder": outside / "folder",
        "dark/near.png": root / "light" / "3.png",
        "dark/deep/loop": root / "dark",
        "dark/up": root,
        "dark/gone.png": outside / "gone.png",
        "light/higher": tmp_path,
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    return root


OWN = [("dark", "dark/1.png"), ("dark", "dark/deep/2.png"), ("dark", "dark/near.png"), ("light", "light/3.png")]


def test_links_that_lead_outside_are_refused(linked: Path) -> None:
    dataset = read_folder(linked, CONFIG)
    assert [(label, name) for _, label, name in labeled(dataset)] == OWN
    refused = {entry.file: entry.reason for entry in dataset.unreadable}
    assert refused == dict.fromkeys(("dark/file.png", "dark/folder", "dark/gone.png"), OUTSIDE)


def test_a_folder_is_read_once_and_gives_nothing_to_two_classes(tmp_path: Path) -> None:
    root = put(tmp_path / "root", "dark/z/1.png", "dark/2.png", "light/deep/3.png")
    (root / "dark" / "a").symlink_to("z")  # Before the real one by name.
    (root / "dark" / "other").symlink_to("../light/deep")
    (root / "dim").symlink_to("dark")
    dataset = read_folder(root, CONFIG)
    samples = [("dark", "dark/2.png"), ("dark", "dark/z/1.png"), ("light", "light/deep/3.png")]
    assert [(label, name) for _, label, name in labeled(dataset)] == samples
    assert dataset.classes == ("dark", "light")
    assert [(item.file, item.reason) for item in dataset.unreadable] == [
        ("dim", "a link to dark, another class"),
        ("dark/other", "a link to a folder of another class"),
    ]
    assert walk(root, root, follow=False).files == [name for _, name in samples]


def test_links_are_followed_on_demand_but_never_back_up(linked: Path) -> None:
    dataset = read_folder(linked, DataConfig(follow=True))
    found = [(label, name) for _, label, name in labeled(dataset)]
    assert found == sorted([*OWN, ("dark", "dark/file.png"), ("dark", "dark/folder/farther.png")])
    assert [(entry.file, entry.reason) for entry in dataset.unreadable] == [("dark/gone.png", "a link to nothing")]
    read = {dataset.splits["train"].samples.read(index).shape for index in range(len(found))}
    assert read == {(16, 20, 3)}


@pytest.mark.parametrize("target", [".", "..", "dark"])
def test_a_class_that_links_back_gives_nothing_to_two_classes(target: str, tmp_path: Path) -> None:
    root = put(tmp_path / "root", "dark/1.png", "light/2.png")
    (root / "loop").symlink_to(root / target)
    listing = walk(root, root / "loop", follow=True)
    assert listing.files == (["loop/1.png"] if target == "dark" else [])


def test_a_folder_of_links_alone_says_what_allows_them(tmp_path: Path) -> None:
    put(tmp_path / "outside", "dark/1.png", "light/2.png")
    (tmp_path / "root").mkdir()
    for label in ("dark", "light"):
        (tmp_path / "root" / label).symlink_to(tmp_path / "outside" / label)
    with pytest.raises(DataError, match=rf"no images in them \(dark {OUTSIDE}\)"):
        read_folder(tmp_path / "root", CONFIG)
    assert read_folder(tmp_path / "root", DataConfig(follow=True)).classes == ("dark", "light")


def test_a_root_that_is_a_link_is_the_folder_itself(make_folder: FolderMaker, tmp_path: Path) -> None:
    (tmp_path / "short").symlink_to(make_folder(count=2))
    assert len(read_folder(tmp_path / "short", CONFIG).splits["train"]) == 4


@pytest.mark.parametrize(
    ("path", "expected"),
    [("a/1.png", "a/1.png"), ("a/../a/1.png", "a/1.png"), ("./a//1.png", "a/1.png"), ("missing.png", "missing.png")],
)
@pytest.mark.parametrize("follow", [False, True])
def test_a_path_inside_is_made_plain(path: str, expected: str, follow: bool, tmp_path: Path) -> None:
    assert check_inside(put(tmp_path, "a/1.png"), path, follow) == expected
    assert check_inside(tmp_path, str(tmp_path / path), follow) == expected


@pytest.mark.parametrize(
    "path", ["../far.png", "a/../../far.png", "link.png", "{root}/../far.png", "/etc/hostname", ".."]
)
def test_a_path_outside_is_refused_or_made_absolute(path: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    put(tmp_path, "far.png", "root/a/1.png", "root.png")
    (root / "link.png").symlink_to(tmp_path / "far.png")
    path = path.format(root=root)
    with pytest.raises(DataError, match="leads out of the source's folder; --follow allows it"):
        check_inside(root, path, follow=False)
    assert check_inside(root, path, follow=True) == (root / path).resolve().as_posix()


@settings(deadline=None)
@given(parts=st.lists(st.sampled_from(["..", ".", "a", "b", "", "root"]), min_size=1, max_size=6))
def test_no_spelling_leads_outside_unseen(parts: list[str]) -> None:
    root = Path("/nowhere/root")
    path = "/".join(parts).lstrip("/")
    try:
        found = check_inside(root, path, follow=False)
    except DataError:
        depth, lowest = 1, 1
        for part in path.split("/"):
            depth += {"..": -1, ".": 0, "": 0}.get(part, 1)
            lowest = min(lowest, depth)
        assert lowest < 1
        return
    assert ".." not in found.split("/")


def test_samples_are_listed_by_extension_at_any_depth(tmp_path: Path) -> None:
    wanted = ["a.png", "b.JPG", "deep-1.png", "deep/d.jpeg", "deep/er/c.webp"]
    put(tmp_path, *wanted, "notes.txt", ".hidden.png", ".git/e.png", "__MACOSX/f.png", "png")
    (tmp_path / "folder.png").mkdir()
    found = find_files([tmp_path], "image")
    assert found.files == [str(tmp_path / name) for name in wanted]
    assert found.ignored == {".txt": 1, "no extension": 1, "hidden": 1}
    assert find_files([tmp_path], "text").files == [str(tmp_path / "notes.txt")]
    with pytest.raises(PathError, match="wanted recordings, found none in this folder but "):
        find_files([tmp_path], "series")


def test_a_hidden_parent_hides_nothing(tmp_path: Path) -> None:
    folder = put(tmp_path / ".cache", "a.png")
    assert find_files([folder], "image").files == [str(folder / "a.png")]


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        (ImageSpec((1, 8, 8), (0.5,), (0.5,)), ImageFiles),
        (SeriesSpec((2, 30), (0.0, 0.0), (1.0, 1.0), rate=4000), WavFiles),
        (TextSpec((20,), vocab_size=100), TextFiles),
    ],
    ids=["image", "series", "text"],
)
def test_files_are_opened_as_what_a_model_eats(
    spec: ImageSpec | SeriesSpec | TextSpec, kind: type, mixed: Path
) -> None:
    suffix = {ImageFiles: "1.png", WavFiles: "0.wav", TextFiles: "2.txt"}[kind]
    paths = [str(mixed / label / suffix) for label in "ab"]
    samples = open_files(paths, spec)
    assert isinstance(samples, kind)
    assert [samples.name(index) for index in range(len(samples))] == paths
    content = samples.read(1)
    assert (
        content == "b, 2 times"
        if kind is TextFiles
        else content.shape == ((16, 20, 3) if kind is ImageFiles else (2, 20))
    )


def test_text_files_are_taken_and_joined(tmp_path: Path) -> None:
    put(tmp_path, "a.txt", content=b"alpha")
    put(tmp_path, "b.txt", content=b"beta")
    paths = [str(tmp_path / name) for name in ("a.txt", "b.txt", "c.txt")]
    samples = TextFiles(paths).take(np.array([1, 0])).join([TextFiles(paths[:1])])
    assert [samples.read(index) for index in range(len(samples))] == ["beta", "alpha", "alpha"]
    with pytest.raises(DataError, match="No such file"):
        TextFiles(paths).read(2)


def test_listed_files_keep_split_class_and_group(tmp_path: Path) -> None:
    put(tmp_path, "1.png", "2.png", "3.png")
    put(tmp_path, "bad.png", content=b"")
    listed = [
        ListedFile("1.png", "train", "b", 7),
        ListedFile("bad.png", "train", "b", 6),
        ListedFile("2.png", "train", "a", 2**64 - 1),
        ListedFile("missing.png", "test", "a", 5),
        ListedFile("3.png", "test", "a", 8),
    ]
    dataset = read_files(tmp_path, "image", listed, source="made", columns={"path": "file"})
    assert labeled(dataset) == [("test", "a", "3.png"), ("train", "a", "2.png"), ("train", "b", "1.png")]
    groups = dataset.splits["train"].groups
    assert groups is not None
    assert groups.tolist() == [7, 2**64 - 1]
    assert [(entry.file, entry.reason) for entry in dataset.unreadable] == [
        ("bad.png", "empty file (0 bytes)"),
        ("missing.png", "No such file or directory"),
    ]
    assert dataset.columns == {"path": "file"}


Damage = Callable[[Path], None]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes() + b"\0"),
        lambda path: path.write_bytes(encode(Image.new("L", (3, 3)))),
    ],
    ids=["one byte more", "another image"],
)
def test_other_content_has_another_hash(damage: Damage, make_folder: FolderMaker) -> None:
    root = make_folder(count=2)
    before = read_folder(root, CONFIG)
    damage(root / "dark" / "001.png")
    after = read_folder(root, CONFIG)
    changed = before.splits["train"].hashes != after.splits["train"].hashes
    assert changed.tolist() == [False, True, False, False]
    assert before.fingerprint != after.fingerprint


def test_a_link_to_itself_is_listed(make_folder: FolderMaker) -> None:
    root = make_folder(count=3)
    (root / "dark" / "loop.png").symlink_to("loop.png")
    (root / "dark" / "loop").symlink_to("loop")
    dataset = load_dataset(root)
    assert sorted(item.file for item in dataset.unreadable) == ["dark/loop", "dark/loop.png"]


# What lies around the samples

FLAT = {
    "Roboflow": ("train", "valid", "test"),
    "Kaggle": ("train", "test1"),
    "prefixes": ("seg_train", "seg_test", "seg_pred"),
    "capitals": ("TrainSet", "TestSet"),
}


@pytest.mark.parametrize("folders", FLAT.values(), ids=FLAT)
def test_split_folders_without_classes_are_refused(folders: tuple[str, ...], tmp_path: Path) -> None:
    put(tmp_path, *(f"{folder}/{index}.png" for folder in folders for index in range(3)))
    with pytest.raises(DataError, match="wanted a subfolder for each class in every split, such as train/CLASS"):
        read_folder(tmp_path, CONFIG)


@pytest.mark.parametrize("outer", ["", "data/"])
@pytest.mark.parametrize("names", [("seg_train", "seg_test"), ("train1", "test1"), ("Training_Data", "Testing_Data")])
@pytest.mark.parametrize("twice", [False, True])
def test_splits_are_known_by_a_word_of_their_names(
    outer: str, names: tuple[str, str], twice: bool, tmp_path: Path
) -> None:
    for name in names:
        inner = f"{outer}{name}/{name}" if twice else f"{outer}{name}"
        put(tmp_path, f"{inner}/glacier/1.png", f"{inner}/sea/2.png", f"{inner}/sea/3.png")
    dataset = read_folder(tmp_path, CONFIG)
    assert dataset.classes == ("glacier", "sea")
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 3, "test": 3}


@pytest.mark.parametrize("folder", ["seg_pred/seg_pred", "test1", "unlabeled"])
def test_a_folder_without_classes_beside_splits_is_left_out_and_named(folder: str, tmp_path: Path) -> None:
    put(tmp_path, "train/a/1.png", "train/b/2.png", "notes.md", f"{folder}/7.png", f"{folder}/8.png")
    dataset = read_folder(tmp_path, CONFIG)
    assert dataset.classes == ("a", "b")
    assert dataset.ignored == {f"folder {folder.partition('/')[0]} (no classes)": 2, ".md": 1}


@pytest.mark.parametrize("names", [("steam_train", "freight_train"), ("train_station", "beach"), ("dev", "ops")])
def test_words_of_splits_do_not_make_splits_of_classes(names: tuple[str, ...], tmp_path: Path) -> None:
    put(tmp_path, *(f"{name}/{index}.png" for name in names for index in range(2)))
    assert read_folder(tmp_path, CONFIG).classes == tuple(sorted(names))


@pytest.mark.parametrize("outer", ["digits", "a/b/c"])
def test_a_folder_around_the_classes_is_passed_through(outer: str, tmp_path: Path) -> None:
    put(tmp_path, f"{outer}/0/1.png", f"{outer}/1/2.png", "readme.md")
    dataset = read_folder(tmp_path, CONFIG)
    assert labeled(dataset) == [("train", "0", f"{outer}/0/1.png"), ("train", "1", f"{outer}/1/2.png")]
    assert dataset.ignored == {".md": 1}


def test_one_class_with_folders_is_one_class(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.png", "cat/2019/2.png", "cat/2020/3.png")
    assert read_folder(tmp_path, CONFIG).classes == ("cat",)


def test_classes_may_be_named_like_what_is_hidden(tmp_path: Path) -> None:
    put(tmp_path, ".NET/1.png", "__other__/2.png", "java/3.png", "java/.4.png")
    put(tmp_path, "__MACOSX/5.png", ".git/6.png", ".ipynb_checkpoints/7.png", "._java/8.png", ".config/x.yaml")
    dataset = read_folder(tmp_path, CONFIG)
    assert labeled(dataset) == [
        ("train", ".NET", ".NET/1.png"),
        ("train", "__other__", "__other__/2.png"),
        ("train", "java", "java/3.png"),
    ]
    assert dataset.ignored == {"hidden": 2}


@pytest.mark.parametrize("name", ["1.jfif", "2.JPE", "3.dib"])
def test_other_names_of_jpeg_and_bmp_are_read(name: str, tmp_path: Path) -> None:
    put(tmp_path, f"a/{name}", "b/1.png")
    assert len(read_folder(tmp_path, CONFIG).splits["train"]) == 2


def test_files_that_are_not_read_come_with_a_remedy(tmp_path: Path) -> None:
    put(tmp_path, "a/1.AVIF", "a/2.avif", "b/3.avif", "b/4.jxl")
    with pytest.raises(DataError, match=r"found .* no images in them, 3 \.avif \(not read: convert them to \.jpg or"):
        read_folder(tmp_path, CONFIG)
    with pytest.raises(PathError, match=r"found none in this folder but 3 \.avif \(not read"):
        find_files([tmp_path], "image")
    put(tmp_path, "a/5.png", "b/6.png")
    dataset = read_folder(tmp_path, CONFIG)
    assert dataset.ignored == find_files([tmp_path], "image").ignored == {".avif": 3, ".jxl": 1}


@pytest.mark.parametrize("layer", ["", "train/"])
def test_a_class_of_files_that_are_not_read_says_what_they_are(layer: str, tmp_path: Path) -> None:
    put(tmp_path, *(f"{layer}{name}/{number}.png" for name in "ac" for number in range(4)), f"{layer}c/x.mov")
    put(tmp_path, f"{layer}b/1.AVIF", f"{layer}b/deeper/2.avif", f"{layer}b/notes", f"{layer}d/film.mov")
    (tmp_path / f"{layer}e").mkdir()
    if layer:
        put(tmp_path, "test/a/8.png", "test/b/9.png", "test/c/7.png", "test/d/6.png", "test/e/5.png")
    with pytest.raises(DataError) as caught:
        load_dataset(tmp_path)
    assert "no training samples of class b, d, e; found in the folder of " in str(caught.value)
    found = str(caught.value).partition("found in the folder of ")[2]
    assert found == (
        "b: 2 .avif (not read: convert them to .jpg or .png), 1 no extension; of d: 1 .mov; add some, or remove the "
        "class everywhere"
    )


def test_all_verbs_leave_out_the_same(tmp_path: Path) -> None:
    root = put(tmp_path / "root", "a/1.png", "b/2.png", "b/notes.md", "b/.x")
    put(tmp_path, "far.png")
    (root / "a" / "far.png").symlink_to(tmp_path / "far.png")
    (root / "a" / "gone.png").symlink_to("nothing.png")
    os.mkfifo(root / "b" / "pipe.png")
    dataset, found = read_folder(root, CONFIG), find_files([root], "image")
    reasons = {
        "a/far.png": OUTSIDE,
        "a/gone.png": "a link to nothing",
        "b/pipe.png": "not a regular file",
    }
    assert {item.file: item.reason for item in dataset.unreadable} == reasons
    assert {item.file.removeprefix(f"{root}/"): item.reason for item in found.refused} == reasons
    assert dataset.ignored == found.ignored == {".md": 1, "hidden": 1}
    assert len(found.files) == len(dataset.splits["train"]) == 2


def test_folders_are_looked_into_to_a_limit_and_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = "/".join(["d"] * 300)
    put(tmp_path, f"a/{deep}/1.png", "a/2.png", f"a/{'/'.join('d' * 63)}/3.png", "b/4.png")
    resolved: list[Path] = []
    resolve = Path.resolve

    def count(path: Path, strict: bool = False) -> Path:
        resolved.append(path)
        return resolve(path, strict)

    monkeypatch.setattr(Path, "resolve", count)
    listing = walk(tmp_path, tmp_path / "a", follow=False)
    assert listing.files == ["a/2.png", f"a/{'/'.join('d' * 63)}/3.png"]
    (refused,) = listing.refused
    assert refused.reason == "more than 64 folders deep"
    assert len(resolved) <= 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")),
        ("tea", "tea "),
        ("tea", "te\u200ba"),
        ("tea", "\u00a0tea"),
    ],
)
def test_classes_that_look_alike_are_one(one: str, other: str, tmp_path: Path) -> None:
    put(tmp_path, f"train/{one}/1.png", "train/x/2.png", f"test/{other}/3.png", "test/x/4.png")
    dataset = read_folder(tmp_path, CONFIG)
    assert dataset.classes == (one, "x") if one < "x" else ("x", one)
    assert {name: sorted(split.labels.tolist()) for name, split in dataset.splits.items()} == {
        "train": [0, 1],
        "test": [0, 1],
    }


def test_names_that_are_no_utf8_are_spelled(tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9")
    try:
        put(tmp_path, f"{odd}/1.png", f"tea/{odd}.png")
    except OSError:
        pytest.skip("this file system has no such names")
    dataset = read_folder(tmp_path, CONFIG)
    assert dataset.classes == ("caf\\xe9", "tea")
    assert [dataset.splits["train"].samples.read(index).shape for index in range(2)] == [(16, 20, 3)] * 2
    found = find_files([tmp_path / odd], "image")
    samples = open_files(found.files, ImageSpec((1, 8, 8), (0.5,), (0.5,)))
    ranked = rank_samples(samples, np.array([[0.1, 0.9]]), {}, ("a", "b"), 1)
    assert ranked.predictions[0].file == f"{tmp_path}/caf\\xe9/1.png"


def test_fewer_pixels_can_be_asked_for(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png", "b/2.png")
    put(tmp_path, "b/large.png", content=encode(Image.new("L", (21, 16))))
    (item,) = read_folder(tmp_path, DataConfig(max_pixels=20 * 16)).unreadable
    assert (item.file, item.reason) == ("b/large.png", "21x16 pixels are more than the limit of 320")
    for wrong in (0, 80_000_001):
        with pytest.raises(ConfigError, match=f"max_pixels: wanted 1 to 80000000, found {wrong}"):
            DataConfig(max_pixels=wrong)


def write_twelve_bits(root: Path, brightest: int = 4095) -> Path:
    """Gray pictures of 12 bits in 16: class `low` is dark, class `high` as bright as can be."""
    for name, level in (("low", 300), ("high", brightest)):
        (root / name).mkdir(parents=True)
        for index in range(12):
            Image.fromarray(np.full((4, 4), level - index, dtype=np.uint16)).save(root / name / f"{index}.tif")
    return root


def test_deep_pictures_have_one_range(tmp_path: Path) -> None:
    dataset = load_dataset(write_twelve_bits(tmp_path / "deep"))
    assert dataset.value_range == (0.0, 4095.0)
    everything = dataset.split("all")
    for index in range(len(everything)):
        low = everything.samples.name(index).startswith("low")
        level = (300 if low else 4095) - int(Path(everything.samples.name(index)).stem)
        assert everything.samples.read(index).dtype == np.uint16
        assert (everything.samples.read(index) == round(level / 4095 * 65535)).all()


def test_a_range_may_be_asked_for(tmp_path: Path) -> None:
    root = write_twelve_bits(tmp_path / "deep")
    dataset = load_dataset(root, config=DataConfig(value_range=(0, 8190)))
    assert dataset.value_range == (0.0, 8190.0)
    assert max(int(dataset.split("all").samples.read(index).max()) for index in range(24)) == 32768
    with pytest.raises(ConfigError, match="value_range: wanted black and a higher white"):
        DataConfig(value_range=(5, 5))


def test_shallow_pictures_have_no_range(make_folder: FolderMaker) -> None:
    folder = make_folder()
    assert load_dataset(folder).value_range is None
    # One that is asked for is for deep ones.
    dataset = load_dataset(folder, config=DataConfig(value_range=(0, 10)))
    assert dataset.value_range is None
    assert dataset.splits["train"].samples.read(0).dtype == np.uint8


def test_a_model_reads_pictures_in_its_own_range(tmp_path: Path) -> None:
    root = write_twelve_bits(tmp_path / "deep")
    spec = ImageSpec((1, 4, 4), (0.0,), (1.0,), value_range=(0, 4095))
    path = str(root / "high" / "0.tif")
    assert open_files([path], spec).read(0).max() == 255
    assert open_files([path], replace(spec, value_range=None)).read(0).max() == 16
    assert open_files([path], replace(spec, dtype="uint16")).read(0).max() == 65535
    cache, _ = open_cache(load_dataset(root).splits["train"], spec)
    assert 250 < int(cache.take(torch.arange(len(cache))).max()) < 256
    cache, _ = open_cache(load_dataset(root).splits["train"], replace(spec, dtype="uint16"))
    held = cache.take(torch.arange(len(cache)))
    assert held.dtype == torch.uint16
    levels = {round(level / 4095 * 65535) for base in (300, 4095) for level in range(base - 11, base + 1)}
    assert set(held.flatten().tolist()) <= levels
    # A dark source is not stretched: it is read as the model's own was.
    dark = load_dataset(write_twelve_bits(tmp_path / "dark", 900))
    assert dark.value_range == (0.0, 1023.0)
    assert adapt_samples(dark.splits["test"].samples, spec).read(0).max() <= round(900 / 4095 * 255)
