"""The LeNets: from the dense net of 1998 to the one that is taught today.

`LeNet5` follows section II.B of LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document
recognition" (Proc. IEEE 86(11), 1998), layer by layer; its sizes are those of the paper's figure 2 and table I:

    layer   channels  what                                     trainable parameters
    C1      6@28x28   convolution 5x5                                           156
    S2      6@14x14   subsampling 2x2: sum, coefficient, bias                    12
    C3      16@10x10  convolution 5x5 over the channels of table I                1,516
    S4      16@5x5    subsampling 2x2                                            32
    C5      120@1x1   convolution over the whole map                         48,120
    F6      84        dense                                                  10,164
    output  10        Euclidean RBF with fixed codes                              0
                                                                       sum   60,000

Every layer up to F6 is squashed by `A tanh(S a)`. Where the paper leaves something open, the docstrings say what was
chosen.
"""

import math
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from falconet.errors import ConfigError
from falconet.models.options import check_count, check_switch

C3_TABLE = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)  # fmt: skip
"""Channels of S2 that each of the 16 channels of C3 sees (table I of the paper)."""

_DIGIT_GLYPHS = (
    ".#####. ...#... .#####. .#####. .....#. ####### ..####. ####### .#####. .#####.",
    "#.....# ..##... #.....# #.....# ....##. #...... .#..... ......# #.....# #.....#",
    "#.....# .#.#... ......# ......# ...#.#. #...... #...... ......# #.....# #.....#",
    "#.....# ...#... ......# ......# ..#..#. #...... #...... .....#. #.....# #.....#",
    "#.....# ...#... ......# ......# .#...#. ######. #...... .....#. #.....# #.....#",
    "#.....# ...#... .....#. ..####. #....#. ......# ######. ....#.. .#####. .######",
    "#.....# ...#... ....#.. ......# #....#. ......# #.....# ....#.. #.....# ......#",
    "#.....# ...#... ...#... ......# ####### ......# #.....# ...#... #.....# ......#",
    "#.....# ...#... ..#.... ......# .....#. ......# #.....# ...#... #.....# ......#",
    "#.....# ...#... .#..... ......# .....#. ......# #.....# ..#.... #.....# ......#",
    "#.....# ...#... #...... #.....# .....#. #.....# #.....# ..#.... #.....# .....#.",
    ".#####. ####### ####### .#####. .....#. .#####. .#####. ..#.... .#####. .####..",
)
"""The ten digits as bitmaps of 7x12, side by side, drawn anew in the manner of the paper's figure 3."""

_CODE_LENGTH = 84


class ScaledTanh(nn.Module):
    """`f(a) = A tanh(S a)` with A = 1.7159 and S = 2/3, so that f(1) = 1 and f(-1) = -1 (the paper's appendix A)."""

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return 1.7159 * torch.tanh(x * (2 / 3))


