"""Draws those pictures of the book that need no trained network, into docs/pictures; `make pictures` runs it.

Each is computed from the code or from benchmarks/results, under fixed seeds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import falconet
from falconet.data.preview import write_preview
from falconet.metrics.intervals import wilson_interval
from falconet.models.lenet import C3_TABLE, output_codes
from falconet.models.transformer import SinusoidalPositions
from falconet.training.schedules import learning_rate

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BLUE, ORANGE, GREEN, PURPLE, GRAY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#777777"
STYLE: Any = {
    "figure.dpi": 100, "savefig.bbox": "tight", "font.size": 10, "axes.grid": True, "grid.alpha": 0.3,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "svg.hashsalt": "falconet",
}  # fmt: skip


def main(folder: Path = ROOT / "docs" / "pictures") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        for name, draw in PICTURES.items():
            torch.manual_seed(0)
            draw()
            plt.savefig(folder / f"{name}.png", metadata={"Software": None})
            plt.close("all")
    preview = folder / "data-augmentation.png"
    write_preview(falconet.load_dataset("digits"), preview, "digits")
    Image.open(preview).convert("L").save(preview, optimize=True)


def draw_receptive_fields() -> None:
    """What fraction of the input's side a unit of each layer sees, from the first layer to the last convolution."""
    _, axes = plt.subplots(figsize=(7, 3.4))
    networks = ("lenet5", "alexnet", "squeezenet1_1", "resnet18", "efficientnet_b0")
    for name, color in zip(networks, (GRAY, ORANGE, PURPLE, BLUE, GREEN), strict=True):
        cost = falconet.summarize(name)
        # Those of squeeze-and-excitation see the means of all positions.
        layers = [layer for layer in cost.layers if "Conv" in layer.type and not layer.name.endswith(("fc1", "fc2"))]
        seen = list(accumulate((layer.receptive_field[0] / cost.input[1] for layer in layers), max))
        axes.plot(range(1, len(seen) + 1), seen, marker=".", label=name, color=color)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set(xlabel="convolution", ylabel="side of the receptive field / side of the input", yscale="log", xscale="log")
    axes.legend()


def draw_lenet() -> None:
    """Which channels of S2 each channel of C3 sees, and the codes that stand for the digits."""
    _, (left, right) = plt.subplots(1, 2, figsize=(7.5, 2.6), width_ratios=(1, 1.15))
    seen = torch.zeros(6, len(C3_TABLE))
    for channel, row in enumerate(C3_TABLE):
        seen[list(row), channel] = 1
    left.imshow(seen.numpy(), cmap="Blues", vmin=0, vmax=1.3)
    left.set(xlabel="channel of C3", ylabel="channel of S2", xticks=range(0, 16, 3), yticks=range(6))
    codes = output_codes(10).view(2, 5, 12, 7)
    padded = nn.functional.pad(codes, (1, 1, 1, 1), value=-1)
    right.imshow(padded.permute(0, 2, 1, 3).reshape(2 * 14, 5 * 9).numpy(), cmap="Greys", vmin=-1, vmax=1)
    right.set(xticks=[], yticks=[], xlabel="codes of the output units, 7x12")
    for axes in (left, right):
        axes.grid(visible=False)


def draw_costs(name: str) -> None:
    """Parameters and multiply-accumulates of each layer that has any."""
    layers = [layer for layer in falconet.summarize(name).layers if layer.params]
    _, pair = plt.subplots(1, 2, figsize=(7.5, 2.8), sharey=True)
    labels = [layer.name for layer in layers]
    for axes, title, values in (
        (pair[0], "million parameters", [layer.params / 1e6 for layer in layers]),
        (pair[1], "million multiply-accumulates", [layer.macs / 1e6 for layer in layers]),
    ):
        colors = [ORANGE if "Linear" in layer.type else BLUE for layer in layers]
        axes.barh(labels, values, color=colors)
        axes.set_xlabel(title)
    pair[0].invert_yaxis()


