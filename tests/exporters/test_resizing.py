"""Scaling by products of matrices, against torch's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from falconet.data.preprocessing import ImagePreprocess, Placement, weigh_pixels
from falconet.exporters.exporting import export
from falconet.exporters.inference import infer_batches, make_preprocess
from falconet.exporters.resizing import AnyImage
from falconet.exporters.runtimes import open_session
from falconet.exporters.targets import TARGETS
from falconet.spec import ImageSpec, ResizeMode
from tests.exporters.builders import ask_own, make_artifact, make_spec


def weigh_line(found: int, wanted: int) -> torch.Tensor:
    """The shares where the whole line is scaled to what is wanted."""
    numbers = (torch.tensor(number) for number in (found, wanted, 0))
    return weigh_pixels(torch.arange(found), torch.arange(wanted), Placement(*numbers))


@given(found=st.integers(1, 300), wanted=st.integers(1, 64), seed=st.integers(0, 9))
def test_lines_are_scaled_as_torch_scales_them(found: int, wanted: int, seed: int) -> None:
    line = torch.rand(found, generator=torch.Generator().manual_seed(seed))
    own = F.interpolate(line.view(1, 1, 1, found), (1, wanted), mode="bilinear", antialias=True, align_corners=False)
    torch.testing.assert_close(weigh_line(found, wanted) @ line, own.flatten(), rtol=0, atol=1e-5)


@given(found=st.integers(1, 300), wanted=st.integers(1, 64))
def test_each_new_pixel_is_a_mean_of_old_ones(found: int, wanted: int) -> None:
    shares = weigh_line(found, wanted)
    assert (shares >= 0).all()
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(wanted))


@pytest.mark.parametrize("mode", ["stretch", "crop", "pad"])
@settings(max_examples=40)
@given(height=st.integers(1, 90), width=st.integers(1, 90), wanted=st.tuples(st.integers(1, 40), st.integers(1, 40)))
def test_graphs_scale_as_training_does(mode: ResizeMode, height: int, width: int, wanted: tuple[int, int]) -> None:
    spec = ImageSpec((3, *wanted), (0.0,) * 3, (1.0,) * 3, resize_mode=mode)
    images = torch.randint(0, 256, (1, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(AnyImage(spec)(images), ImagePreprocess(spec)(images), rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["crop", "pad"])
@pytest.mark.parametrize(
    "target", ["onnx", *(pytest.param(name, marks=pytest.mark.slow) for name in ("torch", "openvino"))]
)
def test_exported_files_keep_proportions(mode: ResizeMode, target: str, tmp_path: Path) -> None:
    spec = make_spec("lenet_relu", "image")
    assert isinstance(spec, ImageSpec)
    artifact = make_artifact("lenet_relu", replace(spec, resize_mode=mode))
    path = tmp_path / f"model{TARGETS[target].suffix}"
    export(artifact, target, path, license="mit")
    session = open_session(TARGETS[target].runtime, path)
    assert session.metadata.input == artifact.config.input
    prepare = make_preprocess(session.metadata, None)
    generator = np.random.default_rng(0)
    sizes = ((40, 90), (90, 40), (32, 32), (20, 21), (75, 10))
    raw = [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    answers = np.concatenate(list(infer_batches(session, map(prepare, raw))))
    own = ask_own(artifact, raw)
    assert own.std(axis=0).max() > 0.005
    np.testing.assert_allclose(answers, own, rtol=0, atol=1e-4)


@given(size=st.integers(1, 300))
def test_a_line_of_the_wanted_size_stays_as_it_is(size: int) -> None:
    torch.testing.assert_close(weigh_line(size, size), torch.eye(size))
