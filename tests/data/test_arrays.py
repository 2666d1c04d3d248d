from __future__ import annotations

import gzip
import io
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from falconet.data.arrays import _find_pairs, as_images, as_labels, read_idx, read_idx_folder, read_npz
from falconet.data.dataset import Split, hash_bytes
from falconet.data.images import ValueRange
from falconet.data.series import series_dataset
from falconet.data.sources import load_dataset
from falconet.data.splits import DataConfig, complete_splits
from falconet.errors import DataError
from falconet.spec import ModalityName
from tests.data.builders import to_idx, write_idx, write_mnist

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])
SMALL = hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5)


@settings(deadline=None, max_examples=40)
@given(array=hnp.arrays(np.uint8, SMALL), suffix=st.sampled_from(["", ".gz"]))
def test_idx_files_come_back_as_written(
    array: np.ndarray, suffix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write_idx(tmp_path_factory.getbasetemp() / f"some-idx3-ubyte{suffix}", array)
    back = read_idx(path)
    assert back.dtype == np.uint8
    assert np.array_equal(back, array)
    assert back.flags.writeable


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_no_part_of_an_idx_file_is_enough(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    content = to_idx(IMAGES)
    path = tmp_path_factory.getbasetemp() / "part-idx3-ubyte"
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(DataError, match=r"IDX|truncated"):
        read_idx(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param("a", b"\0\0\x0d\x03" + to_idx(IMAGES)[4:], "found 0x00000d03", id="floats"),
        pytest.param("a", b"not an IDX file", "wanted an IDX file", id="text"),
        pytest.param("a", to_idx(IMAGES) + b"!", r"wanted 120 values for shape \(6, 5, 4\), found more", id="longer"),
        pytest.param("a", to_idx(IMAGES)[:-1], "wanted 120 values .* found 119: truncated", id="shorter"),
        pytest.param("a", to_idx(IMAGES)[:9], "truncated IDX header", id="header"),
        pytest.param(
            "a",
            b"\0\0\x08\x02" + b"\xff" * 8,
            r"wanted at most 1,073,741,824 bytes in memory, found 18,446,744,065,119,617,025",
            id="gigantic",
        ),
        pytest.param("a.gz", to_idx(IMAGES), "cannot be read: Not a gzipped file", id="not gzip"),
        pytest.param("a.gz", gzip.compress(to_idx(IMAGES))[:-20], "cannot be read: .*end", id="gzip cut"),
        pytest.param("a.gz", gzip.compress(to_idx(IMAGES))[:10] + b"\xff" * 30, "cannot be read", id="gzip altered"),
    ],
)
def test_damaged_idx_files_are_refused(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path)
    assert str(caught.value).startswith(str(path))


def test_an_idx_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone: cannot be read"):
        read_idx(tmp_path / "gone")


@pytest.mark.parametrize(
    ("images", "labels", "split"),
    [
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "train"),
        ("train-images.idx3-ubyte", "train-labels.idx1-ubyte", "train"),
        ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "train"),
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte.gz", "train"),
        ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte", "train"),
        ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", "test"),
        ("val_images-idx3-ubyte", "val_labels-idx1-ubyte", "val"),
        ("emnist-letters-test-images-idx3-ubyte", "emnist-letters-test-labels-idx1-ubyte", "test"),
        ("images-idx3-ubyte", "labels-idx1-ubyte", "train"),
    ],
)
def test_idx_files_are_paired_by_name(images: str, labels: str, split: str, tmp_path: Path) -> None:
    write_idx(tmp_path / images, IMAGES)
    write_idx(tmp_path / labels, LABELS)
    splits, classes = read_idx_folder(tmp_path, "mine")
    assert list(splits) == [split]
    assert classes == ("0", "1", "2")
    assert splits[split].labels.tolist() == LABELS.tolist()
    assert splits[split].samples.name(4) == "mine[4]"
    assert np.array_equal(splits[split].samples.read(4)[..., 0], IMAGES[4])


