"""Writes the tables of both READMEs and of the book from `results/*.json` and from the registry.

A table stands between two marks, `<!-- NAME: begin -->` and `<!-- NAME: end -->`, of which the first may name parts:
`<!-- models lenet* cnn_small: begin -->`.

A target is *met* where the whole 95 % interval keeps to it, *missed* where the figure itself does not, and *not shown*
in between: with one run, with an interval that reaches beyond, or with a peer whose deviation nobody wrote down. What a
mistake in measuring made worthless is *withdrawn*, and stays with the reason.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from highlights import HIGHLIGHTS, WORDS
from record import UNKNOWN, latest_runs, mean, name_verdict, seed_interval
from sources import SOURCES

from falconet.models import MODELS

RESULTS = Path(__file__).parent / "results"
VERDICTS = ("missed", "not shown", "withdrawn", "met")
"""In the order of the table."""
DEFAULTS = "defaults"
PEERS_BY_HAND = ("by hand", "fine-tuned by hand", "fastai")
STORY, PROFILE, EXPORTS = "mnist-story", "training-profile", "exports"
ROOT = Path(__file__).parent.parent
COMPARISON = ROOT / "docs" / "comparison" / "comparison.md"
FILLED = (ROOT / "README.md", ROOT / "README.zh.md", *sorted((ROOT / "docs").rglob("*.md")))
MARKED = re.compile(
    r"(?P<begin><!-- (?P<name>\w+)(?P<parts>[^:\n]*): begin -->)\n.*?(?P<end><!-- (?P=name): end -->)", re.S
)


def main() -> None:
    for path in FILLED:
        path.write_text(fill(path.read_text(encoding="utf-8")), encoding="utf-8")


def fill(text: str) -> str:
    """Return a text with those tables made anew that it has."""
    makers: dict[str, Callable[..., str]] = {
        "comparison": list_compared, "story": list_story, "results": list_results, "verdict": list_verdict,
        "explaining": list_explaining, "highlights": list_highlights, "models": list_architectures,
        "profile": list_profile, "exports": list_exports, "defaults": list_defaults,
    }  # fmt: skip

    def replace(table: re.Match[str]) -> str:
        if table["name"] not in makers:
            return table[0]
        made = makers[table["name"]](*table["parts"].split())
        return f"{table['begin']}\n{made}\n{table['end']}"

    return MARKED.sub(replace, text)


def list_architectures(*patterns: str) -> str:
    """Return the registry, or what of it has such names, as one Markdown table."""
    lines = ["| name | parameters | MACs | input | classes |", "| --- | ---: | ---: | --- | ---: |"]
    for name, entry in MODELS.items():
        if not matches(name, patterns):
            continue
        shape = "x".join(map(str, entry.input))
        lines.append(f"| `{name}` | {entry.params:,} | {entry.macs:,} | {shape} | {entry.num_classes} |")
    return "\n".join(lines)


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Return whether a name is one of those that patterns of a shell name; without any, each is."""
    return not patterns or any(fnmatch(name, pattern) for pattern in patterns)


def list_story(*patterns: str) -> str:
    """Return what each network of the story, or those of such recipes, does on MNIST, and at what cost."""
    lines = ["| recipe | test error | parameters | MACs |", "| --- | ---: | ---: | ---: |"]
    for row in json.loads((RESULTS / f"{STORY}.json").read_text(encoding="utf-8"))["rows"]:
        recipe = row["name"].partition("recipe ")[2].partition(":")[0]
        error = f"{row['value']:.2f} ± {row['std']:.2f} %"
        if matches(recipe, patterns):
            lines.append(f"| `{recipe}` | {error} | {row['params']:,} | {row['macs']:,} |")
    return "\n".join(lines)


def list_compared(*patterns: str) -> str:
    """Return the first table of the recorded comparison, or of it the models of such names."""
    blocks = COMPARISON.read_text(encoding="utf-8").split("\n\n")
    head, rule, *rows = next(block for block in blocks if block.startswith("| model")).strip().splitlines()
    return "\n".join([head, rule, *(row for row in rows if matches(row.split("|")[1].strip(), patterns))])


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


def read_rows(*patterns: str) -> list[tuple[str, dict[str, Any], str]]:
    """Return the file, the content and the origin of each row of the results, or of those that patterns name.

    A pattern is one of files, or `FILE#WORD`, which takes of them the rows with that word in their names. A row that is
    called after the one before it gets that one's name.
    """
    rows = []
    for path in sorted(RESULTS.glob("*.json"), key=count_up):
        words = [word for file, _, word in (pattern.partition("#") for pattern in patterns) if fnmatch(path.stem, file)]
        if patterns and not words:
            continue
        content = json.loads(path.read_text(encoding="utf-8"))
        named = ""
        for row in content["rows"]:
            named = named if row["name"].startswith("the same") else row["name"]
            if not patterns or any(word in row["name"] for word in words):
                name = row["name"].replace("the same", named, 1) if row["name"].startswith("the same") else row["name"]
                rows.append((path.stem, row | {"name": name}, describe(content)))
    return rows


