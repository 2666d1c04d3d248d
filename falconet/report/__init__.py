"""Reports: one self-contained HTML page, and a model card, of the same facts."""

from falconet.report.card import render_card
from falconet.report.facts import (
    LeaderboardRow,
    Mistake,
    ModelReport,
    Shrinking,
    TrainingLog,
    describe_environment,
    describe_model,
)
from falconet.report.html import render_html

__all__ = [
    "LeaderboardRow",
    "Mistake",
    "ModelReport",
    "Shrinking",
    "TrainingLog",
    "describe_environment",
    "describe_model",
    "render_card",
    "render_html",
]
