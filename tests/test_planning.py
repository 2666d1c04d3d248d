"""From arguments to a complete plan."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from falconet import planning
from falconet.data import Dataset, load_dataset
from falconet.data.augmentation import POLICIES
from falconet.errors import ConfigError, DataError, PathError, RunExistsError, UnknownNameError, UsageError
from falconet.planning import RUN_CONFIG_FILE, parse_assignments, plan_run, read_begun, read_settings, write_config
from falconet.training import TrainConfig

FolderMaker = Callable[..., Path]


def test_everything_follows_from_the_data(make_folder: FolderMaker) -> None:
    small, large = plan_run("digits"), plan_run(make_folder(size=(90, 60)))
    assert (small.config.model.name, large.config.model.name) == ("lenet_relu", "efficientnet_lite0")
    assert (small.config.model.input_size, large.config.model.input_size) == (None, 96)
    assert [config.model.name for config in small.probe_candidates] == ["linear"]
    assert large.probe_candidates == ()
    assert plan_run(make_folder("again", size=(90, 60)), model="lenet5").config.model.input_size is None
    assert small.config.augmentation == POLICIES["image"]["digits"]
    assert large.config.augmentation == POLICIES["image"]["light"]
    assert small.config.training.epochs == 40
    assert "model.name=lenet_relu" in small.chosen


def test_the_size_of_the_validation_split_chooses_what_is_kept() -> None:
    many = {"data": {"val_fraction": 0.4}}
    few, chosen = plan_run("digits"), plan_run("digits", settings=many)
    assert (few.config.training.restore, few.config.training.patience) == ("last", None)
    assert "training.restore=last" in few.chosen
    assert not any("patience" in choice for choice in few.chosen)
    assert (chosen.config.training.restore, chosen.config.training.patience) == ("best", 10)
    assert {"training.restore=best", "training.patience=10"} <= set(chosen.chosen)
    short = plan_run("digits", settings={**many, "training": {"restore": "last"}}, epochs=4)
    assert (short.config.training.restore, short.config.training.patience) == ("last", None)
    assert plan_run("digits", settings=many, epochs=100).config.training.patience == 25


def test_later_layers_win(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("model: {name: lenet300_100}\ntraining: {epochs: 7, batch_size: 11, learning_rate: 1e-3}\n")
    plan = plan_run("digits", recipe=str(recipe), settings={"training": {"epochs": 8, "seed": 3}}, epochs=9)
    training = plan.config.training
    assert (plan.config.model.name, training.epochs, training.batch_size) == ("lenet300_100", 9, 11)
    assert (training.seed, training.learning_rate) == (3, 0.001)
    chosen = [choice for choice in plan.chosen if choice.startswith(("model.name", "training"))]
    assert chosen == ["training.restore=last"]


@pytest.fixture
def weights_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder that holds two files of weights, which nothing reads while it plans."""
    folder = tmp_path / "here"
    folder.mkdir()
    for name in ("weights.pth", "other.pth"):
        (folder / name).touch()
    monkeypatch.chdir(folder)


@pytest.mark.usefixtures("weights_here")
def test_published_weights_are_trained_on_at_a_quarter_of_the_rate(tmp_path: Path) -> None:
    plain, tuned = (
        plan_run("digits", model="resnet20", settings={"model": {"pretrained": pretrained}}, out=tmp_path / "run")
        for pretrained in (None, "weights.pth")
    )
    assert plain.config.training.learning_rate == TrainConfig().learning_rate
    assert tuned.config.training.learning_rate == TrainConfig().learning_rate / 4
    assert "training.learning_rate=0.0005" in tuned.chosen
    assert not any("learning_rate" in choice for choice in plain.chosen)
    assert tuned.config.model.pretrained == "weights.pth"
    asked = {"model": {"pretrained": "weights.pth"}, "training": {"learning_rate": 0.01}}
    chosen = plan_run("digits", model="resnet20", settings=asked, out=tmp_path / "run")
    assert chosen.config.training.learning_rate == 0.01
    assert not any("learning_rate" in choice for choice in chosen.chosen)


@pytest.mark.usefixtures("weights_here")
def test_a_resumed_run_keeps_its_weights_and_its_rate(tmp_path: Path) -> None:
    first = plan_run(
        "digits", model="resnet20", settings={"model": {"pretrained": "weights.pth"}}, out=tmp_path / "run"
    )
    write_config(first)
    assert plan_run("digits", out=tmp_path / "run", if_exists="resume").config == first.config
    with pytest.raises(UsageError, match=r"model.pretrained=weights.pth, but now it is other.pth"):
        plan_run("digits", settings={"model": {"pretrained": "other.pth"}}, out=tmp_path / "run", if_exists="resume")


