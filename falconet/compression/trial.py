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
from falconet.complexity import count_complexity
from falconet.compression.budget import Budget
from falconet.compression.config import CompressConfig, SearchConfig
from falconet.compression.constants import CONSTANTS
from falconet.compression.search import Trial, TrialSpec
from falconet.compression.steps import (
    Sensitivity,
    Step,
    chain,
    materialize,
    measure_sensitivity,
    prune,
    quantize,
    quantize_floats,
)
from falconet.compression.steps.channels import PruneChannels
from falconet.data.loader import Loader
from falconet.errors import BudgetError, ConfigError, DivergedError, InterruptedRunError, MissingExtraError
from falconet.evaluation.confidence import DIGITS
from falconet.exporters.timing import find_fastest, time_runtimes
from falconet.metrics import choose_temperature
from falconet.model_files import CODED_FILE
from falconet.models.widths import read_widths
from falconet.schema import to_mapping
from falconet.storage import read_json, write_bytes, write_json
from falconet.training import Callback
from falconet.training.checkpoints import remove_checkpoints
from falconet.training.loop import fit

TRIAL_CHECKPOINT_FOLDER, CLAIM_FILE = "checkpoint", "running.json"
MakeCallbacks = Callable[[str], Sequence[Callback]]
"""Function that returns the callbacks of a trial's training, given the trial's title."""


@dataclass(frozen=True, eq=False)
class SearchContext:
    """Objects that all trials of a search share."""

    artifact: Artifact
    """The model that is compressed."""
    train: Loader
    val: Loader
    config: SearchConfig
    folder: Path
    """Folder of the trials' coded networks."""
    layer_bits: Mapping[str, int]
    """Bits of the weights that need more than others, by name."""
    accuracy: float
    """Validation accuracy of the model that is compressed, 0 to 1."""
    make_callbacks: MakeCallbacks

    def trial_file(self, number: int) -> Path:
        """Return the path of a trial's coded network."""
        return self.folder / f"trial-{number:02}{Path(CODED_FILE).suffix}"


def run_trial(number: int, spec: TrialSpec, context: SearchContext) -> Trial:
    """Compress as `spec` says, keep the coded network, and return the result.

    Resumes from a checkpoint where there is one. Raises DivergedError and InterruptedRunError.
    """
    started = time.perf_counter()
    start = _load_start(spec, context)
    # Channels come in whole numbers, so that a network may have fewer MACs than it was asked to.
    fraction = 1.0
    if _prunes_channels(spec):
        fraction = min(spec.macs_fraction * count_macs(context.artifact) / count_macs(start), 1.0)
    network = make_steps(spec, context, fraction)(start.model)
    if spec.epochs:
        finetune(network, number, spec, context)
    content = _encode_network(materialize(network), context).serialize()
    decoded = decode_artifact(content)
    accuracy = measure_accuracy(decoded.model, context.val)
    write_bytes(context.trial_file(number), content)
    remove_checkpoints(context.folder / TRIAL_CHECKPOINT_FOLDER)
    return Trial(
        number=number,
        spec=spec,
        bytes=len(content),
        accuracy=accuracy,
        drop=100 * (context.accuracy - accuracy) + 0.0,
        macs=count_macs(decoded),
        latency_ms=None,
        seconds=time.perf_counter() - started,
    )


def add_latency(trial: Trial, budget: Budget, context: SearchContext, others: Sequence[Trial]) -> Trial:
    """Return a trial with its milliseconds, where a budget asks for them and they are not measured yet.

    A network of the same channels gets another trial's milliseconds: zeros change nothing, and noise should not.
    """
    if budget.max_latency_ms is None or trial.latency_ms is not None:
        return trial
    known = [other.latency_ms for other in others if other.macs == trial.macs and other.latency_ms is not None]
    return replace(trial, latency_ms=known[0] if known else time_fastest(read_trial(trial.number, context)))


def read_trial(number: int, context: SearchContext) -> Artifact:
    """Return the coded network of a trial. Raises ArtifactError where its file is missing or damaged."""
    path = context.trial_file(number)
    return decode_file(path, read_file(path))


def _prunes_channels(spec: TrialSpec) -> bool:
    """Whether a spec removes channels: those that keep fewer weights begin with a network of their width."""
    return spec.macs_fraction < 1 and spec.density == 1


