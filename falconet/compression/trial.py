"""One trial of a search: a network is made smaller, learns again, is coded, decoded and evaluated."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from falconet.artifact import Artifact, build_model, decode_artifact, decode_file, encode_artifact, read_file
from falconet.catalog import CODED_FILE
from falconet.complexity import count_complexity
from falconet.compression.budget import Budget
from falconet.compression.config import CompressConfig, SearchConfig
from falconet.compression.search import HALF, Trial, TrialSpec
from falconet.compression.steps import Sensitivity, Step, chain, materialize, prune, quantize, shorten
from falconet.compression.steps import measure_sensitivity as measure_layers
from falconet.compression.steps.channels import PruneChannels
from falconet.data.loader import Loader
from falconet.errors import BudgetError, ConfigError, DivergedError, InterruptedRunError, MissingExtraError
from falconet.evaluation.confidence import DIGITS
from falconet.exporters.timing import find_fastest, time_runtimes
from falconet.metrics import choose_temperature
from falconet.models.widths import read_widths
from falconet.schema import to_mapping
from falconet.storage import read_json, write_bytes, write_json
from falconet.training import Callback
from falconet.training.checkpoints import remove_checkpoints
from falconet.training.loop import fit

CHECKPOINT_FOLDER, CLAIM_FILE = "checkpoint", "running.json"
Watch = Callable[[str], Sequence[Callback]]
"""What watches a trial's training, by the trial's title."""


@dataclass(frozen=True, eq=False)
class SearchContext:
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


def carry_out(number: int, scheme: TrialSpec, workshop: SearchContext) -> Trial:
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
    content = encode_network(materialize(network), workshop).serialize()
    decoded = decode_artifact(content)
    accuracy = measure_accuracy(decoded.model, workshop.val)
    write_bytes(workshop.trial_file(number), content)
    remove_checkpoints(workshop.folder / CHECKPOINT_FOLDER)
    return Trial(
        number=number,
        scheme=scheme,
        bytes=len(content),
        accuracy=accuracy,
        drop=100 * (workshop.accuracy - accuracy) + 0.0,
        macs=count_macs(decoded),
        latency_ms=None,
        seconds=time.perf_counter() - started,
    )


def add_latency(trial: Trial, budget: Budget, workshop: SearchContext, others: Sequence[Trial]) -> Trial:
    """Return a trial with its milliseconds, where a budget asks for them and nobody has measured them yet.

    A network of the same channels takes as long as another trial's did: zeros change nothing, and luck should not.
    """
    if budget.max_latency_ms is None or trial.latency_ms is not None:
        return trial
    known = [other.latency_ms for other in others if other.macs == trial.macs and other.latency_ms is not None]
    return replace(trial, latency_ms=known[0] if known else time_fastest(read_trial(trial.number, workshop)))


def read_trial(number: int, workshop: SearchContext) -> Artifact:
    """Return the coded network of a trial. Raises ArtifactError where its file is missing or damaged."""
    path = workshop.trial_file(number)
    return decode_file(path, read_file(path))


def is_thinner(scheme: TrialSpec) -> bool:
    """Whether a scheme removes channels: those that keep fewer weights begin with a network of their width."""
    return scheme.macs < 1 and scheme.kept == 1


def find_artifact(scheme: TrialSpec, workshop: SearchContext) -> Artifact:
    """Return what a scheme begins with."""
    if scheme.start is None:
        return workshop.artifact
    return read_trial(scheme.start, workshop)


def remove_channels(macs: float, config: CompressConfig) -> PruneChannels:
    """Return the step that leaves this share of the MACs, also where a budget alone demands that channels go."""
    scope: Literal["layer", "global"] = "layer" if config.channels == "none" else config.channels
    return PruneChannels(macs=macs, scope=scope, multiple=config.multiple)


def make_steps(scheme: TrialSpec, workshop: SearchContext, share: float) -> Step:
    """Return the chain of steps that a scheme stands for, for a network of which `share` of the MACs is to stay."""
    config = workshop.config.compression
    steps: list[Step] = []
    if share < 1:
        steps.append(remove_channels(share, config))
    if scheme.kept < 1:
        # Behind zeros weights drift while training is long, until they change places with good ones, many at a time.
        regrow = config.regrow and not scheme.polish
        steps.append(prune(1 - scheme.kept, scope=config.scope, schedule="cubic", regrow=regrow))
    names = [name for name, weight in workshop.artifact.model.named_parameters() if weight.ndim > 1]
    bits = {name: max(scheme.bits, workshop.bits.get(name, 0)) for name in names}
    return chain(*steps, quantize(bits), shorten(config.rest_bits))


def find_untouched(scheme: TrialSpec, workshop: SearchContext) -> dict[str, str]:
    """Return what a scheme leaves as it was: layers with all channels, values in full precision; with reasons."""
    network = workshop.artifact.model
    names = {name for name, weight in network.named_parameters() if weight.ndim > 1}
    left = {name: reason for name, reason in quantize(scheme.bits).find_untouched(network).items() if name in names}
    config = workshop.config.compression
    rest = shorten(config.rest_bits).find_untouched(network)
    left |= {name: reason for name, reason in rest.items() if name not in names}
    return (remove_channels(scheme.macs, config).find_untouched(network) if scheme.macs < 1 else {}) | left


def learn(network: nn.Module, number: int, scheme: TrialSpec, workshop: SearchContext) -> None:
    """Train what is left, with the model that is compressed as its teacher where the configuration says so."""
    training = replace(workshop.config.training, epochs=scheme.epochs)
    claim_checkpoints(number, scheme, workshop.folder)
    result = fit(
        network,
        workshop.train,
        workshop.val,
        training,
        teacher=copy.deepcopy(workshop.artifact.model) if workshop.config.compression.teach else None,
        callbacks=workshop.watch(f"trial {number}"),
        checkpoints=workshop.folder / CHECKPOINT_FOLDER,
    )
    if result.ending == "diverged":
        rate = training.learning_rate
        raise DivergedError(
            f"trial {number}: {result.message}; --overwrite it at a lower training.learning_rate than {rate:g}"
        )
    if result.ending == "interrupted":
        raise InterruptedRunError(f"stopped in trial {number}; what was found so far is kept; --resume goes on")


def claim_checkpoints(number: int, scheme: TrialSpec, folder: Path) -> None:
    """Note whose training is kept, and remove what another trial left: one that another budget did not get to."""
    claim = folder / CLAIM_FILE
    mine = {"number": number, "scheme": to_mapping(scheme)}
    if not claim.is_file() or read_json(claim) != mine:
        remove_checkpoints(folder / CHECKPOINT_FOLDER)
        write_json(claim, mine)


def encode_network(network: nn.Module, workshop: SearchContext) -> Artifact:
    """Return a network as the coded artifact of the same task, with the temperature that suits it."""
    config = replace(workshop.artifact.config, widths=None)
    widths = read_widths(network, build_model(config))
    temperature = find_temperature(network, workshop.val)
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    config = replace(config, widths=widths, temperature=temperature)
    return encode_artifact(replace(workshop.artifact, config=config, weights=state))


@torch.inference_mode()
def find_temperature(network: nn.Module, samples: Loader) -> float:
    """Return what a network's logits are to be divided by, as after training."""
    network.eval()
    logits = torch.cat([network(inputs).float() for inputs, _ in samples.epoch(1)])
    return float(f"{choose_temperature(logits.numpy(), samples.labels.numpy()).temperature:.{DIGITS}g}")


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