class Subsampling(nn.Module):
    """The sum of each 2x2 field, times one trainable coefficient a channel, plus one trainable bias a channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.coefficient = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height//2 width//2"]:
        # The average instead of the sum folds the constant 4 into the coefficient's unit: same functions, same count.
        return F.avg_pool2d(x, 2) * (4 * self.coefficient.view(-1, 1, 1)) + self.bias.view(-1, 1, 1)


class TableConv2d(nn.Module):
    """A 5x5 convolution in which each output channel sees only the input channels that a table lists.

    Only listed kernels exist as parameters; they are laid out into a dense kernel on each call, because one dense
    convolution is faster than many small ones. Its MACs are therefore those of a dense layer.
    """

    def __init__(self, in_channels: int, table: tuple[tuple[int, ...], ...], kernel_size: int) -> None:
        super().__init__()
        pairs = [(out, channel) for out, row in enumerate(table) for channel in row]
        self.dense_shape = (len(table), in_channels, kernel_size, kernel_size)
        self.fan_in = [len(row) * kernel_size**2 for row in table]
        self.weight = nn.Parameter(torch.empty(len(pairs), kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.empty(len(table)))
        self.position: Tensor
        flat = torch.tensor([out * in_channels + channel for out, channel in pairs])
        self.register_buffer("position", flat, persistent=False)

    def dense_weight(self) -> Float[Tensor, "out_channels in_channels kernel kernel"]:
        outs, ins, height, width = self.dense_shape
        dense = self.weight.new_zeros(outs * ins, height, width)
        return dense.index_copy(0, self.position, self.weight).view(self.dense_shape)

    def forward(
        self, x: Float[Tensor, "batch in_channels height width"]
    ) -> Float[Tensor, "batch out_channels out_height out_width"]:
        return F.conv2d(x, self.dense_weight(), self.bias)


class RBFOutput(nn.Module):
    """Logits `-|x - code|^2 / sqrt(84)` of Euclidean radial basis functions with fixed codes of +1 and -1.

    Softmax over these logits with cross-entropy is the paper's discriminative criterion (equation 9) without its
    constant "rubbish class". The paper has no divisor; it changes no answer, but without it the softmax is saturated
    from the first steps on and training stalls: sums over 84 units are scaled as dot products are in attention.
    Codes: see `output_codes`.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.codes: Tensor
        self.register_buffer("codes", output_codes(num_classes))

    def forward(self, x: Float[Tensor, "batch features"]) -> Float[Tensor, "batch classes"]:
        # |x - c|^2 = |x|^2 - 2 x.c + |c|^2 and every code has |c|^2 = _CODE_LENGTH.
        distances = x.square().sum(dim=1, keepdim=True) - F.linear(x, 2 * self.codes) + _CODE_LENGTH
        return distances / -math.sqrt(_CODE_LENGTH)


def output_codes(num_classes: int) -> Float[Tensor, "classes 84"]:
    """Return one code of 84 values +1 or -1 for each class; the same for the same number on every machine.

    Up to ten classes take the bitmaps of the digits, as in the paper. More take the rows of the Hadamard matrix of
    order 84 and then their negatives: any two differ in at least 42 places. Beyond 168 classes, where no such
    matrix is left, they are the low bits of a fixed pseudo-random sequence.
    """
    if num_classes <= 10:
        pixels = np.array([list(row.replace(" ", "")) for row in _DIGIT_GLYPHS]).reshape(12, 10, 7)
        glyphs = np.where(pixels == "#", 1.0, -1.0).transpose(1, 0, 2).reshape(10, _CODE_LENGTH)
        return torch.from_numpy(glyphs[:num_classes].astype(np.float32))
    hadamard = paley_hadamard(_CODE_LENGTH - 1)
    codes = np.concatenate([hadamard, -hadamard])
    missing = num_classes - len(codes)
    if missing > 0:
        drawn = np.random.RandomState(1998).randint(0, 2, size=(missing, _CODE_LENGTH)) * 2 - 1
        codes = np.concatenate([codes, drawn])
    return torch.from_numpy(codes[:num_classes].astype(np.float32))


def paley_hadamard(prime: int) -> np.ndarray:
    """Return the Hadamard matrix of order `prime + 1` by Paley's first construction (1933); prime = 3 modulo 4."""
    squares = {pow(value, 2, prime) for value in range(1, prime)}
    residue = np.array([0] + [1 if value in squares else -1 for value in range(1, prime)])
    difference = np.subtract.outer(np.arange(prime), np.arange(prime)) % prime
    matrix = np.ones((prime + 1, prime + 1), dtype=np.int64)
    matrix[1:, 1:] = residue[difference] + np.eye(prime, dtype=np.int64)
    matrix[1:, 0] = -1
    return matrix