def test_color_idx_files_are_read(tmp_path: Path) -> None:
    colors = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
    write_idx(tmp_path / "train-images-idx4-ubyte", colors)
    write_idx(tmp_path / "train-labels-idx1-ubyte", LABELS)
    splits, _ = read_idx_folder(tmp_path, "mine")
    assert np.array_equal(splits["train"].samples.read(2), colors[2])


def test_of_compressed_twins_the_plain_file_is_read(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    for path in list(tmp_path.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(b"damaged")
    splits, _ = read_idx_folder(tmp_path, "mine")
    assert {name: len(split) for name, split in splits.items()} == {"train": 40, "test": 20}


def test_missing_labels_are_named(tmp_path: Path) -> None:
    write_idx(tmp_path / "train-images-idx3-ubyte", IMAGES)
    with pytest.raises(
        DataError, match="train-labels-idx1-ubyte is missing: it should hold the labels of train-images"
    ):
        read_idx_folder(tmp_path, "mine")


def test_labels_of_another_number_are_refused(tmp_path: Path) -> None:
    write_idx(tmp_path / "train-images-idx3-ubyte", IMAGES)
    write_idx(tmp_path / "train-labels-idx1-ubyte", LABELS[:-1])
    with pytest.raises(DataError, match="mine: train has 6 images but 5 labels"):
        read_idx_folder(tmp_path, "mine")


def test_idx_files_of_no_known_split_are_refused(tmp_path: Path) -> None:
    write_idx(tmp_path / "funny-images-idx3-ubyte", IMAGES)
    write_idx(tmp_path / "funny-labels-idx1-ubyte", LABELS)
    with pytest.raises(DataError, match=r"wanted a name .* train, val, .* found 'funny'"):
        read_idx_folder(tmp_path, "mine")


def test_two_idx_files_of_one_split_are_refused(tmp_path: Path) -> None:
    for kind in ("digits", "letters"):
        write_idx(tmp_path / f"emnist-{kind}-train-images-idx3-ubyte", IMAGES)
        write_idx(tmp_path / f"emnist-{kind}-train-labels-idx1-ubyte", LABELS)
    with pytest.raises(DataError, match=r"wanted one file of train images, found emnist-digits.* and emnist-letters"):
        read_idx_folder(tmp_path, "mine")


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (("images", "labels"), {"train": ("images", "labels")}),
        (("X", "y"), {"train": ("X", "y")}),
        (("data", "target"), {"train": ("data", "target")}),
        (("x_train", "y_train", "x_test", "y_test"), {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")}),
        (
            ("train_images", "train_labels", "val_images", "val_labels"),
            {"train": ("train_images", "train_labels"), "val": ("val_images", "val_labels")},
        ),
        (
            ("x_train", "y_train", "x_valid", "y_valid"),
            {"train": ("x_train", "y_train"), "val": ("x_valid", "y_valid")},
        ),
        (("series", "labels"), {"train": ("series", "labels")}),
        (
            ("series_train", "y_train", "values_test", "y_test"),
            {"train": ("series_train", "y_train"), "test": ("values_test", "y_test")},
        ),
        (("x_train", "y_test"), {}),
        (("pixels", "digits"), {}),
    ],
)
def test_arrays_are_paired_by_name(names: tuple[str, ...], pairs: dict[str, tuple[str, str]]) -> None:
    assert _find_pairs(dict.fromkeys(names, np.zeros(1))) == pairs


def write_member(path: Path, shape: str, content: bytes) -> None:
    """Write images in an array whose header declares a shape, and labels."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + content)
        file = io.BytesIO()
        np.save(file, np.arange(2))
        archive.writestr("labels.npy", file.getvalue())


@pytest.mark.parametrize(
    ("shape", "size", "message"),
    [
        ("(2, 3000, 3000)", 18_000_000, "wanted at most 1,000,000 bytes in memory, found 18,000,016"),
        ("(2, 3000, 3000)", 10, "wanted at most 1,000,000 bytes in memory, found 18,000,016"),
        ("(2, 300000, 300000, 3)", 10, "wanted at most 1,000,000 bytes in memory, found 540,000,000,016"),
        ("(2, 100, 100)", 10, "cannot be read: "),
        ("(2, -1000000, 100)", 10, r"cannot be read: images\.npy declares a negative size"),
    ],
)
def test_npz_unpacks_no_more_than_it_may(tmp_path: Path, shape: str, size: int, message: str) -> None:
    path = tmp_path / "bomb.npz"
    write_member(path, shape, bytes(size))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=message):
            read_npz(path, "bomb.npz", None, 1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_npz_reads_no_more_than_it_declares(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    write_member(path, "(2, 2, 2)", bytes(8))
    read_npz(path, "bomb.npz", None)  # What is imported when it is wanted takes memory too.
    write_member(path, "(2, 2, 2)", bytes(50_000_000))
    tracemalloc.start()
    try:
        _, splits, _ = read_npz(path, "bomb.npz", None, 1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    assert splits["train"].samples.read(1).shape == (2, 2, 1)


def test_npz_splits_are_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez_compressed(path, x_train=IMAGES, y_train=LABELS + 5, x_test=IMAGES[:2], y_test=LABELS[:2, None] + 5)
    kind, splits, classes = read_npz(path, "mine.npz", None)
    assert kind == "image"
    assert classes == ("5", "6", "7")
    assert splits["train"].labels.tolist() == LABELS.tolist()
    assert splits["test"].labels.tolist() == [0, 1]
    assert np.array_equal(splits["test"].samples.read(1)[..., 0], IMAGES[1])


@pytest.mark.parametrize(
    ("labels", "names", "classes", "numbers"),
    [
        (["cat", "ant", "cat", "bee", "bee", "ant"], None, ("ant", "bee", "cat"), [2, 0, 2, 1, 1, 0]),
        ([10, 9, 2, 2, 9, 10], None, ("2", "9", "10"), [2, 1, 0, 0, 1, 2]),
        ([2, 0, 2, 0, 0, 2], ["x", "y", "z"], ("x", "y", "z"), [2, 0, 2, 0, 0, 2]),
        ([True, False, True, True, False, False], None, ("0", "1"), [1, 0, 1, 1, 0, 0]),
        ([1.0, 0.0, 1.0, 1.0, 0.0, 0.0], None, ("0", "1"), [1, 0, 1, 1, 0, 0]),
    ],
)
def test_classes_are_numbered_in_order(
    labels: list[object], names: list[str] | None, classes: tuple[str, ...], numbers: list[int], tmp_path: Path
) -> None:
    path = tmp_path / "mine.npz"
    if names is None:
        np.savez(path, images=IMAGES, labels=np.array(labels))
    else:
        np.savez(path, images=IMAGES, labels=np.array(labels), classes=np.array(names))
    _, splits, found = read_npz(path, "mine.npz", None)
    assert found == classes
    assert splits["train"].labels.tolist() == numbers


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0, 1, 2, 0, 1, -1]), "labels out of range: found -1, wanted 0 to 2147483647"),
        (np.array([0, 1, 2, 0, 1, 0.5]), "wanted whole numbers or strings as labels"),
        (np.array([0, 1, 2, 0, 1, np.nan]), "wanted whole numbers or strings as labels"),
        (np.array([0, 1, 2, 0, 1, np.inf]), "labels out of range: found inf"),
        (np.array([0, 1, 2, 0, 1, 2**63], dtype=np.uint64), "labels out of range: found 9223372036854775808"),
        (np.array([1j] * 6), "wanted whole numbers or strings as labels, found dtype complex"),
        (np.eye(6), r"wanted one label a sample, found shape \(6, 6\)"),
        (np.array([0, 1]), "train has 6 images but 2 labels"),
    ],
)
def test_unusable_labels_are_refused(labels: np.ndarray, message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", images=IMAGES, labels=labels)
    with pytest.raises(DataError, match=message):
        read_npz(tmp_path / "mine.npz", "mine.npz", None)


@pytest.mark.parametrize(
    ("labels", "found"), [([0, 1, 2, 0, 1, 3], "3"), (["ant", "bee", "cat", "ant", "bee", "cat"], "cat")]
)
def test_labels_beyond_the_class_names_are_refused(labels: list[object], found: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", images=IMAGES, labels=np.array(labels), classes=np.array(["a", "b", "c"]))
    with pytest.raises(DataError, match=f"labels out of range: found {found}, wanted 0 to 2"):
        read_npz(tmp_path / "mine.npz", "mine.npz", None)


def test_an_infinite_value_is_found_in_its_series(tmp_path: Path) -> None:
    series = np.zeros((6, 5))
    series[4, 2] = -np.inf
    np.savez(tmp_path / "mine.npz", series=series, labels=np.arange(6) % 2)
    with pytest.raises(DataError, match=r"mine\.npz:series\[4\]: wanted finite values, .* found -inf"):
        read_npz(tmp_path / "mine.npz", "mine.npz", None)


def test_whole_labels_keep_their_values() -> None:
    assert as_labels(np.array([[3], [0]], dtype=np.uint8), "here").tolist() == [3, 0]


@pytest.mark.parametrize("shape", [(6,), (6, 20), (6, 5, 4, 2), (6, 5, 4, 4), (2, 6, 5, 4, 3), (0, 5, 4), (6, 0, 4)])
def test_arrays_of_another_shape_are_no_images(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"here: wanted images as \(n, h, w\).*found shape"):
        as_images(np.zeros(shape, dtype=np.uint8), "here")


def save_images(path: Path, **splits: np.ndarray) -> Path:
    """Write images of a class each in turn, as MedMNIST's archives name them."""
    arrays: dict[str, Any] = {f"{split}_images": images for split, images in splits.items()}
    arrays |= {f"{split}_labels": np.arange(len(images)) % 2 for split, images in splits.items()}
    np.savez(path, **arrays)
    return path


def read_pixels(
    path: Path, kind: ModalityName | None = None, value_range: ValueRange | None = None
) -> dict[str, np.ndarray]:
    _, splits, _ = read_npz(path, path.name, kind, value_range=value_range)
    arrays = {name: [split.samples.read(index) for index in range(len(split))] for name, split in splits.items()}
    return {name: np.stack(images) for name, images in arrays.items()}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, r"wanted finite values, found nan\.\.nan in image 1; leave such images out, or "),
        (np.inf, r"wanted finite values, found 0\.\.inf in image 1; "),
        (-0.1, r"wanted values in 0\.\.65535, found -0.1"),
        (65536.0, r"wanted values in 0\.\.65535, found 0\.\.65536"),
    ],
)
def test_pixel_values_out_of_range_are_refused(value: float, message: str, tmp_path: Path) -> None:
    array = np.zeros((2, 3, 3))
    array[1, 1, 1] = value
    with pytest.raises(DataError, match=f"train_images: {message}.*set data.kind=series where they are series"):
        read_pixels(save_images(tmp_path / "mine.npz", train=array))


