"""attribute(): relevance of each pixel, token or step of an input for a class, by one of several methods.

It is relevance for the class's logit. METHODS names each method's paper.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from falconet.artifact import AnyModel, Artifact, open_artifact
from falconet.errors import ConfigError, UnknownNameError
from falconet.explanation.layers import embed, find_last_maps, list_maps
from falconet.explanation.positions import Inputs, clear, is_text, mark_present, remove
from falconet.explanation.rectifiers import GuidedMode
from falconet.models.info import find_classifiers
from falconet.renames import accept_renamed
from falconet.spec import KIND_NAMES, ModalityName

Targets = Int64[Tensor, " batch"]
Relevance = Float[Tensor, "batch *positions"]
Compute = Callable[[nn.Module, Inputs, Targets], Relevance]

_STEPS = 50
"""Steps of the integral; 20 to 300 approximate it within 5% (Sundararajan et al. 2017, section 5)."""
_NOISES, _NOISE = 50, 0.15
"""Number of noisy copies, more of which change little, and std of the noise as a fraction of the input's value range.

Smilkov et al., section 3: 50 copies, 10% to 20%.
"""
_WINDOWS = 8
"""Windows side by side that cover an input's side; the stride is half a window."""
BATCH = 64
"""Altered inputs in a batch."""


@dataclass(frozen=True)
class Method:
    """A method of explanation."""

    compute: Compute
    kinds: tuple[ModalityName, ...]
    paper: str
    require: Callable[[nn.Module, Inputs], object] | None = None
    """Raises UnfitError for a network that lacks what the method needs. None: the method suits any network."""


class UnfitError(Exception):
    """A network lacks what a method needs; the message has what was wanted and what was found."""


@accept_renamed(artifact=lambda value: {"model": value})
def attribute(model: AnyModel, inputs: Inputs, method: str, targets: Targets) -> Relevance:
    """Return the relevance of each position of each input for its target class, by one method.

    Parameters
    ----------
    model
        A trained model or its folder.
    inputs
        A batch as its `preprocess` returns it: normalized images, normalized series, or tokens.
    method
        A name in `METHODS`.
    targets
        Positions of the explained classes in the model's labels.

    Returns float32 `(batch, height, width)` for images, `(batch, channels, steps)` for series and `(batch, tokens)`
    for texts; 0 at padding. Higher is more evidence; gradcam, smoothgrad and guided_backprop give no negative values.
    The same call gives the same values. Raises UnknownNameError for a method that does not exist for this kind of
    input, ConfigError for one that does not suit this network.

    """
    artifact = open_artifact(model)
    found = find_method(method, artifact.config.input.kind)
    try:
        return explain_batch(found, artifact.model, inputs, targets)
    except UnfitError as error:
        fitting = ", ".join(fitting_methods(artifact))
        name = artifact.config.architecture
        raise ConfigError(f"{method}: {error} in {name}; methods that explain it: {fitting}") from error


def find_method(name: str, kind: ModalityName) -> Method:
    """Return a method for a kind of input. Raises UnknownNameError."""
    known = [method for method in METHODS if kind in METHODS[method].kinds]
    if name not in known:
        # Nobody means `random`, which explains nothing, by another name.
        others = [method for method in known if method != "random"]
        raise UnknownNameError(f"method for {kind} input", name, others)
    return METHODS[name]


def explain_batch(method: Method, model: nn.Module, inputs: Inputs, targets: Targets) -> Relevance:
    """Apply one method to any network, trained or not. Raises UnfitError."""
    # Noise is drawn from torch's own generator, which a user's code may count on.
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        relevance = method.compute(model, inputs, targets).detach().float().nan_to_num(0.0)
    present = mark_present(inputs)
    return relevance * present.view(len(inputs), *([1] * (inputs.ndim - 2)), -1) if inputs.ndim < 4 else relevance