class LeNet5(nn.Module):
    """LeNet-5 as published in 1998: exactly 60,000 trainable parameters for one channel at 32x32.

    `output="linear"` puts a dense layer with trainable weights in the place of the RBF units. C5 always covers the
    whole map that reaches it, so other sizes from 16 pixels up work too. Weights start uniform in +-2.4/fan-in
    (appendix A); a subsampling coefficient starts at 1/4, the plain mean of its field.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        input_size: tuple[int, int],
        output: Literal["rbf", "linear"] = "rbf",
    ) -> None:
        super().__init__()
        if output not in ("rbf", "linear"):
            raise ConfigError(f"model.options.output: wanted rbf or linear, found {output!r}")
        last_map = _shrink("lenet5", input_size, convolutions=(5, 5))
        self.c1 = nn.Conv2d(in_channels, 6, 5)
        self.s2 = Subsampling(6)
        self.c3 = TableConv2d(6, C3_TABLE, 5)
        self.s4 = Subsampling(16)
        self.c5 = nn.Conv2d(16, 120, last_map)
        self.f6 = nn.Linear(120, _CODE_LENGTH)
        self.output = RBFOutput(num_classes) if output == "rbf" else nn.Linear(_CODE_LENGTH, num_classes)
        self.squash = ScaledTanh()
        self.apply(_initialize_as_1998)

    def get_classifier(self) -> nn.Module:
        """Return the output layer, as timm's networks do, so that wrappers find it even without weights of its own."""
        return self.output

    def forward(self, x: Float[Tensor, "batch in_channels height width"]) -> Float[Tensor, "batch classes"]:
        for layer in (self.c1, self.s2, self.c3, self.s4, self.c5):
            x = self.squash(layer(x))
        features = self.squash(self.f6(x.flatten(1)))
        logits: Tensor = self.output(features)
        return logits


def _initialize_as_1998(module: nn.Module) -> None:
    """Draw weights uniformly from +-2.4/fan-in and set biases to zero (the paper's appendix A)."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        bound = 2.4 / module.weight[0].numel()
        nn.init.uniform_(module.weight, -bound, bound)
        assert module.bias is not None
        nn.init.zeros_(module.bias)
    elif isinstance(module, TableConv2d):
        kernels = iter(module.weight)
        for fan_in in module.fan_in:
            for _ in range(fan_in // module.weight[0].numel()):
                nn.init.uniform_(next(kernels), -2.4 / fan_in, 2.4 / fan_in)
        nn.init.zeros_(module.bias)
    elif isinstance(module, Subsampling):
        nn.init.constant_(module.coefficient, 0.25)
        nn.init.zeros_(module.bias)


class LeNet300100(nn.Module):
    """The dense net 784-300-100-10 of the paper's section III.C.4, with ReLU as the pruning literature uses it."""

    def __init__(self, num_classes: int, in_channels: int, input_size: tuple[int, int]) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_channels * math.prod(input_size), 300)
        self.fc2 = nn.Linear(300, 100)
        self.fc3 = nn.Linear(100, num_classes)

    def forward(self, x: Float[Tensor, "batch in_channels height width"]) -> Float[Tensor, "batch classes"]:
        x = F.relu(self.fc1(x.flatten(1)))
        logits: Tensor = self.fc3(F.relu(self.fc2(x)))
        return logits


