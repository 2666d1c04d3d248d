"""Why a model answers as it does, in pictures, and whether that is true."""

from falconet.explanation.examination import Examination, examine
from falconet.explanation.explaining import Explanations, explain
from falconet.explanation.methods import METHODS, attribute

__all__ = ["METHODS", "Examination", "Explanations", "attribute", "examine", "explain"]