def fitting_methods(artifact: Artifact) -> list[str]:
    """Return the methods that suit a network, without `random`, which explains nothing."""
    kind, blank = artifact.config.input.kind, artifact.make_blank()
    return [
        name
        for name, method in METHODS.items()
        if kind in method.kinds and name != "random" and _allows(method, artifact.model, blank)
    ]


def _allows(method: Method, model: nn.Module, inputs: Inputs) -> bool:
    """Whether a network has what a method needs."""
    try:
        if method.require is not None:
            method.require(model, inputs)
    except UnfitError:
        return False
    return True


def compute_gradcam(model: nn.Module, inputs: Inputs, targets: Targets) -> Relevance:
    """Return the last feature maps, weighted by their mean gradients; negative relevance is clamped to 0.

    Equations 1 and 2 of the paper. The sum is scaled to the input's size by bilinear interpolation.
    """
    from captum.attr import LayerGradCam

    layer = model.get_submodule(require_maps(model, inputs))
    coarse = LayerGradCam(model, layer).attribute(inputs, target=targets, relu_attributions=True)
    return _enlarge(coarse, inputs)


def compute_cam(model: nn.Module, inputs: Inputs, targets: Targets) -> Relevance:
    """Return the feature maps before global pooling, weighted by the dense layer after it (equation 2 of the paper)."""
    maps = _require_pooled_maps(model, inputs)
    weights = model.get_submodule(find_classifiers(model)[0]).get_parameter("weight")[targets]
    return _enlarge(torch.einsum("bm,bmhw->bhw", weights, maps)[:, None], inputs)


def compute_integrated_gradients(model: nn.Module, inputs: Inputs, targets: Targets) -> Relevance:
    """Return the mean gradient between a baseline without content and the input, times their difference (equation 1).

    Values sum to the difference of the two logits. `falconet.explanation.positions` defines the baseline. For texts,
    the tokens' vectors change; their components are summed.
    """
    from captum.attr import IntegratedGradients, LayerIntegratedGradients

    _require_gradient(model, inputs[:1])
    options = {"baselines": clear(inputs), "target": targets, "n_steps": _STEPS, "internal_batch_size": BATCH}
    if is_text(inputs):
        vectors: Tensor = LayerIntegratedGradients(model, _find_embedding(model)).attribute(inputs, **options)
        return vectors.sum(dim=2)
    return _merge_channels(IntegratedGradients(model).attribute(inputs, **options), Tensor.sum)


def _compute_smoothgrad(model: nn.Module, inputs: Inputs, targets: Targets) -> Relevance:
    """Return the mean gradient at noisy copies of the input: the largest absolute value over an image's channels."""
    from captum.attr import NoiseTunnel, Saliency

    tunnel = NoiseTunnel(Saliency(model))
    parts = []
    for sample, target in zip(torch.split(inputs, 1), torch.split(targets, 1), strict=True):
        std = _NOISE * float(sample.max() - sample.min())
        parts.append(
            tunnel.attribute(
                sample.detach().clone().requires_grad_(),
                nt_samples=_NOISES,
                nt_samples_batch_size=BATCH,
                stdevs=std,
                target=target,
                abs=False,
            )
        )
    return _merge_channels(torch.cat(parts).abs(), Tensor.amax)


def _compute_guided_backprop(model: nn.Module, inputs: Inputs, targets: Targets) -> Relevance:
    """Return the guided gradient, positive at each ReLU: the largest absolute value over an image's channels."""
    _require_rectifiers(model, inputs[:1])
    with GuidedMode():
        return _merge_channels(_take_gradient(model, inputs, targets).abs(), Tensor.amax)


def _compute_gradient_times_input(model: nn.Module, inputs: Inputs, targets: Targets) -> Relevance:
    """Return the gradient times the input, whose zero is the training mean."""
    _require_gradient(model, inputs[:1])
    return _take_gradient(model, inputs, targets) * inputs


