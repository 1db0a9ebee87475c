"""Similarity (histogram intersection) of a map with a gaze map."""

from egma.evaluation.metrics import saliency, shell


class Sim(shell.MapMetric):
    function = staticmethod(saliency.sim)
