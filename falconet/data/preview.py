"""A picture of a data set: originals above what augmentation makes of them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from falconet.data.augmentation import POLICIES, distort
from falconet.data.dataset import Dataset
from falconet.data.preprocessing import Preprocess, scale_image
from falconet.spec import InputSpec
from falconet.storage import write_bytes

COLUMNS = 10
VARIANTS = 3
TILE = 96
GAP = 4


def write_preview(dataset: Dataset, path: Path) -> None:
    """Write a PNG: a column for each of up to ten classes, the original above three augmented samples of it."""
    from PIL import Image

    train = dataset.splits["train"]
    firsts = [int(np.flatnonzero(train.labels == label)[0]) for label in np.unique(train.labels)[:COLUMNS]]
    originals = [train.samples.read(index) for index in firsts]
    rows = draw_rows(originals, dataset)
    sheet = Image.fromarray(tile(rows))
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    write_bytes(path, buffer.getvalue())


def draw_rows(originals: list[np.ndarray], dataset: Dataset) -> UInt8[np.ndarray, "rows columns side side channels"]:
    """Return the originals and VARIANTS augmented samples of each, all of one size."""
    channels = dataset.channels
    spec = InputSpec((channels, TILE, TILE), dataset.classes, mean=(0.0,) * channels, std=(1.0,) * channels)
    preprocess = Preprocess(spec)
    images = torch.cat([scale_image(image, preprocess) for image in originals])
    generator = torch.Generator().manual_seed(0)
    affine = POLICIES[dataset.augmentation]
    rows = [images, *(distort(images, affine, generator) for _ in range(VARIANTS))]
    pixels = (torch.stack(rows) * 255).round().clamp(0, 255).to(torch.uint8)
    return pixels.permute(0, 1, 3, 4, 2).numpy()


def tile(rows: UInt8[np.ndarray, "rows columns side side channels"]) -> UInt8[np.ndarray, "height width 3"]:
    """Lay pictures out on a gray sheet."""
    count_y, count_x = rows.shape[:2]
    step = TILE + GAP
    sheet = np.full((count_y * step + GAP, count_x * step + GAP, 3), 128, dtype=np.uint8)
    for y in range(count_y):
        for x in range(count_x):
            top, left = y * step + GAP, x * step + GAP
            sheet[top : top + TILE, left : left + TILE] = rows[y, x]
    return sheet
