"""CSV tables: what corpora write is read, anything else is refused with the file's name."""

import csv
import gzip
import io

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_scripts.files import tables, texts
from dataset_scripts.files.tables import number, numbers
from dataset_scripts.ledger import Ledger
from dataset_scripts.schema import UserError

TABLE = "a table"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


def written(folder, content, name="table.csv"):
    path = folder / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def read_table(path, required, ledger=None):
    return tables.read_table(path, required, ledger or Ledger(), TABLE)


def columns_of(path, ledger=None, **types):
    return pa.Table.from_batches(tables.read_columns(path, types, ledger or Ledger(), TABLE)).to_pydict()


READERS = (
    lambda path, ledger=None: read_table(path, ("id", "x"), ledger),
    lambda path, ledger=None: columns_of(path, ledger, id=pa.string(), x=pa.string()),
)


@pytest.mark.parametrize("name", ["table.csv", "table.csv.gz"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_bom_line_ends_index_column_and_packing(folder, name, end, bom):
    path = written(folder, bom + end.join([",word, x", "0, none ,1.5", "", "1,nan,", ""]).encode(), name)
    assert read_table(path, ("word", "x")) == [{"word": "none", "x": "1.5"}, {"word": "nan", "x": ""}]
    assert columns_of(path, x=pa.string(), word=pa.string()) == {"x": ["1.5", ""], "word": [" none ", "nan"]}


def test_quoted_line_breaks_and_short_rows(folder):
    path, ledger = written(folder, b'id,text\na,"two\r\nlines, ""quoted"""\nb\n'), Ledger()
    rows = read_table(path, ("id",), ledger)
    assert rows == [{"id": "a", "text": 'two\r\nlines, "quoted"'}, {"id": "b", "text": ""}]
    assert ledger.notes["row_lacks_cells_at_its_end"].first == [f"{path}: row 2: 1 of 2"] and not ledger.tables


def test_rows_of_another_length_are_counted_and_named_and_the_rest_goes_on(folder):
    """Of one line too much and one too little, whichever reader: the others stay."""
    path = written(folder, b"id,y,x\n1,2,3\n2,2,3,4\n3,2,3\n4\n5,2,3,,\n6,2,3\n")
    for read, dropped in ((READERS[0], (2, 4)), (READERS[1], (2, 4, 5))):  # blank cells beyond the header are nothing
        ledger = Ledger()
        rows = read(path, ledger)
        assert len(rows if isinstance(rows, list) else rows["id"]) == 6 - len(dropped)
        found = ledger.tables[TABLE].dropped["row_of_another_length"]
        assert [int(first.split("row ")[1].split()[0]) for first in found.first] == list(dropped)
        assert str(path) in found.first[0] and "4 cells; expected 3" in found.first[0]
        ledger.check()


@pytest.mark.parametrize(
    ("encoding", "is_noted"),
    [("utf-8", False), ("utf-8-sig", False), ("utf-16", False), ("utf-32", False), ("cp1252", True)],
)
def test_text_is_decoded_by_its_mark_else_utf_8_else_cp1252_with_a_note(folder, encoding, is_noted):
    path = written(folder, "id,x\n1,na\u00efve\n".encode(encoding))
    for read in READERS:
        ledger = Ledger()
        rows = read(path, ledger)
        assert (rows[0]["x"] if isinstance(rows, list) else rows["x"][0]) == "na\u00efve"
        assert ("text_read_as_cp1252" in ledger.notes) == is_noted


def test_header_only_is_a_table_without_rows(folder):
    for content in (b"id,x", b"id,x\n", b"id,x\r\n"):
        path = written(folder, content)
        assert read_table(path, ("id",)) == []
        assert columns_of(path, x=pa.float64()) == {"x": []}


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "missing; it has none"),
        (b"id,y\n1,2\n", "x missing; it has id, y$"),
        (b"id;x\n1;2\n", "looks separated by semicolons; expected commas"),
        (b"id\tx\n1\t2\n", "looks separated by tabs"),
        (b"id,x,x\n1,2,3\n", r"column\(s\) x occur more than once"),
        (b"id,x\n1,\xff\x81\n", "expected text in UTF-8"),
        ("id,x\n1,2\n".encode("utf-16-le"), "zero byte"),
    ],
)
def test_what_is_no_such_table_is_refused(folder, read, content, message):
    with pytest.raises(UserError, match=message) as raised:
        read(written(folder, content))
    assert "table.csv" in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,x\n1,a\0b\n", "zero byte"),
        (b'id,x\n1,"never closed\n2,3\n', "unexpected end of data"),
        (b"id,x\n1," + b"a" * 200_000, "field limit"),
    ],
)
def test_damaged_cells_are_refused(folder, content, message):
    with pytest.raises(UserError, match=message):
        read_table(written(folder, content), ("id",))


