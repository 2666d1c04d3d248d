"""Recurrent networks against torch's packed sequences, formulas worked by hand, and tasks that they must learn."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from falconet.complexity import count_complexity
from falconet.errors import UnknownNameError
from falconet.models import create_model
from falconet.models.recurrent import Recurrent, reverse
from falconet.models.sequences import measure_lengths
from falconet.spec import ModalityName

VOCABULARY, CHANNELS, STEPS, CLASSES = 30, 3, 11, 4
HIDDEN, WIDTH = 6, 5
GATES = {"rnn": 1, "lstm": 4, "gru": 3}
LENGTHS = (11, 1, 7, 2, 10)

every_cell = pytest.mark.parametrize("cell", GATES)
every_kind = pytest.mark.parametrize("kind", ["text", "series"])
every_direction = pytest.mark.parametrize("bidirectional", [False, True])
every_pooling = pytest.mark.parametrize("pooling", ["mean", "last"])


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def build(cell: str, kind: ModalityName, **options: Any) -> Recurrent:
    channels = VOCABULARY if kind == "text" else CHANNELS
    model = create_model(
        cell,
        num_classes=CLASSES,
        kind=kind,
        **{"in_channels": channels, "input_size": STEPS, "hidden": HIDDEN, "embedding": WIDTH, **options},
    )
    assert isinstance(model, Recurrent)
    return model.eval()


def draw(kind: ModalityName, lengths: tuple[int, ...] = LENGTHS, steps: int = STEPS) -> Tensor:
    """Return a batch of samples of these lengths."""
    padding = torch.arange(steps) >= torch.tensor(lengths)[:, None]
    if kind == "text":
        return torch.randint(1, VOCABULARY, (len(lengths), steps)).masked_fill(padding, 0)
    return torch.randn(len(lengths), CHANNELS, steps).masked_fill(padding[:, None], torch.nan)


def pad(x: Tensor, count: int) -> Tensor:
    filling = torch.nan if x.is_floating_point() else 0
    return torch.cat([x, torch.full((*x.shape[:-1], count), filling, dtype=x.dtype)], dim=-1)


def transplant(model: Recurrent, cell: str, layers: int, bidirectional: bool) -> nn.RNNBase:
    """Return torch's own network of several layers and directions, with the same weights."""
    kinds = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
    peer: nn.RNNBase = kinds[cell](WIDTH, HIDDEN, layers, batch_first=True, bidirectional=bidirectional)
    weights = {}
    for name, value in model.layers.state_dict().items():
        layer, direction, parameter = name.split(".")
        weights[parameter.replace("l0", f"l{layer}") + ("_reverse" if direction == "back" else "")] = value
    peer.load_state_dict(weights)
    return peer


@every_cell
@every_kind
@every_direction
@pytest.mark.parametrize("layers", [1, 2])
def test_mean_and_last_are_those_of_packed_sequences(
    cell: str, kind: ModalityName, bidirectional: bool, layers: int
) -> None:
    model = build(cell, kind, bidirectional=bidirectional, layers=layers)
    model.output = nn.Identity()  # type: ignore[assignment]
    peer, x, lengths = transplant(model, cell, layers, bidirectional), draw(kind), torch.tensor(LENGTHS)
    if kind == "text":
        vectors = nn.functional.embedding(x, model.encoder.embedding.weight)  # type: ignore[union-attr,arg-type]
    else:
        vectors = model.encoder.projection(x.nan_to_num().mT)  # type: ignore[operator]
    packed = pack_padded_sequence(vectors, lengths, batch_first=True, enforce_sorted=False)
    states, final = peer(packed)
    states = pad_packed_sequence(states, batch_first=True)[0]
    final = final[0] if isinstance(final, tuple) else final
    ends = final[-2:].transpose(0, 1).flatten(1) if bidirectional else final[-1]
    torch.testing.assert_close(model(x), states.sum(dim=1) / lengths[:, None], rtol=0, atol=1e-6)
    model.pooling = "last"
    torch.testing.assert_close(model(x), ends, rtol=0, atol=1e-6)


