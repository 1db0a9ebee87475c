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
from multiprocessing.connection import Connection
from typing import TypeVar

from dataset_scripts.schema import UserError

Unit = TypeVar("Unit")
Result = TypeVar("Result")

UNITS_AHEAD_PER_PROCESS = 2  # the one at work, and the next


def ordered_map(function: Callable[[Unit], Result], units: Iterable[Unit], num_proc: int) -> Iterator[Result]:
    """`map`, in order, in `num_proc` processes, of which this one, at work while the others start, is one.

    What nobody waits for any more is stopped.

    Raises:
        UserError: a process was killed, mostly for want of memory.
    """
    if num_proc == 1:
        yield from map(function, units)
        return
    context = multiprocessing.get_context("spawn")
    followed, held = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(num_proc - 1, context, initializer=_follow, initargs=(followed,))
    try:
        waiting = deque[Future[Result]]()
        for unit in units:
            if sum(not each.done() for each in waiting) < UNITS_AHEAD_PER_PROCESS * (num_proc - 1):
                waiting.append(pool.submit(function, unit))
            else:
                waiting.append(Future())
                waiting[-1].set_result(function(unit))
            while waiting and waiting[0].done():
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise UserError("a process of the conversion was killed (out of memory?); try a smaller --num-proc") from None
    finally:
        held.close()
        pool.shutdown(cancel_futures=True)


def _follow(followed: Connection) -> None:
    """Leave Ctrl-C to the parent, and end, whatever is half done, when it ends or has no more need of this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def end() -> None:
        multiprocessing.connection.wait([followed])
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()
