"""Foreign JSON is read, or what is wrong with it is said."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_scripts.files.json_files import parse_json, read_json
from dataset_scripts.ledger import Ledger
from dataset_scripts.schema import UserError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner), max_leaves=5
)


@given(st.binary(max_size=64) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_the_value_or_an_error_that_names_the_file(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("json") / "a.json"
    path.write_bytes(content)
    try:
        expected = json.loads(content.decode("utf-8-sig"))
        assert b"\0" not in content
    except (ValueError, AssertionError):
        with pytest.raises(UserError, match=r"^given name: "):
            read_json(path, "given name", Ledger())
    else:
        assert repr(read_json(path, "given name", Ledger())) == repr(expected)  # NaN is not equal to itself


def test_a_byte_order_mark_is_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(tmp_path / "a.json", "a.json", Ledger()) == [1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1,\n "b"}', "it breaks at line 2, column 5"),
        ("[" * 100_000, "it is nested too deep"),
        ("1" * 5000, "a number has too many digits"),
    ],
)
def test_what_is_wrong_is_told_in_words(text: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^a.json: expected JSON; {message}"):
        parse_json(text, "a.json")
