"""What makes training faster: images that grow, compiled networks, memory that is kept."""

from __future__ import annotations

import dataclasses
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from falconet import Callback, ImagePreprocess, ImageSpec, Loader, SeriesSpec, TrainConfig, create_model, fit
from falconet.data.preprocessing import create_preprocess
from falconet.errors import ConfigError
from falconet.memory import kept_memory
from falconet.training.acceleration import resize
from falconet.training.distributed import ProcessGroup
from falconet.training.loop import check_fit

CONFIG = TrainConfig(epochs=2, batch_size=16, learning_rate=0.01, precision="fp32")
SPEC = ImageSpec((1, 16, 16), (0.25,), (0.5,))


def make_loader(count: int = 64) -> Loader:
    """Images with a bright left or right half."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, count)
    images = generator.integers(0, 100, (count, 1, 16, 16))
    images[labels == 0, :, :, :8] += 100
    images[labels == 1, :, :, 8:] += 100
    return Loader(
        torch.from_numpy(images.astype(np.uint8)), torch.from_numpy(labels), ImagePreprocess(SPEC), 16, None, "shuffle"
    )


def make_model(seed: int = 0) -> nn.Module:
    """A network for images of any size."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        convolutions = (nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.ReLU())
        return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 2))


class Sizes(Callback):
    """Writes down how large the images of each step are."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def on_model(self, model: nn.Module) -> None:
        def see(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if module.training:
                self.seen.append(tuple(inputs[0].shape[2:]))

        model.register_forward_pre_hook(see)


class StopAfter(Callback):
    """Presses Ctrl-C."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, step: int, loss: float) -> None:
        if step == self.step:
            raise KeyboardInterrupt


def train(config: TrainConfig, *callbacks: Callback, checkpoints: Path | None = None) -> dict[str, Tensor]:
    model = make_model()
    fit(model, make_loader(), make_loader(32), config, callbacks=callbacks, checkpoints=checkpoints)
    return model.state_dict()


def test_images_grow_to_their_whole_size() -> None:
    sizes = Sizes()
    train(dataclasses.replace(CONFIG, initial_scale=0.5), sizes)
    assert sizes.seen == [(8, 8), (8, 8), (12, 12), (12, 12), (12, 12), (16, 16), (16, 16), (16, 16)]


def test_resized_images_lie_as_convolutions_want_them_and_show_the_same() -> None:
    images = torch.linspace(0, 1, 16).expand(2, 3, 16, 16)
    small = resize(images, 0, 10, dataclasses.replace(CONFIG, initial_scale=0.5))
    assert small.shape == (2, 3, 8, 8)
    assert small.is_contiguous(memory_format=torch.channels_last)
    expected = images.reshape(2, 3, 8, 2, 8, 2).mean(dim=(3, 5))
    torch.testing.assert_close(small[..., 1:-1], expected[..., 1:-1], atol=1e-3, rtol=0)


def test_a_run_whose_images_grow_is_resumed_to_the_same_weights(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, initial_scale=0.5)
    expected = train(config)
    train(config, StopAfter(4), checkpoints=tmp_path)
    weights = train(config, checkpoints=tmp_path)
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())


def test_networks_for_one_size_are_told_before_the_first_step() -> None:
    model = create_model("lenet_relu", num_classes=2, in_channels=1, input_size=16)
    config = dataclasses.replace(CONFIG, initial_scale=0.5)
    with pytest.raises(ConfigError, match=r"initial_scale: wanted a network that takes any size, .* cannot take 8x8"):
        fit(model, make_loader(), make_loader(), config)
    assert model.training, "it is left as it was"


def test_series_do_not_grow() -> None:
    series = torch.zeros(16, 1, 8)
    preprocess = create_preprocess(SeriesSpec((1, 8), (0.0,), (1.0,)))
    loader = Loader(series, torch.zeros(16, dtype=torch.long), preprocess, 8)
    config = dataclasses.replace(CONFIG, initial_scale=0.5)
    with pytest.raises(ConfigError, match="initial_scale: wanted 1 for samples that are no images"):
        fit(nn.Sequential(nn.Flatten(), nn.Linear(8, 2)), loader, loader, config)


