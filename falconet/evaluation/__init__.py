"""What a trained model answers, and how good that is."""

from falconet.data.dataset import match_labels
from falconet.evaluation.answers import Answers, predict_logits
from falconet.evaluation.confidence import Calibration, calibrate, describe_calibration
from falconet.evaluation.costs import Costs, measure_costs
from falconet.evaluation.evaluation import Evaluation, evaluate, evaluate_answers, evaluate_logits, evaluate_split
from falconet.evaluation.prediction import iterate_predictions, predict
from falconet.evaluation.robustness import Robustness, measure_robustness
from falconet.predictions import Predictions

__all__ = [
    "Answers",
    "Calibration",
    "Costs",
    "Evaluation",
    "Predictions",
    "Robustness",
    "calibrate",
    "describe_calibration",
    "evaluate",
    "evaluate_answers",
    "evaluate_logits",
    "evaluate_split",
    "iterate_predictions",
    "match_labels",
    "measure_costs",
    "measure_robustness",
    "predict",
    "predict_logits",
]
