"""Pruned channels, factorized layers and folded normalization: against naive ways to the same, and on every network."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from falconet.artifact import Artifact, ArtifactConfig, DataOrigin, Provenance, build_model, load_artifact
from falconet.complexity import count_complexity
from falconet.compression.steps.channel_groups import check_removal, cut_channels, find_groups, zero_channels
from falconet.compression.steps.channels import PruneChannels
from falconet.compression.steps.factorization import Factorize, factorize, split_layer
from falconet.compression.steps.folding import FoldBatchNorm, fold_batchnorm
from falconet.data.texts import train_tokenizer
from falconet.errors import ConfigError, MissingExtraError, UnknownNameError
from falconet.models import MODELS, create_model
from falconet.models.info import ModelInfo, get_model_info, set_model_info
from falconet.models.widths import Folded, read_widths
from falconet.spec import ClassificationSpec, ModalityName
from tests.compression.steps.builders import SMALL, build_settled, measure_change
from tests.exporters.builders import ask_exported, ask_own, draw_raw, make_artifact, open_export
from tests.exporters.builders import make_spec as make_export_spec
from tests.test_registry_wide import CHANNELS, CLASSES, HUGE, LABELS, make_spec

Step = PruneChannels | Factorize | FoldBatchNorm

STEPS: tuple[Step, ...] = (PruneChannels(0.5), PruneChannels(0.5, scope="global"), Factorize(0.5), FoldBatchNorm())
QUICK = {("lenet5", "image"), ("transformer", "text")}
KIN = {("efficientnet_b0", "image")}
"""As `efficientnet` is, but for its size."""
CASES = [
    pytest.param(
        name,
        kind,
        marks=()
        if (name, kind) in QUICK
        else (pytest.mark.slow, pytest.mark.full)
        if (name, kind) in KIN
        else pytest.mark.slow,
    )
    for name, entry in MODELS.items()
    for kind in entry.kinds
    if name not in HUGE
]
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("squeezenet1_1", {"bypass": "simple"}),
    ("squeezenet1_0", {"bypass": "complex"}),
    ("resnet18", {"pre_activation": True, "squeeze_excitation": True, "width": 8}),
    ("resnet20", {"pre_activation": True, "squeeze_excitation": True}),
    ("resnet50", {"stem": "imagenet", "width": 8}),
    ("efficientnet_lite0", {"padding": "same", "stem": "imagenet"}),
    ("lenet_relu", {"batch_norm": True, "width": 8}),
    ("lenet_relu", {"cosine": True}),
    ("lenet5", {"output": "linear"}),
    ("transformer", {"patch": 7, "positions": "learned", "pooling": "token"}),
]


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def count(model: nn.Module) -> tuple[int, int]:
    info = get_model_info(model)
    cost = count_complexity(model, info.shape, kind=info.kind)
    return cost.params, cost.macs


def save_and_load(
    model: nn.Module, dense: nn.Module, name: str, kind: ModalityName, folder: Path, **options: Any
) -> nn.Module:
    spec = make_spec(name, kind, CHANNELS[kind][-1])
    origin = Provenance(DataOrigin("digits", "00", 0, 0.1, 0.2), seed=0, epochs=1, best_epoch=1)
    config = ArtifactConfig(
        name, spec, ClassificationSpec(LABELS), origin, options=options, widths=read_widths(model, dense)
    )
    Artifact(config, model.state_dict(), train_tokenizer([], 258) if kind == "text" else None).save(folder)
    return load_artifact(folder).model


def check_steps(name: str, kind: ModalityName, folder: Path, **options: Any) -> None:
    """Assert what all steps promise of one network."""
    model, dense, inputs = build_settled(name, kind, **options)
    for number, step in enumerate(STEPS):
        made = check_step(step, model, dense, inputs)
        loaded = save_and_load(made, dense, name, kind, folder / str(number), **options)
        assert torch.equal(loaded(inputs), made.to(memory_format=torch.channels_last)(inputs))


def check_step(step: Step, model: nn.Module, dense: nn.Module, inputs: Tensor) -> nn.Module:
    before = copy.deepcopy(model.state_dict())
    made = step(model)
    after = model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    logits = made(inputs)
    assert logits.shape == (4, CLASSES)
    assert logits.isfinite().all()
    untouched = step.find_untouched(model)
    assert untouched.keys() <= {name for name, _ in model.named_modules()}
    params, macs = count(model)
    assert count(made)[0] < params or read_widths(made, dense) is None
    if isinstance(step, PruneChannels):
        assert count(made)[1] < macs or read_widths(made, dense) is None
    if isinstance(step, FoldBatchNorm):
        # Deep networks that nobody trained magnify rounding; a wrong fold changes logits by about their own size.
        assert measure_change(model(inputs), logits) < 1e-3
    whole = {name for name, module in model.named_modules() if matches(module, step)}
    changed = {name for name in whole if made_narrower(model.get_submodule(name), made.get_submodule(name), step)}
    assert changed == whole - untouched.keys()
    check_reached(copy.deepcopy(made).train(), inputs)
    return made


def check_reached(model: nn.Module, inputs: Tensor) -> None:
    """Assert that the loss depends on every parameter; the few units that are left may all be at rest."""
    loss = F.cross_entropy(model(inputs), torch.arange(4) % CLASSES)
    gradients = torch.autograd.grad(loss, list(model.parameters()))  # Raises where one is not used.
    assert all(gradient.isfinite().all() for gradient in gradients)


def matches(module: nn.Module, step: Step) -> bool:
    """Tell whether a step has something to say about a layer."""
    if isinstance(step, FoldBatchNorm):
        return isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm)
    return any(parameter.ndim > 1 for parameter in module.parameters(recurse=False)) and not is_position(module)


def is_position(module: nn.Module) -> bool:
    return type(module).__name__ == "LearnedPositions"


def made_narrower(before: nn.Module, after: nn.Module, step: Step) -> bool:
    if isinstance(step, PruneChannels):
        weight = getattr(before, "weight", None)
        return weight is not None and len(after.get_parameter("weight")) < len(weight)
    return type(before) is not type(after)


@pytest.mark.usefixtures("two_blocks")
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_every_network(name: str, kind: ModalityName, tmp_path: Path) -> None:
    check_steps(name, kind, tmp_path, **SMALL.get(name, {}))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_variants(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    check_steps(name, "image", tmp_path, **options)


@pytest.mark.usefixtures("two_blocks")
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_channels_that_are_zero_go_without_a_trace(name: str, kind: ModalityName) -> None:
    model, _, inputs = build_settled(name, kind, **SMALL.get(name, {}))
    groups, _ = find_groups(model)
    chosen = [torch.arange(len(group.scores))[::3] for group in groups]
    silent = zero_by_hand(model, groups, chosen)
    torch.testing.assert_close(cut_channels(silent, groups, chosen)(inputs), silent(inputs), rtol=1e-4, atol=1e-5)


def zero_by_hand(model: nn.Module, groups: Any, chosen: Any) -> nn.Module:
    """Return a copy whose layers make nothing but zeros in the chosen channels."""
    silent = copy.deepcopy(model)
    with torch.no_grad():
        for group, channels in zip(groups, chosen, strict=True):
            gone = set(channels.tolist())
            for name, owners in group.outs.items():
                rows = [index for index, owner in enumerate(owners.tolist()) if owner in gone]
                for parameter in silent.get_submodule(name).parameters(recurse=False):
                    parameter[rows] = 0
    return silent


class Plain(nn.Module):
    """Two convolutions and a dense output, to be cut by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 6, 3, bias=False)
        self.fc = nn.Linear(6 * 4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv1(x)))
        logits: Tensor = self.fc(F.max_pool2d(self.conv2(x), 2).flatten(1))
        return logits


