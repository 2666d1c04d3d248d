from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from falconet import load_artifact, load_dataset, synthetic
from falconet.data.loader import Loader
from falconet.data.preprocessing import create_preprocess
from falconet.data.texts import train_tokenizer
from falconet.errors import ConfigError, DataError, UsageError
from falconet.generation.flow import FlowConfig
from falconet.metrics.significance import PairTest, compare_models
from falconet.planning import Plan, plan_run
from falconet.preparation import ExtraSamples, add_samples, prepare
from falconet.runs import init_run_folder
from falconet.spec import ImageSpec, SeriesSpec, TextSpec
from falconet.synthetic import SyntheticTrial, _make_samples, check_begun, train_with_synthetic
from tests.conftest import FolderMaker

QUICK = FlowConfig(epochs=1, width=8, euler_steps=2)
LABELS = torch.tensor([0] * 5 + [1] * 3 + [2])


def make_loader(kind: str) -> Loader:
    generator = torch.Generator().manual_seed(0)
    if kind == "image":
        pixels = torch.randint(0, 256, (9, 1, 6, 6), dtype=torch.uint8, generator=generator)
        return Loader(pixels, LABELS, create_preprocess(ImageSpec((1, 6, 6), (0.5,), (0.2,))), 4)
    if kind == "series":
        series = torch.randn(9, 2, 10, generator=generator)
        series[3, :, 6:] = torch.nan
        spec = SeriesSpec((2, 10), (0.5, 0.0), (2.0, 1.0))
        return Loader(series, LABELS, create_preprocess(spec), 4)
    tokenizer = train_tokenizer(["a few words"], 258)
    tokens = torch.randint(2, 258, (9, 12), dtype=torch.int32, generator=generator)
    tokens[:, 9:] = 0
    return Loader(tokens, LABELS, create_preprocess(TextSpec((12,), 258), tokenizer), 4)


@pytest.mark.parametrize("kind", ["image", "series", "text"])
def test_samples_are_made_as_real_ones_are_prepared_and_follow_from_the_seed(kind: str) -> None:
    loader = make_loader(kind)
    inputs = loader.inputs
    assert isinstance(inputs, torch.Tensor)
    first, again, other = (_make_samples(loader, 4, seed, dataclasses.replace(QUICK, seed=seed)) for seed in (0, 0, 1))
    assert first.inputs.dtype == inputs.dtype
    assert first.inputs.shape[1:] == inputs.shape[1:]
    # One series alone has nothing to be averaged with.
    assert first.labels.tolist() == [0] * 4 + [1] * 4 + ([] if kind == "series" else [2] * 4)
    same, different = (
        torch.equal(first.inputs.nan_to_num(), each.inputs.nan_to_num())
        if kind == "series"
        else torch.equal(first.inputs, each.inputs)
        for each in (again, other)
    )
    assert same
    assert not different


def test_made_series_lie_between_two_of_their_class() -> None:
    loader = make_loader("series")
    inputs = loader.inputs
    assert isinstance(inputs, torch.Tensor)
    made = _make_samples(loader, 6, 0, QUICK)
    for series, label in zip(made.inputs, made.labels, strict=True):
        own = inputs[label == LABELS]
        assert (series.nan_to_num(-9).amax() <= own.nan_to_num(-9).amax() + 1e-4).item()
        assert (series.nan_to_num(9).amin() >= own.nan_to_num(9).amin() - 1e-4).item()


def test_made_texts_hold_the_tokens_of_one_of_their_class() -> None:
    loader = make_loader("text")
    inputs = loader.inputs
    assert isinstance(inputs, torch.Tensor)
    made = _make_samples(loader, 6, 0, QUICK)
    for tokens, label in zip(made.inputs, made.labels, strict=True):
        kept = set(tokens.tolist())
        assert any(kept <= set(row.tolist()) for row in inputs[label == LABELS])


def test_nothing_is_made_of_single_series() -> None:
    loader = dataclasses.replace(make_loader("series"), labels=torch.arange(9))
    with pytest.raises(DataError, match="wanted a class of 2 training samples or more, found none"):
        _make_samples(loader, 2, 0, QUICK)


def plan(source: Path, out: Path, **options: Any) -> Plan:
    settings = {"training": {"batch_size": 8}, "model": {"input_size": 28}, "augmentation": "none"}
    return plan_run(source, model="lenet5_caffe", epochs=1, settings=settings, out=out, **options)


