"""What a trained model answers, and how good that is."""

from falconet.evaluation.answers import Answers, predict_logits
from falconet.evaluation.judgement import Evaluation, evaluate, evaluate_split, judge, match_labels
from falconet.evaluation.prediction import Predictions, predict

__all__ = [
    "Answers",
    "Evaluation",
    "Predictions",
    "evaluate",
    "evaluate_split",
    "judge",
    "match_labels",
    "predict",
    "predict_logits",
]
