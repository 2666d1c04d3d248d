"""Every architecture of the table is pruned, quantized and shortened, and still answers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from falconet.compression import Step, chain, cluster, materialize, prune, quantize, quantize_floats
from falconet.models import MODELS
from falconet.spec import ModalityName
from tests.compression.steps.builders import SMALL
from tests.test_registry_wide import CHANNELS, CLASSES, HUGE, VARIANTS, build, draw_inputs

QUICK = {"lenet5", "lenet5_caffe", "lenet_relu", "resnet20", "gru", "transformer"}
"""The others wait for `make test-slow`."""


def list_cases(*, few: bool = False) -> list[Any]:
    """Return each architecture once, with its first kind of input, and the variants; or only those that are quick."""
    plain: list[tuple[str, ModalityName, int, dict[str, Any]]] = [
        (name, entry.kinds[0], CHANNELS[entry.kinds[0]][0], SMALL.get(name, {}))
        for name, entry in MODELS.items()
        if name not in HUGE
    ]
    return [
        pytest.param(*case, marks=() if case[0] in QUICK and not case[3] else pytest.mark.slow)
        for case in [*plain, *VARIANTS]
        if not few or case[0] in QUICK
    ]


@pytest.mark.usefixtures("two_blocks")
@pytest.mark.parametrize(("name", "kind", "channels", "options"), list_cases())
def test_values_of_every_architecture(name: str, kind: ModalityName, channels: int, options: dict[str, Any]) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, inputs = build(name, kind, channels, **options), draw_inputs(name, kind, channels)
        constrained = chain(prune(0.5), quantize(4), quantize_floats(8))(model)
        nn.functional.cross_entropy(constrained(inputs), torch.arange(4) % CLASSES).backward()  # type: ignore[no-untyped-call]
    plain = materialize(constrained.eval())
    assert plain(inputs).isfinite().all()
    assert torch.equal(constrained(inputs), plain(inputs))
    untouched = find_common([prune(0.5), quantize(4), quantize_floats(8)], model)
    for key, value in plain.state_dict().items():
        assert key in untouched or len(torch.unique(value)) <= count_levels(value), key
    assert untouched <= {key for key, value in plain.state_dict().items() if not value.is_floating_point()}


def find_common(steps: list[Step], model: nn.Module) -> set[str]:
    """Return the names that no step touches."""
    return set.intersection(*(set(step.find_untouched(model)) for step in steps))


def count_levels(value: torch.Tensor) -> int:
    """Return how many values there may be: 4 bits of a weight, 8 of all else."""
    return 15 if value.ndim > 1 else 256


@pytest.mark.parametrize(("name", "kind", "channels", "options"), list_cases(few=True))
def test_shares_of_zeros_of_every_architecture(
    name: str, kind: ModalityName, channels: int, options: dict[str, Any]
) -> None:
    model = build(name, kind, channels, **options)
    step = chain(prune(0.5), cluster(8))
    plain = materialize(step(model))
    untouched = find_common([prune(0.5), cluster(8)], model)
    for key, value in plain.named_parameters():
        if key in untouched:
            assert torch.equal(value, model.get_parameter(key))
        else:
            assert abs(int((value == 0).sum()) - 0.5 * value.numel()) <= 1
            assert len(torch.unique(value)) <= 9
    assert plain(draw_inputs(name, kind, channels)).shape == (4, CLASSES)
