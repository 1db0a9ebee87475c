"""Pearson's correlation of a map with a gaze map."""

from egma.evaluation.metrics import saliency, shell


class Cc(shell.MapMetric):
    function = staticmethod(saliency.cc)