def draw_fire() -> None:
    """Parameters of SqueezeNet's fire modules, beside 3x3 convolutions from as many channels to as many."""
    model: Any = falconet.create_model("squeezenet1_1")
    fires = [layer for layer in model.features if type(layer).__name__ == "Fire"]
    ours = [sum(weight.numel() for weight in fire.parameters()) for fire in fires]
    widths = [(fire.squeeze.in_channels, fire.expand1x1.out_channels + fire.expand3x3.out_channels) for fire in fires]
    plain = [9 * before * after + after for before, after in widths]
    places = np.arange(len(fires))
    _, axes = plt.subplots(figsize=(7.5, 2.8))
    axes.bar(places - 0.2, [count / 1e3 for count in plain], 0.4, color=ORANGE, label="3x3 convolution")
    axes.bar(places + 0.2, [count / 1e3 for count in ours], 0.4, color=BLUE, label="fire module")
    axes.set_xticks(
        places, [f"fire{index}\n{before}→{after}" for index, (before, after) in enumerate(widths, start=2)], fontsize=8
    )
    axes.set(ylabel="thousand parameters", yscale="log")
    axes.legend(ncols=2, loc="upper left", bbox_to_anchor=(0, 1.18))


def draw_gradients() -> None:
    """The gradient's size at the input of each block of an untrained network, with and without shortcuts."""
    _, axes = plt.subplots(figsize=(7, 3))
    for shortcuts, color, label in ((True, BLUE, "with shortcuts"), (False, ORANGE, "without")):
        runs = torch.stack([measure_gradients(seed, shortcuts) for seed in range(3)])
        axes.plot(
            range(1, runs.shape[1] + 1), runs.log().mean(dim=0).exp().tolist(), marker=".", color=color, label=label
        )
    axes.set(xlabel="block of the first stage of resnet110", ylabel="gradient / gradient behind the last block")
    axes.set(yscale="log", xticks=range(2, 19, 4))
    axes.legend()


def measure_gradients(seed: int, shortcuts: bool) -> Tensor:
    """Return the norm of a gradient before each block of a stage, divided by that behind the last one."""
    torch.manual_seed(seed)
    model: Any = falconet.create_model("resnet110", pre_activation=True)
    states: list[Any] = [torch.randn(4, 16, 32, 32, requires_grad=True)]
    for block in model.layer1:
        # A block with activation first is nothing but the sum of its input and its branch.
        after = block(states[-1]) if shortcuts else block(states[-1]) - states[-1]
        after.retain_grad()
        states.append(after)
    (states[-1] * torch.randn_like(states[-1])).sum().backward()
    norms: list[Tensor] = [state.grad.norm() for state in states]
    return torch.stack(norms[:-1]) / norms[-1]


def draw_compound() -> None:
    """Multiply-accumulates of scaled networks, counted, beside the rule of two to the power of phi."""
    phis = [float(value) for value in range(-4, 6)]
    first = falconet.summarize("efficientnet_b0").macs
    counted = []
    for phi in phis:
        side = falconet.scale_compound(phi).input_size
        counted.append(falconet.summarize("efficientnet", input_shape=(3, side, side), phi=phi).macs / first)
    _, axes = plt.subplots(figsize=(7, 3.2))
    axes.plot(phis, [2**phi for phi in phis], color=GRAY, linestyle="--", label="2^phi")
    axes.plot(phis, counted, marker=".", color=BLUE, label="efficientnet, counted")
    for name in ("b0", "b2", "b3", "b4"):
        ratio = falconet.summarize(f"efficientnet_{name}").macs / first
        phi = {"b0": 0, "b2": 1, "b3": 2, "b4": 3.5}[name]
        axes.plot(phi, ratio, "D", color=ORANGE, mfc="none")
        axes.annotate(name.upper(), (phi, ratio), (6, -12), textcoords="offset points")
    axes.set(xlabel="phi", ylabel="multiply-accumulates / those of B0", yscale="log")
    axes.legend()


def draw_memory() -> None:
    """How much the last state of untrained recurrent networks changes with the step so many steps before."""
    _, axes = plt.subplots(figsize=(7, 3))
    for cell, color in (("rnn", ORANGE), ("lstm", BLUE), ("gru", GREEN)):
        for pooling, style in (("last", "-"), ("mean", ":")):
            found = torch.stack([measure_memory(seed, cell, pooling) for seed in range(3)]).mean(dim=0)
            label = f"{cell}, {'its last state' if pooling == 'last' else 'the mean of its states'}"
            axes.plot(range(len(found)), found.flip(0).tolist(), style, color=color, label=label)
    axes.set(xlabel="steps before the end", ylabel="gradient at that step", yscale="log")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))


