"""PyTorch, as tutorials write it: torchvision's MNIST, a DataLoader with two workers, Adam, sums of `loss.item()`."""

from __future__ import annotations

import torch
from task import MEAN, STD, EpochClock, answer, read_task
from torch import nn
from torch.utils.data import DataLoader
from torch_network import build, count_params
from torchvision import datasets, transforms


def main() -> None:
    task = read_task(__doc__)
    torch.manual_seed(task.seed)
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((MEAN,), (STD,))])
    train_set = datasets.MNIST(str(task.data_root), train=True, transform=transform)
    train_loader = DataLoader(train_set, batch_size=task.batch_size, shuffle=True, num_workers=2)
    model = build()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    clock = EpochClock(len(train_set))
    for epoch in range(task.epochs):
        model.train()
        running_loss = 0.0
        for images, labels in train_loader:
            optimizer.zero_grad()
            loss = criterion(model(images), labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
        print(f"epoch {epoch + 1}: loss {running_loss / len(train_loader):.4f}", flush=True)
        clock.end_epoch()
    answer(f"PyTorch {torch.__version__} tutorial", count_params(model), clock)


if __name__ == "__main__":
    main()
