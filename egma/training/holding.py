"""One run writes one folder: it is locked while a run writes there, and no process outlives its launcher."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate import Accelerator
from filelock import FileLock, Timeout

from dataset_scripts.schema import UserError
from egma.training.together import on_first

LAUNCHERS = (b"accelerate", b"torchrun", b"torch.distributed")
POLL_SECONDS = 0.5
# for the step at hand and its checkpoint
GRACE_SECONDS = 20.0


@contextmanager
def held(accelerator: Accelerator, output: Path) -> Iterator[None]:
    """The output folder is made and belongs to this run; the system takes the lock from a process that dies.

    Raises:
        UserError: the folder cannot be made, or another run writes there.
    """
    lock, holder = FileLock(output / ".lock", blocking=False), output / ".running"

    def acquire() -> None:
        output.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            who = holder.read_text(encoding="utf-8")
            raise UserError(f"{output}: {who}, writes there; wait for its end, or name another --output_dir") from None
        user, since = os.environ.get("USER", os.getuid()), time.strftime("%Y-%m-%d %H:%M:%S %z")
        who = f"process {os.getpid()} of {user} on {socket.gethostname()}, since {since}"
        holder.write_text(who, encoding="utf-8")

    on_first(accelerator, acquire)
    try:
        yield
    finally:
        lock.release()


def leave_with_launcher() -> None:
    """When the launcher of this process dies, SIGTERM comes here too, and the end shortly after.

    `accelerate launch` and `torchrun` that are killed leave their workers behind. A shell that is closed is no
    launcher: what runs under `nohup` stays.
    """
    launcher = os.getppid()
    command = Path(f"/proc/{launcher}/cmdline")
    if command.exists() and any(name in command.read_bytes() for name in LAUNCHERS):
        threading.Thread(target=_watch, args=(launcher,), daemon=True).start()


def _watch(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    # its main thread waits for another process that is dead
    os._exit(128 + signal.SIGTERM)
