"""Shuffled AUC: a map against counts of fixations, and of those on other images."""

from egma.evaluation.metrics import saliency, shell


class ShuffledAuc(shell.MapMetric):
    function = staticmethod(saliency.shuffled_auc)
    inputs = ("predictions", "references", "other_fixations")