@every_cell
@every_kind
@every_direction
@every_pooling
def test_padding_changes_nothing(cell: str, kind: ModalityName, bidirectional: bool, pooling: str) -> None:
    model = build(cell, kind, bidirectional=bidirectional, pooling=pooling, layers=2)
    x = draw(kind, (*LENGTHS, 0))
    together = model(x)
    torch.testing.assert_close(model(pad(x, 9)), together, rtol=0, atol=1e-6)
    alone = [model(x[index : index + 1, ..., : max(length, 1)]) for index, length in enumerate((*LENGTHS, 0))]
    torch.testing.assert_close(torch.cat(alone), together, rtol=0, atol=1e-6)
    torch.testing.assert_close(model(x.flip(0)), together.flip(0), rtol=0, atol=1e-6)


@every_cell
@every_kind
@every_direction
@every_pooling
def test_empty_samples_have_finite_logits_and_gradients(
    cell: str, kind: ModalityName, bidirectional: bool, pooling: str
) -> None:
    model = build(cell, kind, bidirectional=bidirectional, pooling=pooling)
    logits = model(draw(kind, (0, 4, 0)))
    assert logits.isfinite().all()
    torch.testing.assert_close(logits[0], logits[2], rtol=0, atol=1e-6)
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@every_cell
@every_kind
def test_every_true_step_counts(cell: str, kind: ModalityName) -> None:
    model = build(cell, kind, bidirectional=True)
    x = draw(kind, (5,))
    for step in range(5):
        changed = x.clone()
        changed[..., step] = changed[..., step] % (VOCABULARY - 1) + 1
        assert not torch.equal(model(changed), model(x))


@every_cell
@every_direction
@every_pooling
@torch.no_grad()
def test_image_is_the_series_of_its_rows(cell: str, bidirectional: bool, pooling: str) -> None:
    rows, columns = 6, 4
    options: dict[str, Any] = {"bidirectional": bidirectional, "pooling": pooling, "layers": 2}
    model = build(cell, "image", input_size=(rows, columns), **options)
    peer = build(cell, "series", in_channels=CHANNELS * columns, input_size=rows, **options)
    peer.load_state_dict(model.state_dict())
    images = torch.randn(5, CHANNELS, rows, columns)
    series = torch.stack([images[:, :, row].flatten(1) for row in range(rows)], dim=2)
    torch.testing.assert_close(model(images), peer(series), rtol=0, atol=1e-6)


@torch.no_grad()
def test_images_of_more_rows_are_taken_and_those_of_more_columns_are_not() -> None:
    model = build("gru", "image", input_size=(6, 4))
    assert model(torch.randn(2, CHANNELS, 9, 4)).shape == (2, CLASSES)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        model(torch.randn(2, CHANNELS, 6, 5))


@torch.no_grad()
def test_black_rows_of_an_image_count() -> None:
    model = build("gru", "image", input_size=(6, 4))
    image = torch.randn(1, CHANNELS, 6, 4)
    image[:, :, 3:] = 0
    assert not torch.allclose(model(image), model(image[:, :, :3]), rtol=0, atol=1e-4)


def test_value_missing_within_a_series_is_the_mean() -> None:
    model, series = build("gru", "series", bidirectional=True), draw("series", (7, 4))
    holes, filled = series.clone(), series.clone()
    holes[0, :, 2], holes[1, 1, 3] = torch.nan, torch.nan
    filled[0, :, 2], filled[1, 1, 3] = 0.0, 0.0
    assert torch.equal(model(holes), model(filled))


def test_padding_state_that_overflows_stays_out() -> None:
    model = build("rnn", "series", nonlinearity="relu")
    with torch.no_grad():
        model.layers[0].ahead.weight_hh_l0.copy_(torch.eye(HIDDEN) * 1e30)  # type: ignore[union-attr,operator]
    assert model(draw("series", (1, 0))).isfinite().all()


