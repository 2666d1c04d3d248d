"""Figures of merit as pure functions of logits and labels, without importing torch."""

from falconet.metrics.classification import (
    ClassScores,
    Confusion,
    Labels,
    Logits,
    average_scores,
    compute_accuracy,
    compute_log_loss,
    count_confusion,
    divide,
    expected_calibration_error,
    log_softmax,
    score_classes,
    softmax,
    top_k_accuracy,
    wilson_interval,
)
from falconet.metrics.significance import PairTest, compare_answers, correct_holm

__all__ = [
    "ClassScores",
    "Confusion",
    "Labels",
    "Logits",
    "PairTest",
    "average_scores",
    "compare_answers",
    "compute_accuracy",
    "compute_log_loss",
    "correct_holm",
    "count_confusion",
    "divide",
    "expected_calibration_error",
    "log_softmax",
    "score_classes",
    "softmax",
    "top_k_accuracy",
    "wilson_interval",
]
