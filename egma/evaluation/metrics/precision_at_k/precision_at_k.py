"""Precision at k of ranked candidates, ties at their mean rank: scores against 0/1 relevance, `k` to compute."""

from egma.evaluation.metrics import ranking, shell


class PrecisionAtK(shell.ItemMetric):
    function = staticmethod(ranking.precision_at_k)
