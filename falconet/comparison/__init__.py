"""compare(): many models trained and evaluated alike, with their costs and tests of their differences."""

from falconet.comparison.comparing import compare
from falconet.comparison.results import Comparison, ComparisonPair, ComparisonRow

__all__ = ["Comparison", "ComparisonPair", "ComparisonRow", "compare"]
