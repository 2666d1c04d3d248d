"""Writes the tables of README and docs from `results/*.json` and from the registry.

A target is *met* where the whole 95 % interval keeps to it, *missed* where the figure itself does not, and *not shown*
in between: with one run, with an interval that reaches beyond, or with a peer whose deviation nobody wrote down. What a
mistake in measuring made worthless is *withdrawn*, and stays with the reason.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from record import UNKNOWN, latest_runs, mean, name_verdict, seed_interval
from sources import SOURCES

from falconet.models import MODELS

RESULTS = Path(__file__).parent / "results"
VERDICTS = ("missed", "not shown", "withdrawn", "met")
"""In the order of the table."""
DEFAULTS = "defaults"
PEERS_BY_HAND = ("by hand", "fine-tuned by hand", "fastai")
STORY, PROFILE, EXPORTS = "mnist-story", "training-profile", "exports"
"""Each has a table of its own."""
ROOT = Path(__file__).parent.parent
COMPARISON = ROOT / "docs" / "comparison" / "comparison.md"
FILLED = (ROOT / "README.md", ROOT / "docs" / "training.md", ROOT / "docs" / "exporting.md")


def main() -> None:
    for path in FILLED:
        path.write_text(fill(path.read_text(encoding="utf-8")), encoding="utf-8")


def fill(text: str) -> str:
    """Return a text with those tables made anew that it has."""
    makers = {
        "comparison": list_compared, "story": list_story, "results": list_results, "models": list_architectures,
        "profile": list_profile, "exports": list_exports, "defaults": list_defaults,
    }  # fmt: skip
    for name, make in makers.items():
        if f"<!-- {name}: begin -->" in text:
            text = replace_table(text, name, make())
    return text


def replace_table(text: str, name: str, table: str) -> str:
    """Return a text with what stands between two marks replaced."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    head, _, rest = text.partition(begin)
    _, _, tail = rest.partition(end)
    return f"{head}{begin}\n{table}\n{end}{tail}"


def list_architectures() -> str:
    """Return the registry as one Markdown table."""
    lines = ["| name | parameters | MACs | input | classes |", "| --- | --- | --- | --- | --- |"]
    for name, entry in MODELS.items():
        shape = "x".join(map(str, entry.input))
        lines.append(f"| `{name}` | {entry.params:,} | {entry.macs:,} | {shape} | {entry.num_classes} |")
    return "\n".join(lines)


def list_story() -> str:
    """Return what each network of the story does on MNIST, and at what cost."""
    lines = ["| recipe | test error | parameters | MACs |", "| --- | --- | --- | --- |"]
    for row in json.loads((RESULTS / f"{STORY}.json").read_text(encoding="utf-8"))["rows"]:
        recipe = row["name"].partition("recipe ")[2].partition(":")[0]
        error = f"{row['value']:.2f} ± {row['std']:.2f} %"
        lines.append(f"| `{recipe}` | {error} | {row['params']:,} | {row['macs']:,} |")
    return "\n".join(lines)


def list_compared() -> str:
    """Return the first table of the recorded comparison."""
    blocks = COMPARISON.read_text(encoding="utf-8").split("\n\n")
    return next(block for block in blocks if block.startswith("| model")).strip()


def list_profile() -> str:
    """Return what the time of a training step goes to: kinds of operation down, networks across."""
    content = json.loads((RESULTS / f"{PROFILE}.json").read_text(encoding="utf-8"))
    shares = {tuple(row["name"].split(": ")): row for row in content["rows"]}
    networks, kinds = (list(dict.fromkeys(part)) for part in zip(*shares, strict=True))
    lines = [f"| share of a step | {' | '.join(networks)} |", "| --- |" + " --- |" * len(networks)]
    for kind in kinds:
        cells = (f"{shares[network, kind]['value']:.0f} ± {shares[network, kind]['std']:.0f} %" for network in networks)
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"n = {content['rows'][0]['n']}; {describe(content)}"])


