"""Names of the first edition: each still does what it did, and says once what it is called now."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml

import falconet
from falconet import TrainConfig, planning, renames
from falconet.cli.app import run
from falconet.errors import UnknownNameError, UsageError
from falconet.model import read_measured
from falconet.planning import ModelConfig, normalize_settings, parse_assignments, plan_run, write_config
from falconet.renames import _RENAMED, RENAMED_NAMES, rename_settings
from falconet.schema import to_mapping

OLD: dict[str, Any] = {
    "epochs": 2, "loss": "mse", "keep": "last", "teacher_share": 0.5, "temperature": 2.0, "momentum": 0.8,
}  # fmt: skip
NEW: dict[str, Any] = {
    "epochs": 2, "loss": "brier", "restore": "last", "distill_alpha": 0.5, "distill_temperature": 2.0,
    "betas": (0.8, 0.999), "momentum": 0.8,
}  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renames, "_NOTED", set())


def test_the_table_leads_to_settings_that_there_are() -> None:
    known = {f"training.{name}" for name in vars(TrainConfig())} | {
        f"model.{name}" for name in get_type_hints(ModelConfig)
    }
    assert {new.partition("=")[0] for new in _RENAMED.values()} <= known
    assert not {old for old in _RENAMED if "=" not in old} & known


@pytest.mark.parametrize("old", _RENAMED)
def test_each_setting_is_read_by_its_old_name(old: str, capsys: pytest.CaptureFixture[str]) -> None:
    key, _, value = old.partition("=")
    new, _, replacement = _RENAMED[old].partition("=")
    section, _, name = key.partition(".")
    found = rename_settings({section: {name: value or 7}})
    assert found == {section: {new.removeprefix(f"{section}."): replacement or 7}}
    assert capsys.readouterr().err == f"note: {old} is now {_RENAMED[old]}\n"
    rename_settings({section: {name: value or 7}})
    assert capsys.readouterr().err == "", "a process says it once"


def test_arguments_have_old_names_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert falconet.diagnose([], vitals=[], chance=0.1) == ()  # type: ignore[call-arg]
    assert "note: diagnose(vitals=...) is now diagnose(layer_stats=[])" in capsys.readouterr().err
    assert read_measured(["batch_size", "learning_rate", "epochs"]) == {"batch_size": "auto", "find_lr": True}
    with pytest.raises(UnknownNameError, match="unknown measured setting 'epoch': did you mean epochs"):
        read_measured(["epoch"])


def test_what_is_not_renamed_stays() -> None:
    settings = {
        "model": {"keep": 1},
        "training": {"loss": "cosine", "restore": "best"},
        "augmentation": {"policy": "none"},
    }
    assert rename_settings(settings) == settings
    assert rename_settings({"training": {"keep": "last", "restore": "best"}}) == {"training": {"restore": "best"}}
    assert normalize_settings({"augmentation": "light"}) == {"augmentation": {"policy": "light"}}


@pytest.mark.parametrize(
    ("training", "betas"),
    [
        ({"momentum": 0.8}, (0.8, 0.999)),
        ({"momentum": 0.8, "optimizer": "adam"}, (0.8, 0.999)),
        ({"momentum": 0.8, "optimizer": "sgd"}, (0.9, 0.999)),
        ({"momentum": 0.8, "betas": [0.7, 0.9]}, (0.7, 0.9)),
    ],
)
def test_momentum_of_adam_is_its_first_beta(training: dict[str, Any], betas: tuple[float, float]) -> None:
    config = plan_run("digits", settings={"training": training}).config.training
    assert config.betas == betas
    assert config.momentum == 0.8


def test_momentum_of_sgd_stays_its_own_wherever_the_optimizer_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each flag alone does not tell; all of them together do, and the run that goes on with them is the same one."""
    asked = parse_assignments(["training.optimizer=sgd", "training.momentum=0.8"])
    config = plan_run("digits", model="lenet300_100", settings=asked).config.training
    assert (config.momentum, config.betas) == (0.8, (0.9, 0.999))
    settings = {"training": {"optimizer": "sgd", "momentum": 0.8}}
    plan = plan_run("digits", model="lenet300_100", settings=settings, out=tmp_path / "run")
    write_config(plan)
    again = plan_run("digits", settings=asked, out=tmp_path / "run", if_exists="resume")
    assert again.config == plan.config
    flags = ["training.betas=[0.7,0.9]", "training.momentum=0.8"]
    assert plan_run("digits", settings=parse_assignments(flags)).config.training.betas == (0.7, 0.9)
    assert capsys.readouterr().err == ""


def test_settings_as_a_mapping_a_file_and_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump({"training": OLD}))
    flags = [f"training.{key}={value}" for key, value in OLD.items()]
    for settings in ({"training": OLD}, planning.read_settings(file), planning.parse_assignments(flags)):
        training = plan_run("digits", settings=settings).config.training
        assert {key: getattr(training, key) for key in NEW} == NEW
    assert plan_run("digits", recipe=str(file)).config.training.loss == "brier"


def test_a_configuration_made_in_python(capsys: pytest.CaptureFixture[str]) -> None:
    assert TrainConfig(**OLD) == TrainConfig(**NEW)
    assert capsys.readouterr().err.count("note: ") == 5