@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.integers(0, 3))
@settings(deadline=None)
def test_reverse_turns_true_steps_around(lengths: list[int], more: int) -> None:
    steps = 6 + more
    x = torch.arange(1.0, len(lengths) * steps + 1).view(len(lengths), steps, 1)
    turned = reverse(x, torch.tensor(lengths))
    for row, found, length in zip(x[..., 0].tolist(), turned[..., 0].tolist(), lengths, strict=True):
        assert found == row[:length][::-1] + row[length:]


@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=4))
def test_length_is_up_to_the_last_true_step(present: list[list[bool]]) -> None:
    expected = [5 - (row[::-1].index(True) if any(row) else 5) for row in present]
    assert measure_lengths(torch.tensor(present)).tolist() == expected


@every_cell
@every_kind
@every_direction
@pytest.mark.parametrize("layers", [1, 3])
def test_cost_by_hand(cell: str, kind: ModalityName, bidirectional: bool, layers: int) -> None:
    directions = 1 + bidirectional
    wide = directions * HIDDEN
    inputs = [WIDTH] + [wide] * (layers - 1)
    recurrent = sum(directions * GATES[cell] * HIDDEN * (size + HIDDEN) for size in inputs)
    biases = layers * directions * GATES[cell] * 2 * HIDDEN
    first = VOCABULARY * WIDTH if kind == "text" else (CHANNELS + 1) * WIDTH
    first_macs = 0 if kind == "text" else STEPS * CHANNELS * WIDTH
    model = build(cell, kind, bidirectional=bidirectional, layers=layers)
    cost = count_complexity(model, (STEPS,) if kind == "text" else (CHANNELS, STEPS), kind=kind)
    assert cost.params == first + recurrent + biases + (wide + 1) * CLASSES
    assert cost.macs == first_macs + STEPS * recurrent + wide * CLASSES


@every_cell
def test_recurrent_matrices_start_orthogonal_and_forget_gates_open(cell: str) -> None:
    state = build(cell, "text", layers=2, bidirectional=True).layers.state_dict()
    matrices = [value for name, value in state.items() if "weight_hh" in name]
    assert len(matrices) == 4
    for gate in torch.cat(matrices).view(-1, HIDDEN, HIDDEN):
        torch.testing.assert_close(gate @ gate.mT, torch.eye(HIDDEN), rtol=0, atol=1e-5)
    for name, value in state.items():
        if "bias_ih" in name:
            total = (value + state[name.replace("bias_ih", "bias_hh")]).view(-1, HIDDEN)
            assert [bool(gate.eq(1).all()) for gate in total] == [
                cell == "lstm" and gate == 1 for gate in range(len(total))
            ]


def test_dropout_is_between_layers_and_before_the_output() -> None:
    model = build("gru", "text", layers=3, dropout=0.5)
    shapes: list[tuple[int, ...]] = []
    model.dropout.register_forward_hook(lambda _module, inputs, _output: shapes.append(tuple(inputs[0].shape)))
    x = draw("text")
    assert torch.equal(model(x), model(x))
    assert shapes[:3] == [(5, STEPS, HIDDEN)] * 2 + [(5, HIDDEN)]
    assert not torch.equal(model.train()(x), model(x))


def test_vector_of_the_padding_token_stays_zero() -> None:
    model = build("gru", "text")
    nn.functional.cross_entropy(model(draw("text")), torch.arange(5) % CLASSES).backward()  # type: ignore[no-untyped-call]
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert not model.encoder.embedding.weight[0].any()  # type: ignore[union-attr,index]


def test_rnn_has_a_choice_of_nonlinearity() -> None:
    x = draw("series")
    models = [build("rnn", "series", nonlinearity=name) for name in ("tanh", "relu")]
    models[1].load_state_dict(models[0].state_dict())
    assert not torch.allclose(models[0](x), models[1](x))