def measure_sensitivity(workshop: SearchContext) -> Sensitivity:
    """Return what each layer alone can lose, evaluated on SENSED validation samples or a few more."""
    some = replace(workshop.val, sampler="shuffle")  # Sources may be sorted by class.
    return measure_layers(
        workshop.artifact.model, lambda network: measure_accuracy(network, some, SENSED), SPARSITIES, BITS
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


def find_shares(budget: Budget, workshop: SearchContext) -> tuple[float, ...]:
    """Return the shares of the MACs that removing channels may leave: the most that a budget allows, then its halves.

    Only the first where the configuration says so, where channels cannot be removed, and without torch-pruning.
    """
    config, network = workshop.config.compression, workshop.artifact.model
    shares = [find_share(budget, workshop)]
    while config.channels != "none" and shares[-1] * HALF >= LEAST_SHARE:
        try:
            remove_channels(shares[-1] * HALF, config)(network)
        except (ConfigError, MissingExtraError):  # No channel can go, or not that many.
            break
        shares.append(shares[-1] * HALF)
    return tuple(shares)


def find_share(budget: Budget, workshop: SearchContext) -> float:
    """Return the largest share of the MACs that keeps within a budget.

    Milliseconds are measured before the network learns again, which does not change them. Raises BudgetError where that
    many channels cannot be removed, or LEAST_SHARE is still too slow, and MissingExtraError.
    """
    artifact = workshop.artifact
    share = 1.0 if budget.max_macs is None else min(budget.max_macs / count_macs(artifact), 1.0)
    network, known = artifact.model, ""
    while True:
        try:
            network = remove_channels(share, workshop.config.compression)(artifact.model) if share < 1 else network
        except ConfigError as error:
            reason = f"out of reach by removing channels{known}: {explain_reach(share, workshop, error)}"
            raise BudgetError(f"{budget.describe()}: {reason}") from error
        if budget.max_latency_ms is None:
            return share
        found = time_fastest(encode_network(network, workshop))
        if found <= SURE * budget.max_latency_ms:
            return share
        known = f"; with {share:.0%} of the MACs it takes {found:.3f} ms"
        if share <= LEAST_SHARE:
            raise BudgetError(f"{budget.describe()}: out of reach by removing channels{known}")
        share = max(share * min(max(SURE * budget.max_latency_ms / found, 0.4), 0.9), LEAST_SHARE)


def explain_reach(share: float, workshop: SearchContext, error: ConfigError) -> str:
    """Return how many MACs removing channels leaves at least, in words; where that was not the reason, the error."""
    step = remove_channels(HALF, workshop.config.compression)
    try:
        least, freely = (find_least_macs(one, workshop.artifact) for one in (step, replace(step, multiple=1)))
    except ConfigError:
        return str(error)
    if least <= share * count_macs(workshop.artifact):
        return str(error)
    free = f", {freely:,} with compression.multiple=1, in another folder" if freely < least else ""
    return f"about {least:,} MACs are left at least{free}"


def find_least_macs(step: PruneChannels, artifact: Artifact) -> int:
    return math.ceil(step.find_least(artifact.model) * count_macs(artifact))


LEAST_SHARE = 0.02
SURE = 0.95
"""Share of the wanted milliseconds that a network may take when it is chosen, since another measurement will differ."""
