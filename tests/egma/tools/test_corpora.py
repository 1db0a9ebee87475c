"""A corpus of a Hub on loopback is trained and evaluated on as its folder is."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataset_scripts.identity import corpus_identity
from dataset_scripts.schema import UserError, load_readings
from egma.tools.corpora import corpus_folder, hub_source
from egma.tools.processes import ROOT
from tests.egma.hub.fake_hub import FakeHub, Repository, fake_hub

READ = """
import json, sys
from dataset_scripts.identity import corpus_identity
from egma.evaluation.corpus import Corpus
from egma.tools.corpora import corpus_folder
from egma.training.arguments import TrainingSettings
from egma.training.data import TrainingData
found = []
for data in sys.argv[1:]:
    for streaming in (False, True):
        settings = TrainingSettings(data=data, output_dir="x", model="x", batch_size=4, streaming=streaming)
        made = TrainingData(settings, 0, 1)
        rows = made.source.__getitems__([(row, 0) for row in next(made.source.batches(0))[1].tolist()])
        found.append([row["reading_id"] for row in rows])
    folder = corpus_folder(data)
    found.append([corpus_identity(folder), folder.name, len(Corpus.read(folder, "test", None, None).test)])
print(json.dumps(found))
"""


@pytest.fixture
def hub(phantom_data: Path) -> Iterator[FakeHub]:
    with fake_hub() as server:
        files = {path.relative_to(phantom_data).as_posix(): path for path in phantom_data.rglob("*") if path.is_file()}
        content = {name: path.read_bytes() for name, path in files.items()}
        server.repositories["datasets", "lab/phantom"] = Repository(False, content)
        yield server


def test_a_corpus_of_the_hub_is_read_as_its_folder(phantom_data: Path, hub: FakeHub, tmp_path: Path) -> None:
    environment = os.environ | {
        "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1",
        "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    sha = hub.repositories["datasets", "lab/phantom"].sha
    names = [str(phantom_data), "lab/phantom", "hf://datasets/lab/phantom", f"hf://datasets/lab/phantom@{sha}"]
    command = [sys.executable, "-c", READ, *names]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    ways = [found[at : at + 3] for at in range(0, len(found), 3)]
    assert all(way[:2] == ways[0][:2] and way[2][0] == ways[0][2][0] for way in ways)
    assert ways[0][2][0] == corpus_identity(phantom_data)
    assert all(way[2][1] == sha for way in ways[1:])
    assert ways[0][2][2] == ways[1][2][2] > 0


def test_what_is_no_dataset_of_the_hub_is_named() -> None:
    with pytest.raises(UserError, match="hf://datasets/lab/none: no such folder, and no dataset of the Hub"):
        corpus_folder("hf://datasets/lab/none")


def test_a_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phantom_data: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "data").symlink_to(phantom_data)
    assert load_readings(corpus_folder("runs/data"), "train")
    # a slip in a path is not asked for on the Hub
    with pytest.raises(UserError, match="runs/dta: no such folder"):
        load_readings(corpus_folder("runs/dta"), "train")


def test_a_corpus_in_the_hubs_cache_is_known_by_id_and_commit(tmp_path: Path) -> None:
    snapshot = tmp_path / "datasets--lab--my-read.ings" / "snapshots" / ("0a" * 20)
    snapshot.mkdir(parents=True)
    assert hub_source(snapshot) == {"id": "lab/my-read.ings", "revision": "0a" * 20}
    assert hub_source(tmp_path) is hub_source(snapshot.parent) is None
