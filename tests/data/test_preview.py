from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from falconet.data import load_dataset, preview
from falconet.data.checks import DataReport, LabelError, NearDuplicate, Outlier, describe_data
from falconet.data.dataset import Dataset, ImageFiles, Split
from falconet.data.drawing import DPI, write_figure
from falconet.data.preview import _GAP, TILE, VARIANTS, read_firsts, write_preview, write_suspects
from falconet.errors import ConfigError, DataError, StorageError, UnknownNameError
from tests.conftest import FolderMaker
from tests.data.builders import encode, make_dataset, make_series_dataset, make_series_split, make_text_dataset

STEP = TILE + _GAP
SHOWN = 7
"""Suspects of a section in these tests: more than one row of them."""


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Collect the figures that are written."""
    found: list[Figure] = []

    def collect(figure: Figure, path: Path) -> None:
        found.append(figure)
        write_figure(figure, path)

    monkeypatch.setattr(preview, "write_figure", collect)
    return found


@pytest.mark.parametrize(("mode", "classes"), [("RGB", 2), ("L", 3), ("RGB", 12)])
def test_a_preview_shows_each_class_above_its_variants(
    mode: str, classes: int, make_folder: FolderMaker, tmp_path: Path
) -> None:
    names = tuple(f"class {index:02d}" for index in range(classes))
    dataset = load_dataset(make_folder(classes=names, count=4, mode=mode))
    path = tmp_path / "new" / "preview.png"
    write_preview(dataset, path, "light")
    columns = min(classes, 10)
    with Image.open(path) as image:
        sheet = np.asarray(image).astype(float)
    assert sheet.shape == ((VARIANTS + 1) * STEP + _GAP, columns * STEP + _GAP, 3)
    assert (sheet[:_GAP] == 128).all()
    for row in range(VARIANTS + 1):
        tiles = [sheet[row * STEP + _GAP :, column * STEP + _GAP :][:TILE, :TILE] for column in range(columns)]
        levels = [tile.mean() for tile in tiles]
        wanted = [255 * (column + 1) / (classes + 1) for column in range(columns)]
        assert levels == pytest.approx(wanted, abs=6)
    first = sheet[_GAP : _GAP + TILE, _GAP : _GAP + TILE]
    assert not np.array_equal(first, sheet[STEP + _GAP : STEP + _GAP + TILE, _GAP : _GAP + TILE])


@pytest.mark.slow
def test_a_preview_of_the_same_data_is_the_same(make_folder: FolderMaker, tmp_path: Path) -> None:
    datasets = load_dataset(make_folder(count=3)), make_waves(classes=3)
    for dataset in datasets:
        paths = [tmp_path / "one.png", tmp_path / "two.png"]
        for path in paths:
            write_preview(dataset, path, "strong")
        assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("name", ["file/preview.png", "folder.png"])
def test_a_picture_that_cannot_be_written_says_so(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    digits = load_dataset("digits")
    with pytest.raises(StorageError, match=f"cannot write .*{name}: "):
        write_preview(digits, tmp_path / name, "light")
    with pytest.raises(StorageError, match=f"cannot write .*{name}: "):
        write_preview(make_waves(), tmp_path / name, "light")
    with pytest.raises(StorageError, match=f"cannot write .*{name}: "):
        write_suspects(digits, describe_data(digits), tmp_path / name)


def test_texts_and_unknown_policies_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "preview.png"
    with pytest.raises(ConfigError, match="--preview draws images and series; made holds texts"):
        write_preview(make_text_dataset(train=["one", "two"]), path, "light")
    with pytest.raises(UnknownNameError, match=r"'lihgt'.*did you mean light"):
        write_preview(make_waves(), path, "lihgt")
    assert not path.exists()


def test_samples_that_cannot_be_read_are_passed_over(tmp_path: Path) -> None:
    for index in range(6):
        (tmp_path / f"{index}.png").write_bytes(encode(Image.new("L", (4, 4), index)))
    (tmp_path / "0.png").write_bytes(b"")
    (tmp_path / "2.png").unlink()
    labels = np.array([0, 0, 1, 1, 0, 2])
    files = Split(ImageFiles(tmp_path, [f"{index}.png" for index in range(6)]), labels, np.arange(6, dtype=np.uint64))
    (tmp_path / "5.png").unlink()
    dataset = make_dataset(train=files)
    assert {name: int(image[0, 0, 0]) for name, image in read_firsts(dataset).items()} == {"a": 1, "b": 3}
    write_preview(dataset, tmp_path / "preview.png", "light")
    for index in (1, 3, 4):
        (tmp_path / f"{index}.png").unlink()
    with pytest.raises(DataError, match="no training sample can be read"):
        write_preview(dataset, tmp_path / "preview.png", "light")


def make_waves(classes: int = 2, channels: int = 1, rate: int | None = None) -> Dataset:
    """Return one class of waves of each of several lengths, and test samples like them."""
    series = []
    for label in range(classes):
        time = np.arange(40 + 10 * label)
        rows = [np.sin(time / (2 + label + channel)) + 3 * channel for channel in range(channels)]
        series.append(np.stack(rows).astype(np.float32))
    labels = list(range(classes))
    parts = make_series_split(series, labels), make_series_split([wave + 1 for wave in series], labels, "test.ts")
    return make_series_dataset(rate, train=parts[0], test=parts[1])


@pytest.mark.slow
@pytest.mark.parametrize(("classes", "channels", "rate"), [(2, 1, None), (12, 3, None), (3, 12, 20)])
def test_a_preview_of_series_shows_curves(
    classes: int, channels: int, rate: int | None, figures: list[Figure], tmp_path: Path
) -> None:
    dataset = make_waves(classes, channels, rate)
    write_preview(dataset, tmp_path / "preview.png", "light")
    (figure,) = figures
    columns = min(classes, 10)
    assert len(figure.axes) == (VARIANTS + 1) * columns
    assert [axes.get_title() for axes in figure.axes[:columns]] == list(dataset.classes[:columns])
    for number, axes in enumerate(figure.axes):
        series = dataset.splits["train"].samples.read(number % columns)
        assert len(axes.lines) == channels
        for line, values in zip(axes.lines, series, strict=True):
            curve = np.asarray(line.get_ydata())
            assert line.get_xdata() == pytest.approx(np.arange(len(values)) / (rate or 1))
            assert curve.shape == values.shape
            assert np.array_equal(curve, values) == (number < columns)
            assert np.abs(curve - values).mean() < 1
    assert figure.get_supxlabel() == ("seconds" if rate else "steps")
    assert len(figure.legends) == (1 if channels == 3 else 0)
    assert_tidy(figure)


def test_series_without_values_are_passed_over() -> None:
    series = [np.full((1, 5), np.nan), np.ones((1, 4)), np.zeros((1, 3))]
    dataset = make_series_dataset(train=make_series_split(series, [0, 0, 1]))
    assert {name: values.shape for name, values in read_firsts(dataset).items()} == {"a": (1, 4), "b": (1, 3)}


def list_lines(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def assert_tidy(figure: Figure) -> None:
    """Check that everything lies on the page, and that neither lines nor pictures with their labels overlap."""
    pictures: list[tuple[str, Any]]
    pictures = [(f"picture {number}", axes.get_tightbbox()) for number, axes in enumerate(figure.axes)]
    lines = [(str(part), part.get_window_extent()) for part in (*figure.texts, *figure.legends)]
    for name, box in [*pictures, *lines]:
        assert box.x0 >= 0, name
        assert box.y0 >= 0, name
        assert box.x1 <= figure.bbox.x1, name
        assert box.y1 <= figure.bbox.y1, name
    for (one, first), (two, second) in combinations([*pictures, *lines], 2):
        assert not first.overlaps(second), f"{one!r} and {two!r}"


def suspect_all(dataset: Dataset) -> DataReport:
    """Return a report that suspects many samples of everything, under their names."""
    samples = dataset.splits["train"].samples
    names = [samples.name(index) for index in range(len(samples))]
    other = dataset.splits["test"].samples.name(0)
    pairs = [NearDuplicate((names[0], name), ("train", "train"), 0.012) for name in names[1:]]
    return replace(
        describe_data(dataset),
        near_duplicates=(NearDuplicate((names[0], other), ("train", "test"), 0.003), *pairs),
        leaks=((names[0], names[1], other),),
        constant=tuple(names),
        outliers=tuple(Outlier(name, "1,000x2,000 pixels, median 100x200") for name in names),
        label_errors=tuple(
            LabelError(name, "train", "a class with a long name", "another such class", 0.9312) for name in names
        ),
    )


def make_many(kind: str, tmp_path: Path) -> Dataset:
    count = SHOWN + 3
    if kind == "series":
        parts = [make_series_split([np.ones((2, 30))] * count, [0, 1] * (count // 2), name) for name in "xy"]
        return make_series_dataset(train=parts[0], test=parts[1])
    if kind == "text":
        return make_text_dataset(train=["M" * 30 + " $x$ " * 99] * count, test=["short"])
    folder = tmp_path / "a folder with a rather long name"
    folder.mkdir()
    names = [f"{folder.name}/IMG_{index:04d} as the camera calls it.png" for index in range(count + 1)]
    for index, name in enumerate(names):
        (tmp_path / name).write_bytes(encode(Image.new("RGB", (10 + index * 20, 30), "red")))
    positions = np.arange(count + 1)
    files = Split(ImageFiles(tmp_path, names), positions % 2, positions.astype(np.uint64))
    return replace(make_dataset(train=files.take(positions[:-1]), test=files.take(positions[-1:])), source="W" * 300)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["image", "series", "text"])
def test_suspects_are_shown_by_section(
    kind: str, figures: list[Figure], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preview, "_SHOWN", SHOWN)
    dataset = make_many(kind, tmp_path)
    path = tmp_path / "suspects.png"
    write_suspects(dataset, suspect_all(dataset), path)
    (figure,) = figures
    count = SHOWN + 3
    lines = list_lines(figure)
    titles = ["Near duplicates", "Leaks", "Constant", "Outliers", "Label errors"]
    assert [line for line in lines if line.split(":")[0] in titles] == [
        f"{title}: {1 if title == 'Leaks' else count}" for title in titles
    ]
    assert len(figure.axes) == SHOWN * 2 + 2 + 3 * SHOWN
    assert sum(line.endswith("; the first 7 are shown") for line in lines) == 4
    assert lines.count("a c…ong name → ano…ch class") == lines.count("confidence 93%, in train") == SHOWN
    assert lines.count("one of 3") == 2
    assert lines.count("distance 0.003") == (2 if kind == "image" else 0)
    assert_tidy(figure)
    with Image.open(path) as image:
        assert image.size == pytest.approx(tuple(figure.get_size_inches() * DPI), abs=1)


def test_what_has_gone_since_is_called_unreadable(figures: list[Figure], tmp_path: Path) -> None:
    dataset = make_many("image", tmp_path)
    report = replace(describe_data(dataset), near_duplicates=(), outliers=())
    assert report.constant
    (tmp_path / report.constant[0]).unlink()
    write_suspects(dataset, report, tmp_path / "suspects.png")
    assert [text.get_text() for axes in figures[0].axes for text in axes.texts] == ["unreadable"]


@pytest.mark.slow
def test_where_nothing_looks_wrong_the_sheet_says_so(figures: list[Figure], tmp_path: Path) -> None:
    dataset = load_dataset("digits")
    write_suspects(dataset, describe_data(dataset), tmp_path / "suspects.png")
    title, counts, verdict = list_lines(figures[0])
    assert title == "Suspects in digits"
    assert counts.startswith("1,797 samples of 10 classes, looked through for near duplicates, leaks")
    assert verdict == "Nothing looks wrong."
    assert not figures[0].axes


def test_suspects_are_drawn_without_torch(make_folder: FolderMaker, tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from falconet.data import load_dataset; from falconet.data.checks import describe_data\n"
        "from falconet.data.preview import write_suspects; dataset = load_dataset(sys.argv[1])\n"
        "write_suspects(dataset, describe_data(dataset), pathlib.Path(sys.argv[2])); print('torch' in sys.modules)"
    )
    arguments: list[Any] = [sys.executable, "-c", code, make_folder(), tmp_path / "suspects.png"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
