"""The scripts of the page: their pure parts in node, and that all of them are served."""

import io
import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from egma.page.page import SCRIPTS, STATIC

TESTS = Path(__file__).with_name("static")
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="needs node: apt-get install nodejs")


def test_every_script_is_served() -> None:
    assert sorted(SCRIPTS) == sorted(path.name for path in STATIC.glob("*.js"))


@needs_node
@pytest.mark.parametrize("name", sorted(path.name for path in TESTS.glob("*.test.js")))
def test_pure_parts(name: str) -> None:
    ran = subprocess.run([str(NODE), "--test", str(TESTS / name)], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout


@needs_node
@pytest.mark.parametrize("files", [{}, {"a.json": [], "größe 1.png": list(range(256)) * 3, "b": [0] * 70_000}])
def test_a_zip_is_what_other_programs_read(files: dict[str, list[int]]) -> None:
    script = (
        f"const {{ egmaZip }} = require({json.dumps(str(TESTS / 'pure.js'))});"
        f"const given = Object.entries({json.dumps(files)});"
        "const files = new Map(given.map(([name, bytes]) => [name, Uint8Array.from(bytes)]));"
        "egmaZip(files, new Date(2026, 10, 27, 21, 53, 24)).arrayBuffer()"
        ".then((all) => process.stdout.write(Buffer.from(all)));"
    )
    ran = subprocess.run([str(NODE), "-"], input=script.encode(), capture_output=True, timeout=60, check=True)
    with zipfile.ZipFile(io.BytesIO(ran.stdout)) as opened:
        assert opened.testzip() is None
        assert {name: list(opened.read(name)) for name in opened.namelist()} == files
        assert {one.date_time for one in opened.infolist()} <= {(2026, 11, 27, 21, 53, 24)}


@needs_node
@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_strict_and_parse(name: str) -> None:
    assert (STATIC / name).read_text(encoding="utf-8").startswith('"use strict";\n')
    subprocess.run([str(NODE), "--check", str(STATIC / name)], check=True, timeout=60)
