"""Each distinct sentence encoded once, in blocks of like length; not several in a row: they would see each other."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
# blocks are made until so much of what they encode is no padding
REAL_FRACTION = 0.85

Block = tuple[int, int, int]  # first row, the row after the last, tokens of each


def text_inputs(batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """What a text encoder takes of a batch."""
    return {name: batch[name] for name in TEXT_INPUTS if batch.get(name) is not None}


def distinct_texts(tokens: Mapping[str, Any]) -> dict[str, Any]:
    """Tokenised sentences (N, L), on the CPU -> the U of them that differ in a token (U, L), short ones first.

    `text_lengths` are their U numbers of tokens up to the last real one, `sentence_index` (N,) is each sentence's row.
    """
    inputs = text_inputs(tokens)
    places: dict[bytes, int] = {}
    rows = torch.cat(list(inputs.values()), dim=1).numpy()
    index = torch.tensor([places.setdefault(row.tobytes(), len(places)) for row in rows], dtype=torch.long)
    first = torch.from_numpy(np.unique(index.numpy(), return_index=True)[1])
    mask = inputs["attention_mask"][first]
    lengths, order = (mask * torch.arange(1, mask.shape[1] + 1)).amax(dim=1).clamp(min=1).sort(stable=True)
    chosen = {name: values[first[order]] for name, values in inputs.items()}
    return chosen | {"text_lengths": lengths.tolist(), "sentence_index": order.argsort()[index]}


def length_blocks(
    lengths: Sequence[int], multiple: int = 1, longest: int | None = None, blocks: int | None = None
) -> list[Block]:
    """Rows of ascending lengths (U,) in the fewest blocks that encode little padding, by dynamic programming.

    Args:
        multiple: what lengths are rounded up to, at most to `longest`, so that shapes are few.
        blocks: how many there are, empty ones among them where fewer would do.
    """
    rounded = -(-np.asarray(lengths, dtype=np.int64) // multiple) * multiple
    rounded = rounded if longest is None else np.minimum(rounded, longest)
    known, counts = np.unique(rounded, return_counts=True)
    bounds, known = np.r_[0, counts.cumsum()], np.r_[1, known]
    # tokens of a block from one bound to another
    rows = bounds - bounds[:, None]
    cost = np.where(rows < 0, np.inf, rows * known)
    best, starts = cost[0], [np.zeros(len(bounds), dtype=np.int64)]
    while len(starts) < blocks if blocks else best[-1] * REAL_FRACTION > rounded.sum():
        through = best[:, None] + cost
        starts.append(through.argmin(axis=0))
        best = through.min(axis=0)
    found: list[Block] = []
    end = len(bounds) - 1
    for start in reversed(starts):
        found.insert(0, (int(bounds[start[end]]), int(bounds[end]), int(known[end])))
        end = start[end]
    return found


def encode_blocks(
    encode: Callable[..., Tensor], inputs: Mapping[str, Tensor], blocks: Iterable[Block], filler: int | None = None
) -> Tensor:
    """Inputs (U, L) -> (U, D), block by block, each without the columns in which it has no token.

    Args:
        filler: a token that fills blocks up so that their shapes are few; None: nothing does.
    """
    parts = []
    for start, stop, length in blocks:
        part = {name: values[start:stop, :length] for name, values in inputs.items()}
        parts.append(encode(**(part if filler is None else _filled(part, length, filler)))[: stop - start])
    return torch.cat(parts)


def _filled(part: Mapping[str, Tensor], length: int, filler: int) -> dict[str, Tensor]:
    """Rows are filled up to one of eight numbers an octave; one that fills has one token."""
    count, columns = part["input_ids"].shape
    size = (0, length - columns, 0, -count % max(8, 1 << count.bit_length() >> 4))
    filled = {name: F.pad(values, size, value=filler * (name == "input_ids")) for name, values in part.items()}
    filled["attention_mask"][count:, 0] = 1
    return filled
