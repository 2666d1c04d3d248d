"""MODELS, the one table of architectures. Importing it does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from falconet.spec import ModalityName


@dataclass(frozen=True)
class ModelEntry:
    """One line of the table."""

    builder: str
    """`module:class`; the class takes `num_classes`, `in_channels`, `input_size` and the architecture's own options.

    Where the model takes several kinds, it also takes `kind`.
    """

    input: tuple[int, ...]
    """Native input of the model's first kind.

    Channels, height and width in pixels; channels and steps; or, of a text, vocabulary size and tokens.
    """

    num_classes: int
    """Number of classes for which `params` and `macs` are given."""

    params: int | None
    """Trainable parameters at the native input, as published; None: not counted, for another library's network."""

    macs: int | None
    """Multiply-accumulates of convolutions and matrix products for one native input (see `falconet.complexity`)."""

    classifier: str | None
    """Name of the layer that outputs the logits.

    None: another library's network; see `falconet.models.info.find_classifiers`.
    """

    paper: str
    """Source of the architecture."""

    padding: int = 0
    """Pixels on each side of the native input that are background: an image is scaled to what lies inside."""

    resizable: bool = False
    """Whether images are taken at their own size, up to the native one, where no size is asked for."""

    kinds: tuple[ModalityName, ...] = ("image",)
    """Kinds of samples that the model takes."""

    vocab_size: int = 8000
    """Largest vocabulary size by default; 258: each byte is a token."""

    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Options of the builder that make this member of its family; users cannot set them."""

    defaults: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Defaults of options that differ from the builder's own."""


_LECUN_1998 = (
    "LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition. Proc. IEEE, 1998"
)
_TAN_LE_2019 = "Tan, Le: EfficientNet: rethinking model scaling for convolutional neural networks. ICML, 2019"
_LIU_2020 = "Liu: Higher accuracy on vision models with EfficientNet-Lite. TensorFlow blog, 2020"
_HE_2016 = "He, Zhang, Ren, Sun: Deep residual learning for image recognition. CVPR, 2016"
_IANDOLA_2016 = (
    "Iandola et al.: SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size. 2016"
)