def list_exports() -> str:
    """Return how fast each runtime answers by each network, the fastest in bold; several where deviations overlap."""
    content = json.loads((RESULTS / f"{EXPORTS}.json").read_text(encoding="utf-8"))
    product, *rows = content["rows"]
    lines = [
        "| network | runtime | one sample | × torch eager | batches of 64 | × torch eager | share of matrix products |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    networks: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for one, many, share in zip(rows[::3], rows[1::3], rows[2::3], strict=True):
        network, runtime = one["name"].partition(": ")[0].split(", ")
        networks.setdefault(network, {})[runtime] = [one, many, share]
    names = []
    for network, runtimes in networks.items():
        quickest = find_best({runtime: rows[0] for runtime, rows in runtimes.items()}, lower=True)
        busiest = find_best({runtime: rows[1] for runtime, rows in runtimes.items()}, lower=False)
        names.append(f"{network}: {' or '.join(quickest)} on one sample, {' or '.join(busiest)} in batches")
        for runtime, (one, many, share) in runtimes.items():
            cells = [*format_speed(one, runtime in quickest), *format_speed(many, runtime in busiest)]
            cells.append(f"{share['value']:.0f} ± {share['std']:.0f} %")
            lines.append(f"| {network} | {runtime} | {' | '.join(cells)} |")
    versions = ", ".join(f"{name} {content['versions'][name]}" for name in ("onnxruntime", "openvino"))
    return "\n".join([
        *lines,
        "",
        f"Fastest: {'; '.join(names)}.",
        "",
        f"{product['name']} {product['value']:.3g} ± {product['std']:.2g} {product['unit']}; n = {rows[0]['n']}; "
        f"{describe(content)}, {versions}",
    ])  # fmt: skip


def list_defaults() -> str:
    """Return what `falconet train` alone comes to on each data set, beside what is written by hand."""
    runs = latest_runs(RESULTS / f"{DEFAULTS}-runs.jsonl")
    lines = [
        "| data | kept | `falconet train` | by hand | | difference | seconds | by hand |",
        "| --- | --- | ---: | ---: | --- | ---: | ---: | ---: |",
    ]
    counts = set()
    for task, source in SOURCES.items():
        for peer in PEERS_BY_HAND:
            seeds = [seed for name, of, seed in runs if (name, of) == (peer, task) and ("falconet", task, seed) in runs]
            if not seeds:
                continue
            ours, theirs = ([runs[name, task, seed] for seed in sorted(seeds)] for name in ("falconet", peer))
            counts.add(len(seeds))
            cells = [source.title, name_models(ours), *(format_accuracy(part) for part in (ours, theirs))]
            how = "" if peer == PEERS_BY_HAND[0] else f", {peer}"
            cells += [f"{name_models(theirs)}{how}", format_difference(ours, theirs)]
            cells += [f"{mean([run['seconds'] for run in part])[0]:.0f}" for part in (ours, theirs)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"n = {' or '.join(map(str, sorted(counts)))} seeds, ± their standard deviation"])


def name_models(runs: Sequence[dict[str, Any]]) -> str:
    """Return the models of several runs, the most frequent first."""
    return " or ".join(name for name, _ in Counter(run["model"] for run in runs).most_common())


def format_accuracy(runs: Sequence[dict[str, Any]]) -> str:
    value, std = mean([100 * run["accuracy"] for run in runs])
    return f"{value:.1f} ± {std:.1f} %"