def list_results(*patterns: str) -> str:
    """Return results that have a target as one Markdown table: first what was missed, then what is not shown."""
    rows = [(name_verdict(row), row) for _, row, _ in read_rows(*patterns) if row["target"]]
    rows.sort(key=lambda row: VERDICTS.index(row[0]))
    lines = ["| | what | result | target |", "| --- | --- | --- | --- |"]
    return "\n".join([*lines, *(f"| {verdict} {format_row(row)}" for verdict, row in rows)])


def list_verdict(*words: str) -> str:
    """Return all results of one verdict, and where they were measured, as a Markdown table."""
    lines = ["| what | result | target | measured on |", "| --- | --- | --- | --- |"]
    rows = [(row, where) for _, row, where in read_rows() if row["target"] and name_verdict(row) == " ".join(words)]
    return "\n".join([*lines, *(f"{format_row(row)} {where} |" for row, where in rows)])


def list_explaining() -> str:
    """Return all results without a target, a table for each file; they explain those that have one."""
    files: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for stem, row, where in read_rows():
        if not row["target"]:
            files.setdefault((stem, where), []).append(row)
    parts = []
    for (stem, where), rows in files.items():
        lines = [f"| {row['name']} | {format_result(row)} |" for row in rows]
        parts.append("\n".join([f"### {stem}", "", f"{where}.", "", "| what | result |", "| --- | --- |", *lines]))
    return "\n".join(["", "\n\n".join(parts), ""])


def list_highlights(language: str) -> str:
    """Return the results that help to choose, in `en` or `zh`."""
    words = WORDS[language]
    lines = [f"| {' | '.join(words['head'])} |", "| --- | --- | --- | --- |"]
    for highlight in HIGHLIGHTS:
        rows = [row for _, row, _ in read_rows(highlight.file) if row["name"].startswith(highlight.row)]
        (decisive,) = (row for row in rows if row["target"] and row["target"].startswith(highlight.target))
        row = next((row for row in rows if highlight.figure and row["name"].endswith(highlight.figure)), decisive)
        unit = words.get(row["unit"], row["unit"])
        result = f"**{format_short(row['value'], row['std'] if row['n'] > 1 else 0)} {unit}** (n = {row['n']})"
        beside = getattr(highlight, f"peer_{language}")
        if row["peer_value"] is not None:
            beside = f"{beside}{words['colon']}{format_short(row['peer_value'], row.get('peer_std'))} {unit}"
        verdict = words[name_verdict(decisive)]
        lines.append(f"| {getattr(highlight, language)} | {result} | {beside} | {verdict} |")
    return "\n".join(lines)


def count_up(path: Path) -> list[str | int]:
    """Return what sorts names by the numbers in them: 60x before 150x."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.stem)]


def format_row(row: dict[str, Any]) -> str:
    """Return the cells that tables of results have in common."""
    return f"| {row['name']} | {format_result(row)} | {row['target']} |"


def format_result(row: dict[str, Any]) -> str:
    """Return what was measured, and beside what; what was withdrawn is struck out, with the reason."""
    unit = f" {row['unit']}" if row["unit"] else ""
    result = f"{format_figure(row['value'], row['std'] if row['n'] > 1 else 0)}{unit}"
    if row["ratio"] is not None:
        peer = f"{row['peer']}: {format_figure(row['peer_value'], row.get('peer_std'))}{unit}"
        result = f"**{row['ratio']:.3g}×**: {result}; {peer}"
    else:
        result = f"**{result}**"
    result += f" (n = {row['n']}{format_interval(row)})"
    if row.get("withdrawn"):
        return f"withdrawn: {row['withdrawn']}. It was: ~~{result.replace('**', '')}~~"
    return f"{result}; {row['note']}" if row.get("note") else result


def format_figure(value: float, std: float | None) -> str:
    """Return a figure with its deviation where it has one; large whole ones in all their digits."""
    text = f"{value:,.0f}" if value >= 1000 and float(value).is_integer() else f"{value:.4g}"
    return f"{text} ± {std:.2g}" if std else text


def format_short(value: float, std: float | None) -> str:
    """Return a figure with its deviation, both with as many decimals."""
    decimals = 0 if value >= 1000 else 1 if value >= 10 else 2
    text = f"{value:,.{decimals}f}"
    return f"{text} ± {std:,.{decimals}f}" if std else text


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
