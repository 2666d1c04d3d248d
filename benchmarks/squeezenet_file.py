"""SqueezeNet v1.0 as Deep Compression published it, in fewer bits still: how many photographs get another answer?

The published weights are 8-bit indices of codebooks, a third of them not zero. Here they are put on grids of fewer
bits: each at the nearest level, or such that errors cancel out on photographs, or trained on photographs to answer as
the published network does. None of it needs labels.
Agreement is counted between the published network and what comes out of the coded file, on photographs of ImageNet's
classes that no grid was rounded or trained on: one half of them chooses among the grids, and what it chose is asked
about the other half, once. (What the file takes without loss is in codec.py.)

    python benchmarks/squeezenet_file.py --weights FOLDER/compressed_SqueezeNet.net --photos FOLDER --evaluated FOLDER

The photographs of `--photos` are those of any folder of classes; what the classes are does not matter.
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

import torch
from PIL import Image
from record import Row, decide, save
from torch import nn
from torchvision.transforms import v2

from falconet import Loader, TrainConfig, create_model, fit, load_dataset, load_pretrained
from falconet.codec import decode, encode
from falconet.compression import Constrained, chain, compensate, materialize, prune, quantize, quantize_floats
from falconet.data.loader import load_inputs
from falconet.data.preprocessing import create_preprocess
from falconet.metrics import wilson_interval
from falconet.spec import ImageSpec

SIDE = 227
SHORT_SIDE = 256
"""To which photographs of ImageNet's classes are scaled before their middle is cut out."""
LEAST = 0.98
"""Share of answers that are to be alike."""
LITERATURE = 470_000
"""Bytes that the paper (Iandola et al., 2016) claims."""
ROOM = LITERATURE - 1_000
"""Compensated weights take some hundreds of bytes more."""
REST_BITS = 12
NEAREST, COMPENSATED, TRAINED = "at the nearest level", "whose errors cancel out", "trained"
MIXED = "and one more where it costs least, whose errors cancel out"
SEEN = 400
"""Photographs of the training split on which errors are to cancel out, about."""


def load_photos(folder: Path, mean: tuple[float, ...], std: tuple[float, ...]) -> Loader:
    """Return the training photographs of a folder of classes as the network eats them: (batch, 3, 227, 227)."""
    dataset = load_dataset(folder)
    spec = ImageSpec((3, SIDE, SIDE), mean, std)
    part = load_inputs(dataset.splits["train"], spec)
    return Loader(part.inputs, torch.from_numpy(part.split.labels), create_preprocess(spec), 16, sampler="shuffle")


