"""Which runtime is fastest: torch eager, onnxruntime or OpenVINO, both in fp32 and int8, in one process by turns.

All run the same bare networks on one thread, from normalized input in memory to logits in memory, as `falconet export
--no-preprocessing` writes them; OpenVINO's int8 is the file of the target `onnx-int8`, read by OpenVINO. Weights are
untrained and ranges of integers are chosen on random data: this is a benchmark of speed alone, and says nothing of
accuracy. In each round every contender answers single samples and batches of 64, and large matrices are multiplied in
fp32, so that each rate in batches is also told as a share of that one (a MAC is two operations). Integers may pass
100 %. What is measured while other programs use the core is measured again.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from matrix_rate import time_products
from record import Row, mean, save

from falconet import ImageSpec, TextSpec, create_model, summarize
from falconet.artifact import Artifact, ArtifactConfig, DataOrigin, Provenance, get_model_kwargs
from falconet.complexity import Complexity
from falconet.exporters.onnx import write_onnx
from falconet.exporters.openvino import write_openvino
from falconet.exporters.quantization import write_int8
from falconet.exporters.runtimes import open_session
from falconet.exporters.tracing import make_traced
from falconet.latency import measure_latency, pinned_threads
from falconet.spec import ClassificationSpec, InputSpec

PEER = "torch eager"
LABELS = tuple("0123456789")
GRAY, COLOR = ((0.5,), (0.25,)), ((0.5,) * 3, (0.25,) * 3)
NETWORKS: Mapping[str, InputSpec] = {
    "lenet_relu": ImageSpec((1, 28, 28), *GRAY),
    "squeezenet1_1": ImageSpec((3, 64, 64), *COLOR),
    "resnet20": ImageSpec((3, 32, 32), *COLOR),
    "transformer": TextSpec((32,), vocab_size=2000),
}
BATCH = 64
CALIBRATED = 32
"""Random samples by which ranges of integers are chosen."""
SIDE = 2048
"""Rows and columns of the matrices."""
SECONDS = 0.5
"""At most, of timed calls of one contender in a round, alone and in batches; ten calls are made in any case."""
BATCHES = 50
"""At most, of a contender in a round."""
ALONE = 0.95
"""Share of the time that this process computes in, from which on nothing else is thought to use its core."""
ATTEMPTS = 2
"""At most, to measure so."""
TOLERANCE = 1e-3
"""Largest difference of logits in fp32, as a share of the largest logit."""

Ask = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Contest:
    """One network in all runtimes."""

    title: str
    cost: Complexity
    batch: np.ndarray
    contenders: Mapping[str, Ask]
    latencies: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Milliseconds of one sample by contender, the median of each round."""
    rates: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Samples a second in batches by contender, of each round."""
    products: list[float] = field(default_factory=list)
    """Operations a second of matrix products, right before each round."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), help="only these; nothing is recorded then")
    parser.add_argument("--rounds", type=int, default=7, help="of which medians count")
    arguments = parser.parse_args()
    with pinned_threads(1), tempfile.TemporaryDirectory() as scratch:
        contests = [prepare(name, Path(scratch) / name) for name in arguments.networks or NETWORKS]
        take_turns(contests, arguments.rounds)
        rows = [describe_products(contests), *(row for contest in contests for row in describe(contest))]
        if arguments.networks:
            print(*(f"{row.name}: {row.value:.4g} {row.unit}" for row in rows), sep="\n")
        else:
            save("exports", rows, packages=("onnx", "onnxruntime", "openvino"))
    for contest in contests:
        name_fastest(contest)


def prepare(name: str, folder: Path) -> Contest:
    """Export an untrained network to all formats and open them; those in fp32 must give the same logits."""
    spec = NETWORKS[name]
    artifact = make_artifact(name, spec)
    batch = draw(spec, BATCH)
    contenders = open_contenders(artifact, folder)
    wanted = contenders[PEER](batch)
    for contender, ask in contenders.items():
        difference = float(np.abs(ask(batch) - wanted).max() / np.abs(wanted).max())
        print(f"{name}, {contender}: largest difference of logits {100 * difference:.2g} %", flush=True)
        if not contender.endswith("int8") and difference > TOLERANCE:
            raise SystemExit(f"{name}: {contender} gives other logits than {PEER}")
    channels = spec.vocab_size if isinstance(spec, TextSpec) else spec.shape[0]
    size = spec.shape if isinstance(spec, TextSpec) else spec.shape[1:]
    cost = summarize(name, input_shape=(channels, *size), kind=spec.kind, num_classes=len(LABELS))
    shape = f"{size[0]} tokens" if isinstance(spec, TextSpec) else "x".join(map(str, spec.shape))
    return Contest(f"{name} at {shape}", cost, batch, contenders)


def make_artifact(name: str, spec: InputSpec) -> Artifact:
    """Return an untrained network."""
    origin = Provenance(DataOrigin("random", "00", 0, 0.1, 0.2), seed=0, epochs=1, best_epoch=1)
    output = ClassificationSpec(LABELS)
    torch.manual_seed(0)
    model = create_model(name, **get_model_kwargs(spec, output))
    return Artifact(ArtifactConfig(name, spec, output, origin), model.state_dict())


