"""Scaling by products of matrices, against torch's own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from falconet.exporters.graphs import weigh_pixels


@given(found=st.integers(1, 300), wanted=st.integers(1, 64), seed=st.integers(0, 9))
def test_lines_are_scaled_as_torch_scales_them(found: int, wanted: int, seed: int) -> None:
    line = torch.rand(found, generator=torch.Generator().manual_seed(seed))
    own = F.interpolate(line.view(1, 1, 1, found), (1, wanted), mode="bilinear", antialias=True, align_corners=False)
    torch.testing.assert_close(weigh_pixels(found, wanted) @ line, own.flatten(), rtol=0, atol=1e-5)


@given(found=st.integers(1, 300), wanted=st.integers(1, 64))
def test_each_new_pixel_is_a_mean_of_old_ones(found: int, wanted: int) -> None:
    shares = weigh_pixels(found, wanted)
    assert (shares >= 0).all()
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(wanted))


@given(size=st.integers(1, 300))
def test_a_line_of_the_wanted_size_stays_as_it_is(size: int) -> None:
    torch.testing.assert_close(weigh_pixels(size, size), torch.eye(size))