def _load_start(spec: TrialSpec, context: SearchContext) -> Artifact:
    """Return the artifact whose network a spec begins with."""
    if spec.start is None:
        return context.artifact
    return read_trial(spec.start, context)


def _remove_channels(macs: float, config: CompressConfig) -> PruneChannels:
    """Return the step that leaves this fraction of the MACs, also where a budget alone demands that channels go."""
    scope: Literal["layer", "global"] = "layer" if config.channels == "none" else config.channels
    return PruneChannels(macs=macs, scope=scope, multiple=config.multiple)


def make_steps(spec: TrialSpec, context: SearchContext, macs_fraction: float) -> Step:
    """Return the chain of steps that a spec stands for, for a network of which this fraction of the MACs is to stay."""
    config = context.config.compression
    steps: list[Step] = []
    if macs_fraction < 1:
        steps.append(_remove_channels(macs_fraction, config))
    if spec.density < 1:
        # Behind zeros weights drift while training is long, until they change places with good ones, many at a time.
        regrow = config.regrow and not spec.polish
        steps.append(prune(1 - spec.density, scope=config.scope, schedule="cubic", regrow=regrow))
    names = [name for name, weight in context.artifact.model.named_parameters() if weight.ndim > 1]
    bits = {name: max(spec.bits, context.layer_bits.get(name, 0)) for name in names}
    return chain(*steps, quantize(bits), quantize_floats(config.rest_bits))


def find_untouched(spec: TrialSpec, context: SearchContext) -> dict[str, str]:
    """Return what a spec leaves as it was: layers with all channels, values in full precision; with reasons."""
    network = context.artifact.model
    names = {name for name, weight in network.named_parameters() if weight.ndim > 1}
    left = {name: reason for name, reason in quantize(spec.bits).find_untouched(network).items() if name in names}
    config = context.config.compression
    rest = quantize_floats(config.rest_bits).find_untouched(network)
    left |= {name: reason for name, reason in rest.items() if name not in names}
    channels = _remove_channels(spec.macs_fraction, config).find_untouched(network) if spec.macs_fraction < 1 else {}
    return channels | left


def finetune(network: nn.Module, number: int, spec: TrialSpec, context: SearchContext) -> None:
    """Train the remaining weights, with the model that is compressed as the teacher where the configuration says so."""
    training = replace(context.config.training, epochs=spec.epochs)
    claim_checkpoints(number, spec, context.folder)
    result = fit(
        network,
        context.train,
        context.val,
        training,
        teacher=copy.deepcopy(context.artifact.model) if context.config.compression.teach else None,
        callbacks=context.make_callbacks(f"trial {number}"),
        checkpoints=context.folder / TRIAL_CHECKPOINT_FOLDER,
    )
    if result.ending == "diverged":
        rate = training.learning_rate
        raise DivergedError(
            f"trial {number}: {result.message}; begin anew (if_exists='overwrite') at a lower "
            f"training.learning_rate than {rate:g}"
        )
    if result.ending == "interrupted":
        raise InterruptedRunError(
            f"stopped in trial {number}; what was found so far is kept; if_exists='resume' goes on"
        )


def claim_checkpoints(number: int, spec: TrialSpec, folder: Path) -> None:
    """Record whose training the checkpoints are of; remove those of another trial, which another budget left."""
    claim = folder / CLAIM_FILE
    mine = {"number": number, "scheme": to_mapping(spec)}
    if not claim.is_file() or read_json(claim) != mine:
        remove_checkpoints(folder / TRIAL_CHECKPOINT_FOLDER)
        write_json(claim, mine)


def _encode_network(network: nn.Module, context: SearchContext) -> Artifact:
    """Return a network as the coded artifact of the same task, with the temperature that suits it."""
    config = replace(context.artifact.config, widths=None)
    widths = read_widths(network, build_model(config))
    temperature = _find_temperature(network, context.val)
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    config = replace(config, widths=widths, calibration_temperature=temperature)
    return encode_artifact(replace(context.artifact, config=config, weights=state))


@torch.inference_mode()
def _find_temperature(network: nn.Module, samples: Loader) -> float:
    """Return the temperature that a network's logits are to be divided by, as after training."""
    network.eval()
    logits = torch.cat([network(inputs).float() for inputs, _ in samples.epoch(1)])
    return float(f"{choose_temperature(logits.numpy(), samples.labels.numpy()).temperature:.{DIGITS}g}")


