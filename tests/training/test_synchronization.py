"""Batch normalization in one process, which must be that of torch; two are in test_distributed.py."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from falconet.models.resnet import StepNorm
from falconet.training.synchronization import SynchronizedParallel, SynchronizedStatistics


@pytest.fixture(autouse=True)
def group() -> Iterator[dist.ProcessGroup]:
    store = dist.HashStore()  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        assert dist.group.WORLD is not None
        yield dist.group.WORLD
    finally:
        dist.destroy_process_group()


def follow(norm: nn.Module, inputs: Tensor, *more: Tensor) -> dict[str, Tensor]:
    """Return all that a step leaves behind: output, gradients, running statistics."""
    inputs = inputs.clone().requires_grad_()
    made = norm(inputs, *more)
    # Of the plain sum, no gradient would reach the input.
    (made.float() * torch.linspace(-1, 2, made.numel()).view(made.shape)).square().sum().backward()
    assert inputs.grad is not None
    found = {"output": made.detach(), "input": inputs.grad, **norm.state_dict()}
    return found | {f"grad.{name}": value.grad for name, value in norm.named_parameters() if value.grad is not None}


def check_equal(group: dist.ProcessGroup, norm: nn.Module, inputs: Tensor, *more: Tensor, tolerance: float) -> None:
    norm, twin = copy.deepcopy(norm), copy.deepcopy(norm)
    expected = follow(norm, inputs, *more)
    with SynchronizedStatistics(group):
        found = follow(twin, inputs, *more)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        torch.testing.assert_close(found[name], value, rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (nn.BatchNorm1d(3), (7, 3)),
        (nn.BatchNorm1d(3, momentum=None), (7, 3, 5)),
        (nn.BatchNorm2d(3, eps=1e-3, momentum=0.3), (7, 3, 4, 5)),
        (nn.BatchNorm2d(3, affine=False), (7, 3, 4, 5)),
        (nn.BatchNorm2d(3, track_running_stats=False), (7, 3, 4, 5)),
        (nn.BatchNorm2d(3).eval(), (7, 3, 4, 5)),
    ],
    ids=str,
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_is_that_of_torch(
    group: dist.ProcessGroup, norm: nn.Module, shape: tuple[int, ...], layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    inputs = 3 + 2 * torch.randn(shape)
    check_equal(group, norm, inputs.to(memory_format=layout) if len(shape) == 4 else inputs, tolerance=1e-4)


def test_far_from_zero(group: dist.ProcessGroup) -> None:
    inputs = 1000 + torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    check_equal(group, nn.BatchNorm1d(3), inputs, tolerance=1e-2)


def test_in_bfloat16(group: dist.ProcessGroup) -> None:
    inputs = torch.randn(64, 3, 5, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    check_equal(group, nn.BatchNorm2d(3), inputs, tolerance=5e-2)


def test_padding_stays_out_of_it(group: dist.ProcessGroup) -> None:
    inputs = torch.randn(4, 3, 6, generator=torch.Generator().manual_seed(0))
    check_equal(group, StepNorm(3), inputs, torch.tensor([6, 2, 3, 1]), tolerance=1e-4)


def test_the_network_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3))
    modules, names = list(model.modules()), list(model.state_dict())
    network = SynchronizedParallel(model)
    calls: list[Tensor] = []
    monkeypatch.setattr(dist, "all_reduce", lambda tensor, group: calls.append(tensor))
    network(torch.randn(2, 1, 5, 5)).sum().backward()
    assert len(calls) == 2  # there and back
    assert list(model.modules()) == modules
    assert list(model.state_dict()) == names
    model(torch.randn(2, 1, 5, 5))
    F.batch_norm(torch.randn(3, 2), None, None, training=True)
    assert len(calls) == 2  # outside the wrapped network, nobody is asked
