"""Images whose evidence is planted: noise, and somewhere in it a small texture that alone tells the class.

One class is noise alone. Without it, a network may know a texture by the absence of the others, for which no place in
the image is evidence.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from falconet.artifact import Artifact, ArtifactConfig, DataOrigin, Provenance
from falconet.models import create_model
from falconet.spec import ClassificationSpec, ImageSpec

SIDE, BOX = 24, 9
"""Pixels; the box has 14% of the area."""
LABELS = ("nothing", "rows", "columns", "checks")
"""The first has no box."""


def plant(count: int, seed: int) -> tuple[Float[Tensor, "count 1 side side"], Int64[Tensor, " count"], Tensor]:
    """Return images, labels, and which pixels hold the evidence."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.5 * torch.randn(count, 1, SIDE, SIDE, generator=generator)
    labels = torch.randint(len(LABELS), (count,), generator=generator)
    corners = torch.randint(SIDE - BOX + 1, (count, 2), generator=generator).tolist()
    rows, columns = torch.meshgrid(torch.arange(BOX) // 2 % 2, torch.arange(BOX) // 2 % 2, indexing="ij")
    textures = torch.stack([torch.zeros_like(rows), *(2 * part - 1 for part in (rows, columns, rows ^ columns))])
    boxes = torch.zeros(count, SIDE, SIDE, dtype=torch.bool)
    for image, box, label, (top, left) in zip(images, boxes, labels.tolist(), corners, strict=True):
        image[0, top : top + BOX, left : left + BOX] += textures[label]
        box[top : top + BOX, left : left + BOX] = label > 0
    return images, labels, boxes


def wrap(model: nn.Module, name: str, **options: Any) -> Artifact:
    """Return a network for these images as an artifact."""
    spec = ImageSpec((1, SIDE, SIDE), (0.5,), (0.25,))
    origin = Provenance(DataOrigin("planted", "00", 0, 0.1, 0.2), seed=0, epochs=1, best_epoch=1)
    return Artifact(ArtifactConfig(name, spec, ClassificationSpec(LABELS), origin, options), model.state_dict())


def train_planted(name: str, steps: int, batch: int = 64, **options: Any) -> Artifact:
    """Return a network that tells the textures apart, trained in seconds."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = create_model(name, num_classes=len(LABELS), in_channels=1, input_size=SIDE, **options)
        optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, steps)
        images, labels, _ = plant(steps * batch, seed=1)
        for part, truth in zip(torch.split(images, batch), torch.split(labels, batch), strict=True):
            loss = nn.functional.cross_entropy(model(part), truth)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return wrap(model, name, **options)


def top_decile_mass(
    relevance: Float[Tensor, "count side side"], boxes: Bool[Tensor, "count side side"]
) -> Float[np.ndarray, " count"]:
    """Return for each image the share of the positive relevance of its highest tenth of pixels that lies in the box.

    An explanation without any has none there: 0.
    """
    flat, inside = relevance.clamp(min=0).flatten(1), boxes.flatten(1)
    top = flat.topk(flat.shape[1] // 10, dim=1)
    hits = (top.values * inside.gather(1, top.indices)).sum(dim=1)
    return (hits / top.values.sum(dim=1).clamp(min=1e-12)).numpy()
