"""compare(): what is trained and evaluated alike, what is refused, and what a folder holds then."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from falconet import Comparison, RunResult, cli, compare, load_dataset
from falconet.comparison import ComparisonRow
from falconet.comparison.compared_models import (
    ComparedModel,
    ComparisonContext,
    check_folder,
    make_shared_config,
    parse_compared,
    parse_compared_models,
    record_terms,
)
from falconet.comparison.comparing import Evaluated, _list_rows
from falconet.comparison.pages import write_comparison
from falconet.comparison.plots import draw_front
from falconet.comparison.results import COSTS, compare_pairs, find_front, rank_rows
from falconet.comparison.tables import format_row
from falconet.comparison.trials import ModelRun, load_trial, plan_trial
from falconet.errors import ConfigError, DataError, FalconetError, PathError, UnknownNameError, UsageError
from falconet.latency import Latency
from falconet.model_files import redact_settings
from falconet.runs import execute

Capture = pytest.CaptureFixture[str]
FolderMaker = Callable[..., Path]
SETTINGS = {"training": {"precision": "fp32", "batch_size": 32}, "augmentation": "none"}
NAMES = ["lenet300_100", "lenet_relu"]
POSITIVE = st.floats(0.001, 1000)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 160 digits."""
    path = tmp_path_factory.mktemp("few") / "few.npz"
    digits = load_dataset("digits").split("all")
    np.savez(path, images=np.stack([digits.samples.read(index) for index in range(160)]), labels=digits.labels[:160])
    return path


@pytest.fixture(scope="module")
def compared(few: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, list[str]]:
    """Two networks of two seeds each, and what was told; do not write to its folder."""
    lines: list[str] = []
    out = tmp_path_factory.mktemp("compared") / "out"
    return compare(few, NAMES, out=out, seeds=2, epochs=2, settings=SETTINGS, notify=lines.append), lines


def again(few: Path, comparison: Comparison, models: list[str], **changes: Any) -> tuple[Comparison, list[str]]:
    lines: list[str] = []
    asked = {"seeds": 2, "epochs": 2, "settings": SETTINGS, **changes}
    return compare(few, models, out=comparison.out, notify=lines.append, **asked), lines


def read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


@pytest.mark.slow
def test_rows_are_what_the_runs_came_to(compared: tuple[Comparison, list[str]]) -> None:
    comparison, lines = compared
    assert {row.model for row in comparison.rows} == set(NAMES)
    for row in comparison.rows:
        runs = [read_json(comparison.out / "runs" / f"{row.model}-{seed}" / "metrics.json") for seed in (0, 1)]
        for key in ("accuracy", "macro_recall", "macro_f1"):
            assert getattr(row, key) == pytest.approx(np.mean([run["test"][key] for run in runs]))
        assert row.accuracy_std == pytest.approx(np.std([run["test"]["accuracy"] for run in runs], ddof=1))
        assert (row.params, row.macs, row.bytes) == (runs[0]["params"], runs[0]["macs"], runs[0]["bytes"])
        assert row.seeds == 2
        assert row.seconds is not None
        assert row.seconds > 0
        assert comparison.n == runs[0]["test"]["n"]
        validated = [run["val"]["accuracy"] for run in runs]
        assert row.val_accuracy == pytest.approx(np.mean(validated))
        assert row.val_accuracy_std == pytest.approx(np.std(validated, ddof=1))
        assert row.folds == 0
    accuracies = [row.val_accuracy or 0 for row in comparison.rows]
    assert accuracies == sorted(accuracies, reverse=True)
    assert any(note.startswith("Ranked by validation accuracy (the split that also chose") for note in comparison.notes)
    assert [line.split(":")[0] for line in lines] == [
        f"{number}/4 {name}, seed {seed}"
        for number, (name, seed) in enumerate([(name, seed) for name in NAMES for seed in (0, 1)], 1)
    ]


@pytest.mark.slow
def test_all_runs_have_the_same_settings(compared: tuple[Comparison, list[str]]) -> None:
    folder = compared[0].out / "runs"
    texts = {path.name: (path / "config.yaml").read_text(encoding="utf-8") for path in folder.iterdir()}
    assert texts.keys() == {"lenet300_100-0", "lenet300_100-1", "lenet_relu-0", "lenet_relu-1"}
    alike = {re.sub(r"name: .*|  seed: \d", "", text) for text in texts.values()}
    assert len(alike) == 1
    assert "seed: 1" in texts["lenet_relu-1"]


