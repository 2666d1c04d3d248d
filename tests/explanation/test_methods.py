"""Attribution methods, against papers' equations, hand-worked networks and planted evidence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from falconet.artifact import Artifact, ArtifactConfig, DataOrigin, Provenance
from falconet.errors import ConfigError, UnknownNameError
from falconet.explanation.faithfulness import draw_networks
from falconet.explanation.methods import (
    METHODS,
    UnfitError,
    attribute,
    compute_cam,
    compute_gradcam,
    compute_occlusion,
    explain_batch,
    fitting_methods,
    measure_window,
    require_maps,
)
from falconet.explanation.positions import clear
from falconet.model import Model
from falconet.models import MODELS, create_model
from falconet.spec import ClassificationSpec, InputSpec, SeriesSpec, TextSpec
from tests.explanation.planted import SIDE, plant, top_decile_mass, train_planted, wrap

CHECKED = ("gradcam", "integrated_gradients", "occlusion")


@pytest.fixture(autouse=True)
def seeded() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


ABC = ClassificationSpec(("a", "b", "c"))


def make_artifact(name: str, spec: InputSpec, **options: Any) -> Artifact:
    channels = spec.vocab_size if isinstance(spec, TextSpec) else spec.shape[0]
    size = spec.shape if isinstance(spec, TextSpec) else spec.shape[1:]
    model = create_model(
        name, num_classes=ABC.num_outputs, in_channels=channels, input_size=size, kind=spec.kind, **options
    )
    origin = Provenance(DataOrigin("x", "00", 0, 0.1, 0.2), seed=0, epochs=1, best_epoch=1)
    return Artifact(ArtifactConfig(name, spec, ABC, origin, options), model.state_dict(), "{}")


TEXT = TextSpec((12,), 30)
SERIES = SeriesSpec((2, 20), (0.0, 0.0), (1.0, 1.0))


def draw_texts() -> Tensor:
    tokens = torch.randint(2, 30, (2, 12))
    tokens[1, 7:] = 0
    return tokens


def draw_series() -> Tensor:
    series = torch.randn(2, 2, 20)
    series[1, :, 15:] = torch.nan
    series[0, 1, 3] = torch.nan
    return series


SEQUENCES: list[tuple[str, InputSpec, Callable[[], Tensor]]] = [
    (name, spec, draw)
    for name in ("gru", "transformer", "resnet1d18")
    for spec, draw in ((TEXT, draw_texts), (SERIES, draw_series))
]


class TinyNet(nn.Module):
    """Two maps, which are the image and its negative, through ReLU; their means; two classes."""

    def __init__(self) -> None:
        super().__init__()
        convolution = nn.Conv2d(1, 2, 1, bias=False)
        self.maps = nn.Sequential(convolution, nn.ReLU())
        self.fc = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            convolution.weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
            self.fc.weight.copy_(torch.tensor([[2.0, -1.0], [0.0, 3.0]]))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.maps(x).mean(dim=(2, 3)))
        return logits


def test_gradcam_is_the_hand_worked_one() -> None:
    image = torch.tensor([[[[4.0, -2.0], [0.0, 1.0]]]])
    # The mean gradient of class 0 is 2/4 for the first map and -1/4 for the second, whose values are
    # relu(image) and relu(-image); what is below 0 is cut off.
    expected = torch.tensor([[[2.0, 0.0], [0.0, 0.5]]])
    torch.testing.assert_close(compute_gradcam(TinyNet(), image, torch.tensor([0])), expected)
    against = torch.tensor([[[0.0, 1.5], [0.0, 0.0]]])
    torch.testing.assert_close(compute_gradcam(TinyNet(), image, torch.tensor([1])), against)


def test_cam_is_the_hand_worked_one() -> None:
    image = torch.tensor([[[[4.0, -2.0], [0.0, 1.0]]]])
    expected = torch.tensor([[[8.0, -2.0], [0.0, 2.0]]])
    torch.testing.assert_close(compute_cam(TinyNet(), image, torch.tensor([0])), expected)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet20", {"width": 4}),
        ("resnet20", {"width": 4, "pre_activation": True}),
        ("efficientnet", {"phi": -6.0}),
    ],
)
def test_cam_is_gradcam_before_it_is_cut_off(name: str, options: dict[str, Any]) -> None:
    model = create_model(name, num_classes=4, in_channels=1, input_size=SIDE, **options).eval()
    images, targets = torch.randn(2, 1, SIDE, SIDE), torch.tensor([1, 3])
    if options.get("pre_activation"):
        # Grad-CAM takes the maps before the last ReLU there, so only CAM's own law is checked: its mean is the logit.
        cam = compute_cam(model, images, targets).mean(dim=(1, 2)) + model.get_parameter("fc.bias")[targets]
        torch.testing.assert_close(cam, model(images).gather(1, targets[:, None])[:, 0], rtol=0.02, atol=0.02)
        return
    layer = model.get_submodule(require_maps(model, images))
    seen: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _, __, output: seen.append(output))
    model(images)
    handle.remove()
    bare = torch.einsum("bm,bmhw->bhw", list(model.parameters())[-2][targets], seen[0])
    expected = F.interpolate(bare.relu()[:, None] / bare[0].numel(), (SIDE, SIDE), mode="bilinear")[:, 0]
    torch.testing.assert_close(compute_gradcam(model, images, targets), expected, rtol=1e-3, atol=1e-4)
    plain = F.interpolate(bare[:, None], (SIDE, SIDE), mode="bilinear")[:, 0]
    torch.testing.assert_close(compute_cam(model, images, targets), plain, rtol=1e-3, atol=1e-4)


def test_integrated_gradients_of_an_image_sum_to_the_difference_of_logits() -> None:
    artifact = wrap(create_model("cnn_small", num_classes=4, in_channels=1, input_size=SIDE), "cnn_small")
    images, targets = torch.randn(3, 1, SIDE, SIDE), torch.tensor([0, 2, 3])
    total = attribute(artifact, images, "integrated_gradients", targets).sum(dim=(1, 2))
    assert torch.equal(attribute(Model(artifact), images, "integrated_gradients", targets).sum(dim=(1, 2)), total)
    check_difference(artifact, images, targets, total)


@pytest.mark.parametrize(("name", "spec", "draw"), SEQUENCES)
def test_integrated_gradients_of_a_sequence_sum_to_the_difference_of_logits(
    name: str, spec: InputSpec, draw: Callable[[], Tensor]
) -> None:
    options = {"width": 8} if name == "resnet1d18" else {}
    artifact, inputs, targets = make_artifact(name, spec, **options), draw(), torch.tensor([0, 2])
    relevance = attribute(artifact, inputs, "integrated_gradients", targets)
    assert relevance.shape == inputs.shape
    missing = inputs.isnan() if inputs.is_floating_point() else inputs == 0
    assert not relevance[missing].any()
    check_difference(artifact, inputs, targets, relevance.flatten(1).sum(dim=1))


def check_difference(artifact: Artifact, inputs: Tensor, targets: Tensor, total: Tensor) -> None:
    with torch.no_grad():
        logits = artifact.model(inputs) - artifact.model(clear(inputs))
    # The integral of a network with ReLU is approximated by 50 points within 5% (section 5 of the paper).
    expected = logits.gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(total, expected, rtol=0.05, atol=0.05 * float(logits.abs().max()))


@pytest.mark.parametrize(("name", "spec", "draw"), SEQUENCES)
def test_every_method_of_sequences(name: str, spec: InputSpec, draw: Callable[[], Tensor]) -> None:
    artifact, inputs = make_artifact(name, spec), draw()
    wanted = {method for method in METHODS if spec.kind in METHODS[method].kinds} - {"random"}
    assert set(fitting_methods(artifact)) == wanted
    for method in wanted:
        relevance = attribute(artifact, inputs, method, torch.tensor([1, 1]))
        assert relevance.shape == inputs.shape
        assert relevance.isfinite().all()
        assert relevance[1].any()
        assert not relevance[1, ..., 15:].any()


def test_token_occlusion_is_what_a_masked_token_costs() -> None:
    artifact, tokens = make_artifact("gru", TEXT), draw_texts()
    relevance = attribute(artifact, tokens, "occlusion", torch.tensor([0, 1]))
    masked = tokens.clone()
    masked[1, 4] = 1
    with torch.no_grad():
        drop = artifact.model(tokens)[1, 1] - artifact.model(masked)[1, 1]
    torch.testing.assert_close(relevance[1, 4], drop)


def test_gradient_times_input_of_a_linear_answer_is_each_steps_share() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 2, bias=False))
    series = torch.randn(1, 2, 3)
    relevance = explain_batch(METHODS["gradient_x_input"], model, series, torch.tensor([1]))
    torch.testing.assert_close(relevance.flatten(), model.get_parameter("1.weight")[1].detach() * series.flatten())


def test_occlusion_finds_the_only_pixel_that_counts() -> None:
    class Corner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x[:, 0, 0, 0], -x[:, 0, 0, 0]], dim=1)

    relevance = compute_occlusion(Corner(), torch.full((1, 1, 8, 8), 3.0), torch.tensor([0]))
    assert relevance[0, 0, 0] == relevance.max() == 3.0
    assert not relevance[0, 2:].any()


def test_windows_follow_from_the_size() -> None:
    assert [measure_window(side) for side in (1, 2, 8, 28, 224)] == [1, 2, 2, 4, 28]


@pytest.mark.parametrize("name", ["resnet20", "squeezenet1_1", "lenet_relu", "efficientnet_lite0"])
def test_guided_rectifiers_change_no_answer_and_leave_no_trace(name: str) -> None:
    artifact = wrap(create_model(name, num_classes=4, in_channels=1, input_size=SIDE), name)
    images, targets = torch.randn(2, 1, SIDE, SIDE), torch.tensor([0, 1])
    before = artifact.model(images)
    guided = attribute(artifact, images, "guided_backprop", targets)
    assert guided.any()
    assert torch.equal(artifact.model(images), before)
    assert not any(module._forward_hooks for module in artifact.model.modules())


def test_guided_backprop_is_captums_where_that_works() -> None:
    from captum.attr import GuidedBackprop

    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2))
    image, target = torch.randn(1, 1, 8, 8), torch.tensor([1])
    found = explain_batch(METHODS["guided_backprop"], model, image, target)
    with pytest.warns(UserWarning, match="backward hooks"):
        expected = GuidedBackprop(model).attribute(image.requires_grad_(), target=target)
    torch.testing.assert_close(found, expected[:, 0].abs().detach())


def test_smoothgrad_is_repeated_and_leaves_the_generator_alone() -> None:
    artifact = wrap(create_model("cnn_small", num_classes=4, in_channels=1, input_size=SIDE), "cnn_small")
    image, target = torch.randn(1, 1, SIDE, SIDE), torch.tensor([1])
    state = torch.get_rng_state()
    first = attribute(artifact, image, "smoothgrad", target)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(attribute(artifact, image, "smoothgrad", target), first)
    assert (first >= 0).all()


def test_a_method_that_a_network_does_not_allow_names_those_that_it_does() -> None:
    artifact = wrap(create_model("lenet300_100", num_classes=4, in_channels=1, input_size=SIDE), "lenet300_100")
    image, target = torch.randn(1, 1, SIDE, SIDE), torch.tensor([1])
    with pytest.raises(ConfigError, match=r"gradcam: wanted a network that keeps maps.*explain it: integrated"):
        attribute(artifact, image, "gradcam", target)
    with pytest.raises(ConfigError, match="cam: wanted a network that ends in the mean"):
        attribute(artifact, image, "cam", target)
    with pytest.raises(UnknownNameError, match="did you mean gradcam"):
        attribute(artifact, image, "grad-cam", target)
    with pytest.raises(UnknownNameError, match="unknown method for text input 'gradcam'"):
        attribute(make_artifact("gru", TEXT), draw_texts(), "gradcam", torch.tensor([0, 0]))


def test_guided_backprop_wants_relu() -> None:
    artifact = wrap(create_model("lenet5", num_classes=4, in_channels=1, input_size=SIDE), "lenet5")
    with pytest.raises(ConfigError, match="guided_backprop: wanted a network with ReLU"):
        attribute(artifact, torch.randn(1, 1, SIDE, SIDE), "guided_backprop", torch.tensor([0]))


QUICK = {"lenet5", "lenet_relu", "squeezenet1_1", "resnet20", "efficientnet_lite0"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name, entry in MODELS.items()
        if entry.kinds == ("image",) and name != "lenet300_100"
    ],
)
def test_gradcam_finds_maps_in_every_image_model(name: str) -> None:
    entry = MODELS[name]
    side = 32 if entry.resizable else entry.input[1]
    model = create_model(name, num_classes=4, in_channels=1, input_size=side).eval()
    images = torch.randn(2, 1, side, side)
    relevance = explain_batch(METHODS["gradcam"], model, images, torch.tensor([0, 3]))
    assert relevance.shape == (2, side, side)
    assert (relevance >= 0).all()
    assert relevance.isfinite().all()


@pytest.mark.parametrize("name", ["gru", "transformer"])
def test_networks_that_read_rows_have_no_maps(name: str) -> None:
    model = create_model(name, kind="image", num_classes=4, in_channels=1, input_size=SIDE).eval()
    with pytest.raises(UnfitError):
        require_maps(model, torch.randn(1, 1, SIDE, SIDE))


@pytest.mark.parametrize("method", ["integrated_gradients", "gradient_x_input"])
def test_a_network_that_counts_has_no_gradient(method: str) -> None:
    model = create_model("minirocket", num_classes=4, in_channels=2, input_size=30, num_features=336).eval()
    series, targets = torch.randn(2, 2, 30), torch.tensor([0, 3])
    with pytest.raises(UnfitError, match=r"^wanted a network whose answers have a gradient by its input, found none$"):
        explain_batch(METHODS[method], model, series, targets)
    assert explain_batch(METHODS["occlusion"], model, series, targets).any()


def test_n_grams_have_vectors_of_their_own() -> None:
    model = create_model("ngrams", num_classes=4, in_channels=300, input_size=9, buckets=50, dimension=8).eval()
    texts, targets = torch.tensor([[5, 7, 9, 11, 0, 0, 0, 0, 0]]), torch.tensor([3])
    with pytest.raises(
        UnfitError, match=r"^wanted a network with one vector for each token, found vectors of n-grams$"
    ):
        explain_batch(METHODS["integrated_gradients"], model, texts, targets)
    relevance = explain_batch(METHODS["occlusion"], model, texts, targets)
    assert relevance[0, :4].all()
    assert not relevance[0, 4:].any()


@pytest.fixture(scope="module")
def planted() -> Artifact:
    return train_planted("resnet20", steps=60, width=4)


def measure_masses(artifact: Artifact, count: int) -> dict[str, tuple[float, float]]:
    """Return each method's mean share of the top decile on the evidence: trained, and the highest of random nets."""
    images, labels, boxes = plant(4 * count, seed=2)
    assert (artifact.model(images).argmax(dim=1) == labels).float().mean() > 0.95
    there = labels > 0
    images, labels, boxes = (part[there][:count] for part in (images, labels, boxes))
    masses = {}
    for method in CHECKED:
        trained = top_decile_mass(attribute(artifact, images, method, labels), boxes).mean()
        others = [
            top_decile_mass(explain_batch(METHODS[method], network, images, labels), boxes).mean()
            for network in draw_networks(artifact)
        ]
        masses[method] = (float(trained), float(np.mean(others)))
    return masses


@pytest.mark.slow
def test_explanations_lie_on_planted_evidence(planted: Artifact) -> None:
    for method, (trained, randomized) in measure_masses(planted, 8).items():
        assert trained >= 0.8, method
        assert randomized < 0.6, method


@pytest.mark.slow
@pytest.mark.full
def test_explanations_lie_on_planted_evidence_of_many_images() -> None:
    artifact = train_planted("resnet20", steps=120, width=8)
    for method, (trained, randomized) in measure_masses(artifact, 32).items():
        assert trained >= 0.8, method
        assert randomized < 0.6, method
