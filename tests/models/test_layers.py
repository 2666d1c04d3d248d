"""Output layers: where they are, and cosines in their place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from falconet import create_model, evaluate, load_artifact, train
from falconet.errors import ConfigError
from falconet.models.layers import COSINE_SCALE, CosineOutput, use_cosine_output
from falconet.planning import plan_run


def test_logits_are_scaled_cosines() -> None:
    layer, features = CosineOutput(5, 3, bias=False), torch.randn(4, 5)
    expected = F.cosine_similarity(features[:, None], layer.weight[None], dim=2) * COSINE_SCALE
    torch.testing.assert_close(layer(features), expected)
    torch.testing.assert_close(layer(7 * features), expected)


@pytest.mark.parametrize("name", ["lenet_relu", "resnet20", "efficientnet_lite0", "timm:resnet10t"])
def test_any_dense_output_layer_can_give_cosines(name: str) -> None:
    model = create_model(name, num_classes=4, in_channels=1, input_size=28, cosine=True).eval()
    logits = model(torch.randn(3, 1, 28, 28))
    assert logits.shape == (3, 4)
    assert logits.abs().max() <= COSINE_SCALE
    assert not any(name.endswith("classifier.bias") or name == "fc.bias" for name in model.state_dict())


@pytest.mark.parametrize("name", ["squeezenet1_1", "lenet5", "timm:deit_tiny_distilled_patch16_224"])
def test_other_output_layers_stay(name: str) -> None:
    model = create_model(name, num_classes=4)
    with pytest.raises(ConfigError, match=r"cosine: wanted a network that ends in one dense layer"):
        use_cosine_output(model)


@pytest.mark.parametrize("loss", ["cosface", "arcface"])
@pytest.mark.slow
def test_a_loss_with_a_margin_brings_cosines_along(loss: str, tmp_path: Path) -> None:
    settings = {"model": {"name": "lenet300_100"}, "training": {"loss": loss}}
    run = train("digits", epochs=3, settings=settings, out=tmp_path / "run")
    artifact = load_artifact(run.out)
    assert artifact.config.options == {"cosine": True}
    assert evaluate(run.out, "digits") == run.test
    assert run.test.accuracy > 0.8


@pytest.mark.slow
def test_a_network_that_begins_with_cosines_keeps_them(tmp_path: Path) -> None:
    run = train(
        "digits", epochs=1, settings={"model": {"name": "lenet_relu", "options": {"cosine": True}}}, out=tmp_path
    )
    network, x = create_model("lenet_relu", pretrained=run.out).eval(), torch.randn(2, 1, 28, 28)
    torch.testing.assert_close(network(x), load_artifact(run.out).model(x))


def test_cosines_cannot_be_refused_to_a_margin() -> None:
    settings = {"model": {"name": "lenet300_100", "options": {"cosine": False}}, "training": {"loss": "cosface"}}
    with pytest.raises(
        ConfigError, match=r"model\.options\.cosine: wanted true for training\.loss=cosface, found false"
    ):
        plan_run("digits", settings=settings)


def measure_gap(loss: str, seed: int, out: Path) -> tuple[float, float]:
    """Return test accuracy, and by how many cosines the true class wins on average."""
    settings = {
        "model": {"name": "lenet300_100", "options": {"cosine": True}},
        "training": {"loss": loss, "margin": 0.3, "restore": "last"},
        "augmentation": "none",
    }
    run = train("digits", epochs=12, seed=seed, settings=settings, out=out)
    artifact, dataset = load_artifact(run.out), plan_run("digits", out=out / "unused").dataset
    split = dataset.splits["test"]
    images = [split.samples.read(index) for index in range(len(split))]
    with torch.inference_mode():
        cosines = artifact.model(artifact.preprocess.normalize(artifact.preprocess.prepare(images))) / COSINE_SCALE
    true = F.one_hot(torch.from_numpy(split.labels), 10).bool()
    gap = cosines[true] - cosines.masked_fill(true, -2).amax(dim=1)
    return run.test.accuracy, gap.mean().item()


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["cosface", pytest.param("arcface", marks=pytest.mark.full)])
def test_margins_part_the_classes(loss: str, tmp_path: Path) -> None:
    """What they are made for: the true class wins by more, on samples that were not trained on, at no less accuracy."""
    plain = [measure_gap("cross_entropy", seed, tmp_path / f"plain{seed}") for seed in range(3)]
    parted = [measure_gap(loss, seed, tmp_path / f"{loss}{seed}") for seed in range(3)]
    assert min(gap for _, gap in parted) > max(gap for _, gap in plain) + 0.05
    assert sum(accuracy for accuracy, _ in parted) >= sum(accuracy for accuracy, _ in plain) - 0.015