def test_values_below_black_are_read_where_that_is_said(tmp_path: Path) -> None:
    path = save_images(tmp_path / "mine.npz", train=np.array([-1, 0, 1]).reshape(3, 1, 1) * np.ones((3, 2, 2)))
    for found in (read_pixels(path, "image"), read_pixels(path, value_range=(-1, 1))):
        assert found["train"][:, 0, 0, 0].tolist() == [0, 32768, 65535]
    assert read_pixels(path, value_range=(0, 2))["train"][:, 0, 0, 0].tolist() == [0, 0, 32768]


@pytest.mark.parametrize(
    ("white", "dtype"),
    [(4095, np.uint16), (4095, np.int32), (4095, ">u2"), (1023, np.int64), (65535, np.float32), (16383, np.uint32)],
)
def test_deep_arrays_have_one_range_for_all_splits(white: int, dtype: str, tmp_path: Path) -> None:
    train = np.linspace(0, white, 50).round().astype(dtype).reshape(2, 5, 5)
    # Darker by far: read alone, it would be stretched.
    test = (train // 20).astype(dtype)
    path = save_images(tmp_path / "mine.npz", train=train, test=test)
    dataset = load_dataset(path)
    assert dataset.value_range == (0.0, float(white))
    found = read_pixels(path)
    for split, raw in (("train", train), ("test", test)):
        assert found[split].dtype == np.uint16
        assert np.array_equal(found[split][..., 0], np.round(raw.astype(np.float64) * (65535 / white)))
    everything = dataset.split("all").samples
    assert max(int(everything.read(index).max()) for index in range(len(everything))) == 65535


def test_floating_point_between_the_levels_keeps_them_apart(tmp_path: Path) -> None:
    ramp = np.linspace(0, 1, 1000).reshape(10, 10, 10)
    for scale, white in ((1, 1), (250, 255)):
        path = save_images(tmp_path / "mine.npz", train=ramp * scale, val=ramp[:2] * scale / 300)
        assert load_dataset(path).value_range == (0.0, float(white))
        assert len(np.unique(read_pixels(path)["train"])) == 1000
        # The least of both splits share one scale: no array is stretched by its own extremes.
        assert int(read_pixels(path)["val"].max()) == round(ramp[1].max() * scale / 300 * 65535 / white)


@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.float64, np.uint16])
@pytest.mark.parametrize("scale", [1, 1 / 255])
def test_bytes_in_a_larger_type_are_what_they_were(dtype: type, scale: float, tmp_path: Path) -> None:
    if scale < 1 and not issubclass(dtype, np.floating):
        pytest.skip("whole numbers")
    # The test split is dark: in floating point, its values alone would seem to be another unit.
    pixels = {"train": IMAGES, "test": np.minimum(IMAGES, 1)}
    plain = load_dataset(save_images(tmp_path / "plain.npz", **pixels))
    wide = {split: (images * dtype(scale)).astype(dtype) for split, images in pixels.items()}
    path = save_images(tmp_path / "wide.npz", **wide)
    dataset = load_dataset(path)
    assert dataset.value_range is None
    assert dataset.fingerprint == plain.fingerprint
    for split, images in pixels.items():
        found = read_pixels(path)[split]
        assert found.dtype == np.uint8
        assert np.array_equal(found[..., 0], images)
    # Another range may be asked for, and changes neither hashes nor splits.
    asked = load_dataset(path, config=DataConfig(value_range=(0, 510 * scale)))
    assert (asked.value_range, asked.fingerprint) == ((0, 510 * scale), plain.fingerprint)
    assert read_pixels(path, value_range=(0, 510 * scale))["train"].max() == round(IMAGES.max() / 510 * 65535)


