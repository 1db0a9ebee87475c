"""Convert a raw corpus to the one schema: `python -m dataset_scripts.build CORPUS --source DIR --output DIR`.

The output appears whole or not at all and opens with `load_dataset(DIR)`: Parquet shards with the images embedded, a
dataset card, and `conversion_report.json`, in which rows in = rows kept + rows dropped. The source is only read.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Never

from tqdm import tqdm

from dataset_scripts import image_text, mimic_eye
from dataset_scripts.card import dataset_card
from dataset_scripts.conversion import Options, Plan, ordered_map
from dataset_scripts.report import Ledger, Tally
from dataset_scripts.schema import UserError
from dataset_scripts.writer import CorpusWriter, new_folder, require_free, write_json


class Corpus(NamedTuple):
    """How a corpus is planned, and which of the flags that only some corpora know it reads."""

    plan: Callable[[Path, Options], Plan]
    flags: frozenset[str] = frozenset()


CORPORA = {
    "image_text": Corpus(image_text.plan),
    "mimic_eye": Corpus(mimic_eye.plan),
}
CORPUS_FLAGS = ("images", "ids", "coordinates", "time_unit")
GENERATED_MARKER = "phantom.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when the corpus was written, 2 after one sentence on what the user can mend."""
    try:
        arguments = _parser().parse_args(argv)
        report = build(
            arguments.corpus,
            arguments.source,
            arguments.output,
            image_size=arguments.image_size,
            num_proc=arguments.num_proc,
            limit=arguments.limit,
            seed=arguments.seed,
            **{flag: getattr(arguments, flag) for flag in CORPUS_FLAGS},
        )
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    readings = report["readings"]
    print(f"{arguments.output}: {readings['rows_kept']} readings kept, {readings['rows_dropped']} dropped")
    return 0


def build(
    corpus: str,
    source: Path,
    output: Path,
    *,
    image_size: int = 512,
    num_proc: int = 1,
    limit: int | None = None,
    seed: int = 0,
    **corpus_flags: Any,
) -> dict[str, Any]:
    """Convert `source` into the new folder `output` and return the conversion report.

    Args:
        corpus: a key of `CORPORA`.
        image_size: the long side of the stored images in pixels, at most.
        num_proc: processes that read and resize; what is written does not depend on it.
        limit: stop after so many kept readings.
        seed: of the splits that are hashed, where the source has none.
        corpus_flags: `CORPUS_FLAGS`, for the corpora that read them.

    Raises:
        UserError: the corpus is unknown or does not read a flag that is set, the source is not what it should be,
            the output exists, or nothing is kept.
    """
    _check_paths(corpus, source, output)
    _check_flags(corpus, corpus_flags)
    options = Options(image_size=image_size, seed=seed, generated=_is_generated(source), **corpus_flags)
    plan = CORPORA[corpus].plan(source, options)
    with new_folder(output) as folder:
        writer = CorpusWriter(folder)
        ledger = _convert(plan, writer, num_proc, limit)
        writer.close()
        report = {
            "corpus": corpus,
            "source_folder": source.resolve().name,
            "generated": options.generated,
            "image_size": image_size,
            "limit": limit,
            "seed": seed,
            "readings": _reading_totals(plan, ledger, source),
            "splits": writer.statistics(),
            **ledger.as_dict(),
        }
        write_json(folder / "conversion_report.json", report)
        (folder / "README.md").write_text(dataset_card(report, plan.terms), encoding="utf-8")
    return report


def _convert(plan: Plan, writer: CorpusWriter, num_proc: int, limit: int | None) -> Ledger:
    """Write the readings of all units in order; rows that lie beyond the limit are not counted."""
    ledger = Ledger()
    batches = ordered_map(plan.convert, plan.units, num_proc)
    for outcomes in tqdm(batches, total=len(plan.units), unit=f" {plan.unit_name}"):
        for outcome in outcomes:
            ledger.merge(outcome.ledger)
            if outcome.reading is not None:
                writer.add(*outcome.reading)
            if writer.readings == limit:
                return ledger
    return ledger


def _reading_totals(plan: Plan, ledger: Ledger, source: Path) -> dict[str, Any]:
    ledger.check()
    total = Ledger()
    for table in plan.reading_tables:
        total.merge(Ledger(tables={"readings": ledger.tables.get(table, Tally())}))
    tally = total.tables["readings"]
    if tally.rows_kept == 0:
        reasons = [f"{reason}: {found.first[0]}" for reason, found in tally.dropped.items()]
        raise UserError(f"{source}: no reading could be kept of {tally.rows_in} ({'; '.join(reasons) or 'none there'})")
    return tally.as_dict()


def _check_paths(corpus: str, source: Path, output: Path) -> None:
    if corpus not in CORPORA:
        raise UserError(f"unknown corpus {corpus!r}; expected one of {', '.join(sorted(CORPORA))}")
    if not source.is_dir():
        raise UserError(f"{source}: no such folder; expected the root of a {corpus} corpus")
    if output.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{output}: lies in the source folder, which is only read; expected an output folder elsewhere")
    require_free(output)


def _check_flags(corpus: str, flags: dict[str, Any]) -> None:
    for flag in (name for name, value in flags.items() if value is not None and name not in CORPORA[corpus].flags):
        readers = [name for name, known in CORPORA.items() if flag in known.flags]
        raise UserError(
            f"--{flag.replace('_', '-')} is not for {corpus}; it is for {', '.join(readers) or 'no corpus'}"
        )


def _is_generated(source: Path) -> bool:
    marker = source / GENERATED_MARKER
    if not marker.is_file():
        return False
    try:
        return json.loads(marker.read_text(encoding="utf-8")).get("generated") is True
    except (ValueError, AttributeError):
        raise UserError(f"{marker}: no JSON object; expected the marker of a generated corpus") from None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Never:
        raise UserError(f"{message}; {self.format_usage().strip()}")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text}")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m dataset_scripts.build", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("corpus", help=f"one of {', '.join(sorted(CORPORA))}")
    parser.add_argument("--source", type=Path, required=True, help="folder of the raw corpus; only read")
    parser.add_argument("--output", type=Path, required=True, help="new or empty folder to write")
    parser.add_argument("--image-size", type=_positive, default=512, help="long side of the stored images, pixels")
    parser.add_argument("--num-proc", type=_positive, default=1, help="processes that read and resize")
    parser.add_argument("--limit", type=_positive, help="stop after so many readings")
    parser.add_argument("--seed", type=int, default=0, help="of the splits, where the source has none")
    parser.add_argument("--images", type=Path, help="root of a MIMIC-CXR-JPG or MIMIC-CXR tree with the images")
    parser.add_argument("--ids", type=Path, help="text file of image ids, one a line, in place of a drawn sample")
    parser.add_argument("--coordinates", choices=("pixels", "fractions"), help="of a tracker's positions")
    parser.add_argument("--time-unit", choices=("seconds", "milliseconds"), help="of a tracker's times")
    return parser


if __name__ == "__main__":
    sys.exit(main())
