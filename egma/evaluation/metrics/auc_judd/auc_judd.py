"""AUC-Judd: a map against counts of fixations."""

from egma.evaluation.metrics import saliency, shell


class AucJudd(shell.MapMetric):
    function = staticmethod(saliency.auc_judd)
