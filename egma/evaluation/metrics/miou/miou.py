"""Intersection over union of a thresholded map with a mask, mean over `thresholds`."""

from egma.evaluation.metrics import localisation, shell


class Miou(shell.MapMetric):
    function = staticmethod(localisation.miou)
