"""The scripts of the page: their pure parts in node, and that all of them are served."""

import shutil
import subprocess
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
@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_strict_and_parse(name: str) -> None:
    assert (STATIC / name).read_text(encoding="utf-8").startswith('"use strict";\n')
    subprocess.run([str(NODE), "--check", str(STATIC / name)], check=True, timeout=60)
