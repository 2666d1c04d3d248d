"""Logistic regression against its formula, and what is missing from a series."""

from __future__ import annotations

import torch

from falconet.models import create_model


@torch.no_grad()
def test_logits_are_weighted_sums_of_all_values() -> None:
    model = create_model("linear", num_classes=3, in_channels=2, input_size=(4, 5))
    images = torch.randn(6, 2, 4, 5)
    weights, bias = model.get_parameter("output.weight"), model.get_parameter("output.bias")
    wanted = torch.einsum("bchw,kchw->bk", images, weights.view(3, 2, 4, 5)) + bias
    torch.testing.assert_close(model(images), wanted)


@torch.no_grad()
def test_missing_values_and_padding_of_a_series_count_as_its_mean() -> None:
    model = create_model("linear", kind="series", num_classes=3, in_channels=2, input_size=7)
    series = torch.randn(4, 2, 7)
    series[0, :, 5:], series[1, 0, 3] = torch.nan, torch.nan
    assert torch.equal(model(series), model(series.nan_to_num(0.0)))
    assert not torch.equal(model(series[:1]), model(series[:1].nan_to_num(1.0)))
    padded = series.clone()
    padded[:, :, 4:] = torch.nan
    assert torch.equal(model(series[:, :, :4]), model(padded))