def compute_occlusion(model: nn.Module, inputs: Inputs, targets: Targets) -> Relevance:
    """Return the drop of the logit when a window is removed: the mean over the windows that hold a position."""
    if is_text(inputs) or inputs.ndim == 3:
        return _occlude_sequence(model, inputs, targets)
    from captum.attr import Occlusion

    sides = [measure_window(side) for side in inputs.shape[2:]]
    window, strides = (inputs.shape[1], *sides), (inputs.shape[1], *((side + 1) // 2 for side in sides))
    # Captum sees no gradients here; without them, memory stays that of one batch.
    with torch.no_grad():
        drops = Occlusion(model).attribute(
            inputs, window, strides=strides, baselines=0.0, target=targets, perturbations_per_eval=BATCH
        )
    return _merge_channels(drops, Tensor.amax)  # Equal in all channels.


def _compute_random(model: nn.Module, inputs: Inputs, targets: Targets) -> Relevance:
    """Return noise, the baseline of explanations."""
    return torch.rand((len(inputs), *inputs.shape[2:]) if inputs.ndim == 4 else inputs.shape)


@torch.no_grad()
def _occlude_sequence(model: nn.Module, inputs: Inputs, targets: Targets) -> Relevance:
    """Return the occlusion of each token (Li, Monroe, Jurafsky: Understanding neural networks through representation
    erasure, arXiv:1612.08220, 2016), or of each window of steps.
    """
    steps = inputs.shape[-1]
    width = 1 if is_text(inputs) else measure_window(steps)
    starts = torch.arange(0, max(steps - width, 0) + 1, (width + 1) // 2)
    places = torch.arange(steps)
    windows = (places >= starts[:, None]) & (places < starts[:, None] + width)
    windows[-1, starts[-1] :] = True  # Steps that are left over belong to the last one.
    drops = [_measure_drops(model, inputs[row : row + 1], target, windows) for row, target in enumerate(targets)]
    relevance = torch.stack(drops)
    return relevance if is_text(inputs) else relevance[:, None].expand(inputs.shape) / inputs.shape[1]


def _measure_drops(
    model: nn.Module, sample: Inputs, target: Tensor, windows: Bool[Tensor, "windows steps"]
) -> Float[Tensor, " steps"]:
    """Return the drop of the logit for each step: the mean over the windows that hold it."""
    whole = model(sample)[0, target]
    drops = torch.cat(
        [
            whole - model(remove(sample.expand(len(part), *sample.shape[1:]), part))[:, target]
            for part in torch.split(windows, BATCH)
        ]
    )
    return drops @ windows.float() / windows.sum(dim=0)


def _take_gradient(model: nn.Module, inputs: Inputs, targets: Targets) -> Inputs:
    """Return the gradient of each target's logit."""
    seen = inputs.detach().clone().requires_grad_()
    logits = model(seen).gather(1, targets[:, None])
    gradient: Tensor = torch.autograd.grad(logits.sum(), seen)[0]
    return gradient


def measure_window(side: int) -> int:
    """Return the side of an occluding window: an eighth of the input's, but at least two positions where there are."""
    return min(max(round(side / _WINDOWS), 2), side)


def _merge_channels(values: Tensor, merge: Callable[..., Tensor]) -> Relevance:
    """Return one value for each pixel of images; a series keeps its channels."""
    return merge(values, dim=1) if values.ndim == 4 else values


def _enlarge(coarse: Float[Tensor, "batch 1 rows columns"], inputs: Inputs) -> Relevance:
    """Return maps at the input's size, by bilinear interpolation."""
    return F.interpolate(coarse, inputs.shape[2:], mode="bilinear", align_corners=False)[:, 0]


def require_maps(model: nn.Module, inputs: Inputs) -> str:
    """Return the name of the last layer with feature maps. Raises UnfitError where there is none."""
    name = find_last_maps(model, inputs)
    if name is None:
        raise UnfitError("wanted a network that keeps maps of an image, found none")
    return name


def _require_pooled_maps(model: nn.Module, inputs: Inputs) -> Float[Tensor, "batch maps rows columns"]:
    """Return the feature maps before global pooling and a dense output layer. Raises UnfitError without these."""
    unfit = UnfitError("wanted a network that ends in the mean over each map and one dense layer, found another end")
    names = find_classifiers(model)
    if len(names) != 1 or type(model.get_submodule(names[0])) is not nn.Linear:
        raise unfit
    name = find_last_maps(model, inputs)
    if name is None:
        raise unfit
    features = embed(model, inputs)
    last = list_maps(model, inputs, name)[name]
    # With activation first, ReLU stands between the last layer and the mean.
    for maps in (last, last.relu()):
        means = maps.mean(dim=(2, 3))
        if means.shape == features.shape and torch.allclose(means, features, rtol=1e-4, atol=1e-5):
            return maps
    raise unfit


def _require_gradient(model: nn.Module, inputs: Inputs) -> None:
    """Raise UnfitError unless logits have a gradient by the input or each token's vector, unlike those of counts."""
    if is_text(inputs):
        if not any(isinstance(layer, nn.Embedding) for layer in model.modules()):
            raise UnfitError("wanted a network with one vector for each token, found one without vectors")
        shapes: list[torch.Size] = []
        with _find_embedding(model).register_forward_hook(lambda *call: shapes.append(call[2].shape)), torch.no_grad():
            model(inputs)
        if shapes[0][1] != inputs.shape[1]:
            raise UnfitError("wanted a network with one vector for each token, found vectors of n-grams")
        return
    with torch.enable_grad():
        seen = inputs.detach().clone().requires_grad_()
        logits = model(seen).sum()
        try:
            gradient = torch.autograd.grad(logits, seen, allow_unused=True)[0] if logits.requires_grad else None
        except RuntimeError:
            return  # There is one, which cannot be computed: whoever asks for it is told why.
    if gradient is None:
        raise UnfitError("wanted a network whose answers have a gradient by its input, found none")


def _find_embedding(model: nn.Module) -> nn.Embedding:
    """Return the embedding layer of tokens."""
    return next(layer for layer in model.modules() if isinstance(layer, nn.Embedding))


def _require_rectifiers(model: nn.Module, inputs: Inputs) -> None:
    """Raise UnfitError unless a network has ReLU."""
    with GuidedMode() as mode, torch.no_grad():
        model(inputs)
    if not mode.count:
        raise UnfitError("wanted a network with ReLU, found other activations")


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "gradcam": Method(compute_gradcam, ("image",), "Selvaraju et al.: Grad-CAM. ICCV, 2017", require_maps),
        "cam": Method(
            compute_cam,
            ("image",),
            "Zhou et al.: Learning deep features for discriminative localization. CVPR, 2016",
            _require_pooled_maps,
        ),
        "integrated_gradients": Method(
            compute_integrated_gradients,
            KIND_NAMES,
            "Sundararajan, Taly, Yan: Axiomatic attribution for deep networks. ICML, 2017",
            _require_gradient,
        ),
        "occlusion": Method(
            compute_occlusion,
            KIND_NAMES,
            "Zeiler, Fergus: Visualizing and understanding convolutional networks. ECCV, 2014",
        ),
        "smoothgrad": Method(_compute_smoothgrad, ("image",), "Smilkov et al.: SmoothGrad. arXiv:1706.03825, 2017"),
        "guided_backprop": Method(
            _compute_guided_backprop,
            ("image",),
            "Springenberg et al.: Striving for simplicity: the all convolutional net. ICLR workshop, 2015",
            _require_rectifiers,
        ),
        "gradient_x_input": Method(
            _compute_gradient_times_input,
            ("series",),
            "Shrikumar et al.: Not just a black box. arXiv:1605.01713, 2016",
            _require_gradient,
        ),
        "random": Method(_compute_random, KIND_NAMES, "no paper: the baseline of the others"),
    }
)