class LeNet5Caffe(nn.Module):
    """The "LeNet-5" of Caffe's MNIST example and of the compression literature: 20-50-500, max-pooling, one ReLU."""

    def __init__(self, num_classes: int, in_channels: int, input_size: tuple[int, int]) -> None:
        super().__init__()
        height, width = _shrink("lenet5_caffe", input_size, convolutions=(5, 5))
        self.conv1 = nn.Conv2d(in_channels, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(50 * height * width, 500)
        self.fc2 = nn.Linear(500, num_classes)

    def forward(self, x: Float[Tensor, "batch in_channels height width"]) -> Float[Tensor, "batch classes"]:
        x = F.max_pool2d(self.conv1(x), 2)
        x = F.max_pool2d(self.conv2(x), 2)
        logits: Tensor = self.fc2(F.relu(self.fc1(x.flatten(1))))
        return logits


class LeNetReLU(nn.Module):
    """The LeNet that is taught today: convolutions of 32 and 64 channels with ReLU and max-pooling, 128 dense units.

    `width` is the number of channels of the first convolution; the second one has twice as many. `batch_norm`
    normalizes the channels that pooling leaves (Ioffe and Szegedy, 2015), after which convolutions need no bias.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        input_size: tuple[int, int],
        *,
        width: int = 32,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        check_count("width", width)
        check_switch("batch_norm", batch_norm)
        rows, columns = _shrink("lenet_relu", input_size, convolutions=(5, 5))
        self.conv1 = nn.Conv2d(in_channels, width, 5, bias=not batch_norm)
        self.conv2 = nn.Conv2d(width, 2 * width, 5, bias=not batch_norm)
        self.bn1 = nn.BatchNorm2d(width) if batch_norm else None
        self.bn2 = nn.BatchNorm2d(2 * width) if batch_norm else None
        self.fc1 = nn.Linear(2 * width * rows * columns, 128)
        self.fc2 = nn.Linear(128, num_classes)

    def forward(self, x: Float[Tensor, "batch in_channels height width"]) -> Float[Tensor, "batch classes"]:
        for convolution, norm in ((self.conv1, self.bn1), (self.conv2, self.bn2)):
            # Pooling before ReLU gives the same values as after it, on a quarter of the values.
            x = F.max_pool2d(convolution(x), 2)
            x = F.relu(x if norm is None else norm(x))
        logits: Tensor = self.fc2(F.relu(self.fc1(x.flatten(1))))
        return logits


class CNNSmall(nn.Module):
    """The articles' smallest network: convolutions 3x3 of 32 and 64 channels, each pooled, and 64 dense units.

    They say that it has one pooling layer; it has two.
    """

    def __init__(self, num_classes: int, in_channels: int, input_size: tuple[int, int]) -> None:
        super().__init__()
        height, width = _shrink("cnn_small", input_size, convolutions=(3, 3))
        self.conv1 = nn.Conv2d(in_channels, 32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.fc1 = nn.Linear(64 * height * width, 64)
        self.fc2 = nn.Linear(64, num_classes)

    def forward(self, x: Float[Tensor, "batch in_channels height width"]) -> Float[Tensor, "batch classes"]:
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
        logits: Tensor = self.fc2(F.relu(self.fc1(x.flatten(1))))
        return logits


class LeNetDeep(nn.Module):
    """The articles' "LeNet-5", mended: three convolutions 5x5 of 20, 50 and 50 channels, each pooled, and 500 dense
    units.

    Theirs does not pad, so that at 28x28 the third convolution meets a map of 4x4 and fails; here each is padded by 2,
    which keeps the size, and any image from 8 pixels up works.
    """

    def __init__(self, num_classes: int, in_channels: int, input_size: tuple[int, int]) -> None:
        super().__init__()
        height, width = _shrink("lenet_deep", input_size, convolutions=(1, 1, 1))
        self.conv1 = nn.Conv2d(in_channels, 20, 5, padding=2)
        self.conv2 = nn.Conv2d(20, 50, 5, padding=2)
        self.conv3 = nn.Conv2d(50, 50, 5, padding=2)
        self.fc1 = nn.Linear(50 * height * width, 500)
        self.fc2 = nn.Linear(500, num_classes)

    def forward(self, x: Float[Tensor, "batch in_channels height width"]) -> Float[Tensor, "batch classes"]:
        for convolution in (self.conv1, self.conv2, self.conv3):
            x = F.relu(F.max_pool2d(convolution(x), 2))
        logits: Tensor = self.fc2(F.relu(self.fc1(x.flatten(1))))
        return logits


def _shrink(name: str, size: tuple[int, int], convolutions: tuple[int, ...]) -> tuple[int, int]:
    """Return the size of a map after unpadded convolutions, each followed by 2x2 pooling.

    Raises ConfigError where nothing would be left, with the smallest size that works.
    """
    smallest = 1
    for kernel in reversed(convolutions):
        smallest = 2 * smallest + kernel - 1
    if min(size) < smallest:
        raise ConfigError(
            f"model.input_size: {name} needs images of at least {smallest}x{smallest} pixels, found {size[0]}x{size[1]}"
        )
    height, width = size
    for kernel in convolutions:
        height, width = (height - kernel + 1) // 2, (width - kernel + 1) // 2
    return height, width
