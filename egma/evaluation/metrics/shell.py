"""What the `evaluate` modules of this folder share: each is a class of its own file that names a plain function.

`evaluate.load("egma/evaluation/metrics/nss")` needs no network. The result is the mean over the items; what the plain
function refuses raises its ValueError.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import evaluate
import numpy as np
from datasets import Features, List, Value

CITATION = "EGMA's evaluation protocol; the source of the formula is in the description."


class ItemMetric(evaluate.Metric):
    """A metric of one list (or map) of numbers an item.

    `function` takes arrays of one item, with a leading axis of length 1, in the order of `inputs`, then the keyword
    arguments of `compute`.
    """

    function: ClassVar[Callable[..., Any]]
    inputs: ClassVar[tuple[str, ...]] = ("predictions", "references")
    item: ClassVar[Any] = List(Value("float64"))

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.function.__doc__ or "",
            citation=CITATION,
            inputs_description=f"{', '.join(self.inputs)}: one {self.kind()} of numbers an item.",
            features=Features({name: self.item for name in self.inputs}),
        )

    def kind(self) -> str:
        return "list"

    def _compute(self, *, predictions: Sequence[Any], **others: Any) -> dict[str, float]:
        columns = [predictions, *(others.pop(name) for name in self.inputs[1:])]
        # one by one: items may differ in size
        values = [
            self.function(*(np.asarray(part, dtype=np.float64)[None] for part in item), **others)
            for item in zip(*columns, strict=True)
        ]
        if not values:
            raise ValueError(f"{self.name}: no item to average")
        return {self.name: float(np.mean(values))}


class MapMetric(ItemMetric):
    """A metric of one map an item, as nested lists (height, width); maps may differ in size."""

    item = List(List(Value("float64")))

    def kind(self) -> str:
        return "map (height, width)"
