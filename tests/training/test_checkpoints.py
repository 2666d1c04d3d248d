import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from falconet.errors import StorageError
from falconet.training.checkpoints import Checkpoint, load_checkpoint, remove_checkpoints, save_checkpoint


def make(value: float) -> Checkpoint:
    return Checkpoint({"weight": torch.full((3,), value)}, {"best_epoch": int(value), "history": []})


def test_nothing_there_is_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "nowhere") is None


def test_the_newest_comes_back(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        save_checkpoint(tmp_path, epoch, make(epoch))
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert torch.equal(loaded.tensors["weight"], torch.full((3,), 3.0))
    assert loaded.facts == {"best_epoch": 3, "history": []}


def test_two_are_kept(tmp_path: Path) -> None:
    for epoch in range(1, 6):
        save_checkpoint(tmp_path, epoch, make(epoch))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "epoch-000004.000000000.json",
        "epoch-000004.000000000.safetensors",
        "epoch-000005.000000000.json",
        "epoch-000005.000000000.safetensors",
    ]


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 9999)), min_size=1, max_size=6, unique=True))
@settings(max_examples=25, deadline=None)
def test_the_last_one_written_comes_back_though_others_went_further(places: list[tuple[int, int]]) -> None:
    """A run that went back, at a lower rate, must not go on from what it has given up."""
    with tempfile.TemporaryDirectory() as name:
        for number, (epoch, step) in enumerate(places):
            save_checkpoint(Path(name), epoch, make(number), step)
            loaded = load_checkpoint(Path(name))
            assert loaded is not None
            assert loaded.tensors["weight"][0] == number
            assert len(list(Path(name).glob("*.json"))) <= 2


def test_all_are_removed_and_nothing_else(tmp_path: Path) -> None:
    for epoch, step in ((0, 7), (1, 0)):
        save_checkpoint(tmp_path, epoch, make(1), step)
    (tmp_path / "notes.txt").touch()
    remove_checkpoints(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    remove_checkpoints(tmp_path / "nowhere")


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
@pytest.mark.parametrize("damage", ["truncate", "alter", "remove"])
def test_a_damaged_one_is_passed_over(tmp_path: Path, suffix: str, damage: str) -> None:
    for epoch in (1, 2):
        save_checkpoint(tmp_path, epoch, make(epoch))
    path = tmp_path / f"epoch-000002.000000000.{suffix}"
    content = path.read_bytes()
    if damage == "remove":
        path.unlink()
    elif damage == "truncate":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.write_bytes(content.replace(b'"best_epoch": 2', b'"best_epoch": 7')[:-2] + b"\n\n")
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded.facts["best_epoch"] == 1


def test_a_full_disk_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, 1, make(1))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        save_checkpoint(tmp_path, 2, make(2))
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded.facts["best_epoch"] == 1
