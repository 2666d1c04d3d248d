"""The command line: verbs that parse, call and print. Nothing here imports torch before it must."""

# In this order --help lists the verbs.
from falconet.cli import (
    architectures,
    comparing,
    compressing,
    evaluating,
    explanations,
    exporting,
    generating,
    labeling,
    reporting,
    sharing,
    sources,
    training,
)
from falconet.cli.app import app, main, run

__all__ = [
    "app",
    "architectures",
    "comparing",
    "compressing",
    "evaluating",
    "explanations",
    "exporting",
    "generating",
    "labeling",
    "main",
    "reporting",
    "run",
    "sharing",
    "sources",
    "training",
]