def read_halves(folder: Path, mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return photographs of ImageNet's classes, (count, 3, 227, 227), every other one for choosing, the rest to ask."""
    cut = v2.Compose([v2.Resize(SHORT_SIDE), v2.CenterCrop(SIDE), v2.ToImage(), v2.ToDtype(torch.float32, scale=True),
                      v2.Normalize(list(mean), list(std))])  # fmt: skip
    photos = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with Image.open(path) as image:
            photos.append(cut(image.convert("RGB")))
    return torch.stack(photos[::2]), torch.stack(photos[1::2])


def draw_seen(photos: Loader) -> list[torch.Tensor]:
    """Return batches of photographs, without labels."""
    return [inputs for inputs, _ in islice(photos.epoch(1), SEEN // photos.batch_size)]


@torch.inference_mode()
def answer(network: nn.Module, photos: torch.Tensor) -> torch.Tensor:
    """Return the most probable class of each photograph."""
    return torch.cat([network(part).argmax(dim=1) for part in torch.split(photos, 25)])


def list_weights(network: nn.Module) -> dict[str, nn.Parameter]:
    return {name: weight for name, weight in network.named_parameters() if weight.ndim > 1}


def make_coarse(network: nn.Module, bits: int | dict[str, int]) -> Constrained:
    """Return the network on grids: zeros stay zeros, each output channel has a step, biases have 12 bits."""
    zeros = {name: float((weight == 0).double().mean()) for name, weight in list_weights(network).items()}
    coarse = chain(prune(zeros), quantize(bits, per="channel"), quantize_floats(REST_BITS))(network)
    assert isinstance(coarse, Constrained)
    return coarse


def spend(network: nn.Module, bits: int, room: int) -> dict[str, int]:
    """Return one bit more for as many layers as a file of so many bytes has room for, those of fewest weights first."""
    weights = list_weights(network)
    order = sorted(weights, key=lambda name: int(weights[name].count_nonzero()))
    chosen = dict.fromkeys(order, bits)
    for name in order:
        if len(code(make_coarse(network, chosen | {name: bits + 1}))) > room:
            break
        chosen[name] = bits + 1
    return chosen


def code(coarse: nn.Module) -> bytes:
    """Return the coded file."""
    state = materialize(coarse).state_dict()
    return encode({"architecture": "squeezenet1_0"}, {name: value.numpy() for name, value in state.items()})


def decode_network(content: bytes) -> nn.Module:
    """Return what comes out of a coded file."""
    decoded = create_model("squeezenet1_0").eval()
    decoded.load_state_dict({name: torch.from_numpy(array) for name, array in decode(content)[1].items()})
    return decoded


def count_alike(content: bytes, answers: torch.Tensor, photos: torch.Tensor) -> int:
    """Return of how many photographs what comes out of a coded file says the same."""
    return int((answer(decode_network(content), photos) == answers).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True, help="to round and to train on")
    parser.add_argument("--evaluated", type=Path, required=True, help="photographs of ImageNet's classes")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--bits", type=int, nargs="+", default=[8, 7, 6, 5], help="of grids that are not trained")
    parser.add_argument("--trained", type=int, nargs="*", default=[7], help="bits of grids that are trained")
    parser.add_argument("--mixed", type=int, nargs="*", default=[7], help="bits of grids where some have one more")
    asked = parser.parse_args()
    network = create_model("squeezenet1_0", pretrained=asked.weights).eval()
    mean, std = load_pretrained("squeezenet1_0", asked.weights).statistics(3)
    photos = load_photos(asked.photos, mean, std)
    choosing, evaluated = read_halves(asked.evaluated, mean, std)
    answers = answer(network, choosing)
    rows, within = [], {}
    config = TrainConfig(epochs=asked.epochs, batch_size=16, learning_rate=1e-4, weight_decay=0.0, distill_alpha=1.0,
                         distill_temperature=1.0, restore="last", precision="fp32")  # fmt: skip
    ways = [(way, bits) for way, widths in ((NEAREST, asked.bits), (COMPENSATED, asked.bits), (MIXED, asked.mixed),
                                            (TRAINED, asked.trained)) for bits in widths]  # fmt: skip
    for way, bits in ways:
        coarse = make_coarse(network, spend(network, bits, ROOM) if way == MIXED else bits)
        if way in {COMPENSATED, MIXED}:
            coarse = compensate(draw_seen(photos))(coarse)
        elif way == TRAINED:
            fit(coarse, photos, photos, config, teacher=network)
        content = code(coarse)
        alike = count_alike(content, answers, choosing)
        how = f"{bits} bits {way} for {asked.epochs} epochs" if way == TRAINED else f"{bits} bits {way}"
        if len(content) <= LITERATURE:
            within[how] = (alike, content)
        rows.append(Row(f"SqueezeNet v1.0, {how}: photographs of the choosing half answered alike, at {len(content):,} "
                        "bytes", 100 * alike / len(answers), "%", len(answers), 0.0))  # fmt: skip
        print(rows[-1], flush=True)
    chosen, (_, content) = max(within.items(), key=lambda item: item[1][0])
    save("squeezenet-file", [*rows, evaluate(chosen, content, answer(network, evaluated), evaluated)], ["constriction"])


def evaluate(chosen: str, content: bytes, answers: torch.Tensor, photos: torch.Tensor) -> Row:
    """Return the row of the claim: what was chosen, on the photographs that had no part in it."""
    count = len(answers)
    alike = count_alike(content, answers, photos)
    low, high = wilson_interval(alike, count)
    met = decide(alike / count, (low, high), least=LEAST)
    name = (f"SqueezeNet v1.0 within 470,000 bytes ({len(content):,}; {chosen}): photographs of ImageNet's classes "
            "answered as by the published network")  # fmt: skip
    return Row(
        name, 100 * alike / count, "%", count, 0.0, f"at least {LEAST:.0%}", met,
        interval=(100 * low, 100 * high), over="photographs",
        note="chosen among grids on as many other photographs",
    )  # fmt: skip


if __name__ == "__main__":
    main()