def without_augmentation() -> Plain:
    model = Plain().eval()
    set_model_info(model, ModelInfo("image", (1, 8, 8)))
    return model


def test_the_least_channels_go() -> None:
    model = without_augmentation()
    with torch.no_grad():
        for layer, index in ((model.conv1, 5), (model.conv1, 2), (model.conv2, 3)):
            layer.weight[index] *= 0.01
        model.norm.weight[[2, 5]] = 0.01
        model.conv2.weight[:, [2, 5]] *= 0.01
        model.fc.weight[:, 12:16] *= 0.01
    pruned = PruneChannels(0.25)(model)
    first, second = [0, 1, 3, 4, 6, 7], [0, 1, 2, 4, 5]
    columns = [4 * channel + pixel for channel in second for pixel in range(4)]
    torch.testing.assert_close(pruned.get_parameter("conv1.weight"), model.conv1.weight[first])
    torch.testing.assert_close(pruned.get_parameter("norm.weight"), model.norm.weight[first])
    torch.testing.assert_close(pruned.get_buffer("norm.running_var"), torch.ones(6))
    torch.testing.assert_close(pruned.get_parameter("conv2.weight"), model.conv2.weight[second][:, first])
    torch.testing.assert_close(pruned.get_parameter("fc.weight"), model.fc.weight[:, columns])
    assert pruned(torch.ones(1, 1, 8, 8)).shape == (1, CLASSES)


