"""Normalised scanpath saliency: a map against counts of fixations."""

from egma.evaluation.metrics import saliency, shell


class Nss(shell.MapMetric):
    function = staticmethod(saliency.nss)
