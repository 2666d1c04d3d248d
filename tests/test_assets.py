"""Trained weights that other tests build on; how good they are stands in tests/assets/README.md."""

from pathlib import Path

import torch

from falconet import MODELS, load_artifact
from falconet.model_files import WEIGHTS_FILE

RESNET20 = Path(__file__).parent / "assets" / "cifar10-resnet20"


def test_half_precision_halves_the_file_and_computes_in_float32() -> None:
    artifact = load_artifact(RESNET20)
    params = MODELS["resnet20"].params
    assert params is not None
    assert 2 * params < (RESNET20 / WEIGHTS_FILE).stat().st_size < 1_000_000
    assert {value.dtype for value in artifact.weights.values()} == {torch.float16, torch.int64}
    assert sum(weight.numel() for weight in artifact.model.parameters()) == params
    assert {weight.dtype for weight in artifact.model.parameters()} == {torch.float32}


def test_it_tells_what_differs_apart() -> None:
    """Weights by chance, or exchanged ones, answer all of these alike."""
    artifact = load_artifact(RESNET20)
    sky, grass = (
        (torch.tensor(color) / 255).view(3, 1, 1).expand(3, 32, 32) for color in ((120, 180, 240), (60, 120, 40))
    )
    with torch.inference_mode():
        logits = artifact.model(artifact.preprocess.normalize(torch.stack([sky, grass])))
    assert logits.isfinite().all()
    first, second = logits.softmax(dim=1)
    assert float((first - second).abs().sum()) > 0.2
