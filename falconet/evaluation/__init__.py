"""Predictions of a trained model, and their evaluation."""

from falconet.data.dataset import match_labels
from falconet.evaluation.confidence import Calibration, calibrate, measure_calibration
from falconet.evaluation.costs import Costs, measure_costs
from falconet.evaluation.evaluation import Evaluation, evaluate, evaluate_answers, evaluate_logits, evaluate_split
from falconet.evaluation.logits import SplitLogits, predict_logits
from falconet.evaluation.prediction import iterate_predictions, predict
from falconet.evaluation.robustness import Robustness, measure_robustness
from falconet.predictions import Predictions

__all__ = [
    "Calibration",
    "Costs",
    "Evaluation",
    "Predictions",
    "Robustness",
    "SplitLogits",
    "calibrate",
    "evaluate",
    "evaluate_answers",
    "evaluate_logits",
    "evaluate_split",
    "iterate_predictions",
    "match_labels",
    "measure_calibration",
    "measure_costs",
    "measure_robustness",
    "predict",
    "predict_logits",
]
