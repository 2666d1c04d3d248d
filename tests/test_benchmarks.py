"""What benchmarks call met, and what their tables say of it."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from falconet import load_dataset

ROOT = Path(__file__).parent.parent
ROW = {
    "name": "a claim", "value": 90.0, "unit": "%", "n": 3, "std": 0.5, "target": "at least 88 %", "met": True,
    "peer": None, "peer_value": None, "ratio": None, "interval": [88.8, 91.2], "over": "seeds", "note": None,
    "withdrawn": None,
}  # fmt: skip
HEAD = {
    "commit": "0123456789abcdef", "dirty": False, "hardware": {"processor": "P", "threads": "2"},
    "versions": {"torch": "2.9"}, "date": "2026-01-02",
}  # fmt: skip


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let scripts be imported as they import each other."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    before = set(sys.modules)
    yield
    for name in ("record", "tables", "startup", "sequences", "baselines", "sources", "splits", "training", "defaults"):
        if name not in before:
            sys.modules.pop(name, None)


@pytest.fixture
def record(benchmarks: None) -> ModuleType:
    return importlib.import_module("record")


@pytest.fixture
def tables(benchmarks: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = importlib.import_module("tables")
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    return module


@pytest.mark.parametrize(
    ("value", "interval", "bounds", "met"),
    [
        (90.0, (89.5, 90.5), {"least": 89.0}, True),
        (90.0, (88.5, 91.5), {"least": 89.0}, None),
        (88.0, (85.0, 91.0), {"least": 89.0}, False),
        (90.0, None, {"least": 89.0}, None),
        (0.30, (0.27, 0.33), {"most": 0.35}, True),
        (0.30, (0.24, 0.36), {"most": 0.35}, None),
        (0.36, (0.30, 0.42), {"most": 0.35}, False),
        (2.0, (2.0, 2.0), {"least": 2.0}, True),
    ],
)
def test_a_target_is_met_where_the_whole_interval_keeps_to_it(
    record: ModuleType, value: float, interval: tuple[float, float] | None, bounds: dict[str, float], met: bool | None
) -> None:
    assert record.decide(value, interval, **bounds) is met


def test_a_target_of_several_parts_is_as_good_as_the_worst(record: ModuleType) -> None:
    assert record.decide_all(True, True) is True
    assert record.decide_all(True, None) is None
    assert record.decide_all(None, False) is False


def test_intervals_over_seeds_are_students(record: ModuleType) -> None:
    low, high = record.seed_interval([1.0, 2.0, 3.0])
    # The 97.5 % quantile for two degrees of freedom is 4.3027.
    assert (low, high) == pytest.approx((2 - 4.3027 / math.sqrt(3), 2 + 4.3027 / math.sqrt(3)), abs=1e-3)
    assert record.seed_interval([1.0]) is None


def test_ratios_are_those_within_rounds(record: ModuleType) -> None:
    # The machine is twice as slow in the second round, which the ratio does not notice.
    ratio, interval = record.compare_rounds([30.0, 15.0, 30.0], [10.0, 5.0, 10.0])
    assert ratio == pytest.approx(3.0)
    assert interval == pytest.approx((3.0, 3.0))


def test_each_network_is_evaluated_by_its_own_score(benchmarks: None) -> None:
    sequences = importlib.import_module("sequences")

    def evaluate(*accuracies: float) -> Any:
        runs = [{"test": {"accuracy": accuracy}, "params": 1, "macs": 1} for accuracy in accuracies]
        return sequences.evaluate("title", runs, "baseline", 89.25)

    assert evaluate(0.91, 0.911, 0.909).met is True
    assert evaluate(0.905, 0.893, 0.909).met is None
    assert evaluate(0.80, 0.81, 0.81).met is False


@pytest.mark.parametrize(
    ("code", "ends"),
    [("print('a word')", True), ("raise SystemExit(3)", False), ("print('other')", False)],
    ids=["answers", "crashes", "says something else"],
)
def test_a_crash_is_no_quick_answer(benchmarks: None, code: str, ends: bool) -> None:
    startup = importlib.import_module("startup")
    command = [sys.executable, "-c", code]
    if ends:
        assert startup.time_command(command, 0, "a word") > 0
    else:
        with pytest.raises(SystemExit, match="wanted exit code 0 and the words 'a word'"):
            startup.time_command(command, 0, "a word")


def test_the_commit_and_what_differs_from_it_are_recorded(
    record: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        done = subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    for folder in ("falconet", "benchmarks/results"):
        (tmp_path / folder).mkdir(parents=True)
    code = tmp_path / "falconet" / "__init__.py"
    code.write_text("")
    monkeypatch.setattr(record.package, "__file__", str(code))
    assert record.find_commit() == (record.UNKNOWN, None)
    git("init", "--quiet")
    git("add", "--all")
    git("commit", "--quiet", "--message", "first")
    (tmp_path / "benchmarks" / "results" / "one.json").write_text("{}")
    assert record.find_commit() == (git("rev-parse", "HEAD"), False)
    code.write_text("x = 1\n")
    assert record.find_commit() == (git("rev-parse", "HEAD"), True)


def write(folder: Path, name: str, *rows: dict[str, Any], **head: Any) -> None:
    (folder / f"{name}.json").write_text(json.dumps({**HEAD, **head, "rows": rows}))


def test_misses_come_first_and_what_is_not_shown_before_what_is_met(tables: ModuleType, tmp_path: Path) -> None:
    write(tmp_path, "a", ROW, {**ROW, "met": None}, {**ROW, "withdrawn": "chosen on the test split"})
    write(tmp_path, "b", {**ROW, "met": False}, {**ROW, "target": None})
    lines = tables.list_results().splitlines()[2:]
    assert [line.split("|")[1].strip() for line in lines] == ["missed", "not shown", "withdrawn", "met"]


def test_what_is_withdrawn_is_never_met_and_says_why(tables: ModuleType, tmp_path: Path) -> None:
    write(tmp_path, "a", {**ROW, "withdrawn": "chosen on the test split"})
    (line,) = tables.list_verdict("withdrawn").splitlines()[2:]
    assert "withdrawn: chosen on the test split. It was: ~~90 ± 0.5 %" in line
    assert "met" not in line
    assert "P, 2 threads, torch 2.9, 2026-01-02; commit 0123456" in line


def test_the_table_says_where_a_figure_comes_from(tables: ModuleType, tmp_path: Path) -> None:
    write(tmp_path, "a", ROW, commit="not recorded", dirty=None, recorded_in="abcdef0")
    write(tmp_path, "b", ROW, dirty=True)
    first, second = tables.list_verdict("met").splitlines()[2:]
    assert "commit not recorded; figures entered the repository in abcdef0" in first
    assert "commit 0123456 and changes to it" in second
    assert "(n = 3; 95 % over seeds: 88.8 to 91.2)" in first


@pytest.fixture
def sources(benchmarks: None) -> ModuleType:
    return importlib.import_module("sources")


def test_a_seed_draws_some_of_each_class_and_at_least_one_to_validate(sources: ModuleType) -> None:
    labels = np.array(["a"] * 50 + ["b"] * 40 + ["c"] * 12)
    train, val = sources.draw(labels, 0, 20, 0.1)
    assert not set(train) & set(val)
    assert [[int((labels[part] == name).sum()) for name in "abc"] for part in (train, val)] == [[18, 18, 11], [2, 2, 1]]
    assert all(np.array_equal(*pair) for pair in zip(sources.draw(labels, 0, 20, 0.1), (train, val), strict=True))
    assert not np.array_equal(sources.draw(labels, 1, 20, 0.1)[0], train)


def make_sources(sources: ModuleType, folder: Path) -> dict[str, Any]:
    """Return a source of each form, of 20 samples in two classes."""
    labels = np.repeat(["a", "b"], 10)
    pixels = np.arange(20 * 16, dtype=np.uint8).reshape(20, 4, 4)
    for index, image in enumerate(pixels):
        (folder / labels[index]).mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / labels[index] / f"{index}.png")
    parts = {
        "files": sources.list_files(folder),
        "texts": sources.Part([f"text {index}, quoted" for index in range(20)], labels),
        "images": sources.Part(pixels, labels),
        "series": sources.Part(np.arange(20 * 12, dtype=np.float32).reshape(20, 1, 12), labels),
    }
    kinds = {"files": "images", "texts": "texts", "images": "images", "series": "series"}
    return {
        form: sources.Source(kinds[form], lambda root, part=part: (part, None), form) for form, part in parts.items()
    }


@pytest.mark.parametrize("form", ["files", "texts", "images", "series"])
def test_falconet_and_peers_read_the_same_splits(
    sources: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, form: str
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "peers"))
    peers = importlib.import_module("splits")
    made = tmp_path / "made"
    made.mkdir()
    path = sources.write_source(make_sources(sources, made)[form], tmp_path, 0, tmp_path / "splits")
    dataset = load_dataset(path)
    assert not dataset.made_splits
    for name, split in dataset.splits.items():
        samples, labels = peers.read_split(path, name)
        assert Counter(labels) == Counter(dataset.classes[label] for label in split.labels)
        ours = [split.samples.read(index) for index in range(len(split))]
        theirs = [sample[..., :1] if form == "files" else sample for sample in samples]
        if form == "texts":
            assert ours == theirs
        else:
            order = [sorted(np.ravel(sample).tolist() for sample in part) for part in (ours, theirs)]
            assert order[0] == order[1]
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 14, "val": 2, "test": 4}


@pytest.fixture
def defaults(benchmarks: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = importlib.import_module("defaults")
    monkeypatch.setattr(module, "RUNS", tmp_path / "runs.jsonl")
    return module


def test_runs_stand_as_long_as_their_code(defaults: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def run(bench: Any, task: str, seed: int, scratch: Path) -> dict[str, Any]:
        asked.append((task, seed))
        return {"accuracy": 0.9}

    commits = {"code": ("one", False)}
    monkeypatch.setattr(defaults, "METHODS", {"ours": defaults.Method(run, ("falconet",))})
    monkeypatch.setattr(defaults, "find_change", lambda code: commits["code"])
    bench = defaults.Bench(Path(), Path(), (), 2, 5, keep=False)
    for _ in range(2):
        defaults.measure(bench, ("ours",), ("gunpoint",), 2)
    assert asked == [("gunpoint", 0), ("gunpoint", 1)]
    commits["code"] = ("two", False)
    defaults.measure(dataclasses.replace(bench, keep=True), ("ours",), ("gunpoint",), 2)
    assert len(asked) == 2
    defaults.measure(bench, ("ours",), ("gunpoint",), 2)
    assert len(asked) == 4
    commits["code"] = ("two", True)
    defaults.measure(bench, ("ours",), ("gunpoint",), 1)
    assert len(asked) == 5


def make_run(method: str, seed: int, accuracy: float) -> dict[str, Any]:
    return {
        "method": method, "task": "gunpoint", "seed": seed, "accuracy": accuracy, "model": "m", "library": "l",
        "seconds": 2.0, "processor_seconds": 3.0, "commit": "0123456789", "dirty": False, "threads": 2, "load": 2.4,
    }  # fmt: skip


def test_what_train_comes_to_is_compared_by_differences_of_seeds(defaults: ModuleType) -> None:
    ours, theirs = (0.90, 0.80, 0.70), (0.88, 0.78, 0.68)
    runs = [make_run("falconet", seed, value) for seed, value in enumerate(ours)]
    runs += [make_run("by hand", seed, value) for seed, value in enumerate((*theirs, 0.99))]
    (row,) = defaults.summarize(runs)
    assert (row.n, row.met) == (3, True)
    assert (row.value, row.peer_value) == pytest.approx((80, 78))
    assert row.interval == pytest.approx((2, 2))
    assert "2 and 2 s, 3 and 3 s of processors" in row.note
    assert "commit 0123456" in row.note


def test_seconds_of_a_busy_machine_are_not_told(defaults: ModuleType) -> None:
    runs = [make_run("falconet", 0, 0.9), {**make_run("by hand", 0, 0.8), "load": 3.1}]
    (row,) = defaults.summarize(runs)
    assert "2 and 2 s" not in row.note
    assert "seconds unknown, as the machine did other work too, 3 and 3 s of processors" in row.note


def test_models_are_useful_near_the_better_ones_best_validation_accuracy(defaults: ModuleType) -> None:
    good = {"looks": [{"seconds": 1.0, "accuracy": 0.5}, {"seconds": 2.0, "accuracy": 0.96}], "seconds": 9.0}
    late = {"looks": [{"seconds": 1.0, "accuracy": 0.9}, {"seconds": 5.0, "accuracy": 1.0}], "seconds": 8.0}
    poor = {"looks": [{"seconds": 1.0, "accuracy": 0.6}], "seconds": 7.0}
    assert defaults.time_alike(good, late) == (2.0, 5.0)
    assert defaults.time_alike(poor, good) == (7.0, 2.0), "one that is never good enough takes all of its time"
    assert defaults.time_alike({"seconds": 3.0}, {"seconds": 4.0}) == (3.0, 4.0)
