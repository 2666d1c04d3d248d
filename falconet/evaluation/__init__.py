"""What a trained model answers, and how good that is."""

from falconet.evaluation.answers import Answers, predict_logits
from falconet.evaluation.costs import Costs, measure_costs
from falconet.evaluation.judgement import Evaluation, evaluate, evaluate_split, judge, match_labels
from falconet.evaluation.prediction import Predictions, predict
from falconet.evaluation.robustness import Robustness, measure_robustness

__all__ = [
    "Answers",
    "Costs",
    "Evaluation",
    "Predictions",
    "Robustness",
    "evaluate",
    "evaluate_split",
    "judge",
    "match_labels",
    "measure_costs",
    "measure_robustness",
    "predict",
    "predict_logits",
]
