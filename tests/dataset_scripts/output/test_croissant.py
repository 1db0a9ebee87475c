"""The description of a corpus for programs: what Croissant 1.0 requires, the shards' digests, the schema's columns."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_scripts.corpora.mimic_eye import TERMS
from dataset_scripts.schema import ARROW_SCHEMA
from tests.dataset_scripts.converting import convert
from tests.dataset_scripts.raw_trees import mimic_eye_tree

ATOMS = {"sc:Text": pa.string(), "sc:Float": pa.float64(), "sc:Integer": pa.int32()}


@pytest.fixture
def described(tmp_path: Path) -> dict[str, Any]:
    convert("mimic_eye", mimic_eye_tree(tmp_path / "raw"), tmp_path / "out")
    return json.loads((tmp_path / "out" / "croissant.json").read_text())


def test_what_the_standard_requires_and_is_known_is_there(described: dict[str, Any]) -> None:
    assert described["@type"] == "sc:Dataset" and described["@context"]["@vocab"] == "https://schema.org/"
    assert described["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    assert described["@context"]["conformsTo"] == "dct:conformsTo"
    assert described["name"] == "mimic_eye, converted for EGMA" and described["description"]
    assert described["license"]["text"] == TERMS
    own = {key for key in keys(described) if key[0] != "@"}
    of_schema_org = {"name", "description", "license", "text", "distribution", "contentUrl", "contentSize", "sha256"}
    assert own - of_schema_org - {"encodingFormat"} <= described["@context"].keys()  # else JSON-LD loses the term


def keys(value: Any) -> set[str]:
    if isinstance(value, list):
        return set().union(*map(keys, value))
    inside = [item for key, item in value.items() if key != "@context"] if isinstance(value, dict) else []
    return set(value).union(*map(keys, inside)) if isinstance(value, dict) else set()


def test_every_shard_is_listed_with_its_digest(described: dict[str, Any], tmp_path: Path) -> None:
    *files, together = described["distribution"]
    shards = sorted((tmp_path / "out" / "data").glob("*.parquet"))
    assert [file["contentUrl"] for file in files] == [f"data/{path.name}" for path in shards] and shards
    for file, path in zip(files, shards, strict=True):
        content = path.read_bytes()
        assert file["sha256"] == hashlib.sha256(content).hexdigest() and file["contentSize"] == f"{len(content)} B"
        assert file["@type"] == "cr:FileObject" and file["encodingFormat"] == "application/x-parquet"
    assert together["@id"] == "shards" and sorted((tmp_path / "out").glob(together["includes"])) == shards


def test_fields_are_the_columns_of_the_shards(described: dict[str, Any], tmp_path: Path) -> None:
    (records,) = described["recordSet"]
    table = pq.read_table(next((tmp_path / "out" / "data").glob("*.parquet")))
    assert [field["name"] for field in records["field"]] == table.column_names == ARROW_SCHEMA.names
    leaves = 0
    for field, column in zip(records["field"], table.schema, strict=True):
        assert field["description"] and field["@id"] == f"readings/{column.name}"
        leaves += matches(field, column.type, column.name, "")
    assert leaves == len(pq.ParquetFile(next((tmp_path / "out" / "data").glob("*.parquet"))).schema.names) - 1
    assert records["key"] == {"@id": "readings/reading_id"}


def matches(field: dict[str, Any], kind: pa.DataType, column: str, path: str) -> int:
    """How many leaves there are; the kind of each, and where it is said to lie, are those of the table."""
    assert field.get("repeated", False) == pa.types.is_list(kind), column
    kind = kind.value_type if pa.types.is_list(kind) else kind
    if "subField" in field:
        inner = [kind.field(n) for n in range(kind.num_fields)]
        assert [part["name"] for part in field["subField"]] == [f"{column}/{each.name}" for each in inner]
        pairs = zip(field["subField"], inner, strict=True)
        return sum(matches(part, each.type, column, each.name) for part, each in pairs)
    source = {"fileSet": {"@id": "shards"}, "extract": {"column": column}}
    if field["dataType"] == "sc:ImageObject":
        assert kind.field("bytes").type == pa.binary() and path == ""
        path = "bytes"
    else:
        assert kind in (ATOMS[field["dataType"]], pa.int8() if field["dataType"] == "sc:Integer" else None)
    assert field["source"] == source | ({"transform": {"jsonPath": path}} if path else {})
    return 1
