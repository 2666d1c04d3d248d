"""Words that the field does not use stay away: from code, help texts, pages, recipes and docs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import falconet

ROOT = Path(falconet.__file__).parent.parent
RETIRED: Mapping[str, str] = {
    r"[Jj]udg(?:e|es|ed|ing|ement|ements)": "evaluate, evaluation",
    r"Team|join_team|add_up": "ProcessGroup, init_process_group, all_reduce",
    r"Lesson|Feed|Course": "DistillationLoss, DataBundle, TrainingLog",
    r"choose_place|save_draws|restore_draws": "DevicePolicy, choose_device_policy, get_rng_state, set_rng_state",
    r"go_back|take_step": "rollback, train_step",
    r"Workshop|Scheme|Contest": "SearchContext, TrialSpec, PairedComparison",
    r"make_draft|Shorten": "TracedModel, QuantizeFloats",
}
"""Patterns of whole words, and what is written in their place."""
KEPT: Mapping[str, tuple[str, ...]] = {
    "falconet/evaluation/confidence.py": ("judged",),
    "falconet/terminal.py": ("judged",),
    "falconet/comparison/trials.py": ("judged",),
}
"""Keys of JSON and names of files that were published before."""


TEXTS = (
    "falconet/**/*.py", "falconet/**/*.jinja", "falconet/**/*.yaml", "docs/**/*.md", "README.md", "CONTRIBUTING.md",
)  # fmt: skip


def list_texts() -> Iterator[Path]:
    for pattern in TEXTS:
        yield from sorted(ROOT.glob(pattern))


def test_retired_words_are_not_written() -> None:
    found = [
        f"{name}:{number}: {match.group()}; write {instead}"
        for path in list_texts()
        for name in [path.relative_to(ROOT).as_posix()]
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        for words, instead in RETIRED.items()
        for match in re.finditer(rf"(?<![A-Za-z])(?:{words})(?![A-Za-z])", line)
        if match.group() not in KEPT.get(name, ())
    ]
    assert not found, "\n".join(found)
