"""Work on many units in several processes, in order."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from dataset_scripts.schema import UserError

Unit = TypeVar("Unit")
Result = TypeVar("Result")

UNITS_AHEAD_PER_PROCESS = 8


def ordered_map(function: Callable[[Unit], Result], units: Iterable[Unit], num_proc: int) -> Iterator[Result]:
    """`map`, in `num_proc` processes, in order, with a bounded number of results waiting.

    Raises:
        UserError: a process was killed, mostly for want of memory.
    """
    if num_proc == 1:
        yield from map(function, units)
        return
    pool = ProcessPoolExecutor(num_proc, multiprocessing.get_context("spawn"), initializer=_follow_parent)
    try:
        waiting = deque[Future[Result]]()
        for unit in units:
            waiting.append(pool.submit(function, unit))
            if len(waiting) > UNITS_AHEAD_PER_PROCESS * num_proc:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise UserError("a process of the conversion was killed (out of memory?); try a smaller --num-proc") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _follow_parent() -> None:
    """Leave Ctrl-C to the parent, and end when it does: killed, it could not stop the processes that wait for it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()