def test_output_folder_is_named_after_source_and_model(make_folder: FolderMaker) -> None:
    assert plan_run("digits", model="lenet5").out == Path("runs/digits-lenet5")
    assert plan_run(make_folder("my photos!")).out == Path("runs/my-photos--efficientnet_lite0")


@pytest.mark.parametrize(
    ("assignments", "expected"),
    [
        (["training.epochs=5"], {"training": {"epochs": 5}}),
        (["training.epochs=5", "training.seed=1"], {"training": {"epochs": 5, "seed": 1}}),
        (["training.clip_norm=null"], {"training": {"clip_norm": None}}),
        (["model.input_size=[24, 32]"], {"model": {"input_size": [24, 32]}}),
        (["augmentation=none"], {"augmentation": {"policy": "none"}}),
        (
            ["augmentation=light", "augmentation.rotate=3"],
            {"augmentation": {"policy": "light", "rotate": 3}},
        ),
    ],
)
def test_assignments_nest(assignments: list[str], expected: dict[str, Any]) -> None:
    assert parse_assignments(assignments) == expected


@pytest.mark.parametrize("assignment", ["training.epochs", "=5", "training.epochs=[5", ""])
def test_malformed_assignments_are_refused(assignment: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        parse_assignments([assignment])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "lenet_5"}, "unknown model 'lenet_5': did you mean lenet5"),
        ({"recipe": "digit"}, "unknown recipe 'digit': did you mean digits"),
        ({"settings": {"augmentation": "ligth"}}, "unknown augmentation policy 'ligth': did you mean light"),
        ({"settings": {"trainig": {"epochs": 1}}}, "unknown setting 'trainig': did you mean training"),
        ({"settings": {"training": {"epoch": 1}}}, "unknown setting 'training.epoch': did you mean training.epochs"),
    ],
)
def test_mistyped_names_offer_the_nearest(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        plan_run("digits", **arguments)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"training": {"epochs": 0}}, "training.epochs: wanted 1 or more, found 0"),
        ({"training": {"epochs": "many"}}, "training.epochs: wanted int, found 'many'"),
        ({"training": {"optimizer": "adamax"}}, "training.optimizer: wanted sgd or adam or adamw, found 'adamax'"),
        ({"training": 5}, "training: wanted a mapping of settings, found 5"),
        ({"data": {"val_fraction": 0.9}}, "data.val_fraction: wanted a fraction above 0 and below 0.5, found 0.9"),
        (
            {"model": {"name": "lenet5", "options": {"num_classes": 3}}},
            "model.options.num_classes: follows from the data",
        ),
        (
            {"model": {"name": "resnet20", "options": {"input_size": 32}}},
            "model.options.input_size: is model.input_size; leave it out",
        ),
        ({"model": {"name": "resnet20", "pretrained": 5}}, "model.pretrained: wanted "),
        ({"training": {"unfreeze_after": 2}}, "training.unfreeze_after: wanted 1 to 39, with freeze=backbone"),
        ({"training": {"freeze": "backbone"}}, "training.freeze: wanted published weights to keep, found none"),
        ({"training": {"freeze": "head"}}, "training.freeze: wanted .*backbone.*, found 'head'"),
        ({"model": {"name": "resnet20", "options": 5}}, "model.options: wanted Mapping, found 5"),
        ({"model": {"name": 5, "options": {"width": 8}}}, "model.name: wanted str, found 5"),
        ({"augmentation": {"rotate": 500}}, "augmentation.rotate: wanted 0 to 180, found 500"),
        (
            {"model.teacher": "x"},
            "model.teacher: settings stand within their section: wanted {'model': {'teacher': ...}}",
        ),
    ],
)
def test_impossible_settings_name_the_key(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_run("digits", settings=settings)


@pytest.mark.parametrize("content", ["model: resnet18", "training: 5", "model: [resnet18]"])
def test_a_recipe_of_wrong_sections_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(ConfigError, match=r"(model|training): wanted a mapping of settings, found"):
        plan_run("digits", recipe=str(tmp_path / "mine.yaml"), epochs=2, settings={"model": {}, "training": {}})


def test_settings_files(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    with pytest.raises(PathError, match="No such file"):
        read_settings(path)
    path.write_text("training: [")
    with pytest.raises(ConfigError, match="not YAML"):
        read_settings(path)
    path.write_text("- 1\n- 2\n")
    with pytest.raises(ConfigError, match="wanted sections"):
        read_settings(path)


@pytest.mark.parametrize(
    "content", ["? null\n: 1", "a: &a [*a]", "a: " + "[" * 9_000, "a: " + "9" * 5_000, "é".encode("utf-16")]
)
def test_settings_files_that_are_none(content: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    for read in (read_settings, lambda path: planning.load_recipe(str(path))):
        with pytest.raises(ConfigError, match=r"odd\.yaml: not YAML: ") as caught:
            read(path)
        assert "\n" not in str(caught.value)
    path.rename(tmp_path / "config.yaml")
    assert planning._read_facts(tmp_path) == {}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no FIFOs")
def test_settings_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.yaml")
    with pytest.raises(PathError, match=r"config\.yaml: not a regular file"):
        read_settings(tmp_path / "config.yaml")
    assert planning._read_facts(tmp_path) == {}


def test_a_stored_configuration_can_be_used_for_another_run(tmp_path: Path) -> None:
    plan = plan_run("digits", model="lenet5", epochs=3, out=tmp_path / "first")
    write_config(plan)
    again = plan_run("digits", settings=read_settings(tmp_path / "first" / "config.yaml"), out=tmp_path / "second")
    assert again.config == plan.config


def test_a_broken_section_is_not_hidden_by_another_layer() -> None:
    with pytest.raises(ConfigError, match="training: wanted a mapping of settings, found 3"):
        plan_run("digits", epochs=1, settings={"training": 3})


def test_a_run_inside_its_data_is_refused(make_folder: FolderMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder()
    monkeypatch.chdir(folder)
    for source in (".", folder):
        with pytest.raises(UsageError, match="lies inside the data"):
            plan_run(source)


def test_too_few_samples_to_split(make_folder: FolderMaker) -> None:
    with pytest.raises(DataError, match="wanted at least three different samples of a class"):
        plan_run(make_folder(count=2))


@pytest.mark.parametrize("name", planning.list_recipes())
def test_recipes_are_complete_and_documented(name: str) -> None:
    settings = planning.load_recipe(name)
    assert settings["training"].keys() == {field.name for field in fields(TrainConfig)}
    assert "name" in settings["model"]
    assert "policy" in settings["augmentation"], "what is not written down must not follow from the data"
    text = (Path(planning.__file__).parent / "recipes" / "train" / f"{name}.yaml").read_text(encoding="utf-8")
    header = [line for line in text.splitlines() if line.startswith("#")]
    for topic in ("Paper:", "Command:", "Hardware:", "Wall time:", "Expected:"):
        assert any(line.startswith(f"# {topic}") for line in header), topic


class TestExistingFolders:
    """What happens where something stands already."""

    def test_a_run_is_refused_unless_asked_for(self, tmp_path: Path) -> None:
        write_config(plan_run("digits", out=tmp_path / "run"))
        assert plan_run("digits", out=tmp_path / "run", epochs=7).config.training.epochs == 7  # nothing to lose yet
        (tmp_path / "run" / "model.safetensors").touch()
        with pytest.raises(RunExistsError, match=r"'resume'.*'overwrite'"):
            plan_run("digits", out=tmp_path / "run")
        assert plan_run("digits", out=tmp_path / "run", if_exists="overwrite").if_exists == "overwrite"

    @pytest.mark.parametrize("if_exists", ["refuse", "resume", "overwrite"])
    def test_files_of_no_run_are_never_touched(self, tmp_path: Path, if_exists: planning.IfExists) -> None:
        (tmp_path / "thesis.txt").write_text("five years")
        with pytest.raises(RunExistsError, match="no run"):
            plan_run("digits", out=tmp_path, if_exists=if_exists)

    def test_a_file_in_the_place_of_the_folder(self, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("")
        with pytest.raises(PathError, match="found a file"):
            plan_run("digits", out=tmp_path / "out")

    def test_resuming_nothing_starts_anew(self, tmp_path: Path) -> None:
        assert plan_run("digits", out=tmp_path / "new", if_exists="resume").if_exists == "resume"

    def test_resuming_takes_the_stored_configuration(self, tmp_path: Path) -> None:
        first = plan_run("digits", model="lenet5", epochs=3, seed=7, out=tmp_path)
        write_config(first)
        assert plan_run("digits", out=tmp_path, if_exists="resume").config == first.config

    def test_resuming_differently_is_refused(self, tmp_path: Path) -> None:
        write_config(plan_run("digits", epochs=3, out=tmp_path))
        with pytest.raises(UsageError, match=r"training.epochs=3, but now it is 4"):
            plan_run("digits", epochs=4, out=tmp_path, if_exists="resume")

    @pytest.mark.parametrize("setting", [{"device": "cpu"}, {"checkpoint_seconds": 5.0}])
    def test_resuming_on_another_device_or_with_other_checkpoints_is_the_same_run(
        self, tmp_path: Path, setting: dict[str, Any]
    ) -> None:
        write_config(plan_run("digits", out=tmp_path))
        plan = plan_run("digits", out=tmp_path, if_exists="resume", settings={"training": setting})
        assert {key: getattr(plan.config.training, key) for key in setting} == setting

    @pytest.mark.parametrize("named", [False, True])
    def test_resuming_reads_the_source_once(self, tmp_path: Path, named: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        out = tmp_path / "run" if named else None
        write_config(plan_run("digits", out=out, seed=4))
        reads: list[object] = []

        def read(*given: Any, **more: Any) -> Dataset:
            reads.append(given)
            return load_dataset(*given, **more)

        monkeypatch.setattr(planning, "load_dataset", read)
        assert plan_run("digits", out=out, if_exists="resume").config.training.seed == 4
        assert len(reads) == 1

    def test_what_another_process_did_while_the_data_were_read_is_seen(self, tmp_path: Path) -> None:
        plan = plan_run("digits", out=tmp_path)
        write_config(plan_run("digits", seed=8, out=tmp_path))
        (tmp_path / "model.safetensors").touch()
        with pytest.raises(RunExistsError, match="already holds a run"):
            planning.check_again(plan)
        other = dataclasses.replace(plan, if_exists="resume")
        with pytest.raises(UsageError, match=r"training.seed=8, but now it is 0"):
            planning.check_again(other)

    def test_resuming_keeps_the_recipe(self, tmp_path: Path) -> None:
        write_config(plan_run("digits", recipe="digits", epochs=3, out=tmp_path))
        assert plan_run("digits", out=tmp_path, if_exists="resume").recipe == "digits"

    @pytest.mark.parametrize("name", ["config.yaml", "config.json"])
    @pytest.mark.parametrize("if_exists", ["resume", "overwrite"])
    def test_the_configuration_of_something_else_is_no_run(
        self, tmp_path: Path, name: str, if_exists: planning.IfExists
    ) -> None:
        (tmp_path / name).write_text('{"model": "theirs"}')
        with pytest.raises(RunExistsError, match="no run"):
            plan_run("digits", out=tmp_path, if_exists=if_exists)

    def test_what_a_killed_process_left_half_written_is_no_obstacle(self, tmp_path: Path) -> None:
        (tmp_path / ".config.yaml.0123abcd.partial").write_text("sour")
        assert plan_run("digits", out=tmp_path).out == tmp_path

    def test_a_mistyped_wish_is_refused(self, tmp_path: Path) -> None:
        # In a process of its own, since the tests' checker of annotations would be first to object.
        call = f"plan_run('digits', out={str(tmp_path)!r}, if_exists='overwite')"
        code = f"from falconet.planning import plan_run; {call}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "UnknownNameError: unknown value of if_exists 'overwite': did you mean overwrite?" in done.stderr

    def test_resuming_on_other_data_is_refused(self, tmp_path: Path, make_folder: FolderMaker) -> None:
        photos = make_folder()
        write_config(plan_run(photos, out=tmp_path / "run"))
        (photos / "dark" / "000.png").unlink()
        with pytest.raises(UsageError, match="fingerprint="):
            plan_run(photos, out=tmp_path / "run", if_exists="resume")


def test_the_written_configuration_is_complete(tmp_path: Path) -> None:
    plan = plan_run("digits", out=tmp_path)
    write_config(plan)
    content = yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8"))
    assert content["source"] == "digits"
    assert content["fingerprint"] == plan.dataset.fingerprint
    assert set(content["training"]) == {field.name for field in dataclasses.fields(plan.config.training)}


@pytest.mark.parametrize(("written", "rule"), [({}, "apart"), ({"near_duplicates": "together"}, "together")])
def test_runs_of_before_go_on_with_the_splits_that_they_began_with(
    written: dict[str, str], rule: str, tmp_path: Path
) -> None:
    facts = {"source": "photos", "fingerprint": "0", "recipe": None, "data": {"split_seed": 3, **written}}
    (tmp_path / RUN_CONFIG_FILE).write_text(yaml.safe_dump(facts), encoding="utf-8")
    assert read_begun(tmp_path, "resume") == {"data": {"split_seed": 3, "near_duplicates": rule}}
    assert read_begun(tmp_path, "overwrite") == {}
