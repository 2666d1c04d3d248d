"""LeNet-5 on 8x8 digits in plain torch, as tutorials write it: DataLoaders, Adam, validation after each epoch, a test.

Without distortions, report and checkpoints. The splits are drawn, with the shares that falconet's have.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from splits import answer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="digits.npz")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--started", type=float, default=time.time(), help="when the process was started")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    with np.load(arguments.source) as arrays:
        images = torch.from_numpy(arrays["images"]).float()[:, None] / 255
        labels = torch.from_numpy(arrays["labels"]).long()
    images = F.interpolate((images - images.mean()) / images.std(), size=(32, 32), mode="bilinear")
    train_set, val_set, test_set = random_split(TensorDataset(images, labels), [0.7, 0.1, 0.2])
    train_loader = DataLoader(train_set, batch_size=62, shuffle=True)
    model = build()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for epoch in range(arguments.epochs):
        model.train()
        for inputs, targets in train_loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), targets)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        correct = judge(model, DataLoader(val_set, batch_size=256))
        print(f"epoch {epoch + 1}: validation {correct:.2%}", flush=True)
    test = judge(model, DataLoader(test_set, batch_size=256))
    answer(library=f"torch {torch.__version__}", model="lenet5", accuracy=test, val_accuracy=correct, n=len(test_set))


def build() -> nn.Sequential:
    """Return LeNet-5 with dense maps, mean pooling and a dense output, as it is taught: 61,706 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2),
        nn.Conv2d(16, 120, 5), nn.Tanh(), nn.Flatten(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10),
    )  # fmt: skip


@torch.inference_mode()
def judge(model: nn.Module, loader: DataLoader) -> float:  # type: ignore[type-arg]
    model.eval()
    hits = sum(int((model(inputs).argmax(dim=1) == targets).sum()) for inputs, targets in loader)
    return hits / len(loader.dataset)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
