"""Convert a raw corpus to the one schema: `python -m dataset_scripts.build CORPUS --source DIR --output DIR`.

The output appears whole or not at all, an interrupted conversion goes on where it was. It opens with
`load_dataset(DIR)`: Parquet shards with the images embedded, a dataset card, and `conversion_report.json`, in which
rows in = rows kept + rows dropped. The source is only read.
"""

import argparse
import json
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Never

from tqdm import tqdm

from dataset_scripts.corpora import (
    chexpert,
    egd,
    image_text,
    mimic_cxr,
    mimic_eye,
    ms_cxr,
    nih,
    reflacx,
    rsna,
    siim_acr,
    siim_gaze,
    tracker,
)
from dataset_scripts.ledger import Ledger, Tally
from dataset_scripts.output.card import dataset_card
from dataset_scripts.output.processes import ordered_map
from dataset_scripts.output.push import push, require_pushable
from dataset_scripts.output.resume import discard, fingerprint, partial_folder, require_free
from dataset_scripts.output.writer import CorpusWriter, write_json
from dataset_scripts.plan import Options, Plan
from dataset_scripts.schema import UserError


class Corpus(NamedTuple):
    """How a corpus is planned, and which of the flags that only some corpora know it reads."""

    plan: Callable[[Path, Options], Plan]
    flags: frozenset[str] = frozenset()


CORPORA = {
    "chexpert": Corpus(chexpert.plan),
    "chexpert_5x200": Corpus(partial(chexpert.plan_sample, classes=chexpert.FIVE), frozenset({"ids"})),
    "chexpert_8x200": Corpus(partial(chexpert.plan_sample, classes=chexpert.EIGHT), frozenset({"ids"})),
    "egd": Corpus(egd.plan, frozenset({"images"})),
    "image_text": Corpus(image_text.plan),
    "mimic_cxr": Corpus(mimic_cxr.plan, frozenset({"images"})),
    "mimic_eye": Corpus(mimic_eye.plan),
    "ms_cxr": Corpus(ms_cxr.plan, frozenset({"images"})),
    "nih": Corpus(nih.plan),
    "reflacx": Corpus(reflacx.plan, frozenset({"images"})),
    "rsna": Corpus(rsna.plan),
    "siim_acr": Corpus(siim_acr.plan, frozenset({"ids"})),
    "siim_gaze": Corpus(siim_gaze.plan, frozenset({"images"})),
    "tracker": Corpus(tracker.plan, frozenset({"coordinates", "time_unit"})),
}
CORPUS_FLAGS = ("images", "ids", "coordinates", "time_unit")
GENERATED_MARKER = "phantom.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when the corpus was written, 2 after a sentence on what to mend, 130 when interrupted."""
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
            push_to_hub=arguments.push_to_hub,
            i_hold_the_rights=arguments.i_hold_the_rights,
            **{flag: getattr(arguments, flag) for flag in CORPUS_FLAGS},
        )
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the same command goes on where it was", file=sys.stderr)
        return 130
    for name, fact in report["facts"].items():
        print(f"{name}: {fact}")
    readings = report["readings"]
    splits = ", ".join(f"{split['readings']} {name}" for name, split in report["splits"].items())
    print(f"{arguments.output}: {readings['rows_kept']} readings kept ({splits}), {readings['rows_dropped']} dropped")
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
    push_to_hub: str | None = None,
    i_hold_the_rights: bool = False,
    **corpus_flags: Any,
) -> dict[str, Any]:
    """Convert `source` into the new folder `output` and return the conversion report.

    Args:
        corpus: a key of `CORPORA`.
        image_size: the long side of the stored images in pixels, at most.
        num_proc: processes that read and resize; what is written does not depend on it.
        limit: stop after so many kept readings.
        seed: of the splits that are hashed, where the source has none.
        push_to_hub: a data set on the Hub to upload the output to, as a private one; checked before the conversion.
        i_hold_the_rights: the user may pass on a corpus whose terms forbid it.
        corpus_flags: `CORPUS_FLAGS`, for the corpora that read them.

    Raises:
        UserError: the corpus is unknown or does not read a flag that is set, the source is not what it should be,
            the output exists, or nothing is kept.
    """
    _check_paths(corpus, source, output)
    _check_flags(corpus, corpus_flags)
    options = Options(image_size=image_size, seed=seed, generated=_is_generated(source), **corpus_flags)
    plan = CORPORA[corpus].plan(source, options)
    generated = options.generated or plan.generated
    is_free = plan.redistributable or generated
    if push_to_hub is not None:
        require_pushable(push_to_hub, corpus, may_be_shared=is_free or i_hold_the_rights)
    with partial_folder(output, _conversion(corpus, source, options, limit)) as folder:
        writer = CorpusWriter(folder)
        _convert(plan, writer, num_proc, limit)
        report = {
            "corpus": corpus,
            "source_folder": source.resolve().name,
            "generated": generated,
            "image_size": image_size,
            "limit": limit,
            "seed": seed,
            "facts": dict(plan.facts),
            "readings": _reading_totals(plan, writer.ledger, source, folder),
        }
        writer.publish(folder / "output")
        report |= {"splits": writer.statistics(folder / "output"), **writer.ledger.as_dict()}
        write_json(folder / "output" / "conversion_report.json", report)
        (folder / "output" / "README.md").write_text(dataset_card(report, plan.terms), encoding="utf-8")
    if push_to_hub is not None:
        print(push(output, push_to_hub, must_be_private=not is_free))
    return report