@pytest.mark.slow
def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    asked = ["digits", "--model", "lenet300_100", "--loss", "mse", "--set", "training.keep=last", "--epochs", "1"]
    assert run(["train", *asked, "--out", str(out), "--json"]) == 0
    said = capsys.readouterr()
    json.loads(said.out)
    for line in ("training.keep is now training.restore", "training.loss=mse is now training.loss=brier"):
        assert said.err.count(f"note: {line}\n") == 1
    assert yaml.safe_load((out / "config.yaml").read_text())["training"]["loss"] == "brier"
    assert run(["export", str(out), "--to", "torch", "--out", str(tmp_path / "net.pt2"), "--raw", "--json"]) == 0
    said = capsys.readouterr()
    assert said.err.count("note: --raw is now --no-preprocessing\n") == 1
    assert run(["export", "--help"]) == 0
    said = capsys.readouterr()
    assert "--no-preprocessing" in said.out
    assert "--raw" not in said.out
    assert run(["evaluate", str(out), "digits", "--precision", "0.5", "--json"]) == 0
    said = capsys.readouterr()
    assert said.err.count("note: --precision is now --target-accuracy\n") == 1
    assert json.loads(said.out)["abstention"]["precision"] == 0.5
    assert run(["evaluate", "--help"]) == 0
    assert "--precision" not in capsys.readouterr().out
    assert falconet.load(out).evaluate("digits", precision=0.5).abstention is not None  # type: ignore[call-arg]


def as_first_edition(out: Path) -> None:
    """Write a run's configuration and its checkpoints as the first edition did."""
    back = {new: old.removeprefix("training.") for old, new in _RENAMED.items() if "=" not in old and "training" in old}

    def restore(training: dict[str, Any]) -> dict[str, Any]:
        named = {back.get(f"training.{key}", key): value for key, value in training.items() if key != "betas"}
        return {**named, "momentum": training["betas"][0], "loss": "mse"}

    config = yaml.safe_load((out / "config.yaml").read_text())
    (out / "config.yaml").write_text(yaml.safe_dump({**config, "training": restore(config["training"])}))
    from falconet.training.checkpoints import _digest

    for path in (out / "checkpoint").glob("*.json"):
        facts = json.loads(path.read_text())["facts"]
        facts["run"] = restore(facts["run"])
        content = path.with_suffix(".safetensors").read_bytes()
        path.write_text(json.dumps({"facts": facts, "digest": _digest(content, facts)}))


class Stop(falconet.Callback):
    def on_epoch(self, row: Any, best: bool) -> None:
        raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_run_of_the_first_edition_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str], optimizer: str) -> None:
    training = {"loss": "brier", "optimizer": optimizer, "betas": [0.8, 0.999], "restore": "last"}
    settings = {"training": training}
    arguments: dict[str, Any] = {"model": "lenet300_100", "epochs": 2, "settings": settings, "progress": False}
    if optimizer == "sgd":
        del training["betas"]
    whole = falconet.train("digits", out=tmp_path / "whole", **arguments)
    with pytest.raises(falconet.errors.InterruptedRunError):
        falconet.train("digits", out=tmp_path / "run", callbacks=[Stop()], **arguments)
    as_first_edition(tmp_path / "run")
    again = falconet.train("digits", out=tmp_path / "run", if_exists="resume", progress=False)
    assert capsys.readouterr().err == "", "nobody need change what Falconet wrote"
    assert again.report.digest == whole.report.digest
    with pytest.raises(UsageError, match=r"training.restore=last, but now it is best"):
        plan_run("digits", out=tmp_path / "run", if_exists="resume", settings={"training": {"keep": "best"}})


@pytest.mark.slow
def test_arguments_in_python(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_config(plan_run("digits", model="lenet300_100", out=tmp_path))
    settings = {"training": {"epochs": 1}}
    old: dict[str, Any] = {"existing": "overwrite", "measured": ["batch_size", "learning_rate"]}
    falconet.train("digits", model="lenet300_100", settings=settings, out=tmp_path, **old)
    assert (tmp_path / "learning-rate.png").is_file()
    said = capsys.readouterr().err
    assert "note: train(existing=...) is now train(if_exists='overwrite')\n" in said
    assert "note: train(measured=...) is now train(batch_size='auto', find_lr=True)\n" in said


@pytest.mark.parametrize("old", RENAMED_NAMES)
def test_public_names(old: str, capsys: pytest.CaptureFixture[str]) -> None:
    new = RENAMED_NAMES[old]
    assert getattr(falconet, old) is getattr(falconet, new)
    assert capsys.readouterr().err == f"note: falconet.{old} is now falconet.{new}\n"


def test_a_size_that_is_measured_is_a_setting_too() -> None:
    for recipe in (None, "digits"):
        plan = plan_run("digits", recipe=recipe, settings={"training": {"batch_size": "auto"}})
        assert "batch_size" in plan.autotune
        assert plan.config.training.batch_size == plan_run("digits", recipe=recipe).config.training.batch_size
        assert "batch_size" in plan_run("digits", recipe=recipe, batch_size="auto").autotune
    assert plan_run("digits", batch_size=16).config.training.batch_size == 16
    assert to_mapping(plan_run("digits").config)["training"]["betas"] == [0.9, 0.999]
