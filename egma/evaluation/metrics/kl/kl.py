"""Kullback-Leibler divergence of a gaze map from a map, in nats."""

from egma.evaluation.metrics import saliency, shell


class Kl(shell.MapMetric):
    function = staticmethod(saliency.kl)
