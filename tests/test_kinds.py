"""From a table of texts or a file of series to an evaluated model, as for images."""

from __future__ import annotations

import csv
import json
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from falconet import RunResult, create_model, evaluate, load_artifact, load_dataset, predict, train
from falconet.errors import ArtifactError, DataError, PathError, UsageError
from falconet.inputs import draft_spec
from falconet.models.minirocket import MiniRocket
from falconet.planning import plan_run
from falconet.predictions import find_files
from falconet.spec import SeriesSpec, TextSpec

FRUIT, METAL = ("apple", "pear", "plum", "Kirsche", "りんご"), ("iron", "zinc", "copper", "Blei", "鉄")


@pytest.fixture(scope="module")
def text_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunResult]:
    """A table of short texts with a person to each, and a model of it."""
    folder = tmp_path_factory.mktemp("texts")
    generator = np.random.default_rng(0)
    with (folder / "notes.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["note", "topic", "person"])
        for index in range(240):
            topic, words = (("fruit", FRUIT), ("metal", METAL))[index % 2]
            text = " ".join(generator.choice(words, size=3)) + f", lot {index}"
            writer.writerow([text, topic, f"person {index // 8}"])
    settings = {
        "data": {"columns": {"group": "person"}},
        "model": {"name": "gru", "vocab_size": 300, "options": {"hidden": 16}},
    }
    return folder, train(folder / "notes.csv", epochs=8, settings=settings, out=folder / "run")


@pytest.mark.slow
def test_texts_are_learned_and_found_again(text_run: tuple[Path, RunResult]) -> None:
    folder, run = text_run
    assert run.architecture == "gru"
    assert run.test.accuracy > 0.9
    assert evaluate(run.out, folder / "notes.csv") == run.test


def test_groups_stay_on_one_side(text_run: tuple[Path, RunResult]) -> None:
    folder, run = text_run
    config = load_artifact(run.out).config.provenance.data.config
    assert config.columns.group == "person"
    dataset = load_dataset(folder / "notes.csv", config=config)
    groups = [set(split.groups.tolist()) for split in dataset.splits.values() if split.groups is not None]
    assert sum(map(len, groups)) == len(set().union(*groups)) == 30


def test_the_tokenizer_is_part_of_the_artifact(text_run: tuple[Path, RunResult], tmp_path: Path) -> None:
    _, run = text_run
    artifact = load_artifact(run.out)
    assert isinstance(artifact.config.input, TextSpec)
    assert artifact.config.input.vocab_size == 300
    artifact.save(tmp_path)
    copied = load_artifact(tmp_path)
    assert copied.tokenizer == artifact.tokenizer is not None
    path = tmp_path / "tokenizer.json"
    path.write_text(path.read_text(encoding="utf-8") + " ", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"tokenizer\.json is altered"):
        load_artifact(tmp_path)
    path.unlink()
    with pytest.raises(ArtifactError, match=r"tokenizer\.json is missing"):
        load_artifact(tmp_path)


def test_text_files_are_answered(text_run: tuple[Path, RunResult], tmp_path: Path) -> None:
    for name, content in (
        ("a.txt", b"pear plum apple"),
        ("b.txt", b"zinc iron"),
        ("c.txt", b"\xff\xfe\xfd"),
        ("d.txt", b" "),
    ):
        (tmp_path / name).write_bytes(content)
    answers = predict(text_run[1].out, [tmp_path])
    assert [row.label for row in answers.predictions] == ["fruit", "metal"]
    assert [Path(item.file).name for item in answers.skipped] == ["c.txt", "d.txt"]


def test_a_table_is_not_taken_for_one_text(text_run: tuple[Path, RunResult], tmp_path: Path) -> None:
    (tmp_path / "texts.csv").write_text("text\npear plum apple\niron zinc copper\n", encoding="utf-8")
    answers = predict(text_run[1].out, [tmp_path / "texts.csv"])
    assert [row.label for row in answers.predictions] == ["fruit", "metal"]
    with pytest.raises(PathError, match=r"wanted texts in files of their own \(\.txt\), found a table"):
        find_files([tmp_path / "texts.csv"], "text")


@pytest.mark.parametrize("split", ["test", "all"])
def test_a_table_of_one_class_is_evaluated(text_run: tuple[Path, RunResult], tmp_path: Path, split: str) -> None:
    rows = "".join(f'"pear and plum, lot {index}",fruit,test\n' for index in range(5))
    (tmp_path / "held-out.csv").write_text(f"note,topic,split\n{rows}", encoding="utf-8")
    evaluation = evaluate(text_run[1].out, tmp_path / "held-out.csv", split=split)
    assert (evaluation.n, evaluation.accuracy) == (5, 1)


def test_reports_show_texts(text_run: tuple[Path, RunResult]) -> None:
    _, run = text_run
    page = (run.out / "report.html").read_text(encoding="utf-8")
    assert "tokens of a vocabulary of 300" in page
    assert "pipeline_tag: text-classification" in (run.out / "README.md").read_text(encoding="utf-8")


def write_series(path: Path, count: int = 120) -> Path:
    """Rising and falling series with noise."""
    generator = np.random.default_rng(0)
    labels = np.arange(count) % 2
    slope = np.linspace(-1, 1, 30) * (2 * labels - 1)[:, None]
    np.savez(path, series=(slope + generator.normal(0, 0.3, (count, 30))).astype(np.float32), labels=labels)
    return path


@pytest.mark.slow
def test_series_are_learned_and_found_again(tmp_path: Path) -> None:
    source = write_series(tmp_path / "slopes.npz")
    run = train(source, epochs=6, settings={"model": {"name": "gru", "options": {"hidden": 16}}}, out=tmp_path / "run")
    spec = load_artifact(run.out).config.input
    assert isinstance(spec, SeriesSpec)
    assert spec.shape == (1, 30)
    assert run.test.accuracy > 0.9
    assert evaluate(run.out, source) == run.test
    assert "<svg" in (run.out / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_series_model_takes_as_many_steps_as_asked_for(tmp_path: Path) -> None:
    source = write_series(tmp_path / "slopes.npz")
    settings = {"model": {"name": "gru", "input_size": 12, "length_mode": "resample", "options": {"hidden": 8}}}
    run = train(source, epochs=2, settings=settings, out=tmp_path / "run")
    spec = load_artifact(run.out).config.input
    assert isinstance(spec, SeriesSpec)
    assert (spec.shape, spec.length_mode) == ((1, 12), "resample")
    with pytest.raises(UsageError, match=r"model\.input_size: wanted one number"):
        train(source, epochs=1, settings={"model": {"input_size": [3, 4]}}, out=tmp_path / "other")


@pytest.mark.slow
def test_recordings_are_learned_and_answered(tmp_path: Path) -> None:
    for label, pitch in (("low", 3), ("high", 11)):
        (tmp_path / "set" / label).mkdir(parents=True)
        for index in range(20):
            with wave.open(str(tmp_path / "set" / label / f"{index}.wav"), "wb") as file:
                file.setparams((1, 2, 1000, 0, "NONE", ""))
                tone = np.sin(2 * np.pi * pitch * np.linspace(0, 1, 60 + index) + index)
                file.writeframes((8000 * tone).astype("<i2").tobytes())
    run = train(
        tmp_path / "set", epochs=2, settings={"model": {"name": "gru", "options": {"hidden": 8}}}, out=tmp_path / "run"
    )
    spec = load_artifact(run.out).config.input
    assert isinstance(spec, SeriesSpec)
    assert spec.rate == 1000
    assert len(predict(run.out, [tmp_path / "set" / "low"]).predictions) == 20


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"lenet5 takes image, but .*slopes\.npz holds series: choose rnn, lstm, gru"):
        train(write_series(tmp_path / "slopes.npz"), model="lenet5", out=tmp_path / "run")


@pytest.mark.slow
def test_rare_classes_count_as_much_as_frequent_ones(tmp_path: Path) -> None:
    """On overlapping classes of 9 to 1, balance raises the rare one's recall."""
    generator = np.random.default_rng(1)
    labels = np.array([0] * 270 + [1] * 30)
    images = (110 + 8 * labels[:, None, None] + generator.normal(0, 60, (300, 8, 8))).clip(0, 255).astype(np.uint8)
    np.savez(tmp_path / "rare.npz", images=images, labels=labels)
    recalls = {}
    for name, training in (
        ("none", {"class_weights": None}),
        ("weights", {"class_weights": "balanced"}),
        ("sampler", {"class_weights": None, "sampler": "balanced"}),
    ):
        settings = {"training": training, "model": {"name": "lenet300_100"}, "augmentation": "none"}
        run = train(tmp_path / "rare.npz", epochs=3, settings=settings, out=tmp_path / name)
        recalls[name] = run.test.per_class[1].recall
        assert json.loads((run.out / "metrics.json").read_text(encoding="utf-8"))["test"]["n"] == run.test.n
    assert min(recalls["weights"], recalls["sampler"]) > recalls["none"]


def test_a_class_without_readable_training_samples_is_named(tmp_path: Path) -> None:
    from PIL import Image

    for label, keep in (("good", None), ("bad", 60)):
        (tmp_path / "set" / label).mkdir(parents=True)
        for index in range(8):
            path = tmp_path / "set" / label / f"{index}.png"
            pixels = np.random.default_rng(index).integers(0, 256, (40, 40), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
            path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match="no training samples of class bad"):
        train(tmp_path / "set", epochs=1, out=tmp_path / "run")


def write_tones(folder: Path, rate: int, channels: int = 1, count: int = 12) -> Path:
    """Recordings of half a second, of low and high tones."""
    for label, pitch in (("low", 5), ("high", 23)):
        (folder / label).mkdir(parents=True)
        for index in range(count):
            with wave.open(str(folder / label / f"{index}.wav"), "wb") as file:
                file.setparams((channels, 2, rate, 0, "NONE", ""))
                tone = np.sin(2 * np.pi * pitch * np.arange(rate // 2) / rate + index)
                file.writeframes(np.repeat((8000 * tone).astype("<i2"), channels).tobytes())
    return folder


@pytest.mark.slow
def test_recordings_of_another_rate_are_evaluated_as_they_are_answered(tmp_path: Path) -> None:
    settings = {"model": {"name": "gru", "options": {"hidden": 8}}}
    run = train(write_tones(tmp_path / "set", 400), epochs=2, settings=settings, out=tmp_path / "run")
    other = write_tones(tmp_path / "other", 1200, channels=2)
    evaluated = evaluate(run.out, other, split="all")
    answers = predict(run.out, [other]).predictions
    hits = sum(Path(row.file).parent.name == row.label for row in answers)
    assert evaluated.n == len(answers) == 24
    assert evaluated.accuracy == pytest.approx(hits / 24)


@pytest.mark.slow
def test_networks_see_spectra_of_sounds_unless_told_otherwise(tmp_path: Path) -> None:
    folder = write_tones(tmp_path / "set", 8000)
    settings: dict[str, Any] = {"model": {"name": "rnn", "options": {"hidden": 8}}}
    run = train(folder, epochs=2, settings=settings, out=tmp_path / "run")
    spec = load_artifact(run.out).config.input
    assert isinstance(spec, SeriesSpec)
    assert (spec.bands, spec.shape, spec.raw_shape) == (40, (40, 48), (1, 47 * 80 + 200))
    assert len(predict(run.out, [folder]).predictions) == 24
    plain = plan_run(folder, settings={"model": {**settings["model"], "bands": None}})
    assert draft_spec(plain.dataset, plain.config.model)[0].shape == (1, 4000)


def test_a_recording_of_odd_channels_does_not_decide_for_the_others(tmp_path: Path) -> None:
    folder = write_tones(tmp_path / "set", 400, channels=2)
    write_tones(tmp_path / "odd", 400, channels=6, count=1)
    (tmp_path / "odd" / "low" / "0.wav").rename(folder / "low" / "surround.wav")
    dataset = load_dataset(folder)
    assert dataset.channels == 2
    assert [item.reason for item in dataset.unreadable] == ["wanted 2 channels or 1, as most have, found 6"]


@pytest.mark.parametrize("settings", [{"split_seed": 1}, {"test_fraction": 0.4}, {"columns": {"group": None}}])
def test_a_split_that_would_hold_training_samples_is_refused(
    text_run: tuple[Path, RunResult], settings: dict[str, Any]
) -> None:
    folder, run = text_run
    with pytest.raises(DataError, match=r"training samples would stand|cannot be found again"):
        evaluate(run.out, folder / "notes.csv", settings=settings)


def test_another_table_needs_no_column_of_groups(text_run: tuple[Path, RunResult], tmp_path: Path) -> None:
    table = tmp_path / "held-out.csv"
    table.write_text("note,topic\n" + "".join(f"{a} pear,fruit\n{a} zinc,metal\n" for a in "xyz"), encoding="utf-8")
    assert evaluate(text_run[1].out, table, split="all").n == 6


@pytest.mark.slow
def test_resuming_reads_the_source_as_the_run_began(tmp_path: Path) -> None:
    table = tmp_path / "two.csv"
    rows = "".join(f"{'pear' if n % 2 else 'zinc'} {n},{'xy'[n % 2]},{'uv'[n % 2]}\n" for n in range(60))
    table.write_text("text,mood,topic\n" + rows, encoding="utf-8")
    settings = {
        "data": {"columns": {"label": "mood"}},
        "model": {"name": "gru", "vocab_size": 300, "options": {"hidden": 8}},
    }
    train(table, epochs=1, settings=settings, out=tmp_path / "run")
    assert train(table, out=tmp_path / "run", if_exists="resume").epochs == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": {"input_size": [1, 28, 28]}}, "wanted height and width in pixels"),
        ({"model": {"bands": 40}}, r"model\.bands: wanted recordings, found images without a rate; leave it out"),
        ({"augmentation": {"kind": "series"}}, r"augmentation\.kind: wanted image, as the data are, found series"),
    ],
)
def test_settings_of_another_kind_are_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        train("digits", epochs=1, settings=settings, out=tmp_path / "run")


def write_waves(path: Path, count: int = 60) -> None:
    """Write a table of slow and fast waves, one a row."""
    generator = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["label", *(f"t{step}" for step in range(30))])
        for index in range(count):
            speed = (0.3, 0.9)[index % 2]
            wave = np.sin(speed * np.arange(30) + generator.uniform(0, 6)) + generator.normal(0, 0.1, 30)
            writer.writerow([("slow", "fast")[index % 2], *wave.round(4)])


