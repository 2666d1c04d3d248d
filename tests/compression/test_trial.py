"""How trials train what is left."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from falconet.artifact import Artifact
from falconet.compression import CompressConfig, Constrained, SearchConfig, TrialSpec, materialize
from falconet.compression.trial import SearchContext, make_steps
from falconet.data.augmentation import ImageAugmentation
from tests.compression.test_resuming import make_hollow


@pytest.mark.parametrize("polish", [False, True])
def test_no_weight_comes_back_while_the_best_network_is_polished(polish: bool) -> None:
    network = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    first = network.get_parameter("0.weight")
    with torch.no_grad():
        first[:4] = 0
    config = SearchConfig(ImageAugmentation(), CompressConfig(regrow=True))
    context = make_hollow(SearchContext, artifact=make_hollow(Artifact, model=network), config=config, layer_bits={})
    constrained = make_steps(TrialSpec(density=0.5, epochs=1, start=1, polish=polish), context, 1.0)(network)
    assert isinstance(constrained, Constrained)
    with torch.no_grad():
        constrained.model.get_parameter("0.weight")[:4] = 10.0
    constrained.advance(0.5)
    assert bool(materialize(constrained).get_parameter("0.weight")[:4].any()) is not polish
