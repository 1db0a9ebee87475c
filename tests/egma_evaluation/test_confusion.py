"""The confusion matrix counts what the figures count: a tie is no prediction."""

import numpy as np

from egma_evaluation.result_figures import confusion_counts, confusion_figure
from egma_evaluation.zero_shot import finding_labels
from tests.egma_evaluation.fakes import CLASSES, corpus


def test_a_tie_stands_in_a_column_of_its_own() -> None:
    labels = finding_labels(corpus(6), CLASSES)
    scores = np.eye(3)[[0, 1, 2, 0, 0, 2]]
    scores[0] = 1  # all classes tie; an argmax would call the first one right
    counts = confusion_counts(labels, scores)
    assert counts.tolist() == [[1, 0, 0, 1], [1, 1, 0, 0], [0, 0, 2, 0]]
    axes = confusion_figure(labels, scores, "").axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == [*CLASSES, "no prediction"]


def test_a_constant_predicts_nothing() -> None:
    labels = finding_labels(corpus(9), CLASSES)
    counts = confusion_counts(labels, np.zeros((9, 3)))
    assert counts[:, :-1].sum() == 0 and counts[:, -1].tolist() == [3, 3, 3]


def test_without_ties_there_is_no_such_column() -> None:
    labels = finding_labels(corpus(6), CLASSES)
    assert confusion_counts(labels, np.eye(3)[[0, 1, 2, 0, 1, 2]]).tolist() == (2 * np.eye(3)).tolist()
