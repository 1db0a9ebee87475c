"""A conversion that is killed anywhere and started again ends in the bytes of one that was not."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dataset_scripts import build
from dataset_scripts.output import resume, writer
from dataset_scripts.schema import UserError
from tests.dataset_scripts.raw_trees import grey_picture, image_text_folder
from tests.dataset_scripts.test_build import files

ROWS = 23


class Killed(BaseException):
    """Stands for kill -9: nothing in the converter may catch it and clean up."""


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch):
    for name, value in {"ROWS_PER_GROUP": 2, "ROWS_PER_SHARD": 5, "FEWEST_UNITS": 3}.items():
        monkeypatch.setattr(writer, name, value)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    names = [f"{n}.png" for n in range(ROWS)]
    lines = ["file_name,text,patient_id", *(f"{name},Clear {name}.,{int(name[:-4]) // 2}" for name in names)]
    present = [name for name in names if name not in ("3.png", "11.png")]  # two rows are dropped
    root = tmp_path_factory.mktemp("resume") / "raw"
    return image_text_folder(root, lines, {name: grey_picture(20, 10) for name in present})


def convert(source, output, **options):
    return build.build("image_text", source, output, **({"image_size": 16} | options))


def killed_at(monkeypatch, step):
    """Make the `step`-th thing that reaches the disk the last one that does not."""
    steps = iter(range(step, -1, -1))

    def guard(owner, name):
        real = getattr(owner, name)

        def guarded(*args, **kwargs):
            if next(steps, -1) == 0:
                raise Killed
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, guarded)

    for owner, name in (
        (writer, "_to_disk"),
        (Path, "replace"),
        (Path, "rename"),
        (build, "write_json"),
        (writer, "write_json"),
        (resume, "write_json"),
    ):
        guard(owner, name)


def test_killed_at_any_step_it_goes_on_to_the_same_bytes(source, tmp_path, monkeypatch, capsys):
    convert(source, tmp_path / "whole")
    expected, step, went_on = files(tmp_path / "whole"), 0, 0
    assert len(expected) > 5
    while True:
        output = tmp_path / f"out-{step}"
        with monkeypatch.context() as patch:
            killed_at(patch, step)
            try:
                convert(source, output)
                break
            except Killed:
                assert not output.exists()
        capsys.readouterr()
        convert(source, output)
        went_on += "going on: " in capsys.readouterr().err
        assert files(output) == expected, step
        assert not (tmp_path / f".out-{step}.partial").exists()
        step += 1
    assert step > 40 and went_on > step / 2


def test_killed_again_and_again_it_still_ends(source, tmp_path, monkeypatch):
    convert(source, tmp_path / "whole")
    for attempt in range(100):
        with monkeypatch.context() as patch:
            killed_at(patch, 5 + attempt)  # what is left takes a few steps, however often it was begun
            try:
                convert(source, tmp_path / "out")
                break
            except Killed:
                assert not (tmp_path / "out").exists()
    assert attempt > 3 and files(tmp_path / "out") == files(tmp_path / "whole")


@pytest.mark.parametrize("limit", [8, 10])
def test_limit_holds_over_an_interruption(source, tmp_path, monkeypatch, limit):
    convert(source, tmp_path / "whole", limit=limit)
    for step in (12, 20, 26):
        output = tmp_path / f"out-{step}"
        with monkeypatch.context() as patch:
            killed_at(patch, step)
            with pytest.raises(Killed):
                convert(source, output, limit=limit)
        convert(source, output, limit=limit)
        assert files(output) == files(tmp_path / "whole")


SCRIPT = """
import signal, sys, time
from dataset_scripts import build
from dataset_scripts.output import writer
writer.ROWS_PER_GROUP, writer.ROWS_PER_SHARD, writer.FEWEST_UNITS = 2, 5, 3
if __name__ == "__main__":
    real = build.read_range
    def read_range(folder):
        if folder.name == "00003":
            print("now", flush=True)
            time.sleep(60)
        return real(folder)
    build.read_range = read_range
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(build.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("how", "num_proc", "code"), [(signal.SIGKILL, 2, -9), (signal.SIGTERM, 1, 130), (signal.SIGINT, 2, 130)]
)
def test_real_signals(source, tmp_path, how, num_proc, code):
    (tmp_path / "killed.py").write_text(SCRIPT)
    argv = ["image_text", "--source", str(source), "--output", str(tmp_path / "out"), "--image-size", "16"]
    command = [sys.executable, str(tmp_path / "killed.py"), *argv, "--num-proc", str(num_proc)]
    environment = os.environ | {"PYTHONPATH": str(Path(build.__file__).parents[1])}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, start_new_session=True
    )
    assert process.stdout is not None and process.stdout.readline() == b"now\n"
    with pytest.raises(UserError, match="another process is writing it"):
        convert(source, tmp_path / "out")
    process.send_signal(how)
    process.stdout.read()  # until the last process that holds it has ended
    process.wait(30)
    assert process.returncode == code and not (tmp_path / "out").exists()
    for _ in range(100):  # no orphan goes on
        if not _group_lives(process.pid):
            break
        time.sleep(0.1)
    assert not _group_lives(process.pid)
    convert(source, tmp_path / "out", num_proc=3 - num_proc)
    convert(source, tmp_path / "whole")
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def _group_lives(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def interrupted(source, output, monkeypatch, **options):
    with monkeypatch.context() as patch:
        killed_at(patch, 14)
        with pytest.raises(Killed):
            convert(source, output, **options)


def test_another_conversions_rest_is_named_and_kept(source, tmp_path, monkeypatch):
    interrupted(source, tmp_path / "out", monkeypatch)
    with pytest.raises(
        UserError, match=r"\.out\.partial: an interrupted conversion with another image_size, seed; .*delete"
    ):
        convert(source, tmp_path / "out", image_size=8, seed=1)
    changed = tmp_path / "raw"
    image_text_folder(changed, ["file_name,text", "a.png,Clear."])
    with pytest.raises(UserError, match="another source, state of the source"):
        convert(changed, tmp_path / "out")
    convert(source, tmp_path / "out")


def test_changed_source_is_noticed(tmp_path, monkeypatch):
    lines = ["file_name,text", *(f"a.png,Clear {n}." for n in range(20))]
    raw = image_text_folder(tmp_path / "raw", lines)
    interrupted(raw, tmp_path / "out", monkeypatch)
    image_text_folder(raw, [*lines, "a.png,Another."])
    with pytest.raises(UserError, match="another state of the source"):
        convert(raw, tmp_path / "out")


def test_a_changed_picture_is_noticed_however_deep_it_lies(tmp_path, monkeypatch):
    deep = "p10/p1/s1/a/b/a.png"
    lines = ["file_name,text", *(f"{deep},Clear {n}." for n in range(20))]
    (tmp_path / "raw" / deep).parent.mkdir(parents=True)
    raw = image_text_folder(tmp_path / "raw", lines, {deep: grey_picture(20, 10)})
    interrupted(raw, tmp_path / "out", monkeypatch)
    known = (raw / deep).stat()
    (raw / deep).write_bytes((raw / deep).read_bytes())
    os.utime(raw / deep, ns=(known.st_atime_ns, known.st_mtime_ns))
    with pytest.raises(UserError, match=r"a\.png: written after the conversion began; delete .*\.partial to start"):
        convert(raw, tmp_path / "out")


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:50])])
@pytest.mark.parametrize("pattern", ["00000/train.parquet", "00000/ledger.json", "conversion.json"])
def test_damaged_rest_is_named_and_made_again(source, tmp_path, monkeypatch, damage, pattern):
    interrupted(source, tmp_path / "out", monkeypatch)
    path = tmp_path / ".out.partial" / pattern
    damage(path)
    with pytest.raises(
        UserError, match=rf"{path}: missing or damaged; delete the folder {path.parent} to have it made"
    ):
        convert(source, tmp_path / "out")
    shutil.rmtree(path.parent)
    convert(source, tmp_path / "out")
    convert(source, tmp_path / "whole")
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_full_disk_is_said_and_the_rest_kept(source, tmp_path, monkeypatch, capsys):
    argv = ["image_text", "--source", str(source), "--output", str(tmp_path / "out"), "--image-size", "16"]
    with monkeypatch.context() as patch:
        calls = iter(range(100))

        def full(path):
            if next(calls) > 10:
                raise OSError(28, "No space left on device", str(path))

        patch.setattr(writer, "_to_disk", full)
        assert build.main(argv) == 2
    assert "No space left on device" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert build.main(argv) == 0
    assert "going on: 2 of 8 ranges" in capsys.readouterr().err


def test_link_in_place_of_the_partial_folder_is_refused(source, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".out.partial").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="symbolic link"):
        convert(source, tmp_path / "out")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_fingerprint_follows_tables_but_not_their_order(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text("1")
    first = resume.fingerprint(tmp_path)
    assert resume.fingerprint(tmp_path) == first
    (tmp_path / "b").write_text("22")
    assert resume.fingerprint(tmp_path) != first