def measure_memory(seed: int, cell: str, pooling: str) -> Tensor:
    """Return the norm of the logits' gradient at each of 100 steps."""
    torch.manual_seed(seed)
    shape: dict[str, Any] = {"kind": "series", "num_classes": 10, "in_channels": 4, "input_size": 100}
    model: Any = falconet.create_model(cell, **shape, pooling=pooling).eval()
    series: Any = torch.randn(4, 4, 100, requires_grad=True)
    model(series).square().sum().backward()
    norms: Tensor = series.grad.norm(dim=(0, 1))
    return norms


def draw_positions() -> None:
    """What is added to the vector of each step, and how alike these are for two steps."""
    waves = SinusoidalPositions(64)(torch.zeros(1, 100, 64))[0]
    _, (left, right) = plt.subplots(1, 2, figsize=(7.5, 2.8), width_ratios=(1.4, 1))
    left.imshow(waves.T.numpy(), cmap="cividis", aspect="auto")
    left.set(xlabel="step", ylabel="component")
    right.imshow((waves @ waves.T / 32).numpy(), cmap="cividis")
    right.set(xlabel="step", ylabel="step", title="cosine of two positions")
    for axes in (left, right):
        axes.grid(visible=False)


def draw_schedules() -> None:
    """Learning rates of each schedule."""
    _, axes = plt.subplots(figsize=(7, 2.6))
    for schedule, color in (("constant", GRAY), ("cosine", ORANGE), ("one_cycle", BLUE)):
        config = falconet.TrainConfig(schedule=schedule, warmup=0.2, learning_rate=1.0)  # type: ignore[arg-type]
        axes.plot([learning_rate(step, 1000, config) for step in range(1000)], color=color, label=schedule)
    axes.set(xlabel="step of 1000, a fifth of them warm-up", ylabel="learning rate / its peak")
    axes.legend()


def draw_intervals() -> None:
    """How wide the interval of an accuracy is, by the number of test samples."""
    counts = [10 * round(10 ** (power / 10)) for power in range(1, 31)]
    intervals = [wilson_interval(round(0.9 * count), count) for count in counts]
    _, axes = plt.subplots(figsize=(7, 2.8))
    low, high = zip(*intervals, strict=True)
    axes.fill_between(counts, [100 * value for value in low], [100 * value for value in high], color=BLUE, alpha=0.3)
    axes.axhline(90, color=BLUE)
    axes.set(xlabel="test samples", ylabel="accuracy (%), 95 % interval", xscale="log", ylim=(55, 100))


def draw_sizes() -> None:
    """Test error and size of the compressed LeNets and of what was published, from benchmarks/results."""
    _, axes = plt.subplots(figsize=(7, 3.2))
    published = {
        "LeNet-5-Caffe": (
            (39, 0.74, "Deep Compression"),
            (555, 0.69, "published claim"),
            (1110, 0.96, "published claim"),
        ),
        "LeNet-300-100": ((40, 1.58, "Deep Compression"), (64, 1.94, "soft weight sharing")),
    }
    stems = {"LeNet-5-Caffe": "lenet5-*", "LeNet-300-100": "lenet300-*"}
    for (name, peers), color in zip(published.items(), (BLUE, ORANGE), strict=True):
        files = [json.loads(path.read_text()) for path in RESULTS.glob(f"compression-{stems[name]}.json")]
        points = sorted((content["rows"][0]["value"], content["rows"][1]) for content in files)
        ratios, errors = [point[0] for point in points], [point[1]["value"] for point in points]
        deviations = [point[1]["std"] for point in points]
        axes.errorbar(ratios, errors, deviations, fmt="o-", color=color, capsize=3, label=f"{name}, 3 seeds")
        axes.plot([peer[0] for peer in peers], [peer[1] for peer in peers], "D", color=color, mfc="none")
        for ratio, error, who in peers:
            axes.annotate(who, (ratio, error), (6, -4), textcoords="offset points", fontsize=8)
    axes.set(xlabel="times smaller, all bytes of the file", ylabel="test error on MNIST (%)", xscale="log")
    axes.legend()


PICTURES: dict[str, Callable[[], None]] = {
    "story-receptive-fields": draw_receptive_fields,
    "story-lenet": draw_lenet,
    "story-alexnet": lambda: draw_costs("alexnet"),
    "story-squeezenet": draw_fire,
    "story-resnet": draw_gradients,
    "story-efficientnet": draw_compound,
    "story-rnn": draw_memory,
    "story-transformer": draw_positions,
    "training-schedules": draw_schedules,
    "evaluation-intervals": draw_intervals,
    "compressing-lenets": draw_sizes,
}

if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
