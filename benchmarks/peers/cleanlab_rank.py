"""What cleanlab makes of labels: reads a file of arrays, prints for each of its ways the samples that it suspects most.

Its probabilities are those of scikit-learn's logistic regression on the same features as Falconet's, out of sample by
five folds, its strength chosen by log loss; or Falconet's own. Its rankings are the three that it has.
"""

from __future__ import annotations

import json
import sys

import numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.preprocessing import normalize

STRENGTHS = (1.0, 10.0, 100.0)
RANKINGS = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")


def predict(features: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """Return probabilities out of sample by the best strength."""
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    scaled = features - features.mean(axis=0)
    scaled = normalize(scaled) if features.shape[1] < 9000 else scaled / (scaled.std(axis=0) + 1e-8) / 100
    found = []
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=300)
        found.append(cross_val_predict(model, scaled, labels, cv=folds, method="predict_proba"))
    return min(found, key=lambda probabilities: log_loss(labels, probabilities))


def rank(labels: np.ndarray, probabilities: np.ndarray, way: str) -> list[int]:
    """Return all samples: first the issues that cleanlab finds, then the others, each by its score of their labels."""
    issues = find_label_issues(labels, probabilities, return_indices_ranked_by=way, n_jobs=1)
    # The score by entropy takes no margins off.
    scores = get_label_quality_scores(
        labels, probabilities, method=way, adjust_pred_probs=way != "confidence_weighted_entropy"
    )
    taken = set(issues.tolist())
    return [*issues.tolist(), *(index for index in scores.argsort(kind="stable").tolist() if index not in taken)]


def main() -> None:
    data = np.load(sys.argv[1])
    labels, count = data["labels"], int(data["count"])
    answers = {
        "logistic regression": predict(data["features"], labels, int(data["seed"])),
        "the same probabilities": data["probabilities"],
    }
    print(
        json.dumps(
            {
                f"{name}, {way}": rank(labels, probabilities, way)[:count]
                for name, probabilities in answers.items()
                for way in RANKINGS
            }
        )
    )


if __name__ == "__main__":
    main()
