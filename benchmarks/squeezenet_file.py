"""SqueezeNet v1.0 as Deep Compression published it, in fewer bits still: how many photographs get another answer?

The published weights are 8-bit indices of codebooks, a third of them not zero. Here they are put on grids of fewer
bits: each at the nearest level, or such that errors cancel out on photographs, or trained on photographs to answer as
the published network does. None of it needs labels.
Agreement is measured on other photographs of the same kind, between the published network and what comes out of the
coded file. (What the file takes without loss is in codec.py.)

    python benchmarks/squeezenet_file.py --weights FOLDER/compressed_SqueezeNet.net --photos FOLDER --epochs 3

The photographs are those of any folder of classes; what the classes are does not matter.
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

import torch
from record import Row, save
from torch import nn

from falconet import Loader, TrainConfig, create_model, fit, load_dataset, load_pretrained
from falconet.codec import decode, encode
from falconet.compression import Constrained, chain, compensate, materialize, prune, quantize, shorten
from falconet.data.loader import load_inputs
from falconet.data.preprocessing import create_preprocess
from falconet.spec import ImageSpec

SIDE = 227
LITERATURE = 470_000
"""Bytes that the paper (Iandola et al., 2016) claims."""
ROOM = LITERATURE - 1_000
"""Compensated weights take some hundreds of bytes more."""
REST_BITS = 12
NEAREST, COMPENSATED, TRAINED = "at the nearest level", "whose errors cancel out", "trained"
MIXED = "and one more where it costs least, whose errors cancel out"
SEEN = 400
"""Photographs of the training split on which errors are to cancel out, about."""


def load_photos(folder: Path, weights: Path) -> dict[str, Loader]:
    """Return the photographs of each split as the network eats them: (batch, 3, 227, 227)."""
    dataset = load_dataset(folder)
    mean, std = load_pretrained("squeezenet1_0", weights).statistics(3)
    spec = ImageSpec((3, SIDE, SIDE), dataset.classes, mean, std)
    found = {}
    for name, sampler, size in (("train", "shuffle", 16), ("test", "sequential", 32)):
        part = load_inputs(dataset.splits[name], spec)
        labels = torch.from_numpy(part.split.labels)
        found[name] = Loader(part.inputs, labels, create_preprocess(spec), size, sampler=sampler)  # type: ignore[arg-type]
    return found


def draw_seen(photos: Loader) -> list[torch.Tensor]:
    """Return batches of photographs, without labels."""
    return [inputs for inputs, _ in islice(photos.epoch(1), SEEN // photos.batch_size)]


@torch.inference_mode()
def answer(network: nn.Module, photos: Loader) -> torch.Tensor:
    """Return the most probable class of each photograph."""
    return torch.cat([network(inputs).argmax(dim=1) for inputs, _ in photos.epoch(1)])


def list_weights(network: nn.Module) -> dict[str, nn.Parameter]:
    return {name: weight for name, weight in network.named_parameters() if weight.ndim > 1}


def make_coarse(network: nn.Module, bits: int | dict[str, int]) -> Constrained:
    """Return the network on grids: zeros stay zeros, each output channel has a step, biases have 12 bits."""
    zeros = {name: float((weight == 0).double().mean()) for name, weight in list_weights(network).items()}
    coarse = chain(prune(zeros), quantize(bits, per="channel"), shorten(REST_BITS))(network)
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


def judge(coarse: nn.Module, answers: torch.Tensor, photos: Loader) -> tuple[int, float]:
    """Return the bytes of the coded file, and the share of photographs that what comes out of it answers alike."""
    content = code(coarse)
    decoded = create_model("squeezenet1_0").eval()
    decoded.load_state_dict({name: torch.from_numpy(array) for name, array in decode(content)[1].items()})
    return len(content), float((answer(decoded, photos) == answers).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--bits", type=int, nargs="+", default=[8, 7, 6, 5], help="of grids that are not trained")
    parser.add_argument("--trained", type=int, nargs="*", default=[7], help="bits of grids that are trained")
    parser.add_argument("--mixed", type=int, nargs="*", default=[7], help="bits of grids where some have one more")
    asked = parser.parse_args()
    network = create_model("squeezenet1_0", pretrained=asked.weights).eval()
    photos = load_photos(asked.photos, asked.weights)
    answers, count = answer(network, photos["test"]), len(photos["test"].labels)
    rows, best = [], 0.0
    config = TrainConfig(epochs=asked.epochs, batch_size=16, learning_rate=1e-4, weight_decay=0.0, teacher_share=1.0,
                         temperature=1.0, keep="last", precision="fp32")  # fmt: skip
    ways = [(way, bits) for way, widths in ((NEAREST, asked.bits), (COMPENSATED, asked.bits), (MIXED, asked.mixed),
                                            (TRAINED, asked.trained)) for bits in widths]  # fmt: skip
    for way, bits in ways:
        coarse = make_coarse(network, spend(network, bits, ROOM) if way == MIXED else bits)
        if way in {COMPENSATED, MIXED}:
            coarse = compensate(draw_seen(photos["train"]))(coarse)
        elif way == TRAINED:
            fit(coarse, photos["train"], photos["train"], config, teacher=network)
        size, agreement = judge(coarse, answers, photos["test"])
        best = max(best, agreement if size <= LITERATURE else 0.0)
        how = f"{way} for {asked.epochs} epochs" if way == TRAINED else way
        rows.append(Row(f"SqueezeNet v1.0, {bits} bits {how}: photographs answered alike, at {size:,} bytes",
                        100 * agreement, "%", count, 0.0))  # fmt: skip
        print(rows[-1], flush=True)
    name = "SqueezeNet v1.0 within 470,000 bytes: photographs answered as by the published network"
    rows.append(Row(name, 100 * best, "%", count, 0.0, "at least 98 %", best >= 0.98))
    save("squeezenet-file", rows, ["constriction"])


if __name__ == "__main__":
    main()
