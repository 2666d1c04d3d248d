"""One trial of a search: a network is made smaller, learns again, is coded, decoded and judged."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from falconet.artifact import Artifact, build_model, decode_artifact, encode_artifact
from falconet.budget.config import CompressConfig, SearchConfig
from falconet.budget.goals import Budget
from falconet.budget.search import HALF, Scheme, Trial
from falconet.catalog import CODED_FILE
from falconet.complexity import count_complexity
from falconet.compression import Sensitivity, Step, chain, materialize, prune, quantize, shorten
from falconet.compression import measure_sensitivity as measure_layers
from falconet.compression.structure import PruneChannels
from falconet.data.loader import Loader
from falconet.errors import ConfigError, DivergedError, InterruptedRunError, MissingExtraError
from falconet.exporters.timing import find_fastest, time_runtimes
from falconet.models.widths import read_widths
from falconet.storage import write_bytes
from falconet.training import Callback
from falconet.training.checkpoints import remove_checkpoints
from falconet.training.loop import fit

CHECKPOINT_FOLDER = "checkpoint"
Watch = Callable[[str], Sequence[Callback]]
"""What watches a trial's training, by the trial's title."""


@dataclass(frozen=True, eq=False)
class Workshop:
    """What all trials of a search share."""

    artifact: Artifact
    """The model that is compressed."""
    train: Loader
    val: Loader
    config: SearchConfig
    folder: Path
    """Where the coded networks of trials are kept."""
    bits: Mapping[str, int]
    """Weights that need more bits than others, by name."""
    accuracy: float
    """Of the model that is compressed, on the validation split."""
    watch: Watch

    def trial_file(self, number: int) -> Path:
        """Return where a trial's network is kept."""
        return self.folder / f"trial-{number:02}{Path(CODED_FILE).suffix}"


def carry_out(number: int, scheme: Scheme, budget: Budget, workshop: Workshop) -> Trial:
    """Compress as a scheme says, keep the coded network, and return what came of it.

    Goes on from a checkpoint where one was left. Raises DivergedError and InterruptedRunError.
    """
    started = time.perf_counter()
    begun = find_artifact(scheme, workshop)
    # Channels come in whole numbers, so that a network may have fewer MACs than it was asked to.
    share = min(scheme.macs * count_macs(workshop.artifact) / count_macs(begun), 1.0) if is_thinner(scheme) else 1.0
    network = make_steps(scheme, workshop, share)(begun.model)
    if scheme.epochs:
        learn(network, number, scheme, workshop)
    artifact = encode_network(materialize(network), workshop.artifact)
    decoded = decode_artifact(artifact.serialize())
    accuracy = measure_accuracy(decoded.model, workshop.val)
    latency = time_fastest(decoded) if budget.max_latency_ms is not None else None
    write_bytes(workshop.trial_file(number), artifact.serialize())
    remove_checkpoints(workshop.folder / CHECKPOINT_FOLDER)
    return Trial(
        number=number,
        scheme=scheme,
        bytes=len(artifact.serialize()),
        accuracy=accuracy,
        drop=100 * (workshop.accuracy - accuracy),
        macs=count_macs(decoded),
        latency_ms=latency,
        seconds=time.perf_counter() - started,
    )


def is_thinner(scheme: Scheme) -> bool:
    """Whether a scheme removes channels: those that keep fewer weights begin with a network of their width."""
    return scheme.macs < 1 and scheme.kept == 1


def find_artifact(scheme: Scheme, workshop: Workshop) -> Artifact:
    """Return what a scheme begins with."""
    if scheme.start is None:
        return workshop.artifact
    return decode_artifact(workshop.trial_file(scheme.start).read_bytes())


def find_scope(config: CompressConfig) -> Literal["layer", "global"]:
    """Return how channels are ranked, also where a budget alone demands that some go."""
    return "layer" if config.channels == "none" else config.channels


def make_steps(scheme: Scheme, workshop: Workshop, share: float) -> Step:
    """Return the chain of steps that a scheme stands for, for a network of which `share` of the MACs is to stay."""
    config = workshop.config.compression
    steps: list[Step] = []
    if share < 1:
        steps.append(PruneChannels(macs=share, scope=find_scope(config)))
    if scheme.kept < 1:
        steps.append(prune(1 - scheme.kept, scope=config.scope, schedule="cubic", regrow=config.regrow))
    names = [name for name, weight in workshop.artifact.model.named_parameters() if weight.ndim > 1]
    bits = {name: max(scheme.bits, workshop.bits.get(name, 0)) for name in names}
    return chain(*steps, quantize(bits), shorten(config.rest_bits))


