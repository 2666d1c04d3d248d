from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from falconet.artifact import DataOrigin
from falconet.data import DataConfig, Dataset, load_dataset
from falconet.data.families import _FEW, DuplicateClusters, find_duplicate_clusters
from falconet.data.splits import complete_splits
from falconet.schema import from_mapping
from falconet.storage import cache_folder
from tests.conftest import FolderMaker
from tests.data.builders import (
    make_dataset,
    make_series_dataset,
    make_series_split,
    make_split,
    make_text_dataset,
)

SEEDS = range(6)


@pytest.fixture(autouse=True)
def keep_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what is found of small sources too, as looking through them takes nearly all of the time."""
    monkeypatch.setattr("falconet.data.families._FEW", 0)


def place(dataset: Dataset) -> dict[str, str]:
    """Where each sample stands, by its name."""
    return {split.samples.name(i): name for name, split in dataset.splits.items() for i in range(len(split))}


def count_torn(dataset: Dataset, families: Sequence[Sequence[str]]) -> int:
    """How many families of names stand in several splits."""
    places = place(dataset)
    return sum(len({places[name] for name in family}) > 1 for family in families)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, ...]]]:
    """Parts of two photographs as two classes, a third of them again as smaller and as recompressed copies."""
    root = tmp_path_factory.mktemp("photos")
    families = []
    for name, pixels in zip(("temple", "flower"), load_sample_images().images, strict=True):
        (root / name).mkdir()
        boxes = [(x, y, x + 80, y + 70) for y in range(0, 420, 70) for x in range(0, 640, 80)]
        parts = [part for box in boxes if np.asarray(part := Image.fromarray(pixels).crop(box)).std() > 30]
        for index, part in enumerate(parts):
            part.save(root / name / f"{index}.png")
            if index % 3 == 0:
                part.save(root / name / f"{index}-saved.jpg", quality=60)
                part.resize((64, 56), Image.Resampling.BICUBIC).save(root / name / f"{index}-smaller.png")
                families.append(tuple(f"{name}/{index}{end}" for end in (".png", "-saved.jpg", "-smaller.png")))
    return root, families


def test_copies_of_photographs_stay_together(photos: tuple[Path, list[tuple[str, ...]]]) -> None:
    root, families = photos
    assert len(families) > 15
    torn = 0
    for seed in SEEDS:
        together, apart = (
            load_dataset(root, config=DataConfig(split_seed=seed, near_duplicates=rule))
            for rule in ("together", "apart")
        )
        assert count_torn(together, families) == 0
        torn += count_torn(apart, families)
        assert place(together) == place(load_dataset(root, config=DataConfig(split_seed=seed)))
        for name, share in (("test", 0.2), ("val", 0.1)):
            counts = np.bincount(together.splits[name].labels, minlength=2)
            whole = np.bincount(together.split("all").labels)
            assert np.abs(counts - share * whole).max() <= 3
    assert torn > 3 * len(SEEDS)


def test_texts_that_say_the_same_stay_together() -> None:
    words = ["plum", "pear", "iron", "zinc", "lead", "tin"]
    texts = [f"{one} and {two}" for one in words for two in words]
    copies = [f"  {text.upper()}!" for text in texts[::2]]
    families = [(f"train.csv:{2 * index}", f"train.csv:{36 + index}") for index in range(18)]
    whole, torn = make_text_dataset(train=[*texts, *copies]), 0
    for seed in SEEDS:
        assert count_torn(complete_splits(whole, DataConfig(split_seed=seed)), families) == 0
        torn += count_torn(complete_splits(whole, DataConfig(split_seed=seed, near_duplicates="apart")), families)
    assert torn > len(SEEDS)


def test_series_in_other_units_stay_together() -> None:
    generator = np.random.default_rng(0)
    series = [generator.normal(size=(2, 30)) for _ in range(30)]
    copies = [1.8 * values + 32 for values in series[::3]]
    families = [(f"made.ts:{3 * index}", f"made.ts:{30 + index}") for index in range(10)]
    whole = make_series_dataset(train=make_series_split([*series, *copies], [*[0, 1] * 20]))
    torn = 0
    for seed in SEEDS:
        assert count_torn(complete_splits(whole, DataConfig(split_seed=seed)), families) == 0
        torn += count_torn(complete_splits(whole, DataConfig(split_seed=seed, near_duplicates="apart")), families)
    assert torn > len(SEEDS)


def test_groups_that_have_near_duplicates_in_common_stay_together() -> None:
    texts = [f"text number {'abcdefghij'[index // 10]}{'abcdefghij'[index % 10]}" for index in range(80)]
    # Texts in pairs are groups; the second of group 0 is said again in group 20, and its second in group 40.
    texts[40], texts[80 - 1] = texts[1].upper(), texts[41].upper()
    whole = make_text_dataset(train=texts)
    split = replace(whole.splits["train"], groups=np.repeat(np.arange(1, 41, dtype=np.uint64), 2))
    family = [f"train.csv:{index}" for index in (0, 1, 40, 41, 78, 79)]
    pairs = [(f"train.csv:{2 * index}", f"train.csv:{2 * index + 1}") for index in range(40)]
    for seed in SEEDS:
        dataset = complete_splits(replace(whole, splits={"train": split}), DataConfig(split_seed=seed))
        assert count_torn(dataset, [family, *pairs]) == 0


def test_the_order_of_samples_does_not_count(photos: tuple[Path, list[tuple[str, ...]]]) -> None:
    dataset = load_dataset(photos[0])
    everything = dataset.split("all")
    order = np.random.default_rng(1).permutation(len(everything))
    found = [
        find_duplicate_clusters(replace(dataset, splits={"train": everything.take(rows)})).name(everything.hashes)
        for rows in (np.arange(len(order)), order)
    ]
    assert found[0].tolist() == found[1].tolist()


def test_own_splits_stay_and_pairs_across_them_are_told(
    photos: tuple[Path, list[tuple[str, ...]]], tmp_path: Path
) -> None:
    root = photos[0]
    for name in ("temple", "flower"):
        for path in sorted((root / name).glob("*.*")):
            target = tmp_path / ("test" if path.stem.endswith("saved") else "train") / name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    dataset = load_dataset(tmp_path)
    count = len(photos[1])
    assert len(dataset.splits["test"]) == count
    assert f"{count} pairs of nearly equal samples stand in different splits" in dataset.notes[-1]
    assert f"{count} of {count} test samples equal or nearly equal others" in dataset.notes[-1]
    assert load_dataset(tmp_path, config=DataConfig(near_duplicates="apart")).notes == ()
    smaller = [(name, name.replace(".png", "-smaller.png")) for name in (family[0] for family in photos[1])]
    assert count_torn(dataset, [(f"train/{one}", f"train/{two}") for one, two in smaller]) == 0


def test_equal_samples_across_own_splits_are_told_without_decoding(
    make_folder: FolderMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder(splits=("train", "test"))
    shutil.copy(root / "train" / "dark" / "003.png", root / "test" / "dark" / "copy.png")

    def refuse(*_: Any) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("falconet.data.families.survey", refuse)
    assert load_dataset(root, config=DataConfig(near_duplicates="apart")).notes == (
        "caution: 1 groups of equal samples stand in different splits of the source's own; 1 of 25 test samples equal "
        "or nearly equal others, so that they are easier than new ones (`falconet data` lists them)",
    )


def test_splits_that_do_not_touch_leave_nothing_to_tell() -> None:
    assert load_dataset("digits").notes == ()


def test_a_large_source_is_not_looked_through(
    photos: tuple[Path, list[tuple[str, ...]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("falconet.data.families.MAX_SAMPLES", 50)
    monkeypatch.setattr("falconet.data.families.survey", None)
    dataset = load_dataset(photos[0])
    assert "near duplicates are looked for in up to 50 samples" in dataset.notes[-1]
    assert count_torn(dataset, photos[1]) > 0


def test_a_source_of_many_values_is_not_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make_dataset(train=make_split([0, 1] * 10))
    monkeypatch.setattr("falconet.data.families._MAX_VALUES", 20 * 16)
    assert find_duplicate_clusters(dataset).complete
    monkeypatch.setattr("falconet.data.families._MAX_VALUES", 20 * 16 - 1)
    assert not find_duplicate_clusters(dataset).complete


def test_what_was_found_is_kept_and_damage_is_mended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FALCONET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("falconet.data.families._FEW", _FEW)
    texts = [f"number {index}" for index in range(_FEW)]
    dataset = make_text_dataset(train=[*texts, "NUMBER 7"])
    pair = find_duplicate_clusters(dataset).pairs
    assert len(pair) == 1
    (kept,) = cache_folder().iterdir()
    with monkeypatch.context() as patch:
        patch.setattr("falconet.data.families.survey", None)
        assert find_duplicate_clusters(dataset).pairs.tolist() == pair.tolist()
    content = bytearray(kept.read_bytes())
    content[-9] ^= 1
    kept.write_bytes(content)
    assert find_duplicate_clusters(dataset).pairs.tolist() == pair.tolist()
    assert find_duplicate_clusters(make_text_dataset(train=[*texts, "NUMBER 7", "other"])).pairs.shape == (1, 2)
    assert len(list(cache_folder().iterdir())) == 2


def test_families_are_named_by_their_lowest_member() -> None:
    families = DuplicateClusters(np.array([3, 5, 8, 9], dtype=np.uint64), np.array([[2, 1], [3, 2]]))
    assert families.name(np.array([9, 3, 8, 5, 9], dtype=np.uint64)).tolist() == [5, 3, 5, 5, 5]


def test_models_of_before_are_evaluated_on_the_splits_of_before(photos: tuple[Path, list[tuple[str, ...]]]) -> None:
    record = {"source": str(photos[0]), "fingerprint": "0", "split_seed": 3, "val_fraction": 0.1, "test_fraction": 0.2}
    before = load_dataset(photos[0], config=DataConfig(split_seed=3, near_duplicates="apart"))
    again = load_dataset(photos[0], config=from_mapping(DataOrigin, record).config)
    assert place(again) == place(before)
    assert again.splits_fingerprint == before.splits_fingerprint
    assert again.splits_fingerprint != load_dataset(photos[0], config=DataConfig(split_seed=3)).splits_fingerprint
    assert again.fingerprint == load_dataset(photos[0], config=DataConfig(split_seed=3)).fingerprint
