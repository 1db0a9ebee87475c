"""The house as docs/architecture.md has it: which room may use which, and no circle anywhere."""

import ast
import configparser
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from transformers.dynamic_module_utils import get_imports

from egma.tools.processes import ROOT
from egma.training.provenance import git_revision

GROUND = {f"dataset_scripts.{file}" for file in ("identity", "schema", "command_line", "ledger", "plan")}
FLOOR = {"modeling_egma", *(f"dataset_scripts.{file}" for file in ("identity", "schema", "command_line")), "egma.tools"}
# what of the house a room may use, beside itself
ARROWS: dict[str, set[str]] = {
    "modeling_egma": set(),
    "dataset_scripts.identity": set(),
    "dataset_scripts.schema": {"dataset_scripts.identity"},
    "dataset_scripts.command_line": {"dataset_scripts.schema"},
    "dataset_scripts.ledger": {"dataset_scripts.schema"},
    "dataset_scripts.plan": GROUND,
    "dataset_scripts.files": GROUND,
    "dataset_scripts.images": GROUND | {"dataset_scripts.files"},
    "dataset_scripts.speech": GROUND | {"dataset_scripts.files"},
    "dataset_scripts.gaze": GROUND | {"dataset_scripts.files"},
    "dataset_scripts.corpora": GROUND | {f"dataset_scripts.{room}" for room in ("files", "gaze", "images", "speech")},
    "dataset_scripts.output": GROUND,
    "dataset_scripts.phantom": {"dataset_scripts.schema", "dataset_scripts.command_line"},
    "dataset_scripts.gaze_quality": {"dataset_scripts.schema", "dataset_scripts.command_line"},
    "dataset_scripts.preview": GROUND,
    "dataset_scripts.build": GROUND | {f"dataset_scripts.{room}" for room in ("corpora", "output", "files", "preview")},
    "egma.tools": {"dataset_scripts.identity", "dataset_scripts.schema"},
    "egma.figures": FLOOR,
    "egma.inference": FLOOR,
    "egma.training": FLOOR | {"egma.figures", "egma.inference"},
    "egma.evaluation.metrics": {"egma.tools"},
    "egma.evaluation.statistics": FLOOR,
    "egma.evaluation.protocols": FLOOR | {"egma.inference", "egma.evaluation.metrics", "egma.evaluation.statistics"},
    "egma.evaluation.reporting": FLOOR
    | {"egma.figures", "egma.inference", "egma.evaluation.protocols", "egma.evaluation.statistics"},
    "egma.evaluation": FLOOR
    | {"egma.figures", "egma.inference"}
    | {f"egma.evaluation.{room}" for room in ("protocols", "reporting", "statistics")},
    "egma.study": FLOOR | {"egma.figures", "egma.inference", "egma.evaluation"},
    "egma.hub": FLOOR | {"egma.inference", "egma.evaluation"},
    "egma.page": FLOOR | {"dataset_scripts", "egma.inference", "egma.evaluation"},
    "egma.programs": {"modeling_egma", "dataset_scripts", "egma"},
    "egma.__main__": set(),
    "egma": {"modeling_egma"},
}
SOURCES = [path for top in ("modeling_egma", "dataset_scripts", "egma") for path in (ROOT / top).rglob("*.py")]
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in SOURCES}


def imported(path: Path) -> Iterator[str]:
    """The modules of the house that a file names in its imports, those inside functions too."""
    package = ".".join(path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            origin = f"{package}.{origin}" if node.level else origin
            names = [
                f"{origin}.{alias.name}" if f"{origin}.{alias.name}" in MODULES else origin for alias in node.names
            ]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        yield from (name for name in names if name in MODULES)


def room_of(module: str) -> str:
    """The room with the longest name that holds a module."""
    rooms = [room for room in ARROWS if _lies_in(module, room) and (room != "egma" or module == room)]
    return max(rooms, key=len, default=module)


def _lies_in(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def test_every_arrow_is_one_of_the_table() -> None:
    wrong = []
    for module, path in MODULES.items():
        room = room_of(module)
        allowed = ARROWS.get(room, set())
        wrong += [
            f"{module} -> {used}"
            for used in imported(path)
            if room_of(used) != room and not any(_lies_in(used, other) for other in allowed)
        ]
    assert not wrong


def test_every_room_of_the_table_is_there() -> None:
    used = {room_of(module) for module in MODULES} - {"dataset_scripts"}
    assert used == ARROWS.keys()


def test_no_files_import_each_other_in_a_circle() -> None:
    arrows = {module: set(imported(path)) - {module} for module, path in MODULES.items() if path.name != "__init__.py"}
    open_files = dict(arrows)
    while free := [module for module, used in open_files.items() if not used & open_files.keys()]:
        for module in free:
            del open_files[module]
    assert not open_files


def test_what_travels_to_the_hub_needs_only_what_the_package_asks_for() -> None:
    """What another extra brings is not there for those who only load a model, nor for the demo."""
    declared = configparser.ConfigParser()
    declared.read(ROOT / "setup.cfg")
    names = re.findall(r"^[\w-]+", declared["options"]["install_requires"], flags=re.M)
    known = {"pillow": "PIL"}
    allowed = {known.get(name, name) for name in names} | set(sys.stdlib_module_names) | {"pydicom"}  # see below
    used = {name for path in (ROOT / "modeling_egma").glob("*.py") for name in _foreign(path)}
    assert used <= allowed


def _foreign(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module).partition(".")[0]
        elif isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)


def test_what_a_model_may_do_without_is_imported_where_it_may_fail() -> None:
    """transformers asks for every package that remote code imports, but for what stands in a `try`."""
    assert "pydicom" not in get_imports(ROOT / "modeling_egma" / "dicom_egma.py")


def test_the_root_of_the_clone_is_found() -> None:
    assert (ROOT / "setup.cfg").is_file() and (ROOT / "train_egma.py").is_file()
    if (ROOT / ".git").exists():
        assert len((git_revision(ROOT) or "").rstrip("+")) == 40
