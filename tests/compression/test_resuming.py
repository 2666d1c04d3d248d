"""A search that goes on, also to another budget, without training anything: trials are made up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falconet.compression import Budget, CompressConfig, SearchConfig, Trial, TrialSpec, Watcher, session
from falconet.compression import trial as trial_module
from falconet.compression.session import (
    Record,
    _describe_change,
    _name_limits,
    _prepare,
    _read_record,
    _Session,
    run_trials,
)
from falconet.compression.trial import SearchContext, claim_checkpoints
from falconet.data import Dataset
from falconet.data.augmentation import ImageAugmentation
from falconet.errors import ArtifactError, UsageError
from falconet.schema import from_mapping, to_mapping
from falconet.storage import read_json
from tests.compression.test_search import FRACTIONS, lose, weigh

CONFIG = SearchConfig(ImageAugmentation(), CompressConfig(polish=7))
FACTS = {"model": "0f", "fingerprint": "1e", "config": to_mapping(CONFIG)}


def make_hollow(kind: type[Any], **fields: Any) -> Any:
    """Return an object of a class with these fields alone: nothing here looks at the others."""
    made = object.__new__(kind)
    for name, value in fields.items():
        object.__setattr__(made, name, value)
    return made


def open_made_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[_Session, list[TrialSpec]]:
    done: list[TrialSpec] = []

    def run_trial(number: int, spec: TrialSpec, context: Any) -> Trial:
        done.append(spec)
        context.trial_file(number).write_bytes(b"-")
        lost = lose(spec) + 0.05 / spec.macs_fraction - 0.01 * spec.polish
        return Trial(number, spec, weigh(spec), 0.99 - lost / 100, lost, int(1e6 * spec.macs_fraction), None, 1.0)

    monkeypatch.setattr(session, "run_trial", run_trial)
    monkeypatch.setattr(session, "write_frontier", lambda *arguments: None)
    folder.mkdir(exist_ok=True)
    context = make_hollow(SearchContext, folder=folder, config=CONFIG, layer_bits={})
    return _Session(context, make_hollow(Dataset), folder, Watcher(), FACTS, has_sensitivity=True), done


def search_for(search: _Session, budget: Budget) -> tuple[Trial, ...]:
    first = 1.0 if budget.max_macs is None else budget.max_macs / 1e6
    fractions = tuple(first * fraction for fraction in FRACTIONS)
    search = replace(search, macs_fractions={**search.macs_fractions, _name_limits(budget): fractions})
    return run_trials(_prepare(search), budget)


BUDGETS = st.sampled_from(
    [
        Budget(max_drop=2.0),
        Budget(max_drop=0.3),
        Budget(max_bytes=30_000),
        Budget(max_bytes=3000),
        Budget(max_bytes=90_000, max_drop=0.2),
        Budget(max_macs=300_000),
        Budget(max_macs=150_000, max_bytes=9000),
    ]
)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(budgets=st.lists(BUDGETS, min_size=2, max_size=4))
def test_another_budget_gets_what_a_search_from_nothing_would(
    budgets: list[Budget], tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        search, done = open_made_up(tmp_path_factory.mktemp("resumed"), monkeypatch)
        for budget in budgets:
            trials = search_for(search, budget)
            fresh, _ = open_made_up(tmp_path_factory.mktemp("fresh"), monkeypatch)
            assert list(map(measure, trials)) == list(map(measure, search_for(fresh, budget)))
            record = from_mapping(Record, read_json(search.context.folder / "search.json"))
            search = replace(search, trials=record.trials, macs_fractions=record.macs_fractions)
        lineages = [trace(spec, search.trials) for spec in done]
        assert len(lineages) == len(set(lineages)), "a trial was run twice"


def measure(trial: Trial) -> tuple[Any, ...]:
    """Return what came of a trial, but for its number, which follows from what was there before."""
    return replace(trial.spec, start=None), trial.bytes, trial.accuracy


def trace(spec: TrialSpec, trials: tuple[Trial, ...]) -> tuple[TrialSpec, ...]:
    """Return a spec after all that it builds on."""
    before = next((trial.spec for trial in trials if trial.number == spec.start), None)
    return (*(trace(before, trials) if before else ()), replace(spec, start=None))


def test_a_trial_whose_file_is_gone_is_carried_out_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search, done = open_made_up(tmp_path, monkeypatch)
    trials = search_for(search, Budget(max_bytes=3000))
    (tmp_path / "trial-02.fnet").unlink()
    count = len(done)
    assert search_for(replace(search, trials=trials), Budget(max_bytes=3000)) == trials
    assert done[count:] == [trials[1].spec]


def test_the_front_holds_the_trials_of_all_budgets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search, _ = open_made_up(tmp_path, monkeypatch)
    shown: list[set[int]] = []

    def write_frontier(trials: Sequence[Trial], budget: Budget, out: Path) -> None:
        shown.append({trial.number for trial in trials})

    monkeypatch.setattr(session, "write_frontier", write_frontier)
    first = search_for(search, Budget(max_bytes=3000))
    second = search_for(replace(search, trials=first), Budget(max_bytes=90_000))
    assert shown[-1] == {trial.number for trial in (*first, *second)} > {trial.number for trial in second}


def test_trials_of_before_are_shown_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch_pruning")  # Without it a line says so.
    search, done = open_made_up(tmp_path, monkeypatch)
    trials = search_for(search, Budget(max_bytes=3000))
    told: list[str] = []
    shown: list[Trial] = []
    watcher = Watcher(told.append, lambda trial, best: shown.append(trial))
    count = len(done)
    search_for(replace(search, trials=trials, watcher=watcher), Budget(max_bytes=3000))
    assert len(done) == count
    assert tuple(shown) == trials
    assert told == [f"{len(trials)} trials are there; those that this budget needs are not run again"]


def test_a_search_that_time_ended_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch_pruning")  # Without it a line says so.
    search, _ = open_made_up(tmp_path, monkeypatch)
    for seconds, lines in ((2.0, ["the time is up"]), (1000.0, [])):
        told: list[str] = []
        search_for(replace(search, watcher=Watcher(told.append)), Budget(max_bytes=3000, seconds=seconds))
        assert [line.partition(",")[0] for line in told] == lines


def test_layers_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search, _ = open_made_up(tmp_path, monkeypatch)
    done: list[str] = []

    def find_layer_bits(search: _Session) -> _Session:
        done.append("sensed")
        return replace(search, has_sensitivity=True)

    monkeypatch.setattr(session, "find_layer_bits", find_layer_bits)
    _prepare(_prepare(replace(search, has_sensitivity=False)))
    assert done == ["sensed"]


def test_networks_of_the_same_channels_are_timed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search, _ = open_made_up(tmp_path, monkeypatch)
    times = iter((0.9, 0.5, 0.4))
    monkeypatch.setattr(trial_module, "read_trial", lambda number, context: number)
    monkeypatch.setattr(trial_module, "time_fastest", lambda artifact: next(times))
    trials = search_for(search, Budget(max_drop=0.2, max_latency_ms=1.0))
    found = {trial.macs: trial.latency_ms for trial in trials}
    assert list(found.values()) == [0.9, 0.5, 0.4][: len(found)]
    assert [trial.latency_ms for trial in read_trials(tmp_path)] == [trial.latency_ms for trial in trials]
    assert len(trials) > len(found) > 1
    assert all(trial.latency_ms == found[trial.macs] for trial in trials)


def read_trials(folder: Path) -> tuple[Trial, ...]:
    return from_mapping(Record, read_json(folder / "search.json")).trials


def test_a_record_keeps_the_keys_of_the_first_edition(tmp_path: Path) -> None:
    scheme = {"macs": 0.5, "kept": 0.25, "bits": 4, "epochs": 5, "start": 1, "polish": False}
    trial = {"number": 2, "scheme": scheme, "bytes": 900, "accuracy": 0.9, "drop": 0.1, "macs": 500}
    found = {"sensed": True, "bits": {"a": 6}, "shares": {"None MACs, None ms": [1.0, 0.5]}}
    trials = [{**trial, "latency_ms": None, "seconds": 2.0}]
    record = {"source": "digits", **FACTS, **found, "trials": trials}
    (tmp_path / "search.json").write_text(json.dumps(record))
    read = _read_record(tmp_path / "search.json", FACTS)
    assert read.trials[0].spec == TrialSpec(macs_fraction=0.5, density=0.25, bits=4, epochs=5, start=1)
    assert (read.has_sensitivity, read.layer_bits, read.macs_fractions) == (True, found["bits"], found["shares"])
    assert to_mapping(read) == record


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"trials": 5}', '{"model": "0f"}'])
def test_a_damaged_record_says_what_to_do(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "search.json"
    path.write_text(damage)
    with pytest.raises(ArtifactError, match=r"search\.json.*begin anew with if_exists='overwrite'"):
        _read_record(path, FACTS)


def test_a_setting_that_was_not_there_is_named() -> None:
    before = {"model": "0f", "config": {"training": {"decay": None}, "gone": {}}}
    assert _describe_change(before, {"model": "0f", "config": {"gone": {}, "training": {}}}) == (
        ": config.training.decay was None, and now is not there"
    )
    assert _describe_change({"gone": {}}, {}) == ""


@pytest.mark.parametrize("key", ["model", "fingerprint", "config"])
def test_another_search_is_not_gone_on_with(key: str, tmp_path: Path) -> None:
    path = tmp_path / "search.json"
    path.write_text(json.dumps({**FACTS, "sensed": False, "bits": {}, "shares": {}, "trials": []}))
    assert _read_record(path, FACTS).trials == ()
    changed = to_mapping(replace(CONFIG, compression=CompressConfig(polish=8)))
    named = r"other settings: compression\.polish was 7, and now is 8; undo" if key == "config" else ""
    with pytest.raises(UsageError, match=f"the search began with .*{named}"):
        _read_record(path, {**FACTS, key: changed if key == "config" else "other"})


def test_a_search_goes_on_on_another_device(tmp_path: Path) -> None:
    path = tmp_path / "search.json"
    path.write_text(json.dumps({**FACTS, "sensed": False, "bits": {}, "shares": {}, "trials": []}))
    training = replace(CONFIG.training, device="cuda", checkpoint_seconds=1.0)
    changed = to_mapping(replace(CONFIG, training=training))
    assert _read_record(path, {**FACTS, "config": changed}).trials == ()


def test_checkpoints_of_another_trial_are_not_gone_on_with(tmp_path: Path) -> None:
    left = tmp_path / "checkpoint" / "epoch-000001.json"
    left.parent.mkdir()
    claim_checkpoints(3, TrialSpec(density=0.5), tmp_path)
    left.write_text("{}")
    claim_checkpoints(3, TrialSpec(density=0.5), tmp_path)
    assert left.exists()
    claim_checkpoints(3, TrialSpec(density=0.25), tmp_path)
    assert not left.exists()
