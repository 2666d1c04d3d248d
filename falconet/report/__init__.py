"""Reports: one self-contained HTML page, and a model card, of the same facts."""

from falconet.report.card import render_card
from falconet.report.facts import (
    CompressionSummary,
    LeaderboardRow,
    Mistake,
    ModelReport,
    TrainingLog,
    build_report,
    get_environment,
)
from falconet.report.html import render_html

__all__ = [
    "CompressionSummary",
    "LeaderboardRow",
    "Mistake",
    "ModelReport",
    "TrainingLog",
    "build_report",
    "get_environment",
    "render_card",
    "render_html",
]
