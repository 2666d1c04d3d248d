"""Explanations of a model's predictions in pictures, and how faithful they are."""

from falconet.explanation.examination import Examination, examine
from falconet.explanation.explaining import Explanations, explain
from falconet.explanation.methods import METHODS, attribute

__all__ = ["METHODS", "Examination", "Explanations", "attribute", "examine", "explain"]
