"""train(), end to end."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import falconet
from falconet import Callback, ImageSpec, RunResult, create_model, load_artifact, preparation, train
from falconet.data.texts import TextEncoder, _read_vocabulary
from falconet.errors import ConfigError, DivergedError, InterruptedRunError, RunExistsError, StorageError, UsageError
from falconet.inputs import draft_spec, image_size
from falconet.models.weights.key_formats import IMAGENET_MEAN, IMAGENET_STD
from falconet.models.weights.loading import from_bert, load_pretrained
from falconet.models.weights.pretrained import Pretrained
from falconet.planning import ModelConfig, plan_run
from falconet.preparation import build, find_weights, prepare
from falconet.runs import sync_plan
from falconet.spec import ResizeMode
from falconet.training.distributed import ProcessGroup
from tests.models.test_minilm import VOCABULARY, make_bert

FolderMaker = Callable[..., Path]
ROOT = Path(__file__).parent.parent


class StopInEpoch(Callback):
    """Presses Ctrl-C in the first step of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.steps = 0

    def on_start(self, epochs: int, steps_per_epoch: int, history: object) -> None:
        self.steps = steps_per_epoch

    def on_step(self, step: int, loss: float) -> None:
        if step == (self.epoch - 1) * self.steps + 1:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_a_setting_that_cannot_work_costs_nothing_of_the_run_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    train("digits", model="lenet_relu", epochs=1, out=tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    wrong: list[dict[str, Any]] = [
        {"training": {"initial_scale": 0.5}},
        {"model": {"teacher": "no/such/folder"}},
        {"training": {"device": "mps"}},
    ]
    for settings in wrong:
        with pytest.raises(UsageError):
            train("digits", model="lenet_relu", epochs=1, out=tmp_path, if_exists="overwrite", settings=settings)
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@dataclasses.dataclass(frozen=True)
class Follower(ProcessGroup):
    """A process that is sent another plan than its own."""

    told: Any = None

    def broadcast(self, value: Any) -> Any:
        return self.told


def test_all_processes_carry_out_the_main_ones_plan(tmp_path: Path) -> None:
    own = plan_run("digits", epochs=2, out=tmp_path / "own", find_lr=True)
    theirs = plan_run("digits", epochs=5, out=tmp_path / "theirs", recipe="digits")
    process_group = Follower(1, 2, told=(theirs.config, theirs.recipe, "resume", frozenset(), None))
    plan = sync_plan(own, process_group)
    assert (plan.config, plan.recipe, plan.if_exists, plan.autotune) == (theirs.config, "digits", "resume", frozenset())
    assert plan.out == own.out
    other = plan_run("digits", settings={"data": {"split_seed": 7}}, out=tmp_path / "other")
    with pytest.raises(ConfigError, match=r"data: wanted the first process's .*split_seed=7.* start all alike"):
        sync_plan(own, dataclasses.replace(process_group, told=(other.config, None, "refuse", frozenset(), None)))


@pytest.mark.parametrize(
    ("asked", "weights", "mode"),
    [
        (None, None, "stretch"),
        (None, Pretrained("resnet18", {}, "falconet"), "crop"),
        (None, Pretrained("squeezenet1_0", {}, "caffe", resize_mode="stretch"), "stretch"),
        ("pad", Pretrained("resnet18", {}, "falconet"), "pad"),
        ("crop", None, "crop"),
    ],
)
def test_images_are_scaled_as_asked_for_or_as_the_weights_were_trained(
    asked: ResizeMode | None, weights: Pretrained | None, mode: ResizeMode
) -> None:
    model = ModelConfig("resnet18" if weights is None else weights.name, resize_mode=asked)
    spec, _ = draft_spec(falconet.load_dataset("digits"), model, weights)
    assert isinstance(spec, ImageSpec)
    assert spec.resize_mode == mode


def test_a_run_folder_holds_all_that_the_design_promises(trained: RunResult) -> None:
    names = {path.name for path in trained.out.iterdir()} - {"energy.json"}  # which depends on an extra
    artifact = "config.json model.safetensors README.md report.html metrics.json"
    assert names == {*artifact.split(), "config.yaml", "metrics.csv", "vitals.csv", "checkpoint"}


def test_two_epochs_on_the_digits(trained: RunResult) -> None:
    assert (trained.architecture, trained.epochs, trained.val.split, trained.test.split) == (
        "lenet_relu",
        2,
        "val",
        "test",
    )
    assert trained.test.accuracy > 0.85
    assert trained.test.n == 359


def test_metrics_on_disk_are_those_returned(trained: RunResult) -> None:
    metrics = json.loads((trained.out / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["test"]["accuracy"] == trained.test.accuracy
    assert metrics["params"] == 184_586
    assert metrics["bytes"] == (trained.out / "model.safetensors").stat().st_size


def test_metrics_csv_has_a_row_an_epoch(trained: RunResult) -> None:
    with (trained.out / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[trained.best_epoch - 1]["val_accuracy"]) == pytest.approx(trained.val.accuracy, abs=0.01)


def test_evaluate_finds_the_same_test_set_and_figures(trained: RunResult) -> None:
    assert falconet.evaluate(trained.out, "digits") == trained.test
    assert falconet.evaluate(trained.out, "digits", split="val") == trained.val


@pytest.mark.slow
def test_the_same_seed_gives_the_same_files(trained: RunResult, tmp_path: Path) -> None:
    again = train("digits", model="lenet_relu", epochs=2, out=tmp_path / "again")
    for name in ("model.safetensors", "config.json"):
        assert (again.out / name).read_bytes() == (trained.out / name).read_bytes()


@pytest.mark.slow
def test_another_seed_gives_other_weights_on_the_same_split(trained: RunResult, tmp_path: Path) -> None:
    other = train("digits", model="lenet_relu", epochs=1, seed=1, out=tmp_path)
    ours, theirs = load_artifact(trained.out).config, load_artifact(other.out).config
    assert ours.provenance.data == theirs.provenance.data
    assert (other.out / "model.safetensors").read_bytes() != (trained.out / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_the_artifact_loads_in_a_process_that_never_saw_the_training(trained: RunResult) -> None:
    code = (
        "import sys, falconet; a = falconet.load_artifact(sys.argv[1]);"
        "print(falconet.evaluate(a, 'digits').accuracy); assert 'falconet.runs' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, str(trained.out)], capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(trained.test.accuracy, abs=1e-12)


@pytest.mark.parametrize(
    ("model", "size", "expected"),
    [
        ("lenet5", (90, 60), (32, 32)),
        ("resnet18", (16, 20), (24, 24)),
        ("resnet18", (40, 30), (40, 40)),
        ("resnet18", (64, 64), (64, 64)),
        ("resnet18", (65, 30), (64, 64)),
        ("resnet18", (150, 100), (128, 128)),
        ("resnet18", (500, 400), (224, 224)),
        ("resnet20", (500, 400), (32, 32)),
        ("efficientnet_b1", (500, 400), (224, 224)),
        ("gru", (16, 20), (24, 24)),
        ("gru", (500, 400), (64, 64)),
        ("timm:resnet10t", (100, 100), (96, 96)),
    ],
)
def test_images_are_taken_at_a_size_that_suits_them_and_the_network(
    make_folder: FolderMaker, model: str, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    plan = plan_run(make_folder(size=size, count=3), model=model)
    assert image_size(plan.dataset, plan.config.model, None) == expected


def save_weights(path: Path) -> dict[str, torch.Tensor]:
    """Write weights of a `resnet20` for ten classes of photographs; return them."""
    torch.manual_seed(5)
    state = create_model("resnet20").state_dict()
    torch.save(state, path)
    return state


@pytest.mark.parametrize(
    ("asked", "own", "expected"),
    [(None, None, (32, 32)), (None, (48, 40), (48, 40)), (28, (48, 40), (28, 28)), ((20, 30), None, (20, 30))],
)
def test_published_weights_say_what_size_images_are_taken_at(
    make_folder: FolderMaker, tmp_path: Path, asked: Any, own: tuple[int, int] | None, expected: tuple[int, int]
) -> None:
    """The size that they were trained at, or the architecture's; never that of the images."""
    save_weights(tmp_path / "weights.pth")
    weights = dataclasses.replace(load_pretrained("resnet20", tmp_path / "weights.pth"), size=own)
    plan = plan_run(make_folder(), model="resnet20", settings={"model": {"input_size": asked}})
    assert image_size(plan.dataset, plan.config.model, weights) == expected


@pytest.mark.parametrize("size", [(28,), (28, 28, 3)])
def test_sizes_of_images_are_two_numbers(make_folder: FolderMaker, size: tuple[int, ...]) -> None:
    plan = plan_run(make_folder(), model="resnet20", settings={"model": {"input_size": size}})
    with pytest.raises(ConfigError, match=r"model.input_size: wanted height and width in pixels, found \["):
        image_size(plan.dataset, plan.config.model, None)


class Notes(Callback):
    """Keeps what is said before training."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def on_note(self, note: str) -> None:
        self.notes.append(note)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.slow
def test_a_run_begins_with_published_weights(make_folder: FolderMaker, tmp_path: Path, mode: str) -> None:
    """With a frozen backbone, they are in the artifact; mean and deviation are those that go with them."""
    state = save_weights(tmp_path / "weights.pth")
    settings = {
        "model": {"pretrained": str(tmp_path / "weights.pth")},
        "training": {"freeze": "backbone", "epochs": 1},
    }
    watcher = Notes()
    run = train(make_folder(mode=mode), model="resnet20", settings=settings, out=tmp_path / "run", callbacks=[watcher])
    artifact = load_artifact(run.out)
    first = state.pop("conv1.weight")
    expected = first if mode == "RGB" else first.sum(dim=1, keepdim=True)
    torch.testing.assert_close(artifact.weights["conv1.weight"], expected)
    for name, value in state.items():
        assert torch.equal(artifact.weights[name], value) or name in ("fc.weight", "fc.bias"), name
    assert len(artifact.weights["fc.bias"]) == 2
    spec = artifact.config.input
    assert isinstance(spec, ImageSpec)
    assert spec.shape == (3 if mode == "RGB" else 1, 32, 32)
    assert spec.mean == (IMAGENET_MEAN if mode == "RGB" else pytest.approx((0.449,)))
    assert spec.std == (IMAGENET_STD if mode == "RGB" else pytest.approx((0.226,)))
    channels = [] if mode == "RGB" else ["conv1.weight: 3 channels to 1"]
    assert watcher.notes[:-1] == ["weights of resnet20 (falconet layout)", *channels, "fc: made anew for 2 classes"]
    assert watcher.notes[-1].startswith(f"input {spec.shape[0]}x32x32")


@pytest.mark.slow
def test_a_run_goes_on_from_another_with_all_its_weights(make_folder: FolderMaker, tmp_path: Path) -> None:
    """The output layer stays, as the classes are the same; a rate near zero shows it."""
    photos = make_folder()
    first = train(photos, model="resnet20", epochs=1, out=tmp_path / "first")
    settings = {
        "model": {"pretrained": str(first.out)},
        "training": {"freeze": "backbone", "learning_rate": 1e-12, "weight_decay": 0.0},
    }
    second = train(photos, model="resnet20", epochs=1, settings=settings, out=tmp_path / "second")
    before, after = load_artifact(first.out), load_artifact(second.out)
    assert after.config.input == before.config.input
    for name, value in before.weights.items():
        if not name.endswith("num_batches_tracked"):  # Counters are no part of published weights.
            torch.testing.assert_close(after.weights[name], value, rtol=0, atol=1e-9)
    assert second.test.accuracy == first.test.accuracy


@pytest.mark.slow
def test_a_run_that_goes_on_fetches_no_published_weights(
    make_folder: FolderMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoint has them all, and beside it stands how they see samples."""
    network = create_model("lenet_relu", num_classes=10)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    settings = {"model": {"pretrained": str(tmp_path / "weights.pth")}, "training": {"epochs": 2}}
    photos, out, asked = make_folder(mode="L"), tmp_path / "run", list[object]()

    def fetch(name: str, source: str | Path) -> Pretrained:
        asked.append(source)
        return dataclasses.replace(load_pretrained(name, source), mean=(0.375,), std=(0.125,))

    monkeypatch.setattr(preparation, "load_pretrained", fetch)
    with pytest.raises(InterruptedRunError, match="stopped after 1 of 2 epochs"):
        train(photos, model="lenet_relu", settings=settings, out=out, callbacks=[StopInEpoch(2)])
    assert len(asked) == 1
    run = train(photos, out=out, if_exists="resume")
    assert run.epochs == 2
    assert len(asked) == 1
    spec = load_artifact(out).config.input
    assert isinstance(spec, ImageSpec)
    assert (spec.mean, spec.std) == ((0.375,), (0.125,))


def test_a_run_without_a_checkpoint_fetches_published_weights_again(
    make_folder: FolderMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(create_model("lenet_relu", num_classes=10).state_dict(), tmp_path / "weights.pth")
    settings = {"model": {"pretrained": str(tmp_path / "weights.pth")}, "training": {"epochs": 2}}
    photos, out, asked = make_folder(mode="L"), tmp_path / "run", list[object]()

    def fetch(name: str, source: str | Path) -> Pretrained:
        asked.append(source)
        return load_pretrained(name, source)

    monkeypatch.setattr(preparation, "load_pretrained", fetch)
    for if_exists in ("refuse", "resume"):
        callbacks = [StopInEpoch(1)]
        with pytest.raises(InterruptedRunError, match="nothing is kept"):
            train(photos, model="lenet_relu", settings=settings, out=out, if_exists=if_exists, callbacks=callbacks)
    assert len(asked) == 2


@pytest.mark.slow
def test_texts_are_read_by_the_tokenizer_of_published_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a run that goes on, too, and by the model that comes of it."""
    rows = [f"{'ab' if index % 2 else 'cd'} {index},{'first' if index % 2 else 'second'}" for index in range(40)]
    (tmp_path / "texts.csv").write_text("\n".join(["text,label", *rows]))
    found = from_bert("minilm", make_bert(), VOCABULARY, "here", (256,))
    out, asked = tmp_path / "run", list[object]()

    def fetch(name: str, source: str | Path) -> Pretrained:
        asked.append(source)
        return found

    monkeypatch.setattr(preparation, "load_pretrained", fetch)
    settings = {"model": {"pretrained": "wheel"}, "training": {"epochs": 2, "freeze": "backbone"}}
    with pytest.raises(InterruptedRunError, match="stopped after 1 of 2 epochs"):
        train(tmp_path / "texts.csv", model="minilm", settings=settings, out=out, callbacks=[StopInEpoch(2)])
    train(tmp_path / "texts.csv", out=out, if_exists="resume")
    assert asked == ["wheel"]
    artifact = load_artifact(out)
    assert artifact.tokenizer is not None
    assert found.vocabulary is not None
    assert _read_vocabulary(artifact.tokenizer) == list(found.vocabulary)
    # [CLS], the word in parts, a number that is unknown, [SEP].
    assert artifact.config.input.shape == (5,)
    tokens = TextEncoder(artifact.tokenizer, 5).encode(["cd 7"])
    assert [found.vocabulary[number] for number in tokens[0]] == ["[CLS]", "c", "##d", "[UNK]", "[SEP]"]
    assert artifact.weights.keys() - found.state.keys() == {"output.weight", "output.bias"}
    for name, tensor in found.state.items():
        assert torch.equal(artifact.weights[name], tensor.float()), name


def test_options_that_weights_need_are_kept_with_the_run(make_folder: FolderMaker, tmp_path: Path) -> None:
    """The stem that they were guessed to have, though images of this size would get another."""
    torch.save(create_model("resnet18", num_classes=3).state_dict(), tmp_path / "weights.pth")
    settings = {"model": {"pretrained": str(tmp_path / "weights.pth"), "input_size": 32, "options": {"width": 64}}}
    plan, weights = find_weights(plan_run(make_folder(), model="resnet18", settings=settings))
    assert plan.config.model.options == {"stem": "imagenet", "width": 64}
    assert weights is not None
    feed = prepare(plan, weights)
    network, notes = build(plan.config.model, feed.spec, feed.output, 0, weights)
    assert network.get_parameter("conv1.weight").shape == (64, 3, 7, 7)
    assert len(notes) == 2


def test_without_published_weights_a_plan_stays_as_it_is(make_folder: FolderMaker) -> None:
    plan = plan_run(make_folder(), model="resnet20")
    assert find_weights(plan) == (plan, None)


def test_weights_of_another_network_end_a_run_before_it_begins(make_folder: FolderMaker, tmp_path: Path) -> None:
    save_weights(tmp_path / "weights.pth")
    settings = {"model": {"pretrained": str(tmp_path / "weights.pth")}}
    with pytest.raises(ConfigError, match="holds no weights of resnet32"):
        train(make_folder(), model="resnet32", settings=settings, out=tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("splits", "settings"),
    [
        (("",), {"epochs": 12}),
        # Where the splits lie is no matter of the network that is chosen.
        (("train", "test"), {"model": "lenet_relu", "epochs": 4}),
        (("train", "val", "test"), {"model": "lenet_relu", "epochs": 4}),
        (("training", "valid"), {"model": "lenet_relu", "epochs": 4}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_folders_of_photos(
    make_folder: FolderMaker, tmp_path: Path, splits: tuple[str, ...], settings: dict[str, Any]
) -> None:
    photos = make_folder(splits=splits)
    result = train(photos, **settings, out=tmp_path / "run")
    assert result.test.accuracy == 1.0
    assert load_artifact(result.out).config.output.labels == ("dark", "light")
    predictions = falconet.predict(result.out, [photos]).predictions
    assert all(Path(row.file).parent.name == row.label for row in predictions)
    assert len(predictions) == 24 * len(splits)


@pytest.mark.slow
def test_npz(tmp_path: Path) -> None:
    labels = np.tile([0, 1], 20)
    images = np.random.default_rng(0).normal(60 + 120 * labels[:, None, None], 10, (40, 12, 12)).clip(0, 255)
    np.savez(tmp_path / "set.npz", images=images.astype(np.uint8), labels=labels)
    result = train(tmp_path / "set.npz", epochs=10, out=tmp_path / "run")
    assert result.test.accuracy == 1.0


@pytest.mark.slow
def test_a_stopped_run_keeps_its_best_and_resumes_to_the_same_end(trained: RunResult, tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError, match=r"stopped after 1 of 2 epochs; .*best.* if_exists='resume' goes on"):
        train("digits", model="lenet_relu", epochs=2, out=tmp_path, callbacks=[StopInEpoch(2)])
    assert falconet.evaluate(tmp_path, "digits").accuracy > 0.5
    resumed = train("digits", model="lenet_relu", epochs=2, out=tmp_path, if_exists="resume")
    assert resumed.test == trained.test
    assert (tmp_path / "model.safetensors").read_bytes() == (trained.out / "model.safetensors").read_bytes()
    with (tmp_path / "metrics.csv").open(encoding="utf-8") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]


def test_a_stop_before_the_first_epoch_leaves_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError, match="nothing is kept"):
        train("digits", model="lenet300_100", epochs=2, out=tmp_path, callbacks=[StopInEpoch(1)])
    assert not (tmp_path / "model.safetensors").exists()


def test_divergence_is_an_error_that_says_where(tmp_path: Path) -> None:
    settings = {"training": {"learning_rate": 1e30, "optimizer": "sgd", "clip_norm": None}}
    with pytest.raises(DivergedError, match=r"at step \d+ of .*lower training.learning_rate than 1e\+30"):
        train("digits", model="lenet300_100", epochs=1, settings=settings, out=tmp_path)


@pytest.mark.slow
def test_overwriting_replaces_the_run_and_leaves_other_files(tmp_path: Path) -> None:
    first = train("digits", model="lenet300_100", epochs=1, out=tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    weights = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(InterruptedRunError, match="nothing is kept"):
        train("digits", model="lenet5", epochs=2, out=tmp_path, if_exists="overwrite", callbacks=[StopInEpoch(1)])
    assert (tmp_path / "model.safetensors").read_bytes() == weights
    with pytest.raises(RunExistsError):
        train("digits", model="lenet300_100", epochs=2, out=tmp_path)
    second = train("digits", model="lenet300_100", epochs=2, out=tmp_path, if_exists="overwrite")
    assert (first.epochs, second.epochs) == (1, 2)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.slow
def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train("digits", model="lenet300_100", epochs=1, out=tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    artifact = load_artifact(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="No space left on device"):
        artifact.save(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_an_output_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        train("digits", epochs=1, out=tmp_path / "file" / "below")


KILL_AT_WRITE = """
import itertools, os, sys
from pathlib import Path
import pytest
from falconet import storage
from falconet.model import train
from tests.conftest import refuse_exports, sketch_pictures
root, step, real, left = Path(sys.argv[1]), int(sys.argv[2]), storage.Path.replace, -1
for stop in (refuse_exports, sketch_pictures):
    stop(pytest.MonkeyPatch())


def replace(self, target):
    global left
    left -= 1
    if left == 0:
        os._exit(9)
    return real(self, target)


def run(folder, write):
    \"\"\"Return how a process of its own ends that dies just before a file gets its name; -1: it does not.\"\"\"
    global left
    child = os.fork()  # Without the seconds that imports take.
    if child == 0:
        left = write
        try:
            train("digits", model="lenet300_100", epochs=2, out=folder, if_exists="resume")
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


storage.Path.replace = replace
assert run(root / "whole", -1) == 0
for write in itertools.count(1, step):
    if (code := run(root / str(write), write)) == 0:
        print(write)
        break
    assert code == 9, (write, code)
    assert run(root / str(write), -1) == 0, write
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.slow
@pytest.mark.parametrize("step", [8, pytest.param(1, marks=pytest.mark.full)])
def test_killed_at_any_write_a_run_resumes_to_the_same_files(step: int, tmp_path: Path) -> None:
    """A process that dies just before each of its files gets its name, one after the other."""
    command = [sys.executable, "-c", KILL_AT_WRITE, str(tmp_path), str(step)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    whole, *killed = sorted(tmp_path.iterdir(), key=lambda folder: folder.name != "whole")
    assert int(done.stdout.split()[-1]) > 10, "or hardly a file was written"
    for out in killed:
        for name in ("model.safetensors", "config.json", "config.yaml"):
            assert (out / name).read_bytes() == (whole / name).read_bytes(), (out, name)
        assert len((out / "metrics.csv").read_text().splitlines()) == 3
        assert not list(out.rglob("*.partial"))


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.parametrize("seconds", [4.0, 6.0])
def test_a_killed_run_resumes_to_the_same_weights(tmp_path: Path, seconds: float) -> None:
    """SIGKILL, in a process of its own; in CI, test_killed.py kills processes that cost no imports."""
    arguments = ["train", "digits", "--model", "lenet5", "--epochs", "12", "--set", "training.ema_decay=0.9"]
    command = [sys.executable, "-c", "from falconet.cli import main; main()", *arguments]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*command, "--out", str(whole)], check=True, capture_output=True)
    process = subprocess.Popen([*command, "--out", str(killed)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    subprocess.run([*command, "--resume", "--out", str(killed)], check=True, capture_output=True)
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.full
def test_lenet5_reads_the_digits(tmp_path: Path) -> None:
    results = [
        train("digits", model="lenet5", recipe="digits", seed=seed, out=tmp_path / str(seed)) for seed in range(3)
    ]
    assert sum(result.test.accuracy for result in results) / 3 >= 0.98


@pytest.mark.slow
@pytest.mark.full
def test_the_demonstration_is_trained_to_its_end(tmp_path: Path) -> None:
    assert min(run.test.accuracy for run in falconet.demonstrate(tmp_path).runs) >= 0.97


@pytest.mark.slow
def test_the_demonstration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("falconet.demonstration.train", partial(train, epochs=2))
    result = falconet.demonstrate(tmp_path)
    assert [run.architecture for run in result.runs] == ["lenet5", "lenet_relu"]
    assert min(run.test.accuracy for run in result.runs) >= 0.8
    page = result.report.read_text(encoding="utf-8")
    assert all(f"model-{number}" in page for number in (1, 2))
    with pytest.raises(RunExistsError, match=r"lenet5 is there already: replace it with if_exists='overwrite'"):
        falconet.demonstrate(tmp_path)
    monkeypatch.setattr("falconet.demonstration.train", partial(train, epochs=1))
    again = falconet.demonstrate(tmp_path, if_exists="overwrite")
    assert [run.epochs for run in again.runs] == [1, 1]


def test_weights_are_loaded_without_pickle(trained: RunResult, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("pickle was used")

    monkeypatch.setattr(torch, "load", refuse)
    monkeypatch.setattr("pickle.loads", refuse)
    monkeypatch.setattr("pickle.Unpickler", refuse)
    assert load_artifact(trained.out).model(torch.zeros(1, 1, 28, 28)).shape == (1, 10)


def test_config_yaml_holds_the_resolved_configuration(trained: RunResult) -> None:
    content = yaml.safe_load((trained.out / "config.yaml").read_text(encoding="utf-8"))
    assert content["model"]["name"] == "lenet_relu"
    assert content["training"]["epochs"] == 2
    assert content["augmentation"]["rotate"] == 10


SLOW_IMPORTS = {"torch._dynamo", "torch.export._trace", "sympy", "onnx", "onnxscript", "pandas", "captum"}
"""Each takes half a second or more, and no training needs it."""


@pytest.mark.slow
def test_training_imports_nothing_that_only_other_verbs_need(tmp_path: Path) -> None:
    arguments = ["train", "digits", "--model", "lenet5", "--epochs", "1", "--out", str(tmp_path / "run")]
    # On a slow machine the run would last until codecarbon is asked, which imports pandas.
    code = (
        "import sys; from falconet import cli; from falconet.training import energy; energy.START_AFTER = 1e9\n"
        f"code = cli.run({arguments!r}); print(*sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not SLOW_IMPORTS & set(done.stdout.split())
    assert (tmp_path / "run" / "report.html").is_file()