def test_epochs_with_made_samples_take_as_many_steps_and_no_made_one_is_validated(
    make_folder: FolderMaker, tmp_path: Path
) -> None:
    asked = plan(make_folder(mode="L"), tmp_path / "run")
    bundle = prepare(asked)
    pixels = torch.full((30, *bundle.spec.shape), 255, dtype=torch.uint8)
    labels = torch.tensor([0] * 5 + [1] * 25)
    config = dataclasses.replace(asked.config.training, class_weights="balanced")
    more = add_samples(bundle, ExtraSamples(pixels, labels), config)
    assert len(more.train) == len(bundle.train)
    assert more.val is bundle.val
    real = len(bundle.train.labels)
    assert sum(len(part) for _, part in more.train.epoch(1)) == real
    # Over some epochs every sample comes up, and class weights are those of all.
    drawn = torch.cat([more.train.order(number) for number in range(1, 40)])
    assert torch.unique(drawn).tolist() == list(range(real + 30))
    # Baselines are fitted to the real ones alone.
    assert len(more.real.inputs) == len(more.real.labels) == real
    assert torch.equal(more.real.labels, bundle.train.labels)
    assert more.class_weights is not None
    counts = torch.bincount(more.train.labels)
    torch.testing.assert_close(more.class_weights, (counts.sum() / (2 * counts)).float())


@pytest.mark.slow
@pytest.mark.parametrize("better", [False, True])
def test_made_samples_are_kept_only_where_they_gain_by_more_than_chance(
    better: bool, make_folder: FolderMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def compare(first: np.ndarray, second: np.ndarray) -> PairTest:
        seen.append((first.shape, second.shape))
        return PairTest(0.25, (0.1, 0.4), 0.01) if better else PairTest(0.25, (-0.1, 0.6), 0.2)

    monkeypatch.setattr(synthetic, "compare_models", compare)
    source, out = make_folder(mode="L", count=20), tmp_path / "run"
    result, trial = train_with_synthetic(plan(source, out), 3, config=QUICK)
    dataset = load_dataset(source)
    n = len(dataset.splits["val"])
    assert seen == [((1, n), (1, n))]
    assert (trial.kept, trial.made, trial.n) == (better, 6, n)
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["synthetic"]["kept"] is better
    assert json.loads((out / "synthetic.json").read_text()) == metrics["synthetic"]
    model = load_artifact(out)
    assert metrics["weights_sha256"] == model.digest
    assert (model.digest == load_artifact(out / "synthetic").digest) is better
    assert result.out == out
    assert ("6 synthetic samples" in (out / "README.md").read_text()) is better
    # A run that was begun so goes on so.
    with pytest.raises(UsageError, match="began, with synthetic=3: say so again"):
        check_begun(plan(source, out, if_exists="resume"), None)
    check_begun(plan(source, out, if_exists="resume"), 3)
    init_run_folder(plan(source, out, if_exists="overwrite"), None, None)
    assert not (out / "synthetic").exists()
    assert not (out / "synthetic.json").exists()


def test_an_equal_pair_is_no_gain() -> None:
    """The test that decides, on answers that differ by luck, and on some that do not."""
    rng = np.random.default_rng(0)
    first = rng.random(60) < 0.7
    assert compare_models(first[None], first[None]).p_value == 1
    luck = first.copy()
    luck[:2] = True
    assert compare_models(luck[None], first[None]).p_value > synthetic.SIGNIFICANT
    assert compare_models(np.ones((1, 60), dtype=bool), first[None]).p_value < synthetic.SIGNIFICANT


def test_the_outcome_is_told_in_a_line() -> None:
    trial = SyntheticTrial(3, 6, 40, 0.8, 0.85, 0.05, (-0.05, 0.15), 0.3, kept=False)
    assert trial.describe() == (
        "6 synthetic samples: validation accuracy 85.00% with and 80.00% without them, +5.00% (95%: -5.00% to +15.00%, "
        "n = 40, p = 0.3); no significant gain: not kept"
    )


def test_what_cannot_work_is_told_before_anything_is_trained(
    make_folder: FolderMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = plan_run(
        make_folder(), model="resnet20", epochs=1, settings={"model": {"input_size": 96}}, out=tmp_path / "run"
    )
    with pytest.raises(ConfigError, match="synthetic: wanted images of at most 64 pixels a side, found 96x96"):
        train_with_synthetic(asked, 2)
    with pytest.raises(UsageError, match="synthetic: wanted 1 or more samples a class, found 0"):
        train_with_synthetic(asked, 0)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="synthetic: wanted one process"):
        train_with_synthetic(asked, 2)
    assert not (tmp_path / "run" / "config.yaml").exists()