@pytest.mark.slow
def test_pairs_are_tested(compared: tuple[Comparison, list[str]]) -> None:
    comparison, _ = compared
    (pair,) = comparison.pairs
    accuracies = {row.model: row.accuracy or 0 for row in comparison.rows}
    assert {pair.first, pair.second} == set(accuracies)
    first, second = (accuracies[name] for name in (pair.first, pair.second))
    assert first >= second
    assert pair.difference == pytest.approx(first - second)
    assert pair.p_corrected == pair.p_value
    assert pair.significant == (pair.p_value < 0.05)


@pytest.mark.slow
def test_files_say_the_same(compared: tuple[Comparison, list[str]]) -> None:
    comparison, _ = compared
    facts = read_json(comparison.out / "comparison.json")
    # Of a path of this machine the last part.
    assert facts == json.loads(json.dumps(redact_settings(comparison.facts())))
    assert facts["source"] == "few.npz"
    keys = {"model", "accuracy", "accuracy_std", "macro_f1", "params", "macs", "bytes", "latency_ms", "seconds"}
    assert keys <= facts["rows"][0].keys()
    with (comparison.out / "comparison.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows] == [row["model"] for row in facts["rows"]]
    assert [float(row["accuracy"]) for row in rows] == [row["accuracy"] for row in facts["rows"]]
    markdown = (comparison.out / "comparison.md").read_text(encoding="utf-8")
    page = (comparison.out / "comparison.html").read_text(encoding="utf-8")
    for text in (markdown, page):
        assert all(name in text for name in NAMES)
        for key in ("accuracy", "val_accuracy"):
            assert f"{100 * facts['rows'][0][key]:.2f} ± {100 * facts['rows'][0][f'{key}_std']:.2f} %" in text
    for name in re.findall(r"!\[.*\]\((.*)\)", markdown):
        assert (comparison.out / name).read_bytes().startswith(b"\x89PNG")
    assert page.count("<svg") == markdown.count("![") == 3


@pytest.mark.slow
def test_the_page_asks_nothing_of_others(compared: tuple[Comparison, list[str]]) -> None:
    page = (compared[0].out / "comparison.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "prefers-color-scheme: dark" in page


@pytest.mark.slow
def test_a_second_call_trains_nothing(few: Path, compared: tuple[Comparison, list[str]]) -> None:
    comparison, _ = compared
    weights = comparison.out / "runs" / "lenet_relu-1" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    second, lines = again(few, comparison, NAMES)
    assert all("(kept)" in line for line in lines)
    assert weights.stat().st_mtime_ns == before
    assert second.pairs == comparison.pairs
    figures = [[(row.accuracy, row.val_accuracy) for row in one.rows] for one in (second, comparison)]
    assert figures[0] == figures[1]


@pytest.mark.slow
def test_other_terms_are_refused(few: Path, compared: tuple[Comparison, list[str]], trained: RunResult) -> None:
    comparison, _ = compared
    with pytest.raises(UsageError, match=r"was begun with epochs=2, but now it is 3"):
        again(few, comparison, NAMES, epochs=3)
    with pytest.raises(UsageError, match=r"begun with training.batch_size=32, but now it is None"):
        again(few, comparison, NAMES, settings={"augmentation": "none"})
    with pytest.raises(UsageError, match="holds files that are no comparison"):
        compare(few, NAMES, out=trained.out)


@pytest.mark.slow
def test_a_trained_model_is_evaluated_as_it_is(
    few: Path, compared: tuple[Comparison, list[str]], tmp_path: Path
) -> None:
    run = str(compared[0].out / "runs" / "lenet_relu-0")
    other = str(compared[0].out / "runs" / "lenet300_100-0")
    comparison = compare(few, [run, other], out=tmp_path / "out")
    assert not (tmp_path / "out" / "runs").exists()
    rows = {row.model: row for row in comparison.rows}
    # Of absolute paths the last part, which tells them apart.
    assert rows.keys() == {"lenet_relu-0", "lenet300_100-0"}
    row = rows["lenet_relu-0"]
    assert row.accuracy == read_json(Path(run) / "metrics.json")["test"]["accuracy"]
    assert (row.seeds, row.accuracy_std) == (1, None)
    assert row.val_accuracy == read_json(Path(run) / "metrics.json")["val"]["accuracy"]
    assert any("evaluated as they are" in note for note in comparison.notes)


@pytest.mark.slow
def test_a_single_run_beside_means_is_called_one(
    few: Path, compared: tuple[Comparison, list[str]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(compared[0].out, out)
    run = out / "runs" / "lenet300_100-0"
    comparison, _ = again(few, replace(compared[0], out=out), ["lenet_relu", str(run)])
    assert {row.model: row.seeds for row in comparison.rows} == {"lenet_relu": 2, "lenet300_100-0": 1}
    note = "lenet300_100-0 is a single run; the other figures are means over 2 seeds."
    assert note in comparison.notes
    assert note in (out / "comparison.md").read_text(encoding="utf-8")
    cells = {cells[0]: cells[1:4] for cells in map(format_row, comparison.rows)}
    assert "±" not in cells["lenet300_100-0"][1]
    assert cells["lenet300_100-0"][2] == "1"
    assert "±" in cells["lenet_relu"][1]


@pytest.mark.slow
def test_folds_rank_models(few: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    asked: dict[str, Any] = {"out": tmp_path / "out", "seeds": 1, "epochs": 2, "settings": SETTINGS, "folds": 3}
    comparison = compare(few, NAMES, **asked, notify=lines.append)
    for row in comparison.rows:
        kept = [read_json(tmp_path / "out" / "folds" / f"{row.model}-3-{fold}.json") for fold in range(3)]
        accuracies = [one["val_accuracy"] for one in kept]
        assert row.val_accuracy == pytest.approx(np.mean(accuracies))
        assert row.val_accuracy_std == pytest.approx(np.std(accuracies, ddof=1))
        assert (row.folds, row.seeds) == (3, 1)
        # The test split evaluates the ordinary run alone.
        run = read_json(tmp_path / "out" / "runs" / f"{row.model}-0" / "metrics.json")
        assert row.accuracy == run["test"]["accuracy"]
    assert len(lines) == 8
    assert sum("fold 2 of 3: validation accuracy" in line for line in lines) == 2
    assert not list((tmp_path / "out" / "folds").glob("**/*.safetensors")), "nothing tells what these learned from"
    assert any("mean of 3 folds" in note for note in comparison.notes)
    assert "3 folds" in (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")
    again = compare(few, NAMES, **asked)
    assert [row.val_accuracy for row in again.rows] == [row.val_accuracy for row in comparison.rows]


def test_models_are_ranked_by_validation_and_not_by_test() -> None:
    facts: dict[str, Any] = {"params": 5, "macs": 5, "bytes": 5, "latency_ms": 1.0}
    rows = rank_rows(
        [
            ComparisonRow("lucky", accuracy=0.95, val_accuracy=0.8, **facts),
            ComparisonRow("unknown", accuracy=0.99, **facts),
            ComparisonRow("broken", failed="no reason"),
            ComparisonRow("good", accuracy=0.9, val_accuracy=0.9, **facts),
        ]
    )
    assert [(row.model, row.front) for row in rows] == [("good", COSTS), ("lucky", ()), ("unknown", ()), ("broken", ())]


def test_of_a_pair_the_better_on_the_test_split_comes_first() -> None:
    right = {"good": np.array([[True, True, False, False]]), "lucky": np.array([[True, True, True, False]])}
    (pair,) = compare_pairs(right)
    assert (pair.first, pair.second, pair.difference) == ("lucky", "good", 0.25)


def test_a_model_that_saw_test_samples_is_refused(few: Path, trained: RunResult, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not the data that the model was trained on.*leave it out"):
        compare(few, ["lenet5", str(trained.out)], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_model_of_other_data_is_told_of_where_the_test_split_is_given(
    trained: RunResult, make_folder: FolderMaker, tmp_path: Path
) -> None:
    folder = make_folder(classes=("3", "7"), splits=("train", "test"))
    comparison = compare(folder, ["lenet300_100", trained.out], out=tmp_path / "out", seeds=1, epochs=1)
    assert any("was trained on other data, digits" in note for note in comparison.notes)
    assert {row.model: row.failed for row in comparison.rows} == {"lenet300_100": None, trained.out.name: None}


@pytest.mark.slow
def test_one_failing_model_does_not_lose_the_others(few: Path, tmp_path: Path) -> None:
    settings = {**SETTINGS, "model": {"options": {"width": 4}}}
    lines: list[str] = []
    comparison = compare(
        few, ["lenet300_100", "lenet_relu"], out=tmp_path / "out", seeds=1, epochs=1, settings=settings,
        notify=lines.append,
    )  # fmt: skip
    good, bad = comparison.rows
    assert (good.model, good.failed) == ("lenet_relu", None)
    assert bad.failed is not None
    assert "unknown option of lenet300_100 'width'" in bad.failed
    assert bad.accuracy is None
    assert comparison.pairs == ()
    assert lines[0] == f"lenet300_100 cannot be trained: {bad.failed}", "before anything is trained"
    assert lines[1].startswith("1/2 lenet300_100, seed 0: failed: unknown option")
    for name in ("comparison.md", "comparison.html", "comparison.csv"):
        assert "unknown option" in (tmp_path / "out" / name).read_text(encoding="utf-8")
    again = compare(
        few, ["lenet300_100", "lenet_relu"], out=tmp_path / "out", seeds=1, epochs=1, settings=settings
    )  # fmt: skip
    assert [row.failed for row in again.rows] == [None, bad.failed], (
        "the good one is kept, the bad one no reason to end"
    )


def test_models_of_the_hub_are_compared(trained: RunResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("falconet.comparison.compared_models.fetch_model", lambda name: trained.out)
    found, _ = parse_compared_models(["hf:jane/digits@v1", "lenet5"])
    assert (found.name, found.folder, found.model) == ("hf:jane/digits@v1", trained.out, None)


def test_points_of_equal_short_names_are_all_labeled() -> None:
    names = [f"/data/exp{number}/runs/compared-with-a-long-name/$model" for number in (1, 2)]
    rows = [
        ComparisonRow(
            name,
            accuracy=0.9,
            val_accuracy=0.9,
            macro_recall=0.9,
            macro_f1=0.9,
            params=5,
            macs=5,
            bytes=number,
            latency_ms=1.0,
        )
        for number, name in enumerate(names, start=5)
    ]
    (axes,) = draw_front(rows, "bytes").axes
    labels = [text.get_text() for text in axes.texts]
    assert len(labels) == 2
    assert all(label.endswith("$model") for label in labels)


@pytest.mark.slow
def test_what_breaks_while_training_is_a_reason_too(few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_second(plan: Any) -> Any:
        if plan.config.model.name == "lenet5" and plan.config.training.seed == 1:
            raise RuntimeError("kernel larger\nthan the image")
        return execute(plan)

    monkeypatch.setattr("falconet.comparison.trials.execute", fail_second)
    comparison = compare(few, ["lenet5", "lenet300_100"], out=tmp_path / "out", seeds=2, epochs=1)
    assert [row.failed for row in comparison.rows] == [
        None,
        "seed 1: unexpected RuntimeError: kernel larger than the image",
    ]
    monkeypatch.undo()
    lines: list[str] = []
    mended = compare(few, ["lenet5", "lenet300_100"], out=tmp_path / "out", seeds=2, epochs=1, notify=lines.append)
    assert not any(row.failed for row in mended.rows)
    assert ["(kept)" in line for line in lines] == [True, False, True, True]


def test_where_all_fail_alike_the_terms_are_wrong(few: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown option of lenet5 'wdith'"):
        compare(few, ["lenet5", "lenet300_100"], out=tmp_path / "out", settings={"model": {"options": {"wdith": 1}}})
    assert not (tmp_path / "out").exists()


def test_where_all_fail_it_is_an_error(few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(plan: Any) -> None:
        raise FalconetError("the loss became NaN")

    monkeypatch.setattr("falconet.comparison.trials.execute", diverge)
    with pytest.raises(FalconetError, match="all 2 models failed; lenet5: seed 0: the loss became NaN"):
        compare(few, ["lenet5", "lenet300_100"], out=tmp_path / "out", epochs=1)
    assert (tmp_path / "out" / "comparison.html").is_file()


@pytest.mark.parametrize(
    ("models", "changes", "error", "message"),
    [
        (["lenet5", "lenet_rlu"], {}, UnknownNameError, r"unknown model 'lenet_rlu': did you mean lenet_relu"),
        (["lenet5", "lenet5"], {}, UsageError, "wanted each model once, found lenet5 again"),
        (["lenet5"], {}, UsageError, "wanted two or more to compare, found 1"),
        (["lenet5", "no/such/folder"], {}, PathError, "no such folder: no/such/folder"),
        (["lenet5", "resnet20@mnist-resnte"], {}, UnknownNameError, "unknown recipe 'mnist-resnte'"),
        (NAMES, {"seeds": 0}, UsageError, "seeds: wanted 1 or more"),
        (NAMES, {"folds": 1}, UsageError, "folds: wanted 2 or more"),
        (NAMES, {"folds": 200}, DataError, "wanted enough different samples or groups"),
        (NAMES, {"epochs": 0}, ConfigError, "epochs: wanted 1 or more"),
        (NAMES, {"recipe": "nmist"}, UnknownNameError, "unknown recipe 'nmist'"),
        (NAMES, {"settings": {"training": {"seed": 3}}}, ConfigError, "training.seed goes from 0"),
        (NAMES, {"settings": {"training": {"epoch": 3}}}, UnknownNameError, "unknown setting 'training.epoch'"),
        (NAMES, {"settings": {"data": {"split": 3}}}, UnknownNameError, "unknown setting 'data.split'"),
    ],
)
def test_mistakes_are_told_at_once(
    few: Path, tmp_path: Path, models: list[str], changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        compare(few, models, out=tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_command(capsys: Capture, few: Path, compared: tuple[Comparison, list[str]]) -> None:
    options = ("--set", "training.precision=fp32", "--set", "training.batch_size=32", "--set", "augmentation=none")
    given = ("compare", str(few), "--models", ",".join(NAMES), "--seeds", "2", "--epochs", "2", *options)
    command = [*given, "--out", str(compared[0].out)]
    assert cli.run([*command, "--json"]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    assert json.loads(out)["pairs"] == compared[0].facts()["pairs"]
    assert err.count("(kept)") == 4
    assert cli.run(command) == 0
    assert "macro recall" in capsys.readouterr().out
    assert cli.run(["compare", "digts", "--models", "lenet5,lenet_relu", "--out", "nowhere"]) == 2
    assert "did you mean digits" in capsys.readouterr().err


def test_mistakes_are_told_without_torch() -> None:
    script = (
        "import sys; from falconet import cli\n"
        "code = cli.run(['compare', 'digits', '--models', 'lenet5,lenet_rlu', '--out', 'nowhere'])\n"
        "assert code == 2 and 'torch' not in sys.modules and 'matplotlib' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "did you mean lenet_relu" in done.stderr


@pytest.mark.slow
def test_names_mean_what_they_say(compared: tuple[Comparison, list[str]]) -> None:
    assert parse_compared("resnet20@mnist-resnet").recipe == "mnist-resnet"
    assert parse_compared("timm:resnet18").model == "timm:resnet18"
    folder = str(compared[0].out / "runs" / "lenet_relu-0")
    assert parse_compared(folder).folder == Path(folder)
    with pytest.raises(PathError, match="wanted a trained model"):
        parse_compared(str(compared[0].out))


def test_a_recipe_s_network_counts_for_the_model_that_it_names() -> None:
    from falconet.comparison.compared_models import _SharedConfig

    terms = _SharedConfig("digits", recipe="mnist-resnet")
    assert terms.settings_for(parse_compared("resnet20")) == ("mnist-resnet", {})
    recipe, settings = terms.settings_for(parse_compared("lenet5"))
    assert recipe is None
    assert "model" not in settings
    assert settings["training"]["epochs"] == 4


def test_the_front_by_hand() -> None:
    assert find_front([0.9, 0.8, 0.7, 0.8], [10, 5, 7, 5]) == [True, True, False, True]
    assert find_front([], []) == []


def test_of_two_as_fast_the_more_accurate_is_on_the_front() -> None:
    def alike(one: int, other: int) -> bool:
        return {one, other} == {0, 1}

    assert find_front([0.9, 0.8, 0.7], [10, 9, 8]) == [True, True, True]
    assert find_front([0.9, 0.8, 0.7], [10, 9, 8], alike) == [True, False, True]
    assert find_front([0.9, 0.9, 0.7], [10, 9, 8], alike) == [True, True, True]
    assert find_front([0.9, 0.8, 0.9], [10, 9, 9.5], alike) == [False, False, True]


def test_latencies_that_cannot_be_told_apart_are_no_reason_for_the_front() -> None:
    rows = [
        ComparisonRow(name, accuracy=0.9, val_accuracy=accuracy, macs=5, bytes=5, latency_ms=latency)
        for name, accuracy, latency in (("slow", 0.9, 1.02), ("luck", 0.8, 1.0), ("fast", 0.7, 0.5))
    ]
    turns = {"slow": (1.0, 1.1) * 5, "luck": (1.1, 0.9) * 5, "fast": (0.5,) * 10}
    latencies = {name: Latency(1.0, 1.0, 1.0, 10, found) for name, found in turns.items()}
    fronts = [
        [row.model for row in ranked if "latency_ms" in row.front]
        for ranked in (rank_rows(rows), rank_rows(rows, latencies))
    ]
    assert fronts == [["slow", "luck", "fast"], ["slow", "fast"]]


def test_networks_of_a_comparison_are_timed_in_turns(
    trained: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def measure(calls: Sequence[Callable[[], object]]) -> list[Latency]:
        asked.append(len(calls))
        return [Latency(float(number + 1), 9.0, 9.0, 10, (1.0,) * 10) for number in range(len(calls))]

    monkeypatch.setattr("falconet.exporters.timing.measure_latencies", measure)
    none = np.zeros(3, dtype=np.int64)
    trial = ModelRun(trained.out, none, none, none.astype(np.uint64), num_classes=10, val_accuracy=0.5)
    evaluated = Evaluated((trial,))
    compared_models = [ComparedModel(name, None, None, trained.out) for name in ("a", "b", "c")]
    rows = _list_rows(dict(zip(compared_models, [evaluated, "no reason", evaluated], strict=True)))
    assert asked == [2]
    assert [(row.model, row.latency_ms, row.failed) for row in rows] == [
        ("a", 1.0, None),
        ("c", 2.0, None),
        ("b", None, "no reason"),
    ]


@given(points=st.lists(st.tuples(POSITIVE, POSITIVE), min_size=1, max_size=12))
def test_the_front_holds_the_extremes_and_nothing_dominated(points: list[tuple[float, float]]) -> None:
    accuracies, costs = zip(*points, strict=True)
    front = find_front(accuracies, costs)
    chosen = sorted(((c, a) for (a, c), on in zip(points, front, strict=True) if on))
    assert max(accuracies) in [accuracy for _, accuracy in chosen]
    assert min(costs) in [cost for cost, _ in chosen]
    distinct = sorted(set(chosen))
    assert [accuracy for _, accuracy in distinct] == sorted({accuracy for _, accuracy in distinct})


def make_rows(points: list[tuple[float, float]]) -> tuple[ComparisonRow, ...]:
    rows = [
        ComparisonRow(
            model=f"network_{index}",
            accuracy=accuracy,
            accuracy_std=0.01,
            macro_recall=accuracy,
            macro_f1=accuracy,
            params=1,
            macs=int(cost),
            bytes=int(cost),
            latency_ms=cost,
            seeds=3,
            val_accuracy=accuracy,
            val_accuracy_std=0.01,
        )
        for index, (accuracy, cost) in enumerate(points)
    ]
    return rank_rows([*rows, ComparisonRow("broken", failed="no reason")])


@pytest.mark.parametrize("own", [True, False])
def test_a_recipe_that_was_changed_since_is_refused(own: bool, tmp_path: Path) -> None:
    recipe, out = tmp_path / "mine.yaml", tmp_path / "out"
    recipe.write_text("training: {epochs: 2}")
    terms = make_shared_config("digits", 1, None if own else str(recipe), {})
    compared_models = parse_compared_models([f"lenet5@{recipe}" if own else "lenet5", "lenet_relu"])
    out.mkdir()
    record_terms(out, terms, compared_models, "fingerprint")
    more = parse_compared_models([*(one.name for one in compared_models), "lenet_relu@digits"])
    check_folder(out, terms, more)
    record_terms(out, terms, more[1:], "fingerprint")
    recipe.write_text("# The same in other words.\ntraining:\n  epochs: 2")
    check_folder(out, terms, compared_models)
    recipe.write_text("training: {epochs: 3}")
    with pytest.raises(UsageError, match=r"was begun with another .*mine\.yaml, which was changed since"):
        check_folder(out, terms, compared_models)
    with pytest.raises(UsageError, match="which was changed since"):
        plan_trial(compared_models[0], 0, ComparisonContext(terms, 1, out, load_dataset("digits"), None))


@pytest.mark.slow
def test_a_run_that_was_copied_to_another_seed_is_not_kept(
    compared: tuple[Comparison, list[str]], tmp_path: Path
) -> None:
    out, lenet = tmp_path / "out", parse_compared("lenet_relu")
    shutil.copytree(compared[0].out, out)
    assert load_trial(lenet, 1, out)
    for copied, name in ((1, "lenet_relu"), (0, "lenet300_100")):
        shutil.rmtree(out / "runs" / f"{name}-{copied}")
        shutil.copytree(out / "runs/lenet_relu-0", out / "runs" / f"{name}-{copied}")
        shutil.copy(out / "answers/lenet_relu-0.npz", out / "answers" / f"{name}-{copied}.npz")
        assert load_trial(parse_compared(name), copied, out) is None
    assert load_trial(lenet, 0, out)


@pytest.mark.slow
def test_plots_of_other_models_do_not_stay(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path, "digits", "f", 9, 2, 1, make_rows([(0.9, 2), (0.8, 1)]), (), ())
    write_comparison(comparison)
    assert {path.name for path in tmp_path.glob("*.png")} == {f"accuracy-{name}.png" for name in PLOTTED}
    (tmp_path / "mine.png").touch()
    write_comparison(replace(comparison, rows=(ComparisonRow("broken", failed="no reason"),)))
    assert {path.name for path in tmp_path.glob("*.png")} == {"mine.png"}
    assert "broken" in (tmp_path / "comparison.md").read_text(encoding="utf-8")


PLOTTED = ("bytes", "macs", "latency")


@pytest.mark.slow
def test_labels_keep_apart() -> None:
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

    rows = make_rows([(0.97 + 0.002 * index, 1000 * 1.3**index) for index in range(10)])
    for cost in COSTS:
        axes = draw_front(rows, cost).axes[0]
        labels = [child for child in axes.get_children() if isinstance(child, Annotation)]
        boxes = [label.get_window_extent() for label in labels]
        assert {label.get_text() for label in labels} == {f"network_{index}" for index in range(10)}
        overlaps = [Bbox.intersection(a, b) for i, a in enumerate(boxes) for b in boxes[:i]]
        assert all(overlap is None or overlap.width * overlap.height < 1 for overlap in overlaps)
        assert axes.get_xscale() == "log"


def test_those_that_failed_come_last() -> None:
    rows = make_rows([(0.5, 10.0), (0.9, 20.0)])
    assert [row.model for row in rows] == ["network_1", "network_0", "broken"]
    assert [row.front for row in rows] == [COSTS, COSTS, ()]


@pytest.mark.slow
def test_a_comparison_that_was_killed_ends_as_one_that_was_not(few: Path, tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "tests.plain", "compare", str(few), "--models", "lenet300_100,lenet_relu", "--seeds", "2",
        "--epochs", "2", "--set", "training.precision=fp32", "--json", "--out",
    ]  # fmt: skip
    root = Path(__file__).parent.parent
    subprocess.run([*command, str(tmp_path / "whole")], cwd=root, check=True, capture_output=True)
    for run in ("lenet300_100-1", "lenet_relu-0"):
        with subprocess.Popen(
            [*command, str(tmp_path / "killed")], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as one:
            begun = tmp_path / "killed" / "runs" / run / "config.yaml"
            while not begun.is_file() and one.poll() is None:
                time.sleep(0.02)
            one.send_signal(signal.SIGKILL)
    command.append(str(tmp_path / "killed"))
    done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    assert 2 <= done.stderr.count("(kept)") < 4
    weights = "runs/lenet_relu-1/model.safetensors"
    assert (tmp_path / "killed" / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()
    whole, killed = (read_json(tmp_path / name / "comparison.json") for name in ("whole", "killed"))
    assert whole["pairs"] == killed["pairs"]
