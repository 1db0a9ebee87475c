"""What a converted corpus is, for programs: Croissant 1.0 (http://mlcommons.org/croissant/1.0), JSON-LD.

Its `url`, `creator` and `datePublished` are known to those who publish a corpus, and are not made up here.
"""

import hashlib
from pathlib import Path
from typing import Any

from datasets import Image, List

from dataset_scripts.output.card import COLUMNS, GENERATED_NOTICE
from dataset_scripts.schema import FEATURES

CROISSANT_TERMS = (
    *("column", "extract", "field", "fileSet", "includes", "jsonPath", "key", "recordSet", "repeated", "source"),
    *("subField", "transform"),
)
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    **{term: f"cr:{term}" for term in CROISSANT_TERMS},
}
TYPES = {"string": "sc:Text", "float64": "sc:Float", "int32": "sc:Integer", "int8": "sc:Integer"}
ROWS, SHARDS, PARQUET = "readings", "shards", "application/x-parquet"


def croissant(report: dict[str, Any], terms: str, output: Path) -> dict[str, Any]:
    """The description of the shards in `output/data`, from the conversion report and the corpus's terms."""
    about = {name: text.format_map(report) for names, text in COLUMNS.items() for name in names.split(", ")}
    notice = f" {GENERATED_NOTICE.replace('*', '')}" if report["generated"] else ""
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": f"{report['corpus']}, converted for EGMA",
        "description": f"Chest X-rays; a row is one reading of one image, and splits are by patient.{notice}",
        "license": {"@type": "sc:CreativeWork", "name": f"Terms of {report['corpus']}", "text": terms},
        "distribution": [
            *(_file(path, output) for path in sorted(output.glob("data/*.parquet"))),
            {"@type": "cr:FileSet", "@id": SHARDS, "encodingFormat": PARQUET, "includes": "data/*.parquet"},
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": ROWS,
                "key": {"@id": f"{ROWS}/reading_id"},
                "field": [
                    _field(name, kind, name, "bytes" if name == "image" else "") | {"description": about[name]}
                    for name, kind in FEATURES.items()
                ],
            }
        ],
    }


def _file(path: Path, output: Path) -> dict[str, Any]:
    name = path.relative_to(output).as_posix()
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    size = f"{path.stat().st_size} B"
    about = {"contentUrl": name, "contentSize": size, "encodingFormat": PARQUET, "sha256": digest}
    return {"@type": "cr:FileObject", "@id": name, "name": path.name, **about}


def _field(name: str, kind: Any, column: str, path: str) -> dict[str, Any]:
    """A column, or what lies at `path` in each value of it."""
    field: dict[str, Any] = {"@type": "cr:Field", "@id": f"{ROWS}/{name}", "name": name}
    if isinstance(kind, List):
        field["repeated"], kind = True, kind.feature
    if isinstance(kind, dict):
        return field | {"subField": [_field(f"{name}/{part}", inner, column, part) for part, inner in kind.items()]}
    source = {"fileSet": {"@id": SHARDS}, "extract": {"column": column}}
    if path:
        source["transform"] = {"jsonPath": path}
    return field | {"dataType": "sc:ImageObject" if isinstance(kind, Image) else TYPES[kind.dtype], "source": source}
