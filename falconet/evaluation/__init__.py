"""What a trained model answers, and how good that is."""

from falconet.evaluation.answers import Answers, match_labels, predict_logits
from falconet.evaluation.confidence import Calibration, calibrate, describe_calibration
from falconet.evaluation.judgement import Evaluation, evaluate, evaluate_split, judge, judge_answers
from falconet.evaluation.prediction import Predictions, predict

__all__ = [
    "Answers",
    "Calibration",
    "Evaluation",
    "Predictions",
    "calibrate",
    "describe_calibration",
    "evaluate",
    "evaluate_split",
    "judge",
    "judge_answers",
    "match_labels",
    "predict",
    "predict_logits",
]
