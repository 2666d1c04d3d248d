"""compare(): many models trained and evaluated alike, with what they cost and which differences are more than luck."""

from falconet.comparison.comparing import compare
from falconet.comparison.results import Comparison, ComparisonPair, ComparisonRow

__all__ = ["Comparison", "ComparisonPair", "ComparisonRow", "compare"]
