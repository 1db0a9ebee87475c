"""Recall at k of ranked candidates, ties at their mean rank: scores against 0/1 relevance, `k` to compute."""

from egma.evaluation.metrics import ranking, shell


class RecallAtK(shell.ItemMetric):
    function = staticmethod(ranking.recall_at_k)
