"""kill -9 before every operation on the disk that saving makes: a complete checkpoint is always found."""

import os
import signal
import sys
from pathlib import Path

from egma.training.checkpoint import checkpoints, find_checkpoint

from .saving import same, write

# what the interpreter announces before it asks the system
OPERATIONS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.scandir", "os.listdir", "shutil.rmtree"}
fsync = os.fsync


def killed_at(output: Path, point: int) -> bool:
    """Save step 3 in a child that ends itself before its operation `point`; whether it came so far."""
    child = os.fork()
    if child:
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    done = 0

    def count(event: str) -> None:
        nonlocal done
        if done == point:
            os.kill(os.getpid(), signal.SIGKILL)
        done += 1

    def audit(event: str, args: tuple[object, ...]) -> None:
        if event in OPERATIONS and str(output) in str(args[0]):
            count(event)

    def counted_fsync(descriptor: int) -> None:
        count("fsync")
        fsync(descriptor)

    os.fsync = counted_fsync
    sys.addaudithook(audit)
    code = 1
    try:
        write(output, 3, best_step=2)
        code = 0
    finally:
        os._exit(code)


def test_a_kill_at_any_point_leaves_a_complete_checkpoint(tmp_path: Path) -> None:
    found: dict[int, str] = {}
    for point in range(200):
        output = tmp_path / str(point)
        write(output, 1)
        write(output, 2)
        killed = killed_at(output, point)
        newest = find_checkpoint(output, "auto")
        assert newest.name in ("checkpoint-2", "checkpoint-3")
        assert same(newest, int(newest.name[-1]))
        found[point] = newest.name
        # the next save clears away what the killed one left
        write(output, 4, best_step=4)
        assert same(find_checkpoint(output, "auto"), 4)
        assert {path.name for path in output.iterdir()} == {folder.name for folder in checkpoints(output)}
        if not killed:
            break
    assert not killed and point >= 20
    assert set(found.values()) == {"checkpoint-2", "checkpoint-3"}
