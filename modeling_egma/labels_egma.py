"""What the labels of a batch mean, told from the batch."""

from torch import Tensor

IGNORED_LABEL = -100  # of the cross-entropy


def classification_labels(labels: Tensor, logits: Tensor, problem_type: str | None) -> tuple[Tensor, str]:
    """The labels as the loss takes them, and the kind of problem that they state where none is given.

    Args:
        labels: (B,) class indices, or (B, L) 0/1; with one label also (B,) 0/1.
        logits: (B, L).
        problem_type: as transformers has it; None: what the shape of the labels says.

    Raises:
        ValueError: labels of another shape or range.
    """
    count = logits.shape[-1]
    several = labels.ndim == 2 or count == 1
    kind = problem_type or ("multi_label_classification" if several else "single_label_classification")
    if kind == "single_label_classification":
        integers = not (labels.is_floating_point() or labels.is_complex())
        if labels.shape != logits.shape[:1] or not integers or not _within(labels[labels != IGNORED_LABEL], count - 1):
            raise ValueError(
                f"labels of {labels.dtype} and shape {tuple(labels.shape)}, expected a whole number from 0 to "
                f"{count - 1} for each of {len(logits)} images, or 0 and 1 in the shape {tuple(logits.shape)}"
            )
        return labels.long(), kind
    if count == 1 and labels.ndim == 1:
        labels = labels[:, None]
    is_regression = kind == "regression"
    if labels.shape != logits.shape or not (is_regression or _within(labels, 1)):
        raise ValueError(
            f"labels of shape {tuple(labels.shape)}, expected {tuple(logits.shape)}: "
            + ("a number" if is_regression else "0 or 1, nothing below or above,")
            + " for each image and label"
        )
    return labels.to(logits.dtype), kind


def _within(labels: Tensor, largest: int) -> bool:
    return bool(((labels >= 0) & (labels <= largest)).all())
