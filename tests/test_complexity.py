"""Costs against counts worked by hand, as formulas."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from falconet.complexity import Complexity, count_complexity, summarize
from falconet.errors import ConfigError, UnknownNameError

LENGTH, SIZE, HEADS, HIDDEN = 5, 8, 2, 12


class Attention(nn.Module):
    """One sequence attending to itself."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(SIZE, HEADS, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.attention(x, x, x)[0]
        return found


class Listed(nn.Module):
    """Layers in a ModuleList, which is never called itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(SIZE, SIZE), nn.Linear(SIZE, SIZE)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class Broken(nn.Module):
    """Fails halfway."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(SIZE, SIZE)
        self.normalize = nn.BatchNorm1d(SIZE)

    def forward(self, x: Tensor) -> Tensor:
        self.first(x)
        raise RuntimeError("halfway")


class Tokens(nn.Module):
    """Takes tokens that are no padding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SIZE, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        assert x.dtype == torch.int64
        assert x.all()
        vectors: Tensor = self.embedding(x)
        return vectors


def shared_in_one_parent() -> nn.Module:
    layer = nn.Linear(SIZE, SIZE)
    return nn.Sequential(layer, nn.ReLU(), layer)


def shared_between_parents() -> nn.Module:
    layer = nn.Linear(SIZE, SIZE)
    return nn.Sequential(nn.Sequential(layer, nn.Linear(SIZE, SIZE)), nn.Sequential(layer))


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(SIZE, HEADS, HIDDEN, batch_first=True)
    return nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)


ATTENTION = LENGTH * (3 * SIZE * SIZE) + 2 * LENGTH * LENGTH * SIZE + LENGTH * SIZE * SIZE
FEED_FORWARD = 2 * LENGTH * SIZE * HIDDEN
ATTENTION_PARAMS = 4 * (SIZE * SIZE + SIZE)
FEED_FORWARD_PARAMS = 2 * SIZE * HIDDEN + HIDDEN + SIZE

CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int, int]] = {
    "dense": (lambda: nn.Linear(7, 3), (7,), 7 * 3 + 3, 7 * 3),
    "sequential": (lambda: nn.Sequential(nn.Linear(7, 4), nn.ReLU(), nn.Linear(4, 3)), (7,), 32 + 15, 7 * 4 + 4 * 3),
    "convolution": (lambda: nn.Conv2d(3, 8, 3, stride=2, padding=1), (3, 9, 11), 8 * 27 + 8, 8 * 27 * 5 * 6),
    "grouped": (lambda: nn.Conv2d(8, 12, 3, groups=4), (8, 6, 6), 12 * 2 * 9 + 12, 12 * 2 * 9 * 4 * 4),
    "depthwise": (lambda: nn.Conv2d(8, 8, 3, groups=8, bias=False), (8, 6, 6), 8 * 9, 8 * 9 * 4 * 4),
    "sequence convolution": (lambda: nn.Conv1d(4, 6, 3), (4, 10), 6 * 12 + 6, 6 * 12 * 8),
    "normalization": (lambda: nn.BatchNorm2d(4), (4, 3, 3), 8, 0),
    "lstm": (
        lambda: nn.LSTM(SIZE, HIDDEN, num_layers=2, batch_first=True, bidirectional=True),
        (LENGTH, SIZE),
        2 * 4 * HIDDEN * (SIZE + HIDDEN + 2 + 2 * HIDDEN + HIDDEN + 2),
        2 * LENGTH * 4 * HIDDEN * (SIZE + HIDDEN + 2 * HIDDEN + HIDDEN),
    ),
    "gru": (
        lambda: nn.GRU(SIZE, HIDDEN, batch_first=True),
        (LENGTH, SIZE),
        3 * HIDDEN * (SIZE + HIDDEN + 2),
        LENGTH * 3 * HIDDEN * (SIZE + HIDDEN),
    ),
    "rnn": (
        lambda: nn.RNN(SIZE, HIDDEN, batch_first=True),
        (LENGTH, SIZE),
        HIDDEN * (SIZE + HIDDEN + 2),
        LENGTH * HIDDEN * (SIZE + HIDDEN),
    ),
    "relu rnn": (
        lambda: nn.RNN(SIZE, HIDDEN, nonlinearity="relu", batch_first=True),
        (LENGTH, SIZE),
        HIDDEN * (SIZE + HIDDEN + 2),
        LENGTH * HIDDEN * (SIZE + HIDDEN),
    ),
    "attention": (Attention, (LENGTH, SIZE), ATTENTION_PARAMS, ATTENTION),
    "transformer": (
        encoder,
        (LENGTH, SIZE),
        3 * (ATTENTION_PARAMS + FEED_FORWARD_PARAMS + 4 * SIZE),
        3 * (ATTENTION + FEED_FORWARD),
    ),
    "list": (Listed, (SIZE,), 2 * (SIZE * SIZE + SIZE), 2 * SIZE * SIZE),
    "shared in one parent": (shared_in_one_parent, (SIZE,), SIZE * SIZE + SIZE, 2 * SIZE * SIZE),
    "shared between parents": (shared_between_parents, (SIZE,), 2 * (SIZE * SIZE + SIZE), 3 * SIZE * SIZE),
}

every_case = pytest.mark.parametrize(("make", "shape", "params", "macs"), CASES.values(), ids=CASES)


@every_case
def test_cost_by_hand(make: Callable[[], nn.Module], shape: tuple[int, ...], params: int, macs: int) -> None:
    found = count_complexity(make(), shape)
    assert (found.params, found.macs) == (params, macs)
    assert found.input == shape


@every_case
def test_layers_sum_to_the_whole(make: Callable[[], nn.Module], shape: tuple[int, ...], params: int, macs: int) -> None:
    layers = count_complexity(make(), shape).layers
    assert sum(layer.params for layer in layers) == params
    assert sum(layer.macs for layer in layers) == macs
    assert min(layer.macs for layer in layers) >= 0
    assert len({layer.name for layer in layers}) == len(layers)


def by_name(complexity: Complexity) -> dict[str, tuple[str, tuple[int, ...], int, int, int]]:
    return {
        layer.name: (layer.type, layer.output_shape, layer.params, layer.macs, layer.activation_bytes)
        for layer in complexity.layers
    }


def test_layers_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 5))
    found = count_complexity(model, (1, 6, 6))
    assert by_name(found) == {
        "0": ("Conv2d", (2, 4, 4), 20, 2 * 9 * 16, 4 * 32),
        "1": ("ReLU", (2, 4, 4), 0, 0, 4 * 32),
        "2": ("Flatten", (32,), 0, 0, 4 * 32),
        "3": ("Linear", (5,), 165, 160, 4 * 5),
    }
    assert found.activation_bytes == 4 * (3 * 32 + 5)


def test_a_text_is_tokens_that_are_no_padding() -> None:
    found = count_complexity(Tokens(), (LENGTH,), kind="text")
    assert (found.input, found.params, found.macs) == ((LENGTH,), SIZE * HIDDEN, 0)


def test_shared_layer_has_both_calls_and_is_counted_once() -> None:
    found = by_name(count_complexity(shared_between_parents(), (SIZE,)))
    dense = SIZE * SIZE
    assert found == {
        "0.0": ("Linear", (SIZE,), dense + SIZE, 2 * dense, 2 * 4 * SIZE),
        "0.1": ("Linear", (SIZE,), dense + SIZE, dense, 4 * SIZE),
    }


def test_attention_lists_the_projection_that_it_reads_without_calling() -> None:
    found = by_name(count_complexity(Attention(), (LENGTH, SIZE)))
    assert found["attention"][1:4] == ((LENGTH, SIZE), 3 * (SIZE * SIZE + SIZE), ATTENTION)
    assert found["attention.out_proj"][1:] == ((), SIZE * SIZE + SIZE, 0, 0)


def test_shared_weight_is_counted_once() -> None:
    model = Listed()
    model.layers[1].weight = model.layers[0].weight
    found = count_complexity(model, (SIZE,))
    assert found.params == sum(layer.params for layer in found.layers) == SIZE * SIZE + 2 * SIZE


def test_frozen_parameters_are_not_trainable() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    model[0].requires_grad_(False)
    found = count_complexity(model, (4,))
    assert found.params == sum(layer.params for layer in found.layers) == 3 * 2 + 2
    assert found.macs == 4 * 3 + 3 * 2


def flags() -> tuple[bool, ...]:
    return (
        bool(torch.backends.mkldnn.enabled),
        torch.backends.mha.get_fastpath_enabled(),
        torch.backends.cuda.flash_sdp_enabled(),  # type: ignore[no-untyped-call]
        torch.backends.cuda.math_sdp_enabled(),  # type: ignore[no-untyped-call]
        torch.is_grad_enabled(),
    )


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


@pytest.fixture(params=[True, False], ids=["on", "off"])
def switches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set torch's global switches, so that a test knows what must be there afterwards."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(request.param)
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", request.param)
    yield
    torch.backends.mha.set_fastpath_enabled(fast_path)


@pytest.mark.usefixtures("switches")
@pytest.mark.parametrize("training", [True, False])
def test_everything_is_left_as_it_was(training: bool) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout()).train(training)
    model[1].train(not training)
    before = flags(), modes(model)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    count_complexity(model, (1, 8, 8))
    assert (flags(), modes(model)) == before
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.usefixtures("switches")
@pytest.mark.parametrize("training", [True, False])
def test_everything_is_left_as_it_was_after_a_failure(training: bool) -> None:
    model = Broken().train(training)
    before = flags(), modes(model)
    with pytest.raises(RuntimeError, match="halfway"):
        count_complexity(model, (SIZE,))
    assert (flags(), modes(model)) == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_cost_is_the_same_in_training_and_eval_mode() -> None:
    model = encoder()
    assert count_complexity(model.train(), (LENGTH, SIZE)) == count_complexity(model.eval(), (LENGTH, SIZE))


def test_summarize_takes_the_published_shape_and_classes() -> None:
    found = summarize("lenet300_100")
    assert (found.model, found.input) == ("lenet300_100", (1, 28, 28))
    assert (found.params, found.macs) == (266_610, 784 * 300 + 300 * 100 + 100 * 10)


def test_summarize_takes_other_shapes_classes_and_options() -> None:
    found = summarize("lenet300_100", input_shape=(3, 8, 10), num_classes=4)
    assert found.macs == 240 * 300 + 300 * 100 + 100 * 4
    assert summarize("lenet5", num_classes=7, output="linear").params == 60_000 + 84 * 7 + 7


def test_summarize_takes_texts() -> None:
    found = summarize("gru", input_shape=(SIZE, LENGTH), num_classes=3, hidden=HIDDEN, embedding=7)
    assert (found.model, found.input) == ("gru", (LENGTH,))
    assert found.params == SIZE * 7 + 3 * HIDDEN * (7 + HIDDEN + 2) + (HIDDEN + 1) * 3
    assert found.macs == LENGTH * 3 * HIDDEN * (7 + HIDDEN) + HIDDEN * 3


def test_summarize_takes_series() -> None:
    shape = (SIZE, LENGTH)
    found = summarize("lstm", input_shape=shape, kind="series", num_classes=3, hidden=HIDDEN, embedding=7)
    assert found.input == shape
    assert found.params == (SIZE + 1) * 7 + 4 * HIDDEN * (7 + HIDDEN + 2) + (HIDDEN + 1) * 3
    assert found.macs == LENGTH * (SIZE * 7 + 4 * HIDDEN * (7 + HIDDEN)) + HIDDEN * 3


def test_summarize_needs_a_shape_where_none_is_native_and_a_kind_that_fits() -> None:
    with pytest.raises(ConfigError, match="gru has no native series input"):
        summarize("gru", kind="series")
    with pytest.raises(ConfigError, match="lenet5 takes image, not series"):
        summarize("lenet5", kind="series", input_shape=(1, 28))


def test_summarize_leaves_the_generator_alone() -> None:
    before = torch.get_rng_state()
    summarize("lenet300_100")
    assert torch.equal(torch.get_rng_state(), before)


def test_summarize_unknown_model() -> None:
    with pytest.raises(UnknownNameError, match="did you mean lenet5"):
        summarize("lenet6")