def test_hashes_of_deep_arrays_follow_from_their_values_alone(tmp_path: Path) -> None:
    ramp = np.arange(3000, 3100).reshape(4, 5, 5)
    hashes = [
        load_dataset(save_images(tmp_path / "mine.npz", train=ramp.astype(dtype)), config=config).fingerprint
        for dtype in (np.uint16, np.int32, np.float64)
        for config in (None, DataConfig(value_range=(3000, 3100)))
    ]
    assert len(set(hashes)) == 1
    ramp[0, 0, 0] += 1
    assert load_dataset(save_images(tmp_path / "mine.npz", train=ramp)).fingerprint not in hashes


def test_splits_of_bytes_and_of_deep_values_are_joined(tmp_path: Path) -> None:
    deep = np.full((2, 3, 3), 4095, dtype=np.uint16)
    path = save_images(tmp_path / "mine.npz", train=np.full((4, 3, 3), 128, dtype=np.uint8), test=deep)
    dataset = load_dataset(path)
    assert dataset.value_range == (0.0, 4095.0)
    everything = dataset.split("all").samples
    assert {int(everything.read(index)[0, 0, 0]) for index in range(6)} == {128 * 257, 65535}


def test_strings_are_no_pixels() -> None:
    with pytest.raises(DataError, match="here: wanted numbers, found dtype <U1"):
        as_images(np.full((2, 3, 3), "x"), "here")


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (IMAGES, IMAGES[..., None]),
        (IMAGES[..., None], IMAGES[..., None]),
        (IMAGES[:, None], IMAGES[..., None]),
        (IMAGES.astype(np.int64), IMAGES[..., None]),
        (IMAGES.astype(np.float32), IMAGES[..., None]),
        (IMAGES.astype(np.float32) / 255, IMAGES[..., None]),
        (IMAGES > 127, (255 * (IMAGES > 127))[..., None]),
        ((IMAGES > 127).astype(np.int64), (IMAGES > 127)[..., None]),
        (np.stack([IMAGES] * 3, axis=1), np.stack([IMAGES] * 3, axis=-1)),
        (np.stack([IMAGES] * 3, axis=-1), np.stack([IMAGES] * 3, axis=-1)),
    ],
    ids=["gray", "one channel", "channel first", "int", "float", "0..1", "bool", "int 0..1", "color first", "color"],
)
def test_images_become_bytes_with_channels_last(array: np.ndarray, expected: np.ndarray, tmp_path: Path) -> None:
    images = read_pixels(save_images(tmp_path / "mine.npz", train=array), "image")["train"]
    assert images.dtype == np.uint8
    assert np.array_equal(images, expected)
    assert as_images(array, "here").flags.c_contiguous