MODELS: Mapping[str, ModelEntry] = MappingProxyType(
    {
        "lenet300_100": ModelEntry(
            builder="falconet.models.lenet:LeNet300100",
            input=(1, 28, 28),
            num_classes=10,
            params=266_610,
            macs=266_200,
            classifier="fc3",
            paper=_LECUN_1998,
        ),
        "lenet5": ModelEntry(
            builder="falconet.models.lenet:LeNet5",
            input=(1, 32, 32),
            padding=2,
            num_classes=10,
            params=60_000,
            macs=416_520,
            classifier="output",
            paper=_LECUN_1998,
        ),
        "lenet5_caffe": ModelEntry(
            builder="falconet.models.lenet:LeNet5Caffe",
            input=(1, 28, 28),
            num_classes=10,
            params=431_080,
            macs=2_293_000,
            classifier="fc2",
            paper="Jia et al.: Caffe: convolutional architecture for fast feature embedding. ACM Multimedia, 2014",
        ),
        "lenet_relu": ModelEntry(
            builder="falconet.models.lenet:LeNetReLU",
            input=(1, 28, 28),
            num_classes=10,
            params=184_586,
            macs=3_869_952,
            classifier="fc2",
            paper="after LeCun et al., 1998, as taught today: ReLU, max-pooling, dense output",
        ),
        "cnn_small": ModelEntry(
            builder="falconet.models.lenet:CNNSmall",
            input=(1, 28, 28),
            num_classes=10,
            params=121_930,
            macs=2_528_000,
            classifier="fc2",
            paper="after LeCun et al., 1998: the smallest network of the teaching articles",
        ),
        "lenet_deep": ModelEntry(
            builder="falconet.models.lenet:LeNetDeep",
            input=(1, 28, 28),
            num_classes=10,
            params=318_630,
            macs=8_584_500,
            classifier="fc2",
            paper="after LeCun et al., 1998: the deepest LeNet of the teaching articles, mended",
        ),
        "alexnet": ModelEntry(
            builder="falconet.models.alexnet:AlexNet",
            input=(3, 224, 224),
            resizable=True,
            num_classes=1000,
            params=61_100_840,
            macs=714_188_480,
            classifier="classifier.6",
            paper="Krizhevsky: One weird trick for parallelizing convolutional neural networks. 2014",
        ),
        "squeezenet1_0": ModelEntry(
            builder="falconet.models.squeezenet:SqueezeNet",
            input=(3, 224, 224),
            resizable=True,
            num_classes=1000,
            params=1_248_424,
            macs=818_924_576,
            classifier="classifier.1",
            paper=_IANDOLA_2016,
            options=MappingProxyType({"version": "1_0", "squeeze_excitation": False}),
        ),
        "squeezenet1_1": ModelEntry(
            builder="falconet.models.squeezenet:SqueezeNet",
            input=(3, 224, 224),
            resizable=True,
            num_classes=1000,
            params=1_235_496,
            macs=349_151_936,
            classifier="classifier.1",
            paper=_IANDOLA_2016,
            options=MappingProxyType({"version": "1_1", "squeeze_excitation": False}),
        ),
        "squeezenet_se": ModelEntry(
            builder="falconet.models.squeezenet:SqueezeNet",
            input=(3, 224, 224),
            resizable=True,
            num_classes=1000,
            params=1_361_096,
            macs=349_274_816,
            classifier="classifier.1",
            paper=_IANDOLA_2016,
            options=MappingProxyType({"version": "1_1", "squeeze_excitation": True}),
        ),
        "resnet18": ModelEntry(
            builder="falconet.models.resnet:ResNet",
            input=(3, 224, 224),
            resizable=True,
            num_classes=1000,
            params=11_689_512,
            macs=1_814_073_344,
            classifier="fc",
            paper=_HE_2016,
            options=MappingProxyType({"blocks": (2, 2, 2, 2), "bottleneck": False, "padded": False}),
        ),
        "resnet34": ModelEntry(
            builder="falconet.models.resnet:ResNet",
            input=(3, 224, 224),
            resizable=True,
            num_classes=1000,
            params=21_797_672,
            macs=3_663_761_408,
            classifier="fc",
            paper=_HE_2016,
            options=MappingProxyType({"blocks": (3, 4, 6, 3), "bottleneck": False, "padded": False}),
        ),
        "resnet50": ModelEntry(
            builder="falconet.models.resnet:ResNet",
            input=(3, 224, 224),
            resizable=True,
            num_classes=1000,
            params=25_557_032,
            macs=4_089_184_256,
            classifier="fc",
            paper=_HE_2016,
            options=MappingProxyType({"blocks": (3, 4, 6, 3), "bottleneck": True, "padded": False}),
        ),
        "resnet101": ModelEntry(
            builder="falconet.models.resnet:ResNet",
            input=(3, 224, 224),
            resizable=True,
            num_classes=1000,
            params=44_549_160,
            macs=7_801_405_440,
            classifier="fc",
            paper=_HE_2016,
            options=MappingProxyType({"blocks": (3, 4, 23, 3), "bottleneck": True, "padded": False}),
        ),
        "resnet152": ModelEntry(
            builder="falconet.models.resnet:ResNet",
            input=(3, 224, 224),
            resizable=True,
            num_classes=1000,
            params=60_192_808,
            macs=11_513_626_624,
            classifier="fc",
            paper=_HE_2016,
            options=MappingProxyType({"blocks": (3, 8, 36, 3), "bottleneck": True, "padded": False}),
        ),
        "resnet20": ModelEntry(
            builder="falconet.models.resnet:ResNet",
            input=(3, 32, 32),
            resizable=True,
            num_classes=10,
            params=269_722,
            macs=40_551_040,
            classifier="fc",
            paper=_HE_2016,
            options=MappingProxyType({"blocks": (3, 3, 3), "bottleneck": False, "padded": True, "stem": "small"}),
        ),
        "resnet32": ModelEntry(
            builder="falconet.models.resnet:ResNet",
            input=(3, 32, 32),
            resizable=True,
            num_classes=10,
            params=464_154,
            macs=68_862_592,
            classifier="fc",
            paper=_HE_2016,
            options=MappingProxyType({"blocks": (5, 5, 5), "bottleneck": False, "padded": True, "stem": "small"}),
        ),
        "resnet44": ModelEntry(
            builder="falconet.models.resnet:ResNet",
            input=(3, 32, 32),
            resizable=True,
            num_classes=10,
            params=658_586,
            macs=97_174_144,
            classifier="fc",
            paper=_HE_2016,
            options=MappingProxyType({"blocks": (7, 7, 7), "bottleneck": False, "padded": True, "stem": "small"}),
        ),
        "resnet56": ModelEntry(
            builder="falconet.models.resnet:ResNet",
            input=(3, 32, 32),
            resizable=True,
            num_classes=10,
            params=853_018,
            macs=125_485_696,
            classifier="fc",
            paper=_HE_2016,
            options=MappingProxyType({"blocks": (9, 9, 9), "bottleneck": False, "padded": True, "stem": "small"}),
        ),
        "resnet110": ModelEntry(
            builder="falconet.models.resnet:ResNet",
            input=(3, 32, 32),
            resizable=True,
            num_classes=10,
            params=1_727_962,
            macs=252_887_680,
            classifier="fc",
            paper=_HE_2016,
            options=MappingProxyType({"blocks": (18, 18, 18), "bottleneck": False, "padded": True, "stem": "small"}),
        ),
        "efficientnet": ModelEntry(
            builder="falconet.models.efficientnet:EfficientNet",
            input=(3, 224, 224),
            resizable=True,
            num_classes=1000,
            params=5_288_548,
            macs=385_814_752,
            classifier="classifier.1",
            paper=_TAN_LE_2019,
            options=MappingProxyType({"width": 1.0, "depth": 1.0, "lite": False}),
        ),
        "efficientnet_b0": ModelEntry(
            builder="falconet.models.efficientnet:EfficientNet",
            input=(3, 224, 224),
            resizable=True,
            num_classes=1000,
            params=5_288_548,
            macs=385_814_752,
            classifier="classifier.1",
            paper=_TAN_LE_2019,
            options=MappingProxyType({"width": 1.0, "depth": 1.0, "lite": False, "phi": None}),
        ),
        "efficientnet_b1": ModelEntry(
            builder="falconet.models.efficientnet:EfficientNet",
            input=(3, 240, 240),
            resizable=True,
            num_classes=1000,
            params=7_794_184,
            macs=686_802_832,
            classifier="classifier.1",
            paper=_TAN_LE_2019,
            options=MappingProxyType({"width": 1.0, "depth": 1.1, "lite": False, "phi": None}),
        ),
        "efficientnet_b2": ModelEntry(
            builder="falconet.models.efficientnet:EfficientNet",
            input=(3, 260, 260),
            resizable=True,
            num_classes=1000,
            params=9_109_994,
            macs=993_561_872,
            classifier="classifier.1",
            paper=_TAN_LE_2019,
            options=MappingProxyType({"width": 1.1, "depth": 1.2, "lite": False, "phi": None}),
            defaults=MappingProxyType({"dropout": 0.3}),
        ),
        "efficientnet_b3": ModelEntry(
            builder="falconet.models.efficientnet:EfficientNet",
            input=(3, 300, 300),
            resizable=True,
            num_classes=1000,
            params=12_233_232,
            macs=1_827_141_392,
            classifier="classifier.1",
            paper=_TAN_LE_2019,
            options=MappingProxyType({"width": 1.2, "depth": 1.4, "lite": False, "phi": None}),
            defaults=MappingProxyType({"dropout": 0.3}),
        ),
        "efficientnet_b4": ModelEntry(
            builder="falconet.models.efficientnet:EfficientNet",
            input=(3, 380, 380),
            resizable=True,
            num_classes=1000,
            params=19_341_616,
            macs=4_393_771_024,
            classifier="classifier.1",
            paper=_TAN_LE_2019,
            options=MappingProxyType({"width": 1.4, "depth": 1.8, "lite": False, "phi": None}),
            defaults=MappingProxyType({"dropout": 0.4}),
        ),
        "efficientnet_b5": ModelEntry(
            builder="falconet.models.efficientnet:EfficientNet",
            input=(3, 456, 456),
            resizable=True,
            num_classes=1000,
            params=30_389_784,
            macs=10_266_384_752,
            classifier="classifier.1",
            paper=_TAN_LE_2019,
            options=MappingProxyType({"width": 1.6, "depth": 2.2, "lite": False, "phi": None}),
            defaults=MappingProxyType({"dropout": 0.4, "norm_eps": 0.001}),
        ),
        "efficientnet_b6": ModelEntry(
            builder="falconet.models.efficientnet:EfficientNet",
            input=(3, 528, 528),
            resizable=True,
            num_classes=1000,
            params=43_040_704,
            macs=19_067_593_536,
            classifier="classifier.1",
            paper=_TAN_LE_2019,
            options=MappingProxyType({"width": 1.8, "depth": 2.6, "lite": False, "phi": None}),
            defaults=MappingProxyType({"dropout": 0.5, "norm_eps": 0.001}),
        ),
        "efficientnet_b7": ModelEntry(
            builder="falconet.models.efficientnet:EfficientNet",
            input=(3, 600, 600),
            resizable=True,
            num_classes=1000,
            params=66_347_960,
            macs=37_745_884_192,
            classifier="classifier.1",
            paper=_TAN_LE_2019,
            options=MappingProxyType({"width": 2.0, "depth": 3.1, "lite": False, "phi": None}),
            defaults=MappingProxyType({"dropout": 0.5, "norm_eps": 0.001}),
        ),
        "efficientnet_lite0": ModelEntry(
            builder="falconet.models.efficientnet:EfficientNet",
            input=(3, 224, 224),
            resizable=True,
            num_classes=1000,
            params=4_652_008,
            macs=385_187_552,
            classifier="classifier.1",
            paper=_LIU_2020,
            options=MappingProxyType({"width": 1.0, "depth": 1.0, "lite": True, "phi": None}),
        ),
        "efficientnet_lite1": ModelEntry(
            builder="falconet.models.efficientnet:EfficientNet",
            input=(3, 240, 240),
            resizable=True,
            num_classes=1000,
            params=5_416_680,
            macs=600_185_232,
            classifier="classifier.1",
            paper=_LIU_2020,
            options=MappingProxyType({"width": 1.0, "depth": 1.1, "lite": True, "phi": None}),
        ),
        "efficientnet_lite2": ModelEntry(
            builder="falconet.models.efficientnet:EfficientNet",
            input=(3, 260, 260),
            resizable=True,
            num_classes=1000,
            params=6_092_072,
            macs=859_736_272,
            classifier="classifier.1",
            paper=_LIU_2020,
            options=MappingProxyType({"width": 1.1, "depth": 1.2, "lite": True, "phi": None}),
            defaults=MappingProxyType({"dropout": 0.3}),
        ),
        "efficientnet_lite3": ModelEntry(
            builder="falconet.models.efficientnet:EfficientNet",
            input=(3, 280, 280),
            resizable=True,
            num_classes=1000,
            params=8_197_096,
            macs=1_383_321_872,
            classifier="classifier.1",
            paper=_LIU_2020,
            options=MappingProxyType({"width": 1.2, "depth": 1.4, "lite": True, "phi": None}),
            defaults=MappingProxyType({"dropout": 0.3}),
        ),
        "efficientnet_lite4": ModelEntry(
            builder="falconet.models.efficientnet:EfficientNet",
            input=(3, 300, 300),
            resizable=True,
            num_classes=1000,
            params=13_006_568,
            macs=2_553_034_336,
            classifier="classifier.1",
            paper=_LIU_2020,
            options=MappingProxyType({"width": 1.4, "depth": 1.8, "lite": True, "phi": None}),
            defaults=MappingProxyType({"dropout": 0.3}),
        ),
        "rnn": ModelEntry(
            builder="falconet.models.recurrent:Recurrent",
            input=(8000, 128),
            kinds=("text", "series", "image"),
            num_classes=2,
            params=537_090,
            macs=3_145_984,
            classifier="output",
            paper="Elman: Finding structure in time. Cognitive Science, 1990",
            options=MappingProxyType({"cell": "rnn"}),
        ),
        "lstm": ModelEntry(
            builder="falconet.models.recurrent:Recurrent",
            input=(8000, 128),
            kinds=("text", "series", "image"),
            num_classes=2,
            params=611_586,
            macs=12_583_168,
            classifier="output",
            paper="Hochreiter, Schmidhuber: Long short-term memory. Neural Computation, 1997",
            options=MappingProxyType({"cell": "lstm", "nonlinearity": "tanh"}),
        ),
        "gru": ModelEntry(
            builder="falconet.models.recurrent:Recurrent",
            input=(8000, 128),
            kinds=("text", "series", "image"),
            num_classes=2,
            params=586_754,
            macs=9_437_440,
            classifier="output",
            paper="Cho et al.: Learning phrase representations using RNN encoder-decoder. EMNLP, 2014",
            options=MappingProxyType({"cell": "gru", "nonlinearity": "tanh"}),
        ),
        "transformer": ModelEntry(
            builder="falconet.models.transformer:Transformer",
            input=(8000, 128),
            kinds=("text", "series", "image"),
            num_classes=2,
            params=579_202,
            macs=12_583_040,
            classifier="output",
            paper="Vaswani et al.: Attention is all you need. NeurIPS, 2017",
        ),
        "resnet1d18": ModelEntry(
            builder="falconet.models.resnet:ResNet1d",
            input=(1, 1024),
            kinds=("series", "text"),
            num_classes=10,
            params=3_849_034,
            macs=174_298_112,
            classifier="fc",
            paper="Wang, Yan, Oates: Time series classification from scratch with deep neural networks. IJCNN, 2017",
            options=MappingProxyType({"blocks": (2, 2, 2, 2)}),
        ),
        "linear": ModelEntry(
            builder="falconet.models.linear:Linear",
            input=(1, 28, 28),
            kinds=("image", "series", "text"),
            vocab_size=258,
            num_classes=10,
            params=7_850,
            macs=7_840,
            classifier="output",
            paper="Cox: The regression analysis of binary sequences. Journal of the Royal Statistical Society B, 1958",
        ),
        "minirocket": ModelEntry(
            builder="falconet.models.minirocket:MiniRocket",
            input=(1, 1024),
            kinds=("series",),
            num_classes=10,
            params=99_970,
            macs=17_303_160,
            classifier="output",
            paper="Dempster, Schmidt, Webb: MiniRocket: a very fast (almost) deterministic transform. KDD, 2021",
        ),
        "ngrams": ModelEntry(
            builder="falconet.models.ngrams:NGrams",
            input=(8000, 128),
            kinds=("text",),
            num_classes=2,
            params=1_560_706,
            macs=128,
            classifier="output",
            paper="Joulin, Grave, Bojanowski, Mikolov: Bag of tricks for efficient text classification. EACL, 2017",
        ),
        "minilm": ModelEntry(
            builder="falconet.models.minilm:MiniLM",
            input=(30_522, 256),
            kinds=("text",),
            num_classes=2,
            params=22_565_378,
            macs=3_019_899_648,
            classifier="output",
            paper="Wang et al.: MiniLM: deep self-attention distillation for task-agnostic compression. NeurIPS, 2020",
        ),
    }
)