def draw(spec: InputSpec, count: int) -> np.ndarray:
    """Return random samples, normalized; texts are as long as can be."""
    generator = np.random.default_rng(0)
    if isinstance(spec, TextSpec):
        return generator.integers(2, spec.vocab_size, (count, *spec.shape))
    return generator.standard_normal((count, *spec.shape), dtype=np.float32)


def open_contenders(artifact: Artifact, folder: Path) -> dict[str, Ask]:
    """Write a network in all formats; return what answers, by runtime and precision."""
    folder.mkdir()
    draft = replace(
        make_traced(artifact, folder, preprocessing=False), calibration=list(draw(artifact.config.input, CALIBRATED))
    )
    single = write_onnx(draft, folder / "fp32.onnx").main
    integers = write_int8(draft, folder / "int8.onnx").main
    single_openvino = write_openvino(draft, folder / "openvino.xml").main
    return {
        PEER: open_eager(artifact),
        "onnxruntime fp32": open_session("onnxruntime", single).run,
        "onnxruntime int8": open_session("onnxruntime", integers).run,
        "OpenVINO fp32": open_session("openvino", single_openvino).run,
        "OpenVINO int8": open_session("openvino", integers).run,
    }


def open_eager(artifact: Artifact) -> Ask:
    """Return what answers by torch, channels innermost as in all trained models."""
    model = artifact.model

    def ask(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            logits: np.ndarray = model(torch.from_numpy(batch)).numpy()
        return logits

    return ask


def take_turns(contests: list[Contest], rounds: int) -> None:
    """Time each contender once a round, and matrix products before each network."""
    for number in range(rounds):
        for contest in contests:
            contest.products.append(time_product())
            for name, ask in contest.contenders.items():
                contest.latencies[name].append(time_one(ask, contest.batch))
                contest.rates[name].append(time_batch(ask, contest.batch))
        rates = ", ".join(f"{contest.products[-1] / 1e9:.1f}" for contest in contests)
        print(f"round {number + 1} of {rounds}: matrix products at {rates} GFLOP/s", flush=True)


def time_one(ask: Ask, batch: np.ndarray) -> float:
    """Return the median milliseconds of one sample."""
    return undisturbed(lambda: measure_latency(lambda: ask(batch[:1]), seconds=SECONDS).p50)


def time_batch(ask: Ask, batch: np.ndarray) -> float:
    """Return the samples a second of a median batch."""
    return undisturbed(
        lambda: 1000 * len(batch) / measure_latency(lambda: ask(batch), calls=BATCHES, warmup=2, seconds=SECONDS).p50
    )


def time_product() -> float:
    """Return the operations a second of a median matrix product."""
    return undisturbed(lambda: 2 * SIDE**3 / statistics.median(time_products(SIDE, torch.float32)))


def undisturbed(measure: Callable[[], float]) -> float:
    """Return what is measured while this process has the core; of ATTEMPTS without, that in which it had most of it."""
    best, most = 0.0, -1.0
    for _ in range(ATTEMPTS):
        wall, processor = time.perf_counter(), time.process_time()
        figure = measure()
        share = (time.process_time() - processor) / (time.perf_counter() - wall)
        if share > most:
            best, most = figure, share
        if most >= ALONE:
            break
    return best


def describe_products(contests: list[Contest]) -> Row:
    """Return the row of matrix products."""
    rates = [rate / 1e9 for contest in contests for rate in contest.products]
    name = f"torch.mm of {SIDE}x{SIDE}, fp32: rate"
    return Row(name, statistics.median(rates), "GFLOP/s", len(rates), mean(rates)[1])


def describe(contest: Contest) -> list[Row]:
    """Return three rows of each contender: one sample, batches, and what share of matrix products these reach."""
    rows = []
    for name in contest.contenders:
        title = f"{contest.title}, {name}"
        pairs = zip(contest.rates[name], contest.products, strict=True)
        shares = [100 * 2 * contest.cost.macs * rate / product for rate, product in pairs]
        rows += [
            compare(contest, f"{title}: one sample, p50", "ms", contest.latencies, name),
            compare(contest, f"{title}: batches of {BATCH}", "samples/s", contest.rates, name),
            Row(f"{title}: share of matrix products", statistics.median(shares), "%", len(shares), mean(shares)[1]),
        ]
    return rows


def compare(contest: Contest, title: str, unit: str, figures: Mapping[str, list[float]], name: str) -> Row:
    """Return the row of one figure; the ratio, of what is larger for the faster, is the median of those in a round."""
    pairs = zip(figures[name], figures[PEER], strict=True)
    ratio = statistics.median(peer / ours if unit == "ms" else ours / peer for ours, peer in pairs)
    return Row(
        title,
        statistics.median(figures[name]),
        unit,
        len(figures[name]),
        mean(figures[name])[1],
        peer=PEER,
        peer_value=statistics.median(figures[PEER]),
        ratio=ratio,
        params=contest.cost.params,
        macs=contest.cost.macs,
    )


def name_fastest(contest: Contest) -> None:
    """Print which contender is fastest."""
    one = min(contest.contenders, key=lambda name: statistics.median(contest.latencies[name]))
    many = max(contest.contenders, key=lambda name: statistics.median(contest.rates[name]))
    print(f"{contest.title}: fastest on one sample: {one}; on batches of {BATCH}: {many}")


if __name__ == "__main__":
    main()