def format_difference(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> str:
    """Return the mean difference of runs with the same seed, in points, and its 95 % interval over seeds."""
    found = [100 * (first["accuracy"] - second["accuracy"]) for first, second in zip(ours, theirs, strict=True)]
    interval = seed_interval(found)
    return f"{mean(found)[0]:+.1f}" + (f" ({interval[0]:+.1f} to {interval[1]:+.1f})" if interval else "")


def find_best(rows: dict[str, dict[str, Any]], *, lower: bool) -> list[str]:
    """Return the best of several figures, and those that its deviation and their own do not tell from it."""
    sign = 1 if lower else -1
    best = min(rows.values(), key=lambda row: sign * row["value"])
    return [name for name, row in rows.items() if abs(row["value"] - best["value"]) <= row["std"] + best["std"]]


def format_speed(row: dict[str, Any], best: bool) -> tuple[str, str]:
    """Return a figure and its ratio to the peer's as cells, the best in bold."""
    text = f"{row['value']:,.0f}" if row["value"] >= 100 else f"{row['value']:.2f}"
    spread = f"{row['std']:,.0f}" if row["value"] >= 100 else f"{row['std']:.2f}"
    text = f"{text} ± {spread} {row['unit']}"
    return f"**{text}**" if best else text, f"{row['ratio']:.2f}"


def list_results() -> str:
    """Return all results as one Markdown table: first what was missed, then what is not shown or withdrawn."""
    rows = []
    for path in sorted(RESULTS.glob("*.json"), key=count_up):
        if path.stem in (STORY, PROFILE, EXPORTS):
            continue
        content = json.loads(path.read_text(encoding="utf-8"))
        rows += [(name_verdict(row), format_row(row, describe(content))) for row in content["rows"] if row["target"]]
    rows.sort(key=lambda row: VERDICTS.index(row[0]))
    lines = ["| | what | result | target | measured on |", "| --- | --- | --- | --- | --- |"]
    return "\n".join([*lines, *(line for _, line in rows)])


def count_up(path: Path) -> list[str | int]:
    """Return what sorts names by the numbers in them: 60x before 150x."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.stem)]


def format_row(row: dict[str, Any], where: str) -> str:
    """Return one line of the table; what was withdrawn is struck out, with the reason."""
    unit = f" {row['unit']}" if row["unit"] else ""
    result = f"{format_figure(row['value'], row['std'] if row['n'] > 1 else 0)}{unit}"
    if row["ratio"] is not None:
        peer = f"{row['peer']}: {format_figure(row['peer_value'], row.get('peer_std'))}{unit}"
        result = f"**{row['ratio']:.3g}×**: {result}; {peer}"
    else:
        result = f"**{result}**"
    result += f" (n = {row['n']}{format_interval(row)})"
    if row.get("withdrawn"):
        result = f"withdrawn: {row['withdrawn']}. It was: ~~{result.replace('**', '')}~~"
    elif row.get("note"):
        result += f"; {row['note']}"
    return f"| {name_verdict(row)} | {row['name']} | {result} | {row['target']} | {where} |"


def format_figure(value: float, std: float | None) -> str:
    """Return a figure with its deviation where it has one; large whole ones in all their digits."""
    text = f"{value:,.0f}" if value >= 1000 and float(value).is_integer() else f"{value:.4g}"
    return f"{text} ± {std:.2g}" if std else text


def format_interval(row: dict[str, Any]) -> str:
    """Return what a row's interval adds to its number of measurements; nothing where chance has no part in it."""
    if row.get("interval") is None or row["interval"][0] == row["interval"][1]:
        return ""
    low, high = row["interval"]
    return f"; 95 % over {row['over']}: {low:.4g} to {high:.4g}"


def describe(content: dict[str, Any]) -> str:
    """Return where and with what results were measured."""
    hardware, versions = content["hardware"], content["versions"]
    commit = f"commit {content['commit'][:7]}"
    if content["dirty"]:
        commit += " and changes to it"
    if content["commit"] == UNKNOWN:
        commit = f"commit {UNKNOWN}; figures entered the repository in {content['recorded_in']}"
    where = f"{hardware['processor']}, {hardware['threads']} threads, torch {versions['torch']}"
    return f"{where}, {content['date']}; {commit}"


if __name__ == "__main__":
    main()