WRONG: list[tuple[str, Any, str]] = [
    ("hidden", 0, "wanted a whole number above 0, found 0"),
    ("hidden", 1.5, "wanted a whole number above 0, found 1.5"),
    ("embedding", "wide", "wanted a whole number above 0, found 'wide'"),
    ("layers", True, "wanted a whole number above 0, found True"),
    ("dropout", 1, "wanted a fraction from 0 to below 1, found 1"),
    ("dropout", -0.1, "wanted a fraction from 0 to below 1, found -0.1"),
    ("dropout", float("nan"), "wanted a fraction from 0 to below 1, found nan"),
    ("dropout", "much", "wanted a fraction from 0 to below 1, found 'much'"),
    ("bidirectional", "yes", "wanted true or false, found 'yes'"),
    ("pooling", "max", "wanted mean or last, found 'max'"),
    ("pooling", [1], "wanted mean or last, found [1]"),
    ("nonlinearity", "selu", "wanted tanh or relu, found 'selu'"),
]


@pytest.mark.slow
def test_options_with_no_such_value() -> None:
    # In a process without type checks, as users have it.
    code = """
from falconet.errors import ConfigError
from falconet.models import create_model
for option, value, _ in WRONG:
    try:
        create_model("rnn", **{option: value})
    except ConfigError as error:
        print(error)
"""
    found = subprocess.run(
        [sys.executable, "-c", f"nan = float('nan'); WRONG = {WRONG!r}{code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    expected = [f"model.options.{option}: {message}" for option, _, message in WRONG]
    assert found.stdout.splitlines() == expected


@pytest.mark.parametrize(("name", "option"), [("lstm", "nonlinearity"), ("gru", "nonlinearity"), ("rnn", "cell")])
def test_option_that_belongs_to_another_member(name: str, option: str) -> None:
    options: dict[str, Any] = {option: "relu"}
    with pytest.raises(UnknownNameError, match=f"unknown option of {name} '{option}': "):
        create_model(name, **options)


def draw_order(count: int) -> tuple[Tensor, Tensor]:
    """Texts of 6 to 12 tokens; the class is which of tokens 2 and 3 comes first."""
    steps = 12
    tokens = torch.randint(4, VOCABULARY, (count, steps))
    places = torch.stack([torch.randperm(steps // 2)[:2] for _ in range(count)])
    tokens.scatter_(1, places, torch.tensor([[2, 3]]).expand(count, 2))
    lengths = torch.randint(steps // 2, steps + 1, (count, 1))
    return tokens.masked_fill(torch.arange(steps) >= lengths, 0), (places[:, 0] < places[:, 1]).long()


def draw_trend(count: int) -> tuple[Tensor, Tensor]:
    """Series of 8 to 16 steps; the class is whether they rise, around a level that says nothing."""
    steps = 16
    labels = torch.randint(0, 2, (count,))
    slopes = (2 * labels - 1)[:, None] * torch.linspace(-1, 1, steps)
    lengths = torch.randint(steps // 2, steps + 1, (count, 1))
    noisy = slopes + 0.2 * torch.randn(count, steps) + 0.2 * torch.randn(count, 1)
    return noisy.masked_fill(torch.arange(steps) >= lengths, torch.nan)[:, None], labels


@pytest.mark.slow
@every_cell
@pytest.mark.parametrize(("kind", "task"), [("text", draw_order), ("series", draw_trend)])
def test_learns(cell: str, kind: ModalityName, task: Callable[[int], tuple[Tensor, Tensor]]) -> None:
    (x, labels), (unseen, truth) = task(768), task(512)
    channels = VOCABULARY if kind == "text" else 1
    model = create_model(cell, kind=kind, num_classes=2, in_channels=channels, input_size=x.shape[-1], hidden=24)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(10):
        for batch in torch.randperm(len(x)).view(-1, 64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), labels[batch]).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    answers = model.eval()(unseen).argmax(dim=1)
    assert (answers == truth).float().mean() > 0.95
