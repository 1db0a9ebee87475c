"""Every command and every Python block of README and docs, as it stands, on generated data and small models.

They run in a folder that holds what they name (`docs_folder.py`): raw corpora in small, the package's sample for the
demo's model, presets of two steps, which go before the package's, and for the models of the Hub tiny ones of the same
names. A command is run by the `main` of its program, `egma app` as a page that answers. A block under
`<!-- not run: REASON -->` is not run; there are as many of them as EXEMPT says, and no more.
"""

import importlib
import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from subprocess import PIPE
from typing import NamedTuple

import pytest

from egma.__main__ import COMMANDS
from egma.tools.processes import ROOT
from tests import docs_folder

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(<!-- not run: (?P<reason>[^\n]+) -->\n)?^```(?P<kind>\w*)\n(?P<body>.*?)^```$", re.M | re.S)
CELL = re.compile(r"^\|[^|\n]*\| `(?P<command>(?:egma|python -m) [^`\n]+)` \|", re.M)
MOST_PAGES = 9
OTHER_PAGES = ("CONTRIBUTING.md", "SECURITY.md", "docs/images/README.md", "docs/results/README.md")
# blocks that are not run, by page; each says what it needs
EXEMPT = {
    **{"README.md": 2, "docs/evaluation.md": 1, "docs/evidence.md": 1, "docs/hub.md": 1, "docs/method.md": 2},
    "docs/page.md": 1,
}


class Block(NamedTuple):
    page: str
    kind: str
    body: str
    reason: str | None

    @property
    def commands(self) -> list[list[str]]:
        """The words of every command, without comments."""
        lines = self.body.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    name = str(page.relative_to(ROOT))
    if page.name == "README.md":
        yield Block(name, "sh", "\n".join(found["command"] for found in CELL.finditer(text)), None)
    for found in BLOCK.finditer(text):
        yield Block(name, found["kind"], found["body"], found["reason"])


ALL = [block for page in PAGES for block in blocks(page)]
RUN = [block for block in ALL if block.kind in ("sh", "python") and block.reason is None]


def test_as_many_blocks_as_are_said_are_not_run() -> None:
    exempt = [block for block in ALL if block.reason is not None]
    assert {page: sum(block.page == page for block in exempt) for page in {block.page for block in exempt}} == EXEMPT
    assert all(block.kind in ("sh", "python") for block in exempt)
    assert sum(len(block.commands) for block in RUN if block.kind == "sh") >= 16
    assert sum(block.kind == "python" for block in RUN) >= 5


def test_no_command_hides_in_a_block_without_a_language() -> None:
    """Forms have a place for a choice, as [--option] or a word in capitals."""
    for block in ALL:
        for line in block.body.splitlines() if block.kind == "" else ():
            if line.startswith(("egma ", "python -m ", "make ", "accelerate ")):
                assert re.search(r"\[--|\b[A-Z]{3,}\b", line), (block.page, line)


def test_links_lead_somewhere() -> None:
    for page in [*PAGES, *(ROOT / name for name in OTHER_PAGES)]:
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            assert link.startswith(("https://", "http://")) or (page.parent / link).exists(), (page.name, link)


def test_every_picture_is_in_the_list_of_those_that_one_command_makes() -> None:
    """And none that nobody shows lies there."""
    listed = (ROOT / "docs" / "images" / "README.md").read_text(encoding="utf-8")
    shown = {Path(link).name for page in PAGES for link in re.findall(r"\]\(([^)\s]+\.png)\)", page.read_text())}
    assert shown == {path.name for room in ("images", "evidence") for path in (ROOT / "docs" / room).glob("*.png")}
    assert shown == set(re.findall(r"[\w.-]+\.png", listed))


def test_every_page_is_in_the_index_and_they_are_few() -> None:
    assert len(PAGES) <= MOST_PAGES + 2  # the README, and the index
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    assert {page.name for page in PAGES[1:]} - {"README.md"} == set(re.findall(r"\]\(([\w.]+\.md)\)", index))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer, tiny_swin) -> Path:
    return docs_folder.make(tmp_path_factory.mktemp("docs"), tokenizer, tiny_swin)


@contextmanager
def page_of(words: list[str]) -> Iterator[None]:
    """`egma app ...` while it answers; it ends, as by Ctrl-C, without a word of failure."""
    command = [sys.executable, "-m", "egma", *words[1:]]
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=PIPE, text=True) as running:
        assert running.stdout is not None
        said = iter(running.stdout.readline, "")
        assert any("the page answers on http://127.0.0.1:7860" in line for line in said)
        try:
            yield
        finally:
            running.send_signal(signal.SIGINT)
            assert running.wait(60) == 0


def run_command(words: list[str]) -> None:
    if words[:2] == ["egma", "app"]:
        with page_of(words):
            return
    words = ["python", *words[2:]] if words[:2] == ["accelerate", "launch"] else words
    if words[0] == "egma":
        module, words = COMMANDS[words[1]][0], words[2:]
    else:
        assert words[:2] == ["python", "-m"], words
        module, words = words[2], words[3:]
    found = importlib.import_module(module)
    found = found if hasattr(found, "main") else importlib.import_module(f"{module}.__main__")
    assert found.main(words) == 0, (module, words)


@pytest.mark.parametrize("page", dict.fromkeys(block.page for block in RUN))
def test_they_run_as_they_stand(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages in their order, as one works on what the one before made; the blocks of a page share their names."""
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    # the table of README has its data first; a snippet may use what a later command makes
    for block in sorted((block for block in RUN if block.page == page), key=lambda block: block.kind != "sh"):
        if block.kind == "python":
            with page_of(["egma", "app"]) if "gradio_client" in block.body else nullcontext():
                exec(compile(block.body, page, "exec"), names)
        for words in block.commands if block.kind == "sh" else ():
            run_command(words)


def test_the_scripts_of_the_clone_are_the_same_programs() -> None:
    for name, module in (("train_egma", "train"), ("evaluate_egma", "evaluate"), ("push_egma", "push"), ("app", "app")):
        program = runpy.run_path(str(ROOT / f"{name}.py"))["main"]
        assert program is importlib.import_module(f"egma.programs.{module}").main
