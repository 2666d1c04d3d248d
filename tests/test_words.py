"""Words that the field does not use stay away: from code, help texts, pages, recipes and docs."""

from __future__ import annotations

import ast
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
    r"[Rr]ungs?|[Ll]adders?": "trial, density",
}
"""Patterns of whole words, and what is written in their place."""
RETIRED_IN_CODE: Mapping[str, str] = {
    r"teacher_share|training\.keep|training\.temperature|loss=mse": "the names in falconet.renames",
    r"existing(?==)|measured(?==)|--raw": "if_exists, batch_size='auto', preprocessing, --no-preprocessing",
    r"eats?|ails?|ailed|ailments?": "take, Input, Diagnosis",
    r"How good it is|Where it fails|How sure it is|What it costs|[Mm]ade samples": "words of model cards; synthetic",
    r"[Dd]ifferent tokens": "vocabulary size",
    r"lone_threads|silence_branch|built_for|surround": "single_threaded_pool, zero_init_residual",
    r"Doctor|Vitals|[Vv]itals(?!\.csv)|contest|feed": "LayerMonitor, LayerStats, bundle",
    r"(?:LEAST|MOST|LARGEST|LONGEST|SMALLEST|SHORTEST|FEWEST|LOWEST)_[A-Z_]+|[A-Z_]+_SHARE": "MIN_, MAX_, _FRACTION",
    r"recall_(?!curve)[a-z_]+|find_ailments|carry_out|fit_again|tell_probe": "load_, run_plan, refit_network",
    r"weigh_(?:classes|effectively)|balance_classes|widen_angle|subtract_cosine": "words of scikit-learn, of papers",
    r"(?<![Ss]tandard )[Dd]eviations?": "std",
    r"[Ss]hares? of|(?:a|the) share|check_share|to_shares|format_share|share_accepted": "fraction, soft labels",
    r"in_maps|out_maps|round_maps|(?:number of|\d+) maps": "channels",
    r"(?:standing|stands|comes) behind|behind (?:the end|its end|a series|one another)": "after",
}
"""The same, for the package and its recipes alone."""
KEPT: Mapping[str, tuple[str, ...]] = {
    "falconet/cli/evaluation_tables.py": ("judged",),
    "falconet/evaluation/confidence.py": ("judged",),
    "falconet/comparison/trials.py": ("judged",),
    "falconet/renames.py": (
        "teacher_share",
        "training.keep",
        "training.temperature",
        "loss=mse",
        "Doctor",
        "Vitals",
    ),
    "falconet/defaults.py": ("LARGEST_BACKBONE", "SMALLEST_BACKBONE"),
    "falconet/model.py": ("existing", "measured"),
    "falconet/demonstration.py": ("existing",),
    "falconet/training/diagnoses.py": ("vitals",),
    "falconet/cli/exporting.py": ("--raw",),
    "falconet/compression/session.py": ("existing",),
}
"""Keys of JSON and names of files that were published before, and the table of what is understood until 1.0."""


TEXTS = (
    "falconet/**/*.py", "falconet/**/*.jinja", "falconet/**/*.yaml", "docs/**/*.md", "README.md", "CONTRIBUTING.md",
)  # fmt: skip


def list_texts() -> Iterator[Path]:
    for pattern in TEXTS:
        yield from sorted(ROOT.glob(pattern))


def list_retired(name: str) -> Iterator[tuple[str, str]]:
    """Yield the words that a file must not have."""
    yield from RETIRED.items()
    if name.startswith("falconet/"):
        yield from RETIRED_IN_CODE.items()


def test_retired_words_are_not_written() -> None:
    found = [
        f"{name}:{number}: {match.group()}; write {instead}"
        for path in list_texts()
        for name in [path.relative_to(ROOT).as_posix()]
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        for words, instead in list_retired(name)
        for match in re.finditer(rf"(?<![A-Za-z])(?:{words})(?![A-Za-z])", line)
        if match.group() not in KEPT.get(name, ())
    ]
    assert not found, "\n".join(found)


FRAGMENTS = re.compile(r"(?:Of|In|With|By|From|For|On|At|As|Those|That|Which|The same)\b")
"""How a docstring begins that nobody understands who sees it alone, such as when hovering over a name."""


def test_docstrings_have_a_subject() -> None:
    found = [
        f"{path.relative_to(ROOT).as_posix()}:{node.lineno}: {text.splitlines()[0]}"
        for path in sorted((ROOT / "falconet").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for text in [node.value.value if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) else None]
        if isinstance(node, ast.Expr) and isinstance(text, str) and FRAGMENTS.match(text)
    ]
    assert not found, "\n".join(found)
