"""generate(): a folder of generated images, marked as such, with a picture of them beside the nearest real ones."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from falconet.data import DataConfig, Dataset, load_dataset
from falconet.data.drawing import draw_image
from falconet.data.loader import hold_inputs, load_inputs
from falconet.data.preprocessing import to_unit
from falconet.errors import DataError, RunExistsError, StorageError, UsageError
from falconet.escaping import escape_line
from falconet.generation.flow import MAX_SIDE, Flow, FlowConfig, draw_images, train_flow
from falconet.modalities import MODALITIES
from falconet.schema import from_mapping
from falconet.spec import ImageSpec
from falconet.storage import format_json, hold, is_vacant, swap

_MANIFEST_FILE = "manifest.json"
_SHEET_FILE = "nearest.png"
_MARK = "generated"
"""Keyword of the text in each PNG that says that the image is generated."""

_SHOWN_CLASSES, _SHOWN_SAMPLES = 10, 3
"""Rows of the picture, one a class, and generated images in each, at most."""


@dataclass(frozen=True)
class Generation:
    """The result of `generate_images`."""

    out: Path
    images: int
    steps: int
    """Steps of the generator's training."""
    loss: float
    """Mean loss of the generator's last epoch."""
    nearest: float
    """Median distance of generated images to the nearest training image: root mean square of pixels, in 0..1."""
    held_out_nearest: float | None
    """Median distance of real validation images to the nearest training image; None: there are none. Where `nearest` is
    much less, the generator copies."""


