"""How fast raw corpora are converted, and in how much memory: `python -m benchmarks.conversion [PART ...]`.

Everything is generated, under --folder, and used again when it is there. See benchmarks/README.md.
"""

import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.csv as pacsv
from PIL import Image

from benchmarks.parts import ROOT, run_parts
from dataset_scripts.images import pictures as images
from dataset_scripts.ledger import Ledger

GAZE_ROWS, GAZE_IMAGES = 1_500_000, 1_083
GAZE_COLUMNS = (
    *("SESSION_ID", "MEDIA_ID", "DICOM_ID", "CNT", "Time (in secs)", "TIMETICK(f=10000000)"),
    *("FPOGX", "FPOGY", "FPOGS", "FPOGD", "FPOGID", "FPOGV", "BPOGX", "BPOGY", "BPOGV"),
    *("LPCX", "LPCY", "LPD", "LPS", "LPV", "RPCX", "RPCY", "RPD", "RPS", "RPV", "BKID", "BKDUR", "BKPMIN"),
    *("LPMM", "LPMMV", "RPMM", "RPMMV", "SACCADE_MAG", "SACCADE_DIR", "VID_FRAME", "X_ORIGINAL", "Y_ORIGINAL"),
)
JPEGS, JPEG_KINDS, JPEG_SIZE, IMAGE_SIZE = 400, 8, (2544, 3056), 512
CORPUS_READINGS = (1_000, 4_115, 8_230)
MEMORY_INTERVAL_SECONDS = 0.1

OURS = """
import sys, time
from pathlib import Path
from dataset_scripts.corpora.egd_fixations import KnownIds, read_fixations
from dataset_scripts.ledger import Ledger
ids = [f"{n:044x}" for n in range(int(sys.argv[2]))]
start = time.perf_counter()
table = read_fixations(Path(sys.argv[1]), KnownIds(ids), Ledger())
print(time.perf_counter() - start, sum(len(rows) for rows in table.rows.values()))
"""
PANDAS = """
import sys, time
import pandas as pd
start = time.perf_counter()
rows = pd.read_csv(f"{sys.argv[1]}/eye_gaze.csv")
rows = rows[rows["FPOGV"] == 1].sort_values(["DICOM_ID", "FPOGID", "FPOGS", "FPOGD"])
fixations = rows.drop_duplicates(["DICOM_ID", "FPOGID", "FPOGS"], keep="last")
print(time.perf_counter() - start, len(fixations))
"""


class Run(NamedTuple):
    """What a program printed, its wall time, and the most memory that it and its children held at once."""

    output: str
    seconds: float
    peak_gib: float


def run(*arguments: str) -> Run:
    """Run Python and watch its memory (resident, summed over the processes: what they share counts more than once)."""
    start, peak = time.perf_counter(), 0
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            tree = [watched, *watched.children(recursive=True)]
            peak = max(peak, sum(each.memory_info().rss for each in tree))
        except psutil.NoSuchProcess:
            pass
        time.sleep(MEMORY_INTERVAL_SECONDS)
    seconds = time.perf_counter() - start
    output, errors = process.communicate()
    if process.returncode:
        sys.exit(errors)
    return Run(output, seconds, peak / 2**30)


def eye_gaze(folder: Path) -> None:
    """A table of EGD's size, read and reduced to fixations, and the same with pandas."""
    table = folder / "eye_gaze" / "eye_gaze.csv"
    if not table.exists():
        _write_samples(table)
    print(f"eye_gaze.csv: {GAZE_ROWS} rows, {len(GAZE_COLUMNS)} columns, {table.stat().st_size / 1e6:.0f} MB")
    for name, program in (("read_fixations", OURS), ("pandas.read_csv, sorted, deduplicated", PANDAS)):
        result = run("-c", program, str(table.parent), str(GAZE_IMAGES))
        seconds, fixations = result.output.split()
        print(f"  {name}: {float(seconds):.1f} s, {result.peak_gib:.2f} GiB at most, {fixations} fixations")


def jpegs(folder: Path) -> None:
    """Full-size JPEGs to the working size; and against decoding them whole, which JPEG's own scaling spares."""
    source = folder / "jpegs"
    if not (source / "metadata.csv").exists():
        _write_jpegs(source)
    path = source / "0.jpg"
    size = f"{JPEG_SIZE[0]} x {JPEG_SIZE[1]} pixels, {path.stat().st_size / 1e6:.1f} MB"
    print(f"JPEG: {JPEGS} pictures of {size} each, to {IMAGE_SIZE} px")
    for num_proc in (1, 2):
        seconds, gib = _convert("image_text", source, num_proc)[1:]
        rate = f"{JPEGS / seconds:.1f} images/s"
        print(f"  whole conversion, {num_proc} process(es): {rate}, {seconds:.1f} s, {gib:.2f} GiB at most")
    scaled, whole = _encoded(path, is_whole=False), _encoded(path, is_whole=True)
    fast, slow = _rate(lambda: _encoded(path, is_whole=False)), _rate(lambda: _encoded(path, is_whole=True))
    error = np.abs(scaled - whole)
    print(
        f"  encode_image, one process: {fast:.1f} images/s, {fast / slow:.2f} times the {slow:.1f} of decoding all; "
        f"grey values differ by {error.mean():.2f} of 255 in the mean, {error.max()} at most"
    )


