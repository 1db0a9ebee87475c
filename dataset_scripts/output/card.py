"""The dataset card of a converted corpus: what `load_dataset` needs to open it, and what a reader needs to know."""

from typing import Any

from huggingface_hub import DatasetCardData

COLUMNS = {
    "image": "the picture, PNG, long side at most {image_size} pixels, grey values intact; null in gaze alone",
    "image_id, study_id, subject_id": "the source's ids; null where unknown",
    "reading_id, reader_id": "one reading of one image, and who read it",
    "source, view, license": "where the row is from, the projection, the terms that hold for it",
    "sex, age_years": "F or M, and years at the time of the image; null where unknown or impossible",
    "width, height": "pixels of the frame that gaze and boxes refer to",
    "sentences": "list of text, start_seconds, end_seconds on the gaze clock; times null when untimed",
    "fixations": "x, y (fractions of the image), start, duration (seconds); sigma_x, sigma_y (one degree of visual "
    "angle) and the shown rectangle x_min, y_min, x_max, y_max (fractions); null where the source has none",
    "findings": "list of name, value: 1 present, 0 absent, -1 uncertain; unmentioned ones are not listed",
    "boxes": "list of label, shape (box or ellipse), x_min, y_min, x_max, y_max (fractions), certainty",
}
GENERATED_NOTICE = (
    "**This corpus is GENERATED: no patient exists.** Images, texts and gaze were drawn by a program; nothing measured "
    "on it says anything about a clinical use."
)
DATASETS_VERSIONS = "3.0 or newer (tried: 3.0.0, 3.6.0, 4.8.5, 5.2.0)"
COUNTED = ("readings", "patients", "images", "readings_with_gaze", "sentences", "timed_sentences", "fixations", "boxes")
# what a column with something in it is good for, in the Hub's words
TASKS = {
    "sentences": "image-to-text",
    "findings": "image-classification",
    "boxes": "object-detection",
    "readings_with_gaze": None,
}
SIZES = {10**3: "n<1K", 10**4: "1K<n<10K", 10**5: "10K<n<100K", 10**6: "100K<n<1M", 10**7: "1M<n<10M"}


def dataset_card(report: dict[str, Any], terms: str) -> str:
    """The text of README.md, from the conversion report and the corpus's terms."""
    notice = [GENERATED_NOTICE, ""] if report["generated"] else []
    kept, rows = report["readings"]["rows_kept"], report["readings"]["rows_in"]
    lines = [
        *_header(report),
        *notice,
        f"# {report['corpus']}, converted for EGMA",
        "",
        f"A row is one reading of one image. {kept} of the source's {rows} readings are here; `conversion_report.json` "
        "says what became of the others and of every row of the source's tables. Splits are by patient. "
        f"`load_dataset` opens it with `datasets` {DATASETS_VERSIONS}.",
        f"Version {report['schema_version']} of the schema.",
        "",
        *_counts(report["splits"]),
        "",
        "| column | content |",
        "|---|---|",
        *(f"| {name} | {text.format(image_size=report['image_size'])} |" for name, text in COLUMNS.items()),
        "",
        "## Licence",
        "",
        terms,
        "",
    ]
    return "\n".join(lines)


def _header(report: dict[str, Any]) -> list[str]:
    splits = report["splits"]
    total = {name: sum(counts[name] for counts in splits.values()) for name in TASKS}
    tags = ["medical", "radiology", "chest-x-ray"]
    tags += ["eye-tracking"] * (total["readings_with_gaze"] > 0) + ["synthetic"] * report["generated"]
    files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in splits]
    data = DatasetCardData(
        pretty_name=f"{report['corpus']}, converted for EGMA",
        license="other",
        language="en" if total["sentences"] else None,
        task_categories=[task for name, task in TASKS.items() if task and total[name]] or None,
        tags=tags,
        size_categories=_size_category(report["readings"]["rows_kept"]),
        configs=[{"config_name": "default", "data_files": files}],
    )
    return ["---", data.to_yaml(), "---", ""]


def _size_category(rows: int) -> str:
    return next((name for bound, name in SIZES.items() if rows < bound), "10M<n<100M")


def _counts(splits: dict[str, dict[str, int]]) -> list[str]:
    return [
        f"| split | {' | '.join(name.replace('_', ' ') for name in COUNTED)} |",
        "|---" * (len(COUNTED) + 1) + "|",
        *(f"| {split} | {' | '.join(str(counts[name]) for name in COUNTED)} |" for split, counts in splits.items()),
    ]
