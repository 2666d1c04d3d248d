"""The preset dictionary of deflate for headers and names: part of the format, never to be changed.

The likeliest bytes come last, where the distance is least.
"""

_MATRIX, _KERNEL, _IMAGES = b"\0\x0a\x02", b"\0\x0a\x03", b"\0\x0a\x04"
"""Bytes after the name of a float32 tensor, before its sizes: end of the name, type, and two, three or four axes."""
_VECTOR, _COUNTER = b"\0\x0a\x01", b"\0\x08\x00"
"""Bytes after the name of a float32 vector, and of a scalar int64."""


def _list_entries(width: bytes, names: str) -> bytes:
    """Return entries as a file has them: names of weights and what follows them; `~` begins a batch normalization."""
    return b"".join(map(_write_entry, names.split(), [width] * len(names.split())))


def _write_entry(name: str, width: bytes) -> bytes:
    if name.startswith("~"):
        ends = (".weight", ".bias", ".running_mean", ".running_var")
        vectors = [name[1:].encode() + end.encode() + _VECTOR + width for end in ends]
        return b"".join(vectors) + name[1:].encode() + b".num_batches_tracked" + _COUNTER
    if "norm" in name:
        return name.encode() + b".weight" + _VECTOR + width + name.encode() + b".bias" + _VECTOR + width
    axes = _MATRIX if any(part in name for part in ("fc", "qkv", "projection", "output")) else _IMAGES
    return name.encode() + b".weight" + axes + width + name.encode() + b".bias" + _VECTOR + width


DICTIONARY = b"".join(
    [
        b"tanhrelugelusilutrapezoidhiddenwidthdepthlayersheadsdropoutbidirectionalprojectiontruefalsenull",
        b"encoder.embedding.weight"
        + _MATRIX
        + b"layers.0.ahead.weight_ih_l0"
        + _MATRIX
        + b"layers.0.ahead.weight_hh_l0",
        _MATRIX + b"layers.0.ahead.bias_ih_l0" + _VECTOR + b"layers.0.ahead.bias_hh_l0" + _VECTOR,
        b"lenet300_100squeezenet1_0squeezenet1_1squeezenet_selenet_deepcnn_smallalexnetrnnlstmgrutransformer",
        b"resnet18resnet34resnet50resnet101resnet1d18efficientnet_b0efficientnet_lite0",
        b'"group":null,"kept":{"channels":{"heads":{"groups":',
        b'{"architecture":"resnet20","format_version":1,"input":{"dtype":"str","kind":"text","labels":["negative",',
        b'"positive"],"shape":[64],"vocab_size":8000},"dtype":"float32","kind":"series","rate":16000,"bands":40,',
        b'"fit":"pad","resample","kind":"image","labels":["airplane","automobile","bird","cat","deer","dog","frog",',
        b'"horse","ship","truck"],"margin":0,"mean":[0.4914,0.4822,0.4465],"shape":[3,32,32],"std":[0.247,0.2435,0.2616]}',
        b'"mean":[0.485,0.456,0.406],"shape":[3,224,224],"std":[0.229,0.224,0.225]},"options":{"channels":[',
        b'"provenance":{"best_epoch":1,"data":{"columns":{"group":null,"label":null,"path":null,"series":null,',
        b'"split":null,"text":null,"time":null},"fingerprint":"","follow":false,"kind":null,"source":"cifar10',
        b'fashion-mnistdigits","split_seed":0,"test_fraction":0.2,"val_fraction":0.1},"epochs":100,"recipe":null,',
        b'"seed":0},"task":"classification","temperature":1.0,"tokenizer":null,"versions":{"falconet":"0.1.0",',
        b'"numpy":"2.","pillow":"1","python":"3.1","torch":"2."},"widths":null}\0',
        _list_entries(b"\x40", "blocks.0.norm1 blocks.0.attention.qkv blocks.0.attention.projection blocks.0.norm2"),
        _list_entries(b"\x40", "blocks.0.fc1 blocks.0.fc2 norm output s2.coefficient c3 c5 f6"),
        _list_entries(b"\x20", "features.0.0 ~features.0.1 features.1.0.block.0.0 ~features.1.0.block.0.1"),
        _list_entries(b"\x20", "features.1.0.block.1.fc1 features.1.0.block.1.fc2 features.2.0.block.2.0"),
        _list_entries(b"\x10", "features.0 features.3.squeeze features.3.expand1x1 features.3.expand3x3 classifier.1"),
        _list_entries(b"\x40", "layer4.0.conv3 ~layer4.0.bn3 layer2.0.downsample.0 ~layer2.0.downsample.1"),
        _list_entries(b"\x10", "conv1 ~bn1 layer1.0.conv1 ~layer1.0.bn1 layer1.0.conv2 ~layer1.0.bn2 fc"),
        b'{"architecture":"lenet_relulenet5lenet5_caffe","format_version":1,"input":{"dtype":"uint8","kind":"image",',
        b'"labels":["0","1","2","3","4","5","6","7","8","9"],"margin":0,"mean":[0.1307],"shape":[1,28,28],',
        b'"std":[0.3081]},"options":{},"task":"classification","temperature":1.0,"widths":{}}\0',
        _list_entries(b"\x0a", "conv1 conv2 fc1 fc2"),
    ]
)
