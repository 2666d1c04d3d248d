"""predict(): the same answers whatever holds the samples, and one line for what cannot be read."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from falconet import cli, iterate_predictions, predict
from falconet.artifact import Artifact
from falconet.data import Columns, Texts, unlabeled
from falconet.data.unlabeled import Url
from falconet.errors import ConfigError, DataError, PathError, UsageError
from falconet.predictions import Predictions
from falconet.spec import SeriesSpec
from falconet.tables import iterate_table
from tests.exporters.builders import LABELS, STEPS, ask_own, make_artifact, make_spec

Capture = pytest.CaptureFixture[str]
TEXTS = ("plum and pear", "iron, zinc, lead", "Äpfel 苹果", "ten eleven one two")


@pytest.fixture(scope="module")
def texts() -> Artifact:
    return make_artifact("transformer", make_spec("transformer", "text"), width=16, layers=1)


@pytest.fixture(scope="module")
def series() -> Artifact:
    return make_artifact("transformer", SeriesSpec((1, STEPS), (0.0,), (1.0,)), width=16, layers=1)


@pytest.fixture(scope="module")
def numbered() -> Artifact:
    """A model of series whose classes are numbers, as in the UCR archive."""
    spec = SeriesSpec((1, STEPS), (0.0,), (1.0,))
    return make_artifact("transformer", spec, labels=("0", "1"), width=16, layers=1)


@pytest.fixture(scope="module")
def images() -> Artifact:
    return make_artifact("lenet5", make_spec("lenet5", "image"))


@pytest.fixture(scope="module")
def curves() -> np.ndarray:
    values: np.ndarray = np.random.default_rng(0).normal(size=(4, STEPS)).round(4).astype(np.float32)
    return values


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)


def check(found: Predictions, artifact: Artifact, raw: Sequence[Any] | np.ndarray) -> None:
    """Compare with what the network itself answers about each raw sample alone."""
    labels, own = artifact.config.output.labels, ask_own(artifact, list(raw))
    assert [row.label for row in found.predictions] == [labels[index] for index in own.argmax(axis=1)]
    assert [row.probability for row in found.predictions] == pytest.approx(own.max(axis=1).tolist(), abs=1e-5)


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as the extension says."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        mark = "\t" if path.suffix == ".tsv" else ","
        lines = [mark.join(rows[0]), *(mark.join(f'"{cell}"' for cell in row.values()) for row in rows)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("labeled", [True, False])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_tables_of_texts(texts: Artifact, tmp_path: Path, suffix: str, labeled: bool) -> None:
    rows = [{"note": text} | ({"label": "six"} if labeled else {}) for text in TEXTS]
    path = write(tmp_path / f"t{suffix}", rows)
    found = predict(texts, path)
    check(found, texts, TEXTS)
    first = 1 if suffix in {".jsonl", ".parquet"} else 2
    assert [row.file for row in found.predictions] == [f"{path}:{first + index}" for index in range(4)]


def test_a_table_is_answered_in_parts(texts: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unlabeled, "iterate_table", partial(iterate_table, rows=3))
    path = write(tmp_path / "t.csv", [{"text": text} for text in TEXTS * 2])
    parts = [part for part in iterate_predictions(texts, path) if part.predictions]
    assert [len(part.predictions) for part in parts] == [3, 3, 2]
    assert [row.label for part in parts for row in part.predictions] == [
        row.label for row in predict(texts, list(TEXTS * 2)).predictions
    ]


def test_texts_at_hand(texts: Artifact) -> None:
    check(predict(texts, list(TEXTS)), texts, TEXTS)
    check(predict(texts, Texts(TEXTS, np.array(["a", "b", "c", "d"]))), texts, TEXTS)
    found = predict(texts, ["plum", " ", 3, "\ud800", "iron"])
    assert [row.file for row in found.predictions] == ["0", "4"]
    reasons = ["empty text", "wanted a text, found int", "lone surrogates, as of bytes that are no text"]
    assert [(item.file, item.reason) for item in found.skipped] == list(zip("123", reasons, strict=True))


def test_a_file_is_not_classified_by_its_name(texts: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text(TEXTS[0], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"wanted texts, found the name of a file, 'a\.txt'; give files as"):
        predict(texts, ["a.txt"])
    check(predict(texts, [Path("a.txt")]), texts, TEXTS[:1])
    check(predict(texts, "a.txt"), texts, TEXTS[:1])


def write_ts(path: Path, curves: np.ndarray, *, labeled: bool) -> Path:
    said = "true p q" if labeled else "false"
    rows = [",".join(map(str, row)) + (":p" if labeled else "") for row in curves.tolist()]
    path.write_text("\n".join([f"@univariate true\n@classLabel {said}\n@data", *rows]) + "\n", encoding="utf-8")
    return path


def write_wide(path: Path, curves: np.ndarray, label: str = "", header: bool = True) -> Path:
    names = [*(["label"] if label else []), *(f"v{index}" for index in range(curves.shape[1]))]
    rows = [[*([label] if label else []), *map(str, row)] for row in curves.tolist()]
    path.write_text("\n".join(map(",".join, [names, *rows] if header else rows)) + "\n", encoding="utf-8")
    return path


def write_long(path: Path, curves: np.ndarray) -> Path:
    """Write the rows of all series mixed, as a logger does."""
    rows = [f"case {row},{step},{curves[row, step]}" for step in range(curves.shape[1]) for row in range(len(curves))]
    path.write_text("\n".join(["id,t,value", *rows]) + "\n", encoding="utf-8")
    return path


def write_npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


SERIES: dict[str, Callable[[Path, np.ndarray], object]] = {
    "ts": lambda folder, curves: write_ts(folder / "a.ts", curves, labeled=False),
    "labeled ts": lambda folder, curves: write_ts(folder / "a.ts", curves, labeled=True),
    "wide": lambda folder, curves: write_wide(folder / "a.csv", curves),
    "labeled wide": lambda folder, curves: write_wide(folder / "a.csv", curves, "1"),
    "without names": lambda folder, curves: write_wide(folder / "a.csv", curves, header=False),
    "labeled without names": lambda folder, curves: write_wide(folder / "a.csv", curves, "1", header=False),
    "long": lambda folder, curves: write_long(folder / "a.csv", curves),
    "npz": lambda folder, curves: write_npz(folder / "a.npz", anything=curves),
    "labeled npz": lambda folder, curves: write_npz(folder / "a.npz", series=curves, labels=np.zeros(4, int)),
    "lengths": lambda folder, curves: write_npz(
        folder / "a.npz", values=curves.ravel(), lengths=np.full(4, curves.shape[1])
    ),
    "folder": lambda folder, curves: write_ts(folder / "a.ts", curves, labeled=False).parent,
    "array": lambda folder, curves: curves[:, None],
    "list": lambda folder, curves: list(curves),
    "tensor": lambda folder, curves: torch.from_numpy(curves).requires_grad_(),
}


@pytest.mark.parametrize("way", SERIES)
def test_series(numbered: Artifact, curves: np.ndarray, tmp_path: Path, way: str) -> None:
    check(predict(numbered, SERIES[way](tmp_path, curves)), numbered, list(curves[:, None]))


def test_series_over_several_rows_have_their_own_names(
    series: Artifact, curves: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_long(tmp_path / "a.csv", curves)
    monkeypatch.setattr(unlabeled, "iterate_table", partial(iterate_table, rows=9))
    found = predict(series, path)
    check(found, series, list(curves[:, None]))
    assert [row.file for row in found.predictions] == [f"{path}:case {index}" for index in range(4)]
    lines = "".join(
        json.dumps({"id": f"case {row}", "t": step, "value": float(curves[row, step])}) + "\n"
        for step in range(STEPS)
        for row in range(4)
    )
    check(predict(series, io.BytesIO(lines.encode())), series, list(curves[:, None]))


def test_bad_series_are_listed(series: Artifact, curves: np.ndarray, tmp_path: Path) -> None:
    found = predict(series, [curves[0], np.full(3, np.inf), curves[:2], np.full(4, np.nan), b"none.wav"])
    assert [row.file for row in found.predictions] == ["0"]
    assert [item.file for item in found.skipped] == ["1", "2", "3", "4"]
    assert "found inf" in found.skipped[0].reason
    assert found.skipped[1].reason == "wanted a series of 1 channels, found 2"
    (tmp_path / "a.ts").write_text("@univariate true\n@classLabel false\n@data\n1,2,3\nx,2\n4,5\n", encoding="utf-8")
    found = predict(series, tmp_path / "a.ts")
    assert [row.file for row in found.predictions] == [f"{tmp_path}/a.ts:4", f"{tmp_path}/a.ts:6"]
    assert [item.file for item in found.skipped] == [f"{tmp_path}/a.ts:5"]


@pytest.fixture
def folder(pictures: np.ndarray, tmp_path: Path) -> Path:
    """Pictures, a table that names them, and one file that is none."""
    root = tmp_path / "photos"
    root.mkdir()
    for index, picture in enumerate(pictures):
        Image.fromarray(picture).save(root / f"{index}.png")
    (root / "bad.png").write_bytes(b"no image")
    return root


def test_images_at_hand_and_in_arrays(images: Artifact, pictures: np.ndarray, tmp_path: Path) -> None:
    several: list[object] = [
        pictures,
        pictures.transpose(0, 3, 1, 2),
        torch.from_numpy(pictures),
        [Image.fromarray(picture) for picture in pictures],
        [Image.fromarray(pictures[0]), *pictures[1:]],
        write_npz(tmp_path / "a.npz", pictures=pictures),
        write_npz(tmp_path / "b.npz", x_test=pictures, y_test=np.zeros(4, int)),
    ]
    for asked in several:
        check(predict(images, asked), images, list(pictures))
    check(predict(images, Image.fromarray(pictures[0])), images, pictures[:1])
    close = predict(images, pictures.astype(np.float32) / 255).predictions
    assert [row.probability for row in close] == pytest.approx(
        [row.probability for row in predict(images, pictures).predictions], abs=1e-3
    )


def test_images_of_a_table(images: Artifact, pictures: np.ndarray, folder: Path) -> None:
    rows = ["file,label", *(f"photos/{name},six" for name in ("0.png", "none.png", "1.png", "../../x.png"))]
    (folder.parent / "a.csv").write_text("\n".join(rows), encoding="utf-8")
    found = predict(images, folder.parent / "a.csv")
    check(found, images, pictures[:2])
    assert [row.file for row in found.predictions] == [str(folder / "0.png"), str(folder / "1.png")]
    assert [item.file for item in found.skipped] == [f"{folder.parent}/a.csv:5", str(folder / "none.png")]


def test_texts_are_not_taken_for_files_of_images(images: Artifact, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("remark\nripe plums\nsour pears\n", encoding="utf-8")
    with pytest.raises(
        DataError, match=r"t\.csv: wanted paths of images in its columns, found remark; name them: set "
    ):
        predict(images, tmp_path / "t.csv")


def test_one_bad_sample_ends_nothing(images: Artifact, pictures: np.ndarray, folder: Path) -> None:
    spoiled = pictures.astype(np.float32)
    spoiled[1, 0, 0, 0] = np.nan
    found = predict(images, spoiled)
    assert [row.file for row in found.predictions] == ["0", "2", "3"]
    assert found.skipped[0].file == "1"
    found = predict(images, [folder, "digits", Image.fromarray(pictures[0]), np.zeros((2, 2, 7)), 5])
    assert len(found.predictions) == 4 + 1797 + 1
    assert [item.file for item in found.skipped] == [str(folder / "bad.png"), "1", "2"]


def test_inputs_of_other_kinds_are_listed_beside_good_ones(
    images: Artifact, curves: np.ndarray, folder: Path, tmp_path: Path
) -> None:
    write_ts(tmp_path / "a.ts", curves, labeled=True)
    (tmp_path / "t.csv").write_text("words,more\nplum,pear\n", encoding="utf-8")
    found = predict(images, [folder / "0.png", tmp_path / "a.ts", tmp_path / "t.csv"])
    assert len(found.predictions) == 1
    assert [item.reason for item in found.skipped] == [
        "wanted image data, as the model takes, found series",
        "wanted paths of images in its columns, found words, more; name them: set data.columns.path=NAME",
    ]


def cut_parquet(path: Path) -> None:
    write(path, [{"text": text} for text in TEXTS])
    path.write_bytes(path.read_bytes()[:-40])


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "a.csv": (lambda path: path.write_text(""), "a.csv: empty; wanted a header and rows"),
    "b.csv": (lambda path: path.write_text("text\n"), "b.csv: a header and nothing below; wanted rows"),
    "c.parquet": (cut_parquet, "c.parquet: damaged, or no Parquet"),
    "d.csv": (lambda path: path.write_text("a,b\n1,2\n3,4\n"), "d.csv: wanted texts in its columns, found a, b; name"),
    "e.jsonl": (lambda path: path.write_text("[1]\n"), "e.jsonl: no rows that can be read; the first: line 1"),
    "f.npz": (lambda path: path.write_bytes(b"PK"), "f.npz: wanted texts, found arrays"),
    "g.ts": (lambda path: path.write_text("@data\n1\n"), "g.ts: wanted text data, as the model takes, found series"),
    "h.csv": (lambda path: path.symlink_to("nowhere"), "h.csv: a link to nothing"),
    "i.csv": (lambda path: path.write_text("text\n\n \n"), "none of|the sample cannot be read|nothing below"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_one_line(texts: Artifact, tmp_path: Path, name: str) -> None:
    make, message = BAD[name]
    make(tmp_path / name)
    with pytest.raises(DataError, match=message) as caught:
        predict(texts, tmp_path / name)
    assert "\n" not in str(caught.value)
    (tmp_path / "good.txt").write_text(TEXTS[0], encoding="utf-8")
    found = predict(texts, [tmp_path / "good.txt", tmp_path / name])
    check(found, texts, TEXTS[:1])
    assert found.skipped


def test_what_is_no_input(texts: Artifact, images: Artifact, tmp_path: Path) -> None:
    for asked, error, message in (
        (tmp_path / "none.csv", PathError, "no such file or folder"),
        (tmp_path, PathError, "wanted texts, found none in this folder"),
        ("great value", PathError, "no such file or folder: great value; texts are given in a list"),
        ([], UsageError, "found none"),
        (5, UsageError, "found int"),
        ({"a": 1}, UsageError, "found dict"),
        (np.zeros((3, 4)), DataError, "wanted texts, found an array"),
    ):
        with pytest.raises(error, match=message):
            predict(texts, asked)
    with pytest.raises(DataError, match=r"wanted pixel values in 0\.\.65535, found -1\.\.2; give images before"):
        predict(images, np.array([-1.0, 2.0]).reshape(1, 1, 2))


def test_columns_are_those_of_the_models_own_data(texts: Artifact, tmp_path: Path) -> None:
    provenance = texts.config.provenance
    data = replace(provenance.data, columns=Columns(text="remark", label="kind"))
    model = replace(texts, config=replace(texts.config, provenance=replace(provenance, data=data)))
    rows = [{"text": "something else entirely", "remark": text} for text in TEXTS]
    check(predict(model, write(tmp_path / "a.csv", rows)), texts, TEXTS)
    other = write(tmp_path / "b.csv", [{"remarks": text, "id": index} for index, text in enumerate(TEXTS)])
    with pytest.raises(DataError, match=r"unknown column 'remark': did you mean remarks\?; data\.columns\.text=NAME"):
        predict(model, other)
    check(predict(model, other, settings={"columns": {"text": "remarks"}}), texts, TEXTS)
    with pytest.raises(ConfigError, match=r"data\.split_seed: wanted one of columns, header"):
        predict(model, other, settings={"split_seed": 3})


def test_a_file_behind_an_address_is_called_after_it(
    texts: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = {"a.csv": "text\nplum and pear\n", "b.csv": "", "c.txt": "plum and pear", "d.txt": " "}

    def fetch(url: str, folder: Path) -> Path:
        path = folder / url.rpartition("/")[2]
        path.write_text(contents[path.name], encoding="utf-8")
        return path

    monkeypatch.setattr(unlabeled, "fetch_url", fetch)
    urls = [Url(f"https://example.org/{name}") for name in contents]
    found = predict(texts, urls)
    check(found, texts, [TEXTS[0]] * 2)
    assert [row.file for row in found.predictions] == ["https://example.org/a.csv:2", "https://example.org/c.txt"]
    assert [(item.file, item.reason) for item in found.skipped] == [
        ("https://example.org/b.csv", "empty; wanted a header and rows"),
        ("https://example.org/d.txt", "empty text"),
    ]
    check(predict(texts, "https://example.org/a.csv"), texts, TEXTS[:1])


def test_lines_of_a_stream(texts: Artifact, images: Artifact, series: Artifact, folder: Path) -> None:
    content = b"\xef\xbb\xbf" + "\n\r\n".join(TEXTS).encode() + b"\n\xff\xff\n"
    found = predict(texts, io.BytesIO(content))
    check(found, texts, TEXTS)
    assert [row.file for row in found.predictions] == ["-:1", "-:3", "-:5", "-:7"]
    assert [(item.file, item.reason) for item in found.skipped] == [("-:8", "invalid UTF-8")]
    lines = "\n" + "".join(json.dumps({"text": text, "n": 1}) + "\n" for text in TEXTS) + "[3]\n"
    found = predict(texts, io.BytesIO(lines.encode()))
    check(found, texts, TEXTS)
    assert [row.file for row in found.predictions] == ["-:2", "-:3", "-:4", "-:5"]
    assert found.skipped[0].file == "-:6"
    found = predict(images, io.BytesIO(f"{folder}/0.png\n{folder}/none.png\n{folder}/bad.png\n".encode()))
    assert [row.file for row in found.predictions] == [f"{folder}/0.png"]
    assert [item.file for item in found.skipped] == [f"{folder}/none.png", f"{folder}/bad.png"]
    for model, given, message in (
        (texts, b"", "-: wanted lines on standard input, found none"),
        (series, b"1,2,3\n", "-: wanted JSON lines with series in their columns, found '1,2,3'"),
    ):
        with pytest.raises(DataError, match=message):
            predict(model, io.BytesIO(given))


def test_lines_of_a_long_stream_keep_their_numbers(texts: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unlabeled, "PART_FILES", 2)
    found = predict(texts, io.BytesIO(b"{plum} and pear\niron\n\xff\nzinc\nlead\n\xff\n"))
    assert [row.file for row in found.predictions] == ["-:1", "-:2", "-:4", "-:5"]
    assert [item.file for item in found.skipped] == ["-:3", "-:6"]


def test_a_line_without_end_does_not_fill_the_memory(texts: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unlabeled, "_MAX_LINE", 100)
    found = predict(texts, io.BytesIO(b"x" * 1000 + b"\nplum and pear\n"))
    check(found, texts, TEXTS[:1])
    assert [(item.file, item.reason) for item in found.skipped] == [("-:1", "more than 100 bytes")]


def test_probabilities_of_all_classes(images: Artifact, pictures: np.ndarray) -> None:
    found = predict(images, pictures, probabilities=True, top=2).predictions
    own = ask_own(images, list(pictures))
    for row, wanted in zip(found, own, strict=True):
        assert row.probabilities is not None
        assert tuple(row.probabilities) == LABELS
        assert list(row.probabilities.values()) == pytest.approx(wanted.tolist(), abs=1e-5)
        assert len(row.top) == 2


def test_mirrored_images_are_averaged(images: Artifact, pictures: np.ndarray, tmp_path: Path) -> None:
    images.save(tmp_path)
    (tmp_path / "config.yaml").write_text("augmentation:\n  flip_horizontal: 0.5\n", encoding="utf-8")
    found = predict(tmp_path, pictures, probabilities=True, tta=True).predictions
    both = (ask_own(images, list(pictures)) + ask_own(images, [picture[:, ::-1].copy() for picture in pictures])) / 2
    assert [list((row.probabilities or {}).values()) for row in found] == [
        pytest.approx(row, abs=1e-4) for row in both.tolist()
    ]
    assert predict(tmp_path, pictures, probabilities=True).predictions != found
    for text in ("augmentation:\n  flip_horizontal: 0.0\n", "augmentation: none\n", "[", ""):
        (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(UsageError, match=r"tta: wanted a run whose config\.yaml has augmentation\.flip_hor"):
            predict(tmp_path, pictures, tta=True)


def test_only_images_are_mirrored(texts: Artifact) -> None:
    with pytest.raises(UsageError, match="tta: wanted a model of images, which are mirrored, found one of text"):
        predict(texts, list(TEXTS), tta=True)


def test_photos_of_phones_without_their_extra(images: Artifact, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (folder / "z.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    found = predict(images, folder)
    assert len(found.predictions) == 4
    assert "pip install 'falconet[heic]'" in found.skipped[-1].reason


# The command line


@pytest.fixture(scope="module")
def saved(texts: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model")
    texts.save(out)
    return out


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_out_holds_all_that_was_asked(
    saved: Path, texts: Artifact, tmp_path: Path, suffix: str, capsys: Capture
) -> None:
    source = write(tmp_path / "in.csv", [{"text": text} for text in TEXTS])
    out = tmp_path / f"out{suffix}"
    assert cli.run(["predict", str(saved), str(source), "--out", str(out), "--probabilities"]) == 0
    said = capsys.readouterr()
    assert f"wrote 4 predictions to {out}" in said.err
    own = ask_own(texts, TEXTS)
    if suffix == ".jsonl":
        rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
        found = [list(row["probabilities"].values()) for row in rows]
    elif suffix == ".parquet":
        rows = pq.read_table(out).to_pylist()
        found = [[row[f"probability {label}"] for label in LABELS] for row in rows]
    else:
        rows = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
        found = [[float(row[f"probability {label}"]) for label in LABELS] for row in rows]
    assert np.array(found) == pytest.approx(own, abs=1e-5)
    assert [row["file"] for row in rows] == [f"{source}:{line}" for line in range(2, 6)]
    assert {"label", "probability", "top"} <= rows[0].keys()


def test_after_an_error_the_old_table_stands(saved: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out.csv"
    out.write_text("precious", encoding="utf-8")
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    assert cli.run(["predict", str(saved), str(tmp_path / "bad.csv"), "--out", str(out)]) == 1
    assert out.read_text(encoding="utf-8") == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.csv", "out.csv"]
    assert capsys.readouterr().err.count("\n") == 1


def test_standard_input(saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(TEXTS).encode())))
    assert cli.run(["predict", str(saved), "-", "--json", "--top", "1"]) == 0
    rows = json.loads(capsys.readouterr().out)["predictions"]
    assert [row["file"] for row in rows] == ["-:1", "-:2", "-:3", "-:4"]
    assert rows[0].keys() == {"file", "label", "probability", "top"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-", "-"], 2, "-: wanted standard input once"),
        (["none.csv"], 2, "no such file or folder: none.csv"),
        (["digits", "--tta"], 2, "--tta: wanted a model of images"),
        (["http://127.0.0.1:9/x.csv"], 1, "http://127.0.0.1:9/x.csv: cannot be fetched: "),
        (["digits"], 1, "digits: wanted text data, as the model takes, found image"),
        (["digits", "--out", "x.xlsx"], 2, "wanted a table's file name ending in"),
        (["digits", "--set", "training.epochs=3"], 2, "wanted data.KEY=VALUE"),
    ],
)
def test_mistakes_are_one_line(saved: Path, arguments: list[str], code: int, message: str, capsys: Capture) -> None:
    assert cli.run(["predict", str(saved), *arguments]) == code
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert out == ""
