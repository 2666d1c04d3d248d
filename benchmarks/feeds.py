"""One feed in a process of its own, for `data.py`: prints the seconds of its first epoch and its rate thereafter."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

SIZE = 64
BATCH_SIZE = 128
WORKERS = 2
ROTATE, SCALE, SHIFT = 10.0, 0.1, 0.08
EPOCHS = 5
SIDE = 128


def main() -> None:
    name, root = sys.argv[1], Path(sys.argv[2])
    print(json.dumps(FEEDS[name](root)) if name in FEEDS else MORE[name](root, int(sys.argv[3])))


def time_epochs(start: float, epochs: Callable[[int], Iterable[tuple[Any, ...]]]) -> dict[str, float]:
    """Return seconds from `start` to the end of the first epoch, and samples a second in the others."""
    count = sum(len(labels) for _, labels in epochs(1))
    first = time.perf_counter() - start
    begun = time.perf_counter()
    later = sum(len(labels) for number in range(2, EPOCHS + 1) for _, labels in epochs(number))
    return {"first": first, "rate": later / (time.perf_counter() - begun), "count": count}


def falconet_photos(root: Path) -> dict[str, float]:
    import torch

    from falconet import ImageAugmentation, ImagePreprocess, ImageSpec, Loader
    from falconet.data.loader import load_inputs
    from falconet.data.sources import read_source
    from falconet.data.splits import DataConfig

    start = time.perf_counter()
    dataset = read_source(str(root / "sign-digits"), root, DataConfig())
    spec = ImageSpec((3, SIZE, SIZE), mean=(0.5,) * 3, std=(0.25,) * 3)
    loaded = load_inputs(dataset.splits["train"], spec)
    augmentation = ImageAugmentation(rotate=ROTATE, scale=SCALE, shift=SHIFT)
    labels = torch.from_numpy(loaded.split.labels)
    loader = Loader(loaded.inputs, labels, ImagePreprocess(spec), BATCH_SIZE, augmentation, "shuffle")
    return time_epochs(start, loader.epoch)


def torchvision_photos(root: Path) -> dict[str, float]:
    import torchvision
    from torch.utils.data import DataLoader
    from torchvision import transforms

    start = time.perf_counter()
    steps = transforms.Compose(
        [*photo_transforms(), transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.25,) * 3)]
    )
    dataset = torchvision.datasets.ImageFolder(str(root / "sign-digits"), steps)
    loader = DataLoader(dataset, BATCH_SIZE, shuffle=True, num_workers=WORKERS, persistent_workers=True)
    return time_epochs(start, lambda number: loader)


def timm_photos(root: Path) -> dict[str, float]:
    import torch
    from timm.data.dataset_factory import create_dataset
    from timm.data.loader import create_loader
    from timm.data.transforms import ToNumpy
    from torchvision import transforms

    start = time.perf_counter()
    dataset = create_dataset("folder", str(root / "sign-digits"))
    loader = create_loader(
        dataset,
        input_size=(3, SIZE, SIZE),
        batch_size=BATCH_SIZE,
        is_training=True,
        num_workers=WORKERS,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        device=torch.device("cpu"),
        persistent_workers=True,
    )
    dataset.transform = transforms.Compose([*photo_transforms(), ToNumpy()])
    return time_epochs(start, lambda number: loader)


def photo_transforms() -> list[Any]:
    """Scaling and the same augmentation as falconet's, as torchvision does it."""
    from torchvision import transforms

    affine = transforms.RandomAffine(
        ROTATE,
        translate=(SHIFT, SHIFT),
        scale=(1 - SCALE, 1 + SCALE),
        interpolation=transforms.InterpolationMode.BILINEAR,
    )
    return [transforms.Resize((SIZE, SIZE)), affine]


def falconet_mnist(root: Path) -> dict[str, float]:
    import torch

    from falconet import ImagePreprocess, ImageSpec, Loader
    from falconet.data.loader import load_inputs
    from falconet.data.sources import read_source
    from falconet.data.splits import DataConfig

    start = time.perf_counter()
    dataset = read_source("mnist", root, DataConfig())
    spec = ImageSpec((1, 28, 28), mean=(0.1307,), std=(0.3081,))
    loaded = load_inputs(dataset.splits["train"], spec)
    labels = torch.from_numpy(loaded.split.labels)
    return time_epochs(start, Loader(loaded.inputs, labels, ImagePreprocess(spec), BATCH_SIZE, None, "shuffle").epoch)


def torchvision_mnist(root: Path) -> dict[str, float]:
    import torchvision
    from torch.utils.data import DataLoader
    from torchvision import transforms

    start = time.perf_counter()
    steps = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    dataset = torchvision.datasets.MNIST(str(root), train=True, transform=steps)
    loader = DataLoader(dataset, BATCH_SIZE, shuffle=True, num_workers=WORKERS, persistent_workers=True)
    return time_epochs(start, lambda number: loader)


def make_images(root: Path, count: int) -> str:
    """Write JPEG files of noise on a slope, in two class folders of `all`; link every fourth pair into `quarter`."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np
    from PIL import Image

    slope = np.linspace(0, 200, SIDE)[None, :, None]

    def write(index: int) -> None:
        noise = np.random.default_rng(index).integers(0, 56, (SIDE, SIDE, 3))
        path = root / "all" / str(index % 2) / f"{index:06d}.jpg"
        Image.fromarray((slope + noise).astype(np.uint8)).save(path, quality=80)
        if index // 2 % 4 == 0:
            (root / "quarter" / str(index % 2) / path.name).hardlink_to(path)

    for part in ("all", "quarter"):
        for label in range(2):
            (root / part / str(label)).mkdir(parents=True)
    with ThreadPoolExecutor() as pool:
        list(pool.map(write, range(count)))
    return f"{count} images"


def falconet_memory(root: Path, count: int) -> str:
    """Read a folder and feed two epochs of its `count` images; return the peak of resident memory in bytes."""
    import torch

    from falconet import ImageAugmentation, ImagePreprocess, ImageSpec, Loader
    from falconet.data.loader import load_inputs
    from falconet.data.sources import read_source
    from falconet.data.splits import DataConfig

    dataset = read_source(str(root), root, DataConfig())
    spec = ImageSpec((3, SIDE, SIDE), mean=(0.5,) * 3, std=(0.25,) * 3)
    loaded = load_inputs(dataset.splits["train"], spec)
    labels = torch.from_numpy(loaded.split.labels)
    augmentation = ImageAugmentation(rotate=ROTATE, scale=SCALE, shift=SHIFT)
    loader = Loader(loaded.inputs, labels, ImagePreprocess(spec), BATCH_SIZE, augmentation, "shuffle")
    fed = sum(len(labels) for number in (1, 2) for _, labels in loader.epoch(number))
    assert fed == 2 * count
    return json.dumps({"peak": 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, "count": count})


FEEDS = {
    "falconet-photos": falconet_photos,
    "torchvision-photos": torchvision_photos,
    "timm-photos": timm_photos,
    "falconet-mnist": falconet_mnist,
    "torchvision-mnist": torchvision_mnist,
}
MORE = {"make-images": make_images, "falconet-memory": falconet_memory}


if __name__ == "__main__":
    main()