@torch.inference_mode()
def measure_accuracy(network: nn.Module, samples: Loader, most: int | None = None) -> float:
    """Return the accuracy, 0 to 1, on all samples, or on the first `most` or a few more."""
    network.eval()
    hits = count = 0
    for inputs, labels in samples.epoch(1):
        hits += int((network(inputs).argmax(dim=1) == labels).sum())
        count += len(labels)
        if most is not None and count >= most:
            break
    return hits / count


def measure_layers(context: SearchContext) -> Sensitivity:
    """Return the sensitivity of each layer alone, evaluated on some validation samples."""
    some = replace(context.val, sampler="shuffle")  # Sources may be sorted by class.
    return measure_sensitivity(
        context.artifact.model,
        lambda network: measure_accuracy(network, some, CONSTANTS.sensitivity_samples),
        CONSTANTS.sensitivity_sparsities,
        CONSTANTS.sensitivity_bits,
    )


def time_fastest(artifact: Artifact) -> float:
    """Return the median milliseconds of one sample in the fastest runtime that is installed."""
    latencies = time_runtimes(artifact)
    return latencies[find_fastest(latencies)].p50


def count_macs(artifact: Artifact) -> int:
    """Return the multiply-accumulates of one sample."""
    config = artifact.config
    return count_complexity(artifact.model, config.input.shape, config.architecture, config.input.kind).macs


def find_macs_fractions(budget: Budget, context: SearchContext) -> tuple[float, ...]:
    """Return the fractions of the MACs that removing channels may leave: what a budget allows, then its halves.

    Only the first where the configuration says so, where channels cannot be removed, and without torch-pruning.
    """
    config, network = context.config.compression, context.artifact.model
    fractions = [_find_macs_fraction(budget, context)]
    while config.channels != "none" and fractions[-1] * CONSTANTS.step_down >= CONSTANTS.least_macs:
        try:
            _remove_channels(fractions[-1] * CONSTANTS.step_down, config)(network)
        except (ConfigError, MissingExtraError):  # No channel can go, or not that many.
            break
        fractions.append(fractions[-1] * CONSTANTS.step_down)
    return tuple(fractions)


def _find_macs_fraction(budget: Budget, context: SearchContext) -> float:
    """Return the largest fraction of the MACs that keeps within a budget.

    Milliseconds are measured before the network learns again, which does not change them. Raises BudgetError where that
    many channels cannot be removed, or the least number of MACs is still too slow, and MissingExtraError.
    """
    artifact = context.artifact
    fraction = 1.0 if budget.max_macs is None else min(budget.max_macs / count_macs(artifact), 1.0)
    network, known = artifact.model, ""
    while True:
        try:
            network = (
                _remove_channels(fraction, context.config.compression)(artifact.model) if fraction < 1 else network
            )
        except ConfigError as error:
            reason = f"out of reach by removing channels{known}: {_explain_reach(fraction, context, error)}"
            raise BudgetError(f"{budget.describe()}: {reason}") from error
        if budget.max_latency_ms is None:
            return fraction
        found = time_fastest(_encode_network(network, context))
        if found <= CONSTANTS.latency_margin * budget.max_latency_ms:
            return fraction
        known = f"; with {fraction:.0%} of the MACs it takes {found:.3f} ms"
        if fraction <= CONSTANTS.least_macs:
            raise BudgetError(f"{budget.describe()}: out of reach by removing channels{known}")
        step = CONSTANTS.latency_margin * budget.max_latency_ms / found
        step = min(max(step, CONSTANTS.largest_latency_step), CONSTANTS.smallest_latency_step)
        fraction = max(fraction * step, CONSTANTS.least_macs)


def _explain_reach(fraction: float, context: SearchContext, error: ConfigError) -> str:
    """Return how many MACs removing channels leaves at least, in words; where that was not the reason, the error."""
    step = _remove_channels(CONSTANTS.step_down, context.config.compression)
    try:
        least, freely = (_find_least_macs(one, context.artifact) for one in (step, replace(step, multiple=1)))
    except ConfigError:
        return str(error)
    if least <= fraction * count_macs(context.artifact):
        return str(error)
    free = f", {freely:,} with compression.multiple=1, in another folder" if freely < least else ""
    return f"about {least:,} MACs are left at least{free}"


def _find_least_macs(step: PruneChannels, artifact: Artifact) -> int:
    return math.ceil(step.find_least(artifact.model) * count_macs(artifact))