def generate_images(
    source: str | Path,
    *,
    out: str | Path,
    per_class: int = 20,
    config: FlowConfig | None = None,
    data_root: str | Path | None = None,
    settings: dict[str, Any] | None = None,
    watch: Callable[[int, int, float], None] = lambda epoch, epochs, loss: None,
) -> Generation:
    """Train a generator on the training images of `source` and write `per_class` generated ones of each class to `out`.

    The folder has a folder of images for each class, `manifest.json`, and `nearest.png`: generated images beside the
    nearest training images. Each PNG says in its text `generated` that it is so, as the manifest does. Images are as
    large as the source's, or scaled down to MAX_SIDE pixels. `settings` are those of the section `data`. Raises
    DataError for other samples than images, RunExistsError where the folder holds anything, StorageError, and what
    `train_flow` does.
    """
    config = config or FlowConfig()
    if per_class < 1:
        raise UsageError(f"per_class: wanted 1 or more, found {per_class}")
    folder = Path(out)
    _check_vacant(folder)
    dataset = load_dataset(source, data_root=data_root, config=from_mapping(DataConfig, settings or {}, "data"))
    if MODALITIES[dataset.kind].axes != 2:  # The flow's network is one of planes.
        raise DataError(f"{dataset.source}: wanted images to generate more of, found {dataset.kind}")
    images, labels, names = _read_images(dataset, "train")
    flow = train_flow(images, labels, len(dataset.classes), config, watch)
    present = torch.unique(labels)
    wanted = present.repeat_interleave(per_class)
    made = draw_images(flow, wanted, config.seed)
    nearest, distances = _find_nearest(made, images)
    held_out, _, _ = _read_images(dataset, "val")
    beyond = float(_find_nearest(held_out, images)[1].median()) if len(held_out) else None
    done = Generation(folder, len(made), flow.steps, flow.losses[-1], float(distances.median()), beyond)
    mark = f"made by falconet {version('falconet')} (rectified flow, seed {config.seed}): shows nothing real"
    pixels = (made * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    paths = name_files([dataset.classes[label] for label in wanted.tolist()])
    contents = {path: _encode_png(image, mark) for path, image in zip(paths, pixels, strict=True)}
    files = [
        {"file": path, "label": dataset.classes[label], "nearest": names[near], "distance": round(distance, 5)}
        for path, label, near, distance in zip(
            paths, wanted.tolist(), nearest.tolist(), distances.tolist(), strict=True
        )
    ]
    contents[_MANIFEST_FILE] = format_json(_describe(dataset, flow, done, mark, files)).encode()
    contents[_SHEET_FILE] = _draw_sheet(pixels, wanted, images, nearest, distances, dataset.classes)
    with hold(folder):
        _check_vacant(folder)
        swap(folder, contents)
    return done


def _check_vacant(folder: Path) -> None:
    """Raise RunExistsError where a folder holds anything, StorageError where it is a file."""
    if folder.exists() and not folder.is_dir():
        raise StorageError(f"{folder}: wanted a folder to write to, found a file")
    if not is_vacant(folder):
        raise RunExistsError(f"{folder} holds files: choose a new or empty folder with --out")


def _read_images(
    dataset: Dataset, name: str
) -> tuple[Float32[Tensor, "samples channels height width"], Int64[Tensor, " samples"], list[str]]:
    """Return a split's readable images with values in 0..1, all of one size, their labels, and their names."""
    height, width = dataset.size
    scale = min(1.0, MAX_SIDE / max(height, width))
    size = max(round(height * scale), 1), max(round(width * scale), 1)
    statistics = (0.0,) * dataset.channels, (1.0,) * dataset.channels
    deep = dataset.value_range
    dtype: Any = "uint8" if deep is None else "uint16"
    spec = ImageSpec((dataset.channels, *size), *statistics, dtype=dtype, value_range=deep)
    found = load_inputs(dataset.split(name), spec)
    names = [found.split.samples.name(index) for index in range(len(found.split))]
    return to_unit(hold_inputs(found.inputs)), torch.from_numpy(found.split.labels), names


def _find_nearest(
    images: Float32[Tensor, "samples channels height width"], known: Float32[Tensor, "known channels height width"]
) -> tuple[Int64[Tensor, " samples"], Float32[Tensor, " samples"]]:
    """Return the position of the known image nearest to each, and the root mean square of the pixels' difference."""
    values = known[0].numel()
    found = [torch.cdist(part.flatten(1), known.flatten(1)).min(dim=1) for part in torch.split(images, 256)]
    return torch.cat([each.indices for each in found]), torch.cat([each.values for each in found]) / values**0.5


def name_files(labels: Sequence[str]) -> list[str]:
    """Return a path for each image: its class's folder, with a name that every system allows, and a number."""
    folders: dict[str, str] = {}
    for label in labels:
        if label in folders:
            continue
        plain = re.sub(r"[^\w. -]", "_", label)[:60].strip(" .") or "_"
        # Two classes may look alike then, or differ by case alone, which some systems do not tell apart.
        taken = {folder.casefold() for folder in folders.values()}
        name, number = plain, 1
        while name.casefold() in taken:
            name, number = f"{plain}_{number}", number + 1
        folders[label] = name
    counts: dict[str, int] = {}
    paths = []
    for label in labels:
        paths.append(f"{folders[label]}/{counts.get(label, 0):05d}.png")
        counts[label] = counts.get(label, 0) + 1
    return paths


def _encode_png(image: UInt8[np.ndarray, "height width channels"], mark: str) -> bytes:
    """Return an image as PNG with the text that says that it is generated."""
    from PIL import Image, PngImagePlugin

    info = PngImagePlugin.PngInfo()
    info.add_text(_MARK, mark)
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()


def _describe(
    dataset: Dataset, flow: Flow, done: Generation, mark: str, files: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Return the manifest: the generator, the distances to real images, and a list of the generated ones."""
    return {
        _MARK: mark,
        "source": dataset.source,
        "fingerprint": dataset.fingerprint,
        "split": "train",
        "seed": flow.config.seed,
        "training_steps": flow.steps,
        "euler_steps": flow.config.euler_steps,
        "params": sum(parameter.numel() for parameter in flow.network.parameters()),
        "loss": flow.losses[-1],
        "nearest_median": done.nearest,
        "held_out_nearest_median": done.held_out_nearest,
        "files": list(files),
    }


def _draw_sheet(
    pixels: UInt8[np.ndarray, "made height width channels"],
    labels: Int64[Tensor, " made"],
    known: Float32[Tensor, "known channels height width"],
    nearest: Int64[Tensor, " made"],
    distances: Float32[Tensor, " made"],
    classes: Sequence[str],
) -> bytes:
    """Return a PNG with a row per class: generated images, each with the nearest training image on its right."""
    from matplotlib.figure import Figure

    shown = torch.unique(labels)[:_SHOWN_CLASSES].tolist()
    figure = Figure(figsize=(1.3 * 2 * _SHOWN_SAMPLES + 0.2, 1.5 * len(shown) + 0.5), dpi=100, layout="constrained")
    grid = figure.subplots(len(shown), 2 * _SHOWN_SAMPLES, squeeze=False)
    for row, label in zip(grid, shown, strict=True):
        rows = (labels == label).nonzero().flatten()[:_SHOWN_SAMPLES].tolist()
        for axes in row[2 * len(rows) :]:
            axes.axis("off")
        for column, index in enumerate(rows):
            real = (known[nearest[index]] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
            for axes, image in ((row[2 * column], pixels[index]), (row[2 * column + 1], real)):
                axes.set(xticks=[], yticks=[])
                draw_image(axes, image)
            name = escape_line(classes[label])[:20]
            row[2 * column].set_title(f"made: {name}", size=7, parse_math=False)
            row[2 * column + 1].set_title(f"nearest: {float(distances[index]):.3f}", size=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
