"""Embeddings of a converted corpus, to search in: `egma embed MODEL --data CORPUS --output DIR [--split test]`.

MODEL is EGMA, or of CLIP's or SigLIP's kind, a folder or a Hub id. DIR gets `images.parquet` (image_id, embedding) and
`sentences.parquet` (text, embedding), each image and each sentence once: float32 of length 1, so that an inner product
is a cosine. `load_dataset` opens them, and its own index searches them (docs/hub.md).
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import disable_progress_bars
from torch import Tensor

from dataset_scripts.command_line import Parser, program
from dataset_scripts.identity import model_identity
from dataset_scripts.schema import load_readings
from egma.inference.embeddings import (
    Images,
    batches,
    image_embeddings,
    inference,
    progress_bar,
    records,
    text_embeddings,
)
from egma.programs.evaluate import load_other
from egma.tools.corpora import corpus_folder


@program
def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("model", metavar="MODEL", help="folder or Hub id")
    parser.add_argument("--data", required=True, help="converted corpus: folder or Hub id")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--batch-size", type=int, default=64)
    options = parser.parse_args(argv)
    disable_progress_bars()
    options.output.mkdir(parents=True, exist_ok=True)
    rows = load_readings(corpus_folder(options.data), options.split)
    model, processor = load_other(options.model)
    images = Images(processor, rows)
    texts = sorted({sentence["text"] for row in records(rows) for sentence in row["sentences"]})
    encoders: dict[str, tuple[str, list[str], Callable[[Sequence[str]], Tensor]]] = {
        "images": ("image_id", sorted(images.place), lambda ids: image_embeddings(model, images.pixels(ids), ids)[0]),
        "sentences": ("text", texts, partial(text_embeddings, model, processor)),
    }
    about = {"model": options.model, "identity": model_identity(options.model) or "", "split": options.split}
    with inference(model):
        for kind, (column, items, encode) in encoders.items():
            path = options.output / f"{kind}.parquet"
            write_embeddings(path, column, progress_bar(batches(items, options.batch_size), kind), encode, about)
            print(f"{path}: {len(items)} {kind}")


def write_embeddings(
    path: Path,
    column: str,
    steps: Iterable[Sequence[str]],
    encode: Callable[[Sequence[str]], Tensor],
    about: dict[str, str],
) -> None:
    """Encode step by step, so that no more than a step is held; the file appears whole or not at all.

    Args:
        column: what the items are called.
        encode: n items -> (n, D), float32.
        about: of the whole file, in its metadata.
    """
    partial_path = path.with_name(f".{path.name}")
    schema = pa.schema({column: pa.string(), "embedding": pa.list_(pa.float32())}, metadata=about)
    with pq.ParquetWriter(partial_path, schema) as writer:
        for items in steps:
            writer.write_table(pa.table([list(items), encode(items).tolist()], schema=schema))
    partial_path.replace(path)


if __name__ == "__main__":
    sys.exit(main())