def corpus(folder: Path) -> None:
    """The phantom corpus in MIMIC-EYE's layout, of growing sizes: memory must not follow the readings."""
    for readings in CORPUS_READINGS:
        source = folder / f"phantom-{readings}"
        if not source.exists():
            run(
                "-m", "dataset_scripts.phantom", "--output", str(source), "--readings", str(readings), "--num-proc", "2"
            )
        pictures = sum(1 for _ in source.glob("patient_*/CXR-JPG/s*/*.jpg"))
        result = _convert("mimic_eye", source, 2)
        print(
            f"mimic_eye: {readings} generated readings of {pictures} images, 2 processes: {result.seconds:.1f} s, "
            f"{readings / result.seconds:.1f} readings/s, {result.peak_gib:.2f} GiB"
        )


def _convert(name: str, source: Path, num_proc: int) -> Run:
    with tempfile.TemporaryDirectory(dir=source.parent) as output:
        arguments = ("--source", str(source), "--output", f"{output}/converted", "--num-proc", str(num_proc))
        return run("-m", "dataset_scripts.build", name, *arguments)


def _write_samples(path: Path) -> None:
    """Gaze at 60 Hz: fixations of 5 to 40 samples that grow from sample to sample, a tenth of the samples not valid."""
    random = np.random.default_rng(0)
    fixation = np.repeat(np.arange(GAZE_ROWS), random.integers(5, 41, GAZE_ROWS))[:GAZE_ROWS]
    first = np.searchsorted(fixation, fixation)
    image = np.arange(GAZE_ROWS) * GAZE_IMAGES // GAZE_ROWS
    columns = {name: np.round(random.random(GAZE_ROWS), 5) for name in GAZE_COLUMNS}
    ticks = np.arange(GAZE_ROWS)
    columns |= {
        "DICOM_ID": np.array([f"{n:044X}" for n in range(GAZE_IMAGES)])[image],
        "Time (in secs)": np.round(ticks / 60, 5),
        "FPOGS": np.round(first / 60, 5),
        "FPOGD": np.round((ticks - first) / 60, 5),
        "FPOGID": fixation,
        "FPOGV": (random.random(GAZE_ROWS) < 0.9).astype(int),
        "X_ORIGINAL": random.integers(0, 2500, GAZE_ROWS),
        "Y_ORIGINAL": random.integers(0, 3000, GAZE_ROWS),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pacsv.write_csv(pa.table(columns), path)


def _write_jpegs(folder: Path) -> None:
    """Smooth pictures with the noise of a detector, which makes the files as large as those of MIMIC-CXR-JPG."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    contents = []
    for _ in range(JPEG_KINDS):
        coarse = Image.fromarray(random.integers(0, 256, (24, 20), dtype=np.uint8))
        noisy = np.asarray(coarse.resize(JPEG_SIZE, Image.Resampling.BICUBIC)) + random.normal(0, 3, JPEG_SIZE[::-1])
        buffer = io.BytesIO()
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=95)
        contents.append(buffer.getvalue())
    for number in range(JPEGS):
        (folder / f"{number}.jpg").write_bytes(contents[number % JPEG_KINDS])
    lines = ["file_name,text", *(f"{number}.jpg,Clear." for number in range(JPEGS))]
    (folder / "metadata.csv").write_text("\n".join(lines))


def _encoded(path: Path, is_whole: bool) -> np.ndarray:
    with patch.object(images, "DECODED_SIDES", 1_000 if is_whole else images.DECODED_SIDES):
        png = images.encode_image(path, IMAGE_SIZE, Ledger()).png
    return np.asarray(Image.open(io.BytesIO(png)), dtype=int)


def _rate(work: Callable[[], object], times: int = 10) -> float:
    start = time.perf_counter()
    for _ in range(times):
        work()
    return times / (time.perf_counter() - start)


PARTS = {"eye_gaze": eye_gaze, "jpegs": jpegs, "corpus": corpus}


if __name__ == "__main__":
    run_parts(__doc__, PARTS)