@pytest.mark.slow
def test_statistics_are_taken_once_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_waves(tmp_path / "waves.csv")
    counted = []
    original = MiniRocket.fit_statistics

    def count(self: MiniRocket, batches: Any) -> None:
        counted.append(1)
        original(self, batches)

    monkeypatch.setattr(MiniRocket, "fit_statistics", count)
    settings = {"model": {"options": {"num_features": 336}}}
    arguments: dict[str, Any] = {"model": "minirocket", "settings": settings, "epochs": 6}
    run = train(tmp_path / "waves.csv", out=tmp_path / "run", **arguments)
    assert run.test.accuracy > 0.9
    fitted = load_artifact(run.out).model.get_buffer("biases")
    fresh = create_model("minirocket", num_classes=2, in_channels=1, input_size=30, num_features=336)
    assert not torch.equal(fitted, fresh.get_buffer("biases"))
    again = train(tmp_path / "waves.csv", out=tmp_path / "run", if_exists="resume", **arguments)
    assert len(counted) == 1
    assert again.test == run.test
    other = train(tmp_path / "waves.csv", out=tmp_path / "other", **arguments)
    assert torch.equal(load_artifact(other.out).model.get_buffer("biases"), fitted)


def test_a_bag_of_n_grams_learns_texts(text_run: tuple[Path, RunResult], tmp_path: Path) -> None:
    settings = {
        "data": {"columns": {"group": "person"}},
        "model": {"vocab_size": 300, "options": {"buckets": 500, "dimension": 16}},
        "training": {"learning_rate": 0.02},
    }
    run = train(text_run[0] / "notes.csv", model="ngrams", epochs=4, settings=settings, out=tmp_path / "run")
    assert run.test.accuracy > 0.9