def write_members(path: Path, **members: tuple[str, bytes]) -> None:
    """Write an archive of arrays by what their headers say, as no NumPy would, and by their bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (header, content) in members.items():
            start = b"\x93NUMPY\x02\0" + struct.pack("<I", len(header))
            archive.writestr(f"{name}.npy", start + header.encode() + content)


def describe(shape: str) -> str:
    return f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}"


def test_a_negative_size_makes_no_room_for_a_larger_array(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    write_members(path, images=(describe("(4, 4, 4)"), bytes(64)), labels=(describe("(4,)"), bytes(4)))
    assert len(read_npz(path, "mine.npz", None, 70)[1]["train"].labels) == 4
    with pytest.raises(DataError, match="wanted at most 60 bytes in memory, found 68"):
        read_npz(path, "mine.npz", None, 60)
    write_members(path, images=(describe("(4, 4, 4)"), bytes(64)), labels=(describe("(-100,)"), b""))
    with pytest.raises(DataError, match=r"labels\.npy declares a negative size"):
        read_npz(path, "mine.npz", None, 60)


def test_thousands_of_arrays_are_refused(tmp_path: Path) -> None:
    many = {f"a{index}": ("", b"") for index in range(1001)}
    write_members(tmp_path / "mine.npz", **many)
    with pytest.raises(DataError, match="wanted at most 1000 arrays, found 1001"):
        read_npz(tmp_path / "mine.npz", "mine.npz", None)


def test_an_arrays_description_of_megabytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    write_members(path, images=(describe("(4, 4, 4)") + " " * (20 << 20), bytes(64)))
    tracemalloc.start()
    with pytest.raises(DataError, match=r"mine\.npz: cannot be read: EOF: reading array header"):
        read_npz(path, "mine.npz", None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20


def test_object_arrays_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", images=np.array([None, {}], dtype=object), labels=LABELS)
    with pytest.raises(DataError, match=r"mine\.npz: cannot be read: it holds object arrays, which need pickle"):
        read_npz(tmp_path / "mine.npz", "mine.npz", None)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04"])
def test_other_files_are_no_npz(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"mine\.npz: cannot be read: it is no whole \.npz archive"):
        read_npz(path, "mine.npz", None)


def test_a_single_array_is_no_npz(tmp_path: Path) -> None:
    np.save(tmp_path / "mine.npy", IMAGES)
    path = (tmp_path / "mine.npy").rename(tmp_path / "mine.npz")
    with pytest.raises(DataError, match=r"mine\.npz: cannot be read: it is no whole \.npz archive"):
        read_npz(path, "mine.npz", None)


def test_unknown_array_names_are_listed(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", pixels=IMAGES, digits=LABELS)
    with pytest.raises(DataError, match=r"wanted arrays such as images and labels.* found \['digits', 'pixels'\]"):
        read_npz(tmp_path / "mine.npz", "mine.npz", None)


@pytest.fixture(scope="module")
def npz_content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("npz") / "mine.npz"
    np.savez_compressed(path, images=IMAGES, labels=LABELS)
    return path.read_bytes()


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_no_part_of_an_npz_is_enough(
    data: st.DataObject, npz_content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "part.npz"
    path.write_bytes(npz_content[: data.draw(st.integers(0, len(npz_content) - 1))])
    with pytest.raises(DataError, match="cannot be read"):
        read_npz(path, "part.npz", None)


@settings(deadline=None, max_examples=150)
@given(place=st.integers(0, 10_000), value=st.integers(0, 255))
def test_an_altered_npz_is_read_as_it_was_or_refused(
    place: int, value: int, npz_content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(npz_content)
    content[place % len(content)] = value
    path = tmp_path_factory.getbasetemp() / "altered.npz"
    path.write_bytes(bytes(content))
    try:
        _, splits, _ = read_npz(path, "altered.npz", None)
    except DataError:
        return
    assert splits["train"].labels.tolist() == LABELS.tolist()
    assert np.array_equal(splits["train"].samples.read(3)[..., 0], IMAGES[3])


SERIES = np.random.default_rng(0).normal(size=(6, 3, 7)).astype(np.float32)
LENGTHS = np.array([7, 1, 3, 7, 5, 2])


def series_of(split: Split) -> list[np.ndarray]:
    return [split.samples.read(index) for index in range(len(split))]


def cut(series: np.ndarray) -> list[np.ndarray]:
    return [values[:, :length] for values, length in zip(series, LENGTHS, strict=True)]


def all_equal(some: list[np.ndarray], others: list[np.ndarray]) -> bool:
    return len(some) == len(others) and all(
        a.dtype == np.float32 and np.array_equal(a, b, equal_nan=True) for a, b in zip(some, others, strict=True)
    )


@pytest.mark.parametrize(
    ("names", "array", "kind", "found"),
    [
        (("series", "labels"), SERIES, None, "series"),
        (("series", "y"), SERIES[:, 0], None, "series"),
        (("x", "y"), SERIES[:, 0], None, "series"),
        (("X", "y"), SERIES[:, 0].astype(np.float16), None, "series"),
        (("data", "target"), (100 * SERIES[:, 0]).astype(np.int64), None, "series"),
        (("data", "target"), SERIES[:, 0] > 0, None, "series"),
        (("x_train", "y_train"), SERIES[:, 0], None, "series"),
        (("train_series", "train_labels"), SERIES, None, "series"),
        (("x", "y"), SERIES, "series", "series"),
        (("images", "labels"), SERIES, "series", "series"),
        (("x", "y"), np.abs(SERIES), None, "image"),
        (("series", "labels"), np.abs(SERIES), "image", "image"),
    ],
)
def test_arrays_are_series_by_name_shape_or_setting(
    names: tuple[str, str], array: np.ndarray, kind: ModalityName | None, found: ModalityName, tmp_path: Path
) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, allow_pickle=False, **{names[0]: array, names[1]: LABELS})
    read, splits, classes = read_npz(path, "mine.npz", kind)
    assert read == found
    assert classes == ("0", "1", "2")
    split = splits["train"]
    assert split.labels.tolist() == LABELS.tolist()
    assert split.samples.name(4) == "mine.npz[4]"
    if found == "series":
        expected = list(np.float32(array).reshape(6, -1, 7))
        assert all_equal(series_of(split), expected)
        assert split.hashes.tolist() == [hash_bytes(series.tobytes()) for series in expected]


def test_nan_behind_a_series_is_no_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    series = SERIES.copy()
    series[4, 1] = np.nan
    for values, length in zip(series, LENGTHS, strict=True):
        values[:, length:] = np.nan
    np.savez(path, series=series, labels=LABELS)
    kind, splits, classes = read_npz(path, "mine.npz", None)
    assert all_equal(series_of(splits["train"]), cut(series))
    dataset = series_dataset("mine.npz", splits, classes)
    assert (dataset.kind, dataset.channels, dataset.size) == (kind, 3, (4,))


@pytest.mark.parametrize("channels", [1, 3])
def test_series_of_unequal_lengths_stand_behind_one_another(channels: int, tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    parts = cut(SERIES[:, :channels])
    values = np.concatenate(parts, axis=1)
    flat = values[0] if channels == 1 else values
    np.savez(
        path, values_train=flat, lengths_train=LENGTHS, labels_train=LABELS,
        test_values=flat[..., :8], test_lengths=LENGTHS[:2].astype(np.uint8), test_labels=LABELS[:2],
    )  # fmt: skip
    _, splits, _ = read_npz(path, "mine.npz", None)
    assert all_equal(series_of(splits["train"]), parts)
    assert all_equal(series_of(splits["test"]), parts[:2])
    assert splits["test"].samples.name(1) == "mine.npz:test[1]"


NO_STEPS = SERIES.copy()
NO_STEPS[2] = np.nan
INFINITE = SERIES.astype(np.float64)
INFINITE[2, 1, 3] = -1e39


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (NO_STEPS, r"mine\.npz:series\[2\]: no values; leave this series out"),
        (INFINITE, r"mine\.npz:series\[2\]: wanted finite values, or NaN for missing ones, found -1e\+39"),
        (SERIES + 1j, "series: wanted numbers, found dtype complex64"),
        (np.full((6, 4), "x"), "series: wanted numbers, found dtype <U1"),
        (np.zeros((6, 0)), r"series: wanted series, found shape \(6, 1, 0\)"),
        (np.zeros(6), r"series: wanted series as \(n, steps\) or \(n, channels, steps\).* found shape \(6,\)"),
        (np.zeros((6, 2, 2, 2)), r"found shape \(6, 2, 2, 2\)"),
        (np.array([None] * 6), "cannot be read: it holds object arrays, which need pickle"),
        (SERIES[:4], "mine.npz: train has 4 series but 6 labels"),
    ],
)
def test_arrays_that_are_no_series_are_refused(array: np.ndarray, message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", series=array, labels=LABELS)
    with pytest.raises(DataError, match=message):
        read_npz(tmp_path / "mine.npz", "mine.npz", None)


@pytest.mark.parametrize("lengths", [[25], [24, 1, 1], [26, -1], [25, 0], [12.5, 12.5], ["25"], [[25]], []], ids=str)
def test_lengths_must_sum_up_to_the_steps(lengths: list[object], tmp_path: Path) -> None:
    values = SERIES[:, 0].reshape(1, -1)[:, :26] if lengths == [25] else SERIES[:, 0].reshape(1, -1)[:, :25]
    np.savez(tmp_path / "mine.npz", values=values, lengths=np.array(lengths), labels=LABELS)
    with pytest.raises(
        DataError, match=r"npz:values: wanted values \(channels, total steps\) and lengths, whole numbers"
    ):
        read_npz(tmp_path / "mine.npz", "mine.npz", None)


def test_values_without_lengths_are_series_of_one_length(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", values=SERIES, labels=LABELS)
    kind, splits, _ = read_npz(tmp_path / "mine.npz", "mine.npz", None)
    assert kind == "series"
    assert all_equal(series_of(splits["train"]), list(SERIES))


def test_arrays_are_no_texts(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", images=IMAGES, labels=LABELS)
    with pytest.raises(DataError, match=r"mine\.npz: wanted texts, found arrays; put texts into a table"):
        read_npz(tmp_path / "mine.npz", "mine.npz", "text")


def test_splits_of_different_channels_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", series_train=SERIES, y_train=LABELS, series_test=SERIES[:, :2], y_test=LABELS)
    _, splits, classes = read_npz(tmp_path / "mine.npz", "mine.npz", None)
    with pytest.raises(DataError, match="same number of channels in all splits, found 3 in train, 2 in test"):
        series_dataset("mine.npz", splits, classes)


def test_series_without_a_training_split_are_refused_for_training(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", series_test=SERIES, y_test=LABELS)
    _, splits, classes = read_npz(tmp_path / "mine.npz", "mine.npz", None)
    dataset = series_dataset("mine.npz", splits, classes)
    assert dataset.channels == SERIES.shape[1]
    with pytest.raises(DataError, match=r"mine\.npz: no training split; found test"):
        complete_splits(dataset, DataConfig())
