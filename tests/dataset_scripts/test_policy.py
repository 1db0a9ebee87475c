"""What can be missing or damaged in any corpus: a reading dropped, a part lost and noted, or the run stopped; said."""

import gzip
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dataset_scripts import build
from tests.dataset_scripts.policy_trees import CASES, Case

NOBODY = 65534


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of a user who is not root, who could read everything."""
    root = Path(tempfile.mkdtemp(prefix="egma-policy-"))
    is_root = os.geteuid() == 0
    if is_root:
        os.chown(root, NOBODY, NOBODY)
        os.seteuid(NOBODY)
    try:
        yield root
    finally:
        if is_root:
            os.seteuid(0)
        for path in root.rglob("*"):
            path.chmod(0o700)
        shutil.rmtree(root)


@pytest.fixture(params=CASES)
def corpus(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def case(corpus: str, folder: Path) -> Case:
    CASES[corpus].write(folder / "raw")
    return CASES[corpus]


class Conversion:
    """Of a case's tree by the command line: its exit code, what it said, and its report, empty where it stopped."""

    def __init__(self, corpus: str, folder: Path, capsys: pytest.CaptureFixture[str], max_loss: str = "1") -> None:
        flags = [flag if flag.startswith("-") else str(folder / flag) for flag in CASES[corpus].flags]
        paths = ["--source", str(folder / "raw"), "--output", str(folder / "out")]
        self.code = build.main([corpus, *paths, "--image-size", "32", "--max-loss", max_loss, *flags])
        printed = capsys.readouterr()
        self.said = printed.out + printed.err
        path = folder / "out" / "conversion_report.json"
        self.report: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        for tally in self.report.get("tables", {}).values():
            assert tally["rows_in"] == tally["rows_kept"] + tally["rows_dropped"]

    def found(self, reason: str) -> dict[str, Any]:
        """What the report has under a reason, which must be on the terminal with its count."""
        kinds = [*(tally["dropped"] for tally in self.report["tables"].values()), self.report["notes"]]
        found: dict[str, Any] = next(kind[reason] for kind in kinds if reason in kind)
        assert f"{found['count']} {reason}" in self.said
        return found


def test_there_is_a_case_for_every_corpus() -> None:
    assert CASES.keys() == build.CORPORA.keys()


def test_every_table_is_in_the_report(corpus: str, case: Case, folder: Path, capsys: Any) -> None:
    whole = Conversion(corpus, folder, capsys)
    assert whole.code == 0 and set(case.tables) <= whole.report["tables"].keys()
    assert not any("not_understood" in reason or "not_readable" in reason for reason in whole.report["notes"])


def test_a_missing_table_of_readings(corpus: str, case: Case, folder: Path, capsys: Any) -> None:
    """The run stops, but where it is one table of many."""
    (folder / "raw" / case.table).unlink()
    found = Conversion(corpus, folder, capsys)
    if corpus in ("mimic_eye", "reflacx"):
        assert found.code == 0
        assert Path(case.table).name in json.dumps(found.report["notes"])
    else:
        assert found.code == 2 and not found.report
        assert str(folder / "raw") in found.said and Path(case.table).name[:10] in found.said


def test_a_missing_part_is_noted(corpus: str, case: Case, folder: Path, capsys: Any) -> None:
    if not case.part:
        pytest.skip("has no part that it can do without")
    (folder / "raw" / case.part).unlink()
    found = Conversion(corpus, folder, capsys)
    noted = [
        reason for reason in found.report["notes"] if "missing" in reason or "no_" in reason or "from_the" in reason
    ]
    assert found.code == 0 and noted


def test_a_ragged_row_is_counted_and_named(corpus: str, case: Case, folder: Path, capsys: Any) -> None:
    """Of every table and every part."""
    for name in filter(None, {case.table, case.part}):
        path = folder / "raw" / name
        if path.suffix == ".json":
            continue
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", newline="") as file:
            lines = file.read().splitlines()
        with opened(path, "wt", newline="") as file:
            file.write("\n".join([*lines, lines[-1] + ",9" * 40, ""]))
        found = Conversion(corpus, folder, capsys)
        assert found.code == 0
        ragged = found.found("row_of_another_length")
        assert ragged["count"] == 1 and path.name in ragged["first"][0] and "row " in ragged["first"][0]
        shutil.rmtree(folder / "out")
        path.write_bytes(
            gzip.compress("\n".join(lines).encode()) if path.suffix == ".gz" else "\n".join(lines).encode()
        )