def find_untouched(scheme: Scheme, workshop: Workshop) -> dict[str, str]:
    """Return what a scheme leaves as it was: layers with all channels, values in full precision; with reasons."""
    network = workshop.artifact.model
    names = {name for name, weight in network.named_parameters() if weight.ndim > 1}
    left = {name: reason for name, reason in quantize(scheme.bits).find_untouched(network).items() if name in names}
    rest = shorten(workshop.config.compression.rest_bits).find_untouched(network)
    left |= {name: reason for name, reason in rest.items() if name not in names}
    scope = find_scope(workshop.config.compression)
    return (PruneChannels(macs=scheme.macs, scope=scope).find_untouched(network) if scheme.macs < 1 else {}) | left


def learn(network: nn.Module, number: int, scheme: Scheme, workshop: Workshop) -> None:
    """Train what is left, with the model that is compressed as its teacher where the configuration says so."""
    training = replace(workshop.config.training, epochs=scheme.epochs)
    result = fit(
        network,
        workshop.train,
        workshop.val,
        training,
        teacher=workshop.artifact.model if workshop.config.compression.teach else None,
        callbacks=workshop.watch(f"trial {number}"),
        checkpoints=workshop.folder / CHECKPOINT_FOLDER,
    )
    if result.ending == "diverged":
        rate = training.learning_rate
        raise DivergedError(f"trial {number}: {result.message}; try a lower training.learning_rate than {rate:g}")
    if result.ending == "interrupted":
        raise InterruptedRunError(f"stopped in trial {number}; what was found so far is kept; --resume goes on")


def encode_network(network: nn.Module, source: Artifact) -> Artifact:
    """Return a network as the coded artifact of the same task."""
    config = replace(source.config, widths=None)
    widths = read_widths(network, build_model(config))
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    return encode_artifact(replace(source, config=replace(config, widths=widths), weights=state))


@torch.inference_mode()
def measure_accuracy(network: nn.Module, samples: Loader, most: int | None = None) -> float:
    """Return the share of right answers, 0 to 1, to all samples or to the first ones, so many or a few more."""
    network.eval()
    hits = count = 0
    for inputs, labels in samples.epoch(1):
        hits += int((network(inputs).argmax(dim=1) == labels).sum())
        count += len(labels)
        if most is not None and count >= most:
            break
    return hits / count


def measure_sensitivity(workshop: Workshop) -> Sensitivity:
    """Return what each layer alone can lose, judged on SENSED validation samples or a few more."""
    return measure_layers(
        workshop.artifact.model, lambda network: measure_accuracy(network, workshop.val, SENSED), SPARSITIES, BITS
    )


SENSED = 1000
SPARSITIES, BITS = (0.5, 0.8, 0.9, 0.95), (8, 6, 4, 3, 2)


def time_fastest(artifact: Artifact) -> float:
    """Return the median milliseconds of one sample in the fastest runtime that is installed."""
    latencies = time_runtimes(artifact)
    return latencies[find_fastest(latencies)].p50


def count_macs(artifact: Artifact) -> int:
    """Return the multiply-accumulates of one sample."""
    config = artifact.config
    return count_complexity(artifact.model, config.input.shape, config.architecture, config.input.kind).macs


def find_shares(budget: Budget, artifact: Artifact, config: CompressConfig) -> tuple[float, ...]:
    """Return the shares of the MACs that removing channels may leave: the most that a budget allows, then its halves.

    Only the first where the configuration says so, where channels cannot be removed, and without torch-pruning.
    """
    first = find_share(budget, artifact, config)
    shares = [first]
    while config.channels != "none" and shares[-1] * HALF >= LEAST_SHARE:
        try:
            PruneChannels(macs=shares[-1] * HALF, scope=find_scope(config))(artifact.model)
        except (ConfigError, MissingExtraError):  # No channel can go, or not that many.
            break
        shares.append(shares[-1] * HALF)
    return tuple(shares)


def find_share(budget: Budget, artifact: Artifact, config: CompressConfig) -> float:
    """Return the largest share of the MACs that keeps within a budget.

    Milliseconds are measured before the network learns again, which does not change them. The last share is returned
    where LEAST_SHARE is still too slow. Raises ConfigError where channels cannot be removed, and MissingExtraError.
    """
    share = 1.0 if budget.max_macs is None else min(budget.max_macs / count_macs(artifact), 1.0)
    if budget.max_latency_ms is None:
        return share
    while True:
        step = PruneChannels(macs=share, scope=find_scope(config))
        network = step(artifact.model) if share < 1 else artifact.model
        found = time_fastest(encode_network(network, artifact))
        if found <= budget.max_latency_ms or share <= LEAST_SHARE:
            return share
        share = max(share * min(max(0.95 * budget.max_latency_ms / found, 0.4), 0.9), LEAST_SHARE)


LEAST_SHARE = 0.02
