"""Contrast-to-noise ratio of a map inside and outside of a mask."""

from egma.evaluation.metrics import localisation, shell


class Cnr(shell.MapMetric):
    function = staticmethod(localisation.cnr)
