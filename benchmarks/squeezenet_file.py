"""SqueezeNet v1.0 as Deep Compression published it: its coded file without loss, and with ever fewer bits.

The weights are 8-bit indices of codebooks, a third of them not zero, in a file of 675,763 bytes. Coded again without
loss they take fewer bytes; on grids of fewer bits fewer still, and then some photographs get another answer. How many
is measured between the published network and what comes out of the coded file.

    python benchmarks/squeezenet_file.py --weights FOLDER/compressed_SqueezeNet.net --photos FOLDER

The photographs are those of any folder of classes; their classes do not matter.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from record import Row, save
from torch import Tensor, nn

from falconet import create_model, load_dataset, load_pretrained
from falconet.codec import decode, encode
from falconet.compression import chain, materialize, quantize, shorten
from falconet.data.preprocessing import create_preprocess
from falconet.spec import ImageSpec

SIDE = 227
PUBLISHED = 675_763
"""Bytes of the published file."""
LITERATURE = 470_000
"""Bytes that the paper (Iandola et al., 2016) claims."""


def read_photos(folder: Path, weights: Path, count: int) -> Tensor:
    """Return so many photographs, evenly from all classes, as the network eats them: (count, 3, 227, 227)."""
    dataset = load_dataset(folder)
    split = dataset.split("all")
    chosen = np.random.default_rng(0).permutation(len(split))[:count]
    mean, std = load_pretrained("squeezenet1_0", weights).statistics(3)
    preprocess = create_preprocess(ImageSpec((3, SIDE, SIDE), dataset.classes, mean, std))
    raw = [split.samples.read(int(index)) for index in chosen]
    return torch.cat([preprocess.normalize(preprocess.prepare([one])) for one in raw])


@torch.inference_mode()
def answer(network: nn.Module, photos: Tensor) -> Tensor:
    """Return the most probable class of each."""
    return torch.cat([network(batch).argmax(dim=1) for batch in torch.split(photos, 32)])


def encode_state(network: nn.Module) -> bytes:
    """Return the coded tensors of a network, with a header as a model's file has it."""
    header = {"architecture": "squeezenet1_0", "options": {}}
    return encode(header, {name: value.numpy() for name, value in network.state_dict().items()})


def load_state(content: bytes) -> nn.Module:
    """Return the network in a coded file."""
    _, tensors = decode(content)
    network = create_model("squeezenet1_0").eval()
    network.load_state_dict({name: torch.from_numpy(array) for name, array in tensors.items()})
    return network


def judge_lossless(network: nn.Module) -> list[Row]:
    """Code the published weights without loss; prove that they come back bit by bit."""
    content = encode_state(network)
    started = time.perf_counter()
    decoded = load_state(content)
    seconds = time.perf_counter() - started
    for name, value in network.state_dict().items():
        assert torch.equal(value.view(torch.int32), decoded.state_dict()[name].view(torch.int32)), name
    size = len(content)
    what = "SqueezeNet v1.0, Deep Compression's weights, bit by bit: bytes of the file"
    return [
        Row(what, size, "bytes", 1, 0.0, "at most 540,000", size <= 540_000, "as published", PUBLISHED,
            PUBLISHED / size),
        Row("the same: the goal", size, "bytes", 1, 0.0, "at most 530,000", size <= 530_000),
        Row("the same: seconds to decode it and load the network", seconds, "s", 1, 0.0),
    ]  # fmt: skip


def judge_lossy(network: nn.Module, photos: Tensor, bits: int, rest: int) -> tuple[int, float]:
    """Return the bytes of the network on grids of so many bits, and the share of photographs answered as before."""
    coarse = materialize(chain(quantize(bits, per="channel"), shorten(rest))(network))
    content = encode_state(coarse)
    return len(content), float((answer(load_state(content), photos) == answer(network, photos)).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--count", type=int, default=500)
    asked = parser.parse_args()
    network = create_model("squeezenet1_0", pretrained=asked.weights).eval()
    photos = read_photos(asked.photos, asked.weights, asked.count)
    rows, best = judge_lossless(network), 0.0
    for bits in (8, 7, 6, 5, 4):
        size, agreement = judge_lossy(network, photos, bits, 12)
        best = max(best, agreement if size <= LITERATURE else 0.0)
        name = f"the same, {bits} bits: photographs answered as by the published network, at {size:,} bytes"
        rows.append(Row(name, 100 * agreement, "%", len(photos), 0.0))
    goal = "at least 98 % within 470,000 bytes"
    rows.append(Row("the same, with loss: best agreement within 470,000 bytes", 100 * best, "%", len(photos), 0.0,
                    goal, best >= 0.98))  # fmt: skip
    save("squeezenet-file", rows, ["constriction"])


if __name__ == "__main__":
    main()
