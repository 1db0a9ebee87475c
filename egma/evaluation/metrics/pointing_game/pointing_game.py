"""Pointing game: does a map peak inside a mask?"""

from egma.evaluation.metrics import localisation, shell


class PointingGame(shell.MapMetric):
    function = staticmethod(localisation.pointing_credit)
