from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from falconet.cli import run
from falconet.data import load_dataset
from falconet.errors import DataError, RunExistsError
from falconet.generation.flow import FlowConfig
from falconet.generation.generating import _find_nearest, generate_images, name_files
from tests.conftest import FolderMaker

QUICK = FlowConfig(epochs=1, width=8, euler_steps=2)


def test_a_folder_is_written_that_says_of_each_image_that_it_was_made(make_folder: FolderMaker, tmp_path: Path) -> None:
    out = tmp_path / "made"
    source = make_folder(size=(8, 10))
    done = generate_images(source, out=out, per_class=3, config=QUICK)
    manifest = json.loads((out / "manifest.json").read_text())
    files = sorted(path.relative_to(out).as_posix() for path in out.glob("*/*.png"))
    assert files == sorted(entry["file"] for entry in manifest["files"])
    assert done.images == len(files) == 6
    real = {sample.samples.name(k) for sample in [load_dataset(source).splits["train"]] for k in range(len(sample))}
    for entry in manifest["files"]:
        with Image.open(out / entry["file"]) as image:
            assert image.text["generated"] == manifest["generated"]  # type: ignore[attr-defined]
            assert image.size == (10, 8)
        assert entry["file"].startswith(f"{entry['label']}/")
        assert entry["nearest"] in real
    with Image.open(out / "nearest.png") as sheet:
        assert sheet.width > sheet.height
    # What was made can be read as any folder of classes.
    assert load_dataset(out).classes == ("dark", "light")


def test_a_folder_that_holds_anything_is_left_alone(make_folder: FolderMaker, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "mine.txt").write_text("mine")
    with pytest.raises(RunExistsError, match="holds files: choose a new or empty folder"):
        generate_images(make_folder(), out=tmp_path / "made", config=QUICK)


def test_only_images_are_generated(tmp_path: Path) -> None:
    table = tmp_path / "texts.csv"
    table.write_text("text,label\n" + "".join(f"word {k},{'ab'[k % 2]}\n" for k in range(40)))
    with pytest.raises(DataError, match="wanted images to generate more of, found text"):
        generate_images(table, out=tmp_path / "made", config=QUICK)


def test_the_nearest_is_that_of_least_mean_square() -> None:
    images, known = torch.rand(5, 1, 4, 4), torch.rand(7, 1, 4, 4)
    nearest, distances = _find_nearest(images, known)
    for row, image in enumerate(images):
        errors = [float((image - other).square().mean()) ** 0.5 for other in known]
        assert int(nearest[row]) == errors.index(min(errors))
        assert float(distances[row]) == pytest.approx(min(errors), rel=1e-4)


def test_no_class_name_leads_out_of_the_folder() -> None:
    paths = name_files(["../up", "a_b_1", "a/b", "a_b", "A_B", "", "a/b", ".."])
    assert paths == [
        "_up/00000.png", "a_b_1/00000.png", "a_b/00000.png", "a_b_2/00000.png", "A_B_3/00000.png", "_/00000.png",
        "a_b/00001.png", "__1/00000.png",
    ]  # fmt: skip


def test_the_verb(make_folder: FolderMaker, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = make_folder(size=(4, 4)), tmp_path / "made"
    assert run(["generate", str(source), "--out", str(out), "--per-class", "2", "--epochs", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 4
    assert run(["generate", str(source), "--out", str(out)]) == 2
