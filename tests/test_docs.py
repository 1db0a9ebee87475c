"""Every command and every Python block of README and docs, as it stands, on generated data and a tiny model.

They run in a folder that holds what they name: raw corpora in small, `runs/demo/egma`, `radiograph.png`, and a
`configs/phantom.yaml` of two steps, which goes before the package's. A command is run by the `main` of its program.
A block under `<!-- not run: REASON -->` is not run; there are as many of them as EXEMPT says, and no more.
"""

import importlib
import json
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from PIL import Image

from dataset_scripts.phantom import write_phantom
from egma.__main__ import COMMANDS
from egma.tools.processes import CONFIGS, ROOT
from modeling_egma import EgmaConfig, EgmaModel, EgmaProcessor
from tests.dataset_scripts import raw_trees as raw
from tests.dataset_scripts.corpora import test_tracker as tracker

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(<!-- not run: (?P<reason>[^\n]+) -->\n)?^```(?P<kind>\w*)\n(?P<body>.*?)^```$", re.M | re.S)
CELL = re.compile(r"^\|[^|\n]*\| `(?P<command>(?:egma|python -m) [^`\n]+)` \|", re.M)
# blocks that are not run, by page; each says what it needs
EXEMPT = {
    **{"README.md": 4, "docs/evidence.md": 1, "docs/hub.md": 2, "docs/page.md": 4, "docs/papers.md": 3},
    "docs/reproduce.md": 1,
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
    if name == "README.md":
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
    for page in [*PAGES, *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md"))]:
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            assert link.startswith(("https://", "http://")) or (page.parent / link).exists(), (page.name, link)


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    assert {page.name for page in PAGES[1:]} - {"README.md"} == set(re.findall(r"\]\(([\w.]+\.md)\)", index))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer, tiny_swin, tiny_bert) -> Path:
    """What the commands name, before the first of them."""
    here = tmp_path_factory.mktemp("docs")
    write_phantom(here / "MIMIC_EYE", readings=72, seed=3)
    raw.mimic_cxr_tree(here / "MIMIC_CXR_JPG")
    write_phantom(here / "gaze", readings=24, seed=3, layout="reflacx")
    (here / "REFLACX").symlink_to(next((here / "gaze").glob("reflacx-*/*")))
    (here / "MIMIC_CXR").symlink_to(next((here / "gaze").glob("mimic-cxr-jpg/*")))
    raw.image_text_folder(here / "FOLDER", ["file_name,text", "a.png,No effusion."])
    rows = [f"r{n},a.png,gaze.csv,said.vtt,p{n}" for n in range(4)]
    columns = "reading_id,image,gaze,transcript,subject_id"
    for name in ("RECORDINGS", "my_recordings"):
        tracker.folder(here / name, rows, columns)
    table = ["Blick X [px],Blick Y [px],when (ms),lasts (ms),Bild", "25,10,500,250,a.png", "75.5,40,1000,500,a.png"]
    tracker.folder(here / "other_recordings", rows, columns, {"gaze.csv": table})
    (here / "MOUSE_RECORDINGS").mkdir()
    for n in range(4):
        raw.grey_picture(100, 80 + n).save(here / "MOUSE_RECORDINGS" / f"{n}.png")
        reading = {
            "source": "tracker/mouse", "reading_id": f"r{n}", "image": f"{n}.png", "subject_id": f"p{n}",
            "sentences": [{"text": "No effusion.", "start_seconds": 0.0, "end_seconds": 2.0}],
            "fixations": {"x": [0.3, 0.5], "y": [0.4, 0.4], "start": [0.2, 1.2], "duration": [0.5, 0.3]},
        }  # fmt: skip
        (here / "MOUSE_RECORDINGS" / f"{n}.json").write_text(json.dumps(reading))
    small = yaml.safe_load((CONFIGS / "phantom.yaml").read_text())
    small |= {"max_steps": 2, "evaluation_steps": 2, "batch_size": 8, "report_to": "none", "num_workers": 0}
    (here / "configs").mkdir()
    (here / "configs" / "phantom.yaml").write_text(yaml.safe_dump(small))
    config = EgmaConfig(vision_config=tiny_swin.to_dict(), text_config=tiny_bert.to_dict(), projection_dim=12)
    EgmaModel(config).save_pretrained(here / "runs" / "demo" / "egma")
    EgmaProcessor.for_model(config, tokenizer).save_pretrained(here / "runs" / "demo" / "egma")
    Image.linear_gradient("L").save(here / "radiograph.png")
    return here


def run_command(words: list[str]) -> None:
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
            exec(compile(block.body, page, "exec"), names)
        for words in block.commands if block.kind == "sh" else ():
            run_command(words)


def test_the_scripts_of_the_clone_are_the_same_programs() -> None:
    for name, module in (("train_egma", "train"), ("evaluate_egma", "evaluate"), ("push_egma", "push"), ("app", "app")):
        program = runpy.run_path(str(ROOT / f"{name}.py"))["main"]
        assert program is importlib.import_module(f"egma.programs.{module}").main