def test_a_missing_image_drops_the_reading(corpus: str, case: Case, folder: Path, capsys: Any) -> None:
    if not case.picture:
        pytest.skip("has no images")
    (folder / "raw" / case.picture).unlink()
    found = Conversion(corpus, folder, capsys)
    assert found.code == (0 if case.left else 2) and "image_missing" in found.said
    if case.left:
        assert Path(case.picture).stem in json.dumps(found.found("image_missing"))


def test_an_unreadable_image_drops_the_reading(corpus: str, case: Case, folder: Path, capsys: Any) -> None:
    if not case.picture:
        pytest.skip("has no images")
    (folder / "raw" / case.picture).chmod(0)
    found = Conversion(corpus, folder, capsys)
    assert found.code == (0 if case.left else 2) and Path(case.picture).name in found.said
    if case.left:
        assert found.found("file_not_readable")["count"] >= 1


def test_an_unreadable_table_of_readings(corpus: str, case: Case, folder: Path, capsys: Any) -> None:
    (folder / "raw" / case.table).chmod(0)
    found = Conversion(corpus, folder, capsys)
    assert str(folder / "raw" / case.table) in found.said and "Permission denied" in found.said
    assert found.code == (0 if corpus == "mimic_eye" else 2)


def test_an_unreadable_part_is_noted(corpus: str, case: Case, folder: Path, capsys: Any) -> None:
    if not case.part or corpus in ("mimic_cxr", "ms_cxr"):
        pytest.skip("has no part that is read by itself")
    (folder / "raw" / case.part).chmod(0)
    found = Conversion(corpus, folder, capsys)
    assert found.code == 0
    assert "Permission denied" in next(
        n["first"][0] for r, n in found.report["notes"].items() if r.endswith("_readable")
    )


def test_a_folder_that_cannot_be_read_costs_what_lies_in_it(corpus: str, case: Case, folder: Path, capsys: Any) -> None:
    if not case.picture:
        pytest.skip("has no images")
    place = (folder / "raw" / case.picture).parent
    place = place if place != folder / "raw" else folder / "raw" / case.picture
    place.chmod(0)
    found = Conversion(corpus, folder, capsys)
    assert found.code in (0, 2) and str(place.name) in found.said


def test_more_than_max_loss_stops_and_keeps_the_report(corpus: str, case: Case, folder: Path, capsys: Any) -> None:
    if not case.picture or not case.left:
        pytest.skip("loses nothing, or all")
    (folder / "raw" / case.picture).unlink()
    found = Conversion(corpus, folder, capsys, max_loss="0.1")
    kept = folder / ".out.partial" / "output" / "conversion_report.json"
    assert found.code == 2 and not (folder / "out").exists() and str(kept) in found.said
    assert "image_missing" in json.dumps(json.loads(kept.read_text())["readings"]) and "image_missing" in found.said
    again = Conversion(corpus, folder, capsys, max_loss="0.9")
    assert again.code == 0 and again.report["readings"]["rows_dropped"] >= 1


def test_one_transcript_or_patients_folder_without_rights_costs_no_other(folder: Path, capsys: Any) -> None:
    source = CASES["mimic_eye"].write(folder / "raw")
    assert source == folder / "raw"
    shutil.copytree(folder / "raw" / "patient_10000001", folder / "raw" / "patient_10000002")
    transcripts = folder / "raw" / "patient_10000001" / "EyeGaze" / "audio_segmentation_transcripts"
    next(transcripts.rglob("transcript.json")).chmod(0)
    (folder / "raw" / "patient_10000002").chmod(0)
    found = Conversion("mimic_eye", folder, capsys, max_loss="0.3")
    assert found.code == 0 and found.report["readings"]["rows_kept"] == 4
    assert "Permission denied" in found.found("transcript_not_readable")["first"][0]
    dropped = found.found("file_not_readable")
    assert dropped["count"] == 1 and "patient_10000002" in dropped["first"][0]