@settings(max_examples=20)
@given(amount=st.floats(0, 0.999))
def test_the_share_that_goes(amount: float) -> None:
    pruned = PruneChannels(amount)(without_augmentation())
    for name, channels in (("conv1", 8), ("conv2", 6)):
        kept = len(pruned.get_parameter(f"{name}.weight"))
        assert 0 <= kept - (1 - amount) * channels < 1 + 1e-6
        assert kept >= 1


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("multiple", [8, 16])
def test_channels_stay_in_full_blocks(scope: Any, multiple: int) -> None:
    model, _, _ = build_settled("resnet20")
    needed, pruned = (PruneChannels(0.55, scope=scope, multiple=block)(model) for block in (1, multiple))
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            kept, least = (len(network.get_parameter(f"{name}.weight")) for network in (pruned, needed))
            filled = -(-least // multiple) * multiple
            assert kept == (filled if module.out_channels >= multiple else least), name


def test_blocks_stay_full_when_more_goes() -> None:
    model, _, _ = build_settled("resnet20")
    for fraction in (0.7, 0.5):
        model = PruneChannels(macs=fraction, multiple=8)(model)
        assert {len(weight) % 8 for name, weight in model.named_parameters() if name.endswith("conv1.weight")} == {0}


def test_the_best_channels_fill_the_block() -> None:
    model = without_augmentation()
    pruned, full = PruneChannels({"conv1": 0.7})(model), PruneChannels({"conv1": 0.7}, multiple=4)(model)
    three, four = (
        {tuple(row.flatten().tolist()) for row in network.get_parameter("conv1.weight")} for network in (pruned, full)
    )
    assert (len(three), len(four)) == (3, 4)
    assert three < four


def test_layers_that_are_concatenated_have_full_blocks_each() -> None:
    model, _, _ = build_settled("squeezenet1_1")
    pruned = PruneChannels(0.55, scope="global", multiple=8)(model)
    widths = {name: module.out_channels for name, module in pruned.named_modules() if isinstance(module, nn.Conv2d)}
    assert {width % 8 for name, width in widths.items() if "classifier" not in name} == {0}
    assert count(pruned)[1] < count(model)[1]


def test_shares_by_layer() -> None:
    model = without_augmentation()
    pruned = PruneChannels({"conv2": 0.5})(model)
    assert len(pruned.get_parameter("conv1.weight")) == 8
    assert len(pruned.get_parameter("conv2.weight")) == 3
    assert PruneChannels({"conv2": 0.5}).find_untouched(model).keys() == {"conv1", "fc"}
    with pytest.raises(UnknownNameError, match="conv1"):
        PruneChannels({"conv": 0.5})(model)
    with pytest.raises(ConfigError, match=r"amount\.fc: wanted a layer that can be pruned, found the output layer"):
        PruneChannels({"fc": 0.5})(model)


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize(
    ("name", "macs"), [("lenet_relu", 0.5), pytest.param("squeezenet_se", 0.2, marks=pytest.mark.slow)]
)
def test_a_share_of_macs(name: str, macs: float, scope: Any) -> None:
    model, _, _ = build_settled(name)
    left = count(PruneChannels(macs=macs, scope=scope)(model))[1] / count(model)[1]
    assert macs - 0.03 < left <= macs


@pytest.mark.slow
@pytest.mark.parametrize("multiple", [1, 8])
def test_no_more_goes_than_a_share_of_macs_takes(multiple: int) -> None:
    model, _, _ = build_settled("resnet20")
    step = PruneChannels(macs=0.495, multiple=multiple)
    whole, left = count(model)[1], count(step(model))[1]
    inner = [len(step(model).get_parameter(f"layer{k}.{n}.conv1.weight")) for k in (1, 2, 3) for n in range(3)]
    # One block of eight inner channels in the last stage: two convolutions of 64 channels and 9 places, at 8x8 places.
    assert 0.495 * whole - 8 * 2 * 64 * 9 * 64 < left <= 0.495 * whole
    assert multiple == 1 or sorted(inner) == [8, 8, 8, 16, 16, 16, 24, 32, 32]


def test_a_share_of_macs_out_of_reach() -> None:
    model, _, _ = build_settled("transformer", "text")
    with pytest.raises(ConfigError, match=r"macs: wanted a fraction from 0\.\d+, of this network, found 0\.1"):
        PruneChannels(macs=0.1)(model)


def test_a_global_ranking_takes_from_the_layer_of_unimportant_channels() -> None:
    model = without_augmentation()
    with torch.no_grad():
        model.conv1.weight[:4] *= 1e-3
        model.conv2.weight[:, :4] *= 1e-3
        model.norm.weight[:4] *= 1e-3
    pruned = PruneChannels(4 / 14, scope="global")(model)
    assert len(pruned.get_parameter("conv1.weight")) == 4
    assert len(pruned.get_parameter("conv2.weight")) == 6


def test_of_padded_shortcuts_inner_channels_go() -> None:
    model, _, _ = build_settled("resnet20")
    pruned = PruneChannels(0.5)(model)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            outs, ins = pruned.get_parameter(f"{name}.weight").shape[:2]
            inner = name.startswith("layer")
            assert outs == module.out_channels // (2 if inner and name.endswith("conv1") else 1), name
            assert ins == module.in_channels // (2 if inner and name.endswith("conv2") else 1), name


def test_a_wrong_graph_is_found_out() -> None:
    model = without_augmentation()
    groups, _ = find_groups(model)
    chosen = [torch.tensor([0]) for _ in groups]
    check_removal(model, groups, chosen)
    for group in groups:
        for name, owners in group.ins.items():
            assert isinstance(group.ins, dict)
            group.ins[name] = owners.flip(0)
    with pytest.raises(ConfigError, match="wanted a network whose channels can be followed, found another: logits off"):
        check_removal(model, groups, chosen)
    assert zero_channels(model, groups, chosen)(torch.ones(1, 1, 8, 8)).shape == (1, CLASSES)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "amount, macs: wanted one of them, found None and None"),
        ({"amount": 0.5, "macs": 0.5}, "amount, macs: wanted one of them"),
        ({"amount": 1.0}, "amount: wanted a fraction of channels from 0 to below 1, found 1.0"),
        ({"amount": True}, "amount: wanted a fraction"),
        ({"amount": {"conv1": -0.1}}, "conv1: wanted a fraction"),
        ({"amount": float("nan")}, "amount: wanted a fraction"),
        ({"macs": 0}, "macs: wanted a fraction of MACs between 0 and 1, found 0"),
        ({"amount": 0.5, "multiple": 0}, "multiple: wanted a number of channels from 1, found 0"),
    ],
)
def test_wrong_arguments_of_pruning(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PruneChannels(**wrong)


def test_pruning_without_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(MissingExtraError, match=r"pruning channels needs .* pip install 'falconet\[compress\]'"):
        PruneChannels(0.5)(without_augmentation())


@pytest.mark.parametrize("step", [PruneChannels(0.5), fold_batchnorm()])
def test_networks_of_which_nobody_knows_what_they_eat(step: Callable[[nn.Module], nn.Module]) -> None:
    with pytest.raises(ConfigError, match=r"wanted a network of create_model, .* found Plain"):
        step(Plain())


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(7, 12),
        nn.Linear(12, 7, bias=False),
        nn.Conv2d(3, 8, (3, 5), stride=2, padding=(1, 2), dilation=(2, 1)),
        nn.Conv2d(5, 4, 3, padding=1, padding_mode="reflect", bias=False),
        nn.Conv1d(3, 20, 3, padding="same"),
    ],
)
def test_factors_of_full_rank_answer_as_the_layer(layer: Any) -> None:
    shape = {
        nn.Linear: (4, layer.weight.shape[1]),
        nn.Conv1d: (4, 3, 11),
        nn.Conv2d: (4, layer.weight.shape[1], 11, 12),
    }
    inputs = torch.randn(shape[type(layer)])
    full = min(len(layer.weight), layer.weight[0].numel())
    torch.testing.assert_close(split_layer(layer, full)(inputs), layer(inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", [nn.Linear(40, 30), nn.Linear(30, 40), nn.Conv2d(6, 20, 3)])
def test_factors_are_the_best_of_their_rank(layer: Any) -> None:
    factors = split_layer(layer, 5)
    first, last = (factors.get_parameter(f"{k}.weight").detach().flatten(1).double() for k in range(2))
    matrix = layer.weight.detach().flatten(1).double()
    # No matrix of rank 5 comes closer than the singular values that are left out (Eckart and Young 1936). The product
    # itself is not compared: where the fifth value is nearly the sixth, rounding decides which direction it holds.
    least = torch.linalg.svdvals(matrix)[5:].square().sum().sqrt()
    torch.testing.assert_close(torch.linalg.norm(matrix - last @ first), least, rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
def test_recurrent_layers_are_followed_at_once_however_long_the_series(name: str) -> None:
    """Followed step by step, as a dense layer each, 24 of them took a minute, and four times as many 16 minutes."""
    model = create_model(name, num_classes=3, in_channels=2, input_size=(2_000,), kind="series")
    groups, reasons = find_groups(model)
    assert not groups
    assert reasons == {
        "encoder.projection": f"tied to layers.0.ahead ({name.upper()})",
        "layers.0.ahead": f"{name.upper()} keeps its width",
        "output": "the output layer, whose classes stay",
    }


@pytest.mark.parametrize("cell", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("batch_first", [True, False])
def test_states_of_recurrent_layers_are_followed(cell: Any, batch_first: bool) -> None:
    class LastState(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inputs = nn.Linear(2, 5)
            self.layers = cell(5, 4, num_layers=2, bidirectional=True, batch_first=batch_first)
            self.hidden = nn.Linear(8, 6)
            self.output = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.inputs(x.permute(0, 2, 1) if batch_first else x.permute(2, 0, 1))
            states = self.layers(x)[1]
            last = states[0] if isinstance(states, tuple) else states
            logits: Tensor = self.output(self.hidden(last[-2:].transpose(0, 1).flatten(1)))
            return logits

    model = LastState()
    set_model_info(model, ModelInfo("series", (2, 12), "output"))
    groups, reasons = find_groups(model)
    assert [group.name for group in groups] == ["hidden"]
    assert reasons["inputs"] == f"tied to layers ({cell.__name__})"


def test_energy_finds_the_true_rank() -> None:
    model = without_augmentation()
    model.fc = nn.Linear(24, CLASSES)
    model.conv2 = nn.Conv2d(8, 32, 3)
    model.fc = nn.Linear(32 * 4, CLASSES)
    with torch.no_grad():
        model.conv2.weight.copy_((torch.randn(32, 3) @ torch.randn(3, 72)).view(32, 8, 3, 3))
    made = factorize(0.999999)(model)
    assert made.get_parameter("conv2.0.weight").shape == (3, 8, 3, 3)
    inputs = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(made(inputs), model(inputs), rtol=1e-4, atol=1e-5)
    untouched = factorize(0.999999).find_untouched(model)
    assert untouched == {"conv1": "at rank 8, factors would not have fewer weights", "fc": "the output layer"}
    assert "conv2.0.weight" in factorize(2)(made).state_dict()
    assert factorize(2).find_untouched(made)["conv2.0"] == "a factor already"


@pytest.mark.parametrize("rank", [0, -1, 0.0, 1.5, True, float("nan")])
def test_wrong_ranks(rank: Any) -> None:
    with pytest.raises(ConfigError, match="rank: wanted a whole number above 0 or a fraction of energy"):
        Factorize(rank)


def test_resnet20_folds_to_biases_alone() -> None:
    model, _, _ = build_settled("resnet20")
    folded = fold_batchnorm()(model)
    assert fold_batchnorm().find_untouched(model) == {}
    assert {name.rpartition(".")[2] for name in folded.state_dict()} == {"weight", "bias"}
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert sum(isinstance(module, Folded) for module in folded.modules()) == 19


def test_normalization_that_cannot_be_folded_is_named() -> None:
    model, _, inputs = build_settled("resnet18", pre_activation=True, width=8)
    untouched = fold_batchnorm().find_untouched(model)
    assert untouched["layer2.0.bn1"] == "follows no convolution or dense layer directly"
    assert "layer2.0.bn2" not in untouched
    assert measure_change(model(inputs), fold_batchnorm()(model)(inputs)) < 1e-5


class Forked(Plain):
    """Its first convolution feeds more than its normalization."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        x = F.relu(self.norm(x)) + x
        logits: Tensor = self.fc(F.max_pool2d(self.conv2(x), 2).flatten(1))
        return logits


class Repeated(Plain):
    """Uses one normalization twice."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.norm(self.conv1(x))))
        logits: Tensor = self.fc(F.max_pool2d(self.conv2(x), 2).flatten(1))
        return logits


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(Forked, "conv1 feeds more than this normalization"), (Repeated, "called 2 times in a forward pass")],
)
def test_normalization_that_does_not_stand_alone(kind: type[nn.Module], reason: str) -> None:
    model = kind().eval()
    set_model_info(model, ModelInfo("image", (1, 8, 8)))
    assert fold_batchnorm().find_untouched(model) == {"norm": reason}
    assert isinstance(fold_batchnorm()(model).get_submodule("norm"), nn.BatchNorm2d)


def test_dense_layers_take_their_normalization_in() -> None:
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(16, 6, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, CLASSES)
    ).eval()
    set_model_info(model, ModelInfo("image", (1, 4, 4)))
    model(torch.randn(8, 1, 4, 4))
    inputs = torch.randn(8, 1, 4, 4)
    for module in (model.train(), model.eval()):
        module(inputs)
    torch.testing.assert_close(fold_batchnorm()(model)(inputs), model(inputs))


@pytest.mark.slow
def test_steps_after_each_other(tmp_path: Path) -> None:
    model, dense, inputs = build_settled("efficientnet_lite0")
    made = model
    for step in (PruneChannels(0.3), factorize(0.8), fold_batchnorm(), PruneChannels(0.3)):
        made = step(made)
        assert made(inputs).isfinite().all()
    assert count(made)[0] < 0.3 * count(model)[0]
    widths = read_widths(made, dense)
    assert len(json.dumps(widths, separators=(",", ":"))) < 6_000
    loaded = save_and_load(made, dense, "efficientnet_lite0", "image", tmp_path)
    assert torch.equal(loaded(inputs), made.to(memory_format=torch.channels_last)(inputs))


@pytest.mark.slow
def test_frozen_weights_and_modes_stay() -> None:
    model = without_augmentation().requires_grad_(False)
    for step in (PruneChannels(0.5), fold_batchnorm()):
        made = step(model)
        assert not any(parameter.requires_grad for parameter in made.parameters())
        assert not made.training
        with torch.inference_mode():
            step(model)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torchvision:densenet121", "torchvision:mobilenet_v3_small", "timm:convnext_atto"])
@pytest.mark.parametrize("step", STEPS, ids=["layer", "global", "factorize", "fold"])
def test_networks_of_other_libraries(name: str, step: Step) -> None:
    model = create_model(name, num_classes=CLASSES, in_channels=3, input_size=64).eval()
    made = step(model)
    assert made(torch.randn(2, 3, 64, 64)).shape == (2, CLASSES)
    assert count(made)[0] < count(model)[0] or isinstance(step, FoldBatchNorm)


@pytest.mark.slow
def test_an_export_answers_as_the_small_network(tmp_path: Path) -> None:
    whole = make_artifact("resnet20", make_export_spec("resnet20", "image"))
    made = fold_batchnorm()(factorize(0.9)(PruneChannels(0.4)(whole.model)))
    config = replace(whole.config, widths=read_widths(made, build_model(whole.config)))
    small = Artifact(config, made.state_dict())
    _, session = open_export(small, "onnx", tmp_path)
    raw = draw_raw(small.config.input)
    np.testing.assert_allclose(ask_exported(small, session, raw), ask_own(small, raw), atol=1e-5)
    assert abs(ask_own(small, raw) - ask_own(whole, raw)).max() > 1e-3


@pytest.mark.slow
def test_networks_that_the_graph_gets_wrong_are_refused() -> None:
    model = create_model("torchvision:shufflenet_v2_x0_5", num_classes=CLASSES, in_channels=3, input_size=64)
    with pytest.raises(ConfigError, match="wanted a network whose channels can be followed"):
        PruneChannels(0.5)(model)