@pytest.mark.parametrize(("change", "message"), [({"initial_scale": 0.5}, "1.0"), ({"compile": True}, "False")])
def test_a_teacher_takes_neither(change: dict[str, float], message: str) -> None:
    config = dataclasses.replace(CONFIG, **change)  # type: ignore[arg-type]  # by name
    with pytest.raises(ConfigError, match=f"{next(iter(change))}: wanted {message} with a teacher"):
        fit(make_model(), make_loader(), make_loader(), config, teacher=make_model(1))


COMPILED = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from falconet import LayerMonitor
from tests.training.test_acceleration import *

made, called = torch.compile, []
def count_calls(network, **options):
    compiled = made(network, **options)
    return lambda x: (called.append(len(x)), compiled(x))[1]
torch.compile = count_calls
# Adam would turn rounding errors of gradients that should be zero into steps.
CONFIG = dataclasses.replace(CONFIG, optimizer="sgd", epochs=6)
compiled = dataclasses.replace(CONFIG, compile=True)
layer_monitor, plain = LayerMonitor(), LayerMonitor()
expected, weights = train(CONFIG, plain), train(compiled, layer_monitor)
# Of 24 steps, 4 an epoch, the layer_monitor's hooks meet the first of each epoch.
assert called == [16] * 18, called
for name in expected:
    torch.testing.assert_close(weights[name], expected[name], atol=1e-4, rtol=1e-3)
assert [row.layer for row in layer_monitor.layer_stats] == [row.layer for row in plain.layer_stats]
for row, other in zip(layer_monitor.layer_stats, plain.layer_stats):
    assert abs(row.activation / other.activation - 1) < 1e-2, (row, other)
out = Path(sys.argv[2])
train(compiled, LayerMonitor(), StopAfter(6), checkpoints=out)
resumed = train(compiled, LayerMonitor(), checkpoints=out)
assert all(torch.equal(resumed[name], tensor) for name, tensor in weights.items())
"""


@pytest.mark.slow
def test_a_compiled_network_learns_the_same_and_the_monitor_sees_it(tmp_path: Path) -> None:
    """In a process of its own: the checks of shapes in tests are no code that can be compiled."""
    command = [sys.executable, "-c", COMPILED, str(Path(__file__).parents[2]), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_compiling_needs_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ConfigError, match=r"compile: wanted a C\+\+ compiler, found no g\+\+; install it"):
        train(dataclasses.replace(CONFIG, compile=True))


def test_growing_images_are_not_compiled() -> None:
    with pytest.raises(ConfigError, match=r"compile: wanted initial_scale=1 with it, found 0\.5"):
        train(dataclasses.replace(CONFIG, compile=True, initial_scale=0.5))


def test_several_processes_do_not_compile() -> None:
    with pytest.raises(ConfigError, match="compile: wanted one process, found 2"):
        check_fit(
            make_model(), make_loader(), dataclasses.replace(CONFIG, compile=True), process_group=ProcessGroup(0, 2)
        )


def count_faults(repetitions: int) -> float:
    """Return how often the system had to give a page, for each pair of blocks of 12 MB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(repetitions):
        blocks = [torch.ones(3_000_000) for _ in range(2)]
        del blocks
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / repetitions


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone has these settings")
def test_kept_memory_is_not_asked_for_again_and_given_back_at_last() -> None:
    with kept_memory():
        count_faults(3)
        # What else goes on in this process, and in the system's own housekeeping, only adds faults.
        assert min(count_faults(20) for _ in range(3)) < 10
        block = torch.ones(50_000_000)
        del block
        held = resident()
    assert resident() < held - 150_000_000


def resident() -> int:
    """Return the bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
