"""`compensate`: rounds weights such that their errors cancel out on inputs that the network has seen."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from falconet.compression.steps.checks import unwrap
from falconet.compression.steps.constraints import Constrained, FakeQuantize, constrain, find_tensor
from falconet.errors import ConfigError, UsageError

Compensable: TypeAlias = nn.Linear | nn.Conv1d | nn.Conv2d
Array: TypeAlias = np.ndarray
_UNKNOWN = (
    "is not the weight of a plain dense layer or of a plain convolution of one or two dimensions, padded with zeros"
)


@dataclass(frozen=True, eq=False)
class Compensate:
    """Weights on grids are rounded one after the other, and those that are left make up for the error so far.

    An output of a layer errs by d H d^T on average, where d holds the errors of its weights and H the second moments of
    its inputs. After each rounding the weights that are free are set to where that is least (the optimal brain
    quantizer of Frantar, Singh, Alistarh: Optimal brain compression. NeurIPS 2022), in one order for all outputs and by
    one Cholesky factor (Frantar et al.: GPTQ. ICLR 2023, algorithm 1). Zeros stay zeros. An output that would err more
    than with each weight at its nearest level keeps those, as does a layer that is never called. Inputs are those of
    the weights before any grid. Biases and steps stay as they are. Raises ConfigError for bad settings, UsageError for
    a model without grids.
    """

    inputs: Sequence[Tensor] = field(repr=False)
    """Batches as the network takes them; no labels. A few hundred samples suffice for small networks."""
    damping: float = 0.001
    """Damping added to the diagonal of H, as a fraction of its mean, above 0: the more, the less the inputs count."""
    structural: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not len(self.inputs) or not all(len(batch) for batch in self.inputs):
            raise ConfigError("inputs: wanted batches of samples, found none or an empty one")
        if not 0 < self.damping < float("inf"):
            raise ConfigError(f"damping: wanted a number above 0, found {self.damping!r}")

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> Constrained:
        constrained = constrain(model)
        grids = {name: grid for name in constrained.names if (grid := _find_grid(constrained, name)) is not None}
        if not grids:
            raise UsageError("compensate: wanted weights on grids, found none; put it after quantize")
        untouched = self.find_untouched(constrained)
        names = [name for name in grids if name not in untouched]
        for name, moments in _measure_moments(_copy_before_grids(constrained), names, self.inputs).items():
            values = constrained.constrain(name, before=-1)
            rounded = _round_layer(values.flatten(1), moments, grids[name], self.damping).view_as(values)
            # What is behind a zero stays there, for a mask that lets it come back.
            latent = find_tensor(constrained.model, name)
            latent.copy_(torch.where(values != 0, rounded, latent))
        return constrained

    def find_untouched(self, model: nn.Module) -> dict[str, str]:
        plain = unwrap(model)
        treated = {f"{name}.weight" for name, layer in plain.named_modules() if _is_compensable(layer)}
        return {name: _UNKNOWN for name, _ in plain.named_parameters() if name not in treated}


def compensate(inputs: Sequence[Tensor], damping: float = 0.001) -> Compensate:
    """Return the step that rounds weights on grids such that their errors cancel out on these inputs."""
    return Compensate(inputs, damping)


def _is_compensable(layer: nn.Module) -> bool:
    """Return whether a layer multiplies by its weights what it is called with, which subclasses need not do."""
    if type(layer) in (nn.Conv1d, nn.Conv2d):
        return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return type(layer) is nn.Linear


def _find_grid(constrained: Constrained, name: str) -> FakeQuantize | None:
    """Return the grid that acts last on a tensor, if one does."""
    last = constrained.list_constraints(name)[-1]
    return last if isinstance(last, FakeQuantize) else None


def _copy_before_grids(constrained: Constrained) -> nn.Module:
    """Return a plain module in eval mode, with the values that grids get in the place of those that they give."""
    plain = deepcopy(constrained.model).eval()
    for name in constrained.names:
        before = None if _find_grid(constrained, name) is None else -1
        find_tensor(plain, name).copy_(constrained.constrain(name, before))
    return plain


def _measure_moments(
    network: nn.Module, names: Sequence[str], inputs: Sequence[Tensor]
) -> dict[str, Float[Tensor, "groups inputs inputs"]]:
    """Return the second moments of what each layer's outputs are sums of, up to a factor; of layers that are called."""
    moments: dict[str, Tensor] = {}

    def observe(name: str, layer: Compensable) -> None:
        def add(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            columns = _gather(layer, arguments[0].detach())
            found = (columns.mT @ columns).double()
            moments[name] = moments[name] + found if name in moments else found

        handles.append(layer.register_forward_pre_hook(add))

    handles: list[torch.utils.hooks.RemovableHandle] = []
    for name in names:
        layer = network.get_submodule(name.rpartition(".")[0])
        assert isinstance(layer, Compensable)
        observe(name, layer)
    for batch in inputs:
        network(batch)
    for handle in handles:
        handle.remove()
    return moments


def _gather(layer: Compensable, inputs: Tensor) -> Float[Tensor, "groups places inputs"]:
    """Return what a layer multiplies its weights by: for each place a row that a dense layer would get."""
    if isinstance(layer, nn.Linear):
        return inputs.flatten(0, -2)[None]
    pictures = inputs.unsqueeze(-2) if isinstance(layer, nn.Conv1d) else inputs
    settings: Any = ((1, layer.kernel_size), (1, layer.dilation), (0, layer.padding), (1, layer.stride))
    # A convolution of one dimension is one of two over rows of height 1.
    kernel, dilation, padding, stride = ((fill,) * (2 - len(given)) + given for fill, given in settings)
    patches = functional.unfold(pictures, kernel, dilation, padding, stride)
    grouped = patches.reshape(len(patches), layer.groups, -1, patches.shape[-1])
    return grouped.permute(1, 0, 3, 2).flatten(1, 2)


def _round_layer(
    weights: Float[Tensor, "outputs inputs"],
    moments: Float[Tensor, "groups inputs inputs"],
    grid: FakeQuantize,
    damping: float,
) -> Float[Tensor, "outputs inputs"]:
    """Return the weights on their grid; outputs with zeros in the same places share a factor."""
    steps = grid.compute_scales(weights.numel()).expand(len(weights)).double().cpu().numpy()
    values, rounded = weights.double().cpu().numpy(), np.zeros(weights.shape)
    for group, rows in enumerate(np.array_split(np.arange(len(weights)), len(moments))):
        patterns, members = np.unique(values[rows] != 0, axis=0, return_inverse=True)
        for number, pattern in enumerate(patterns):
            places = np.ix_(rows[members.ravel() == number], pattern.nonzero()[0])
            inside = moments[group].cpu().numpy()[np.ix_(pattern, pattern)]
            if inside.any():
                rounded[places] = round_rows(values[places], inside, steps[places[0][:, 0]], grid.levels, damping)
            else:
                rounded[places] = values[places]
    return torch.from_numpy(rounded).to(weights)


def round_rows(rows: Array, moments: Array, steps: Array, levels: int, damping: float) -> Array:
    """Return rows (outputs, inputs) on grids with a step each, all of them without zeros; float64."""
    damped = moments + damping * moments.diagonal().mean() * np.eye(len(moments))
    # Inputs that matter most go first, when most others are left to make up for them.
    order = np.argsort(-damped.diagonal(), kind="stable")
    factor = np.linalg.cholesky(np.linalg.inv(damped[np.ix_(order, order)])).T
    left, rounded = rows[:, order], np.empty_like(rows)
    for position, place in enumerate(order):
        rounded[:, place] = round_nearest(left[:, position], steps, levels)
        errors = (left[:, position] - rounded[:, place]) / factor[position, position]
        left[:, position:] -= np.outer(errors, factor[position, position:])
    nearest = round_nearest(rows, steps[:, None], levels)
    better = _compute_errors(rounded - rows, moments) <= _compute_errors(nearest - rows, moments)
    return np.where(better[:, None], rounded, nearest)


def round_nearest(values: Array, steps: Array, levels: int) -> Array:
    """Return the nearest levels of grids; never -0."""
    nearest: Array = np.clip(np.round(values / steps), -levels, levels) * steps + 0.0
    return nearest


def _compute_errors(differences: Array, moments: Array) -> Array:
    """Return d H d^T of each row d."""
    error: Array = ((differences @ moments) * differences).sum(axis=1)
    return error