def _conversion(corpus: str, source: Path, options: Options, limit: int | None) -> dict[str, Any]:
    """All that the output depends on, by the name that a user knows it by."""
    flags = {name: value for name, value in vars(options).items() if value is not None}
    files = [source, *(value for value in flags.values() if isinstance(value, Path) and value.exists())]
    return {
        "corpus": corpus,
        "source": str(source.resolve()),
        "limit": limit,
        **{name: str(value) for name, value in flags.items()},
        "state of the source or of this program": fingerprint(*files),
    }


def _convert(plan: Plan, writer: CorpusWriter, num_proc: int, limit: int | None) -> None:
    """Write the readings of all units that are not done, in order; rows beyond the limit are not counted."""
    begin, total = writer.units_done, len(plan.units)
    if writer.readings == limit:
        return
    if begin:
        print(f"going on after {begin} of {total} {plan.unit_name}", file=sys.stderr)
    batches = ordered_map(plan.convert, plan.units[begin:], num_proc)
    progress = tqdm(batches, initial=begin, total=total, unit=f" {plan.unit_name}")
    for done, outcomes in enumerate(progress, begin + 1):
        for outcome in outcomes:
            writer.ledger.merge(outcome.ledger)
            if outcome.reading is not None:
                writer.add(*outcome.reading)
            if writer.readings == limit:
                writer.commit(done)
                return
        if writer.is_due(done):
            writer.commit(done)
    writer.commit(total)


def _reading_totals(plan: Plan, ledger: Ledger, source: Path, folder: Path) -> dict[str, Any]:
    """What became of the readings; a conversion that must not be gone on with is removed from `folder`."""
    total = Ledger()
    try:
        ledger.check()
        for table in plan.reading_tables:
            total.merge(Ledger(tables={"readings": ledger.tables.get(table, Tally())}))
        tally = total.tables["readings"]
        if tally.rows_kept == 0:
            reasons = "; ".join(f"{reason}: {found.first[0]}" for reason, found in tally.dropped.items())
            raise UserError(f"{source}: no reading could be kept of {tally.rows_in} ({reasons or 'none there'})")
    except (UserError, RuntimeError):
        discard(folder)
        raise
    return tally.as_dict()


def _check_paths(corpus: str, source: Path, output: Path) -> None:
    if corpus == "phantom":
        raise UserError(
            "phantom is generated: write it with `python -m dataset_scripts.phantom --output DIR --layout LAYOUT`, "
            "then convert what lies there as mimic_eye, egd or reflacx"
        )
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
    parser.add_argument("--ids", type=Path, help="text file of image ids, one a line: a published sample or test set")
    parser.add_argument("--coordinates", choices=("pixels", "fractions"), help="of a tracker's positions")
    parser.add_argument("--time-unit", choices=("seconds", "milliseconds"), help="of a tracker's times")
    parser.add_argument("--push-to-hub", metavar="ID", help="also upload it as this data set, a private one")
    parser.add_argument("--i-hold-the-rights", action="store_true", help="to pass on a corpus under a use agreement")
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