def test_packed_tables_are_bounded_and_checked(folder, monkeypatch):
    path = written(folder, b"id,x\n" + b"1,2\n" * 100_000, "table.csv.gz")
    whole = path.read_bytes()
    assert len(read_table(path, ("id",))) == 100_000
    for damaged in (whole[:-20], b"id,x\n1,2\n", whole[:40] + b"\0\0\0\0" + whole[44:]):
        path.write_bytes(damaged)
        for read in (lambda: read_table(path, ("id",)), lambda: columns_of(path, x=pa.int64())):
            with pytest.raises(UserError, match="expected a file packed with gzip"):
                read()
    path.write_bytes(whole)
    monkeypatch.setattr(texts.read_text, "__defaults__", (10_000, None))
    with pytest.raises(UserError, match="larger than 10000 bytes"):
        read_table(path, ("id",))


def test_missing_file_names_the_columns(folder):
    for read in (lambda path: read_table(path, ("id",)), lambda path: columns_of(path, id=pa.string())):
        with pytest.raises(UserError, match=r"none.csv: no such file; expected a table with the columns id"):
            read(folder / "none.csv")


def test_numbers():
    cells = ["1.5", "", "nan", "inf", "-inf", "word", "1e400", "1_0", " 2 ", "-0"]
    rows = [{"x": cell} for cell in cells]
    expected = [1.5, *[np.nan] * 7, 2.0, 0.0]
    np.testing.assert_array_equal(numbers(rows, "x"), expected)
    assert [number(cell) for cell in cells] == [None if np.isnan(value) else value for value in expected]


def test_decimal_commas_are_named_not_guessed():
    with pytest.raises(UserError, match=r"column x, row 2: '1,5' has a comma; expected a decimal point"):
        numbers([{"x": "1"}, {"x": "1,5"}], "x")


def test_typed_columns(folder):
    path = written(folder, b"id,x,text\na,1.5,\nb,,none\n")
    assert columns_of(path, x=pa.float64(), text=pa.string()) == {"x": [1.5, None], "text": ["", "none"]}
    with pytest.raises(UserError, match=r"table\.csv"):
        columns_of(path, text=pa.float64())


def test_large_tables_come_in_order(folder, monkeypatch):
    monkeypatch.setattr(tables, "READ_BLOCK_BYTES", 4096)
    path = written(folder, "\n".join(["n,twice", *(f"{n},{2 * n}" for n in range(5000))]).encode())
    assert len(list(tables.read_columns(path, {"n": pa.int64()}, Ledger(), TABLE))) > 5
    assert columns_of(path, twice=pa.int64(), n=pa.int64()) == {
        "twice": list(range(0, 10_000, 2)),
        "n": list(range(5000)),
    }


@given(
    st.one_of(
        st.binary(max_size=200), st.text('id,x"\n\r; 1.\0é', max_size=80).map(lambda text: f"id,x\n{text}".encode())
    )
)
def test_any_bytes_are_rows_or_a_user_error(folder, content):
    for name in ("any.csv", "any.csv.gz"):
        path = folder / name
        path.write_bytes(content)
        for read in READERS:
            try:
                read(path)
            except UserError as error:
                assert name in str(error)


@given(st.lists(st.tuples(st.text("ab,;\"'\n\r é", max_size=8), st.text("none0", max_size=8))))
def test_round_trip(folder, rows):
    buffer = io.StringIO(newline="")
    csv.writer(buffer, quoting=csv.QUOTE_ALL).writerows([("id", "x"), *rows])
    path = written(folder, buffer.getvalue().encode())
    assert read_table(path, ("id", "x")) == [{"id": first.strip(), "x": second.strip()} for first, second in rows]
