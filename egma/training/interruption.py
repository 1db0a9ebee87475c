"""Ctrl-C and SIGTERM end a run after the step at hand, with a checkpoint; a second Ctrl-C ends it at once."""

import signal
import time
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# terminal and batch system reach workers and launcher, and the launcher passes on what it gets
ECHO_SECONDS = 2.0


class Interrupted(Exception):
    """A run that a signal ended, after its checkpoint was written."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(f"{signal.Signals(number).name} at step {step}: a checkpoint is written")
        # as shells count it
        self.exit_code = 128 + number


class Interruption:
    """While it is entered, the first signal is kept as `signal`, which is 0 without one."""

    def __init__(self) -> None:
        self.signal = 0
        self._received = 0.0
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interruption":
        self._handlers = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):  # type: ignore[no-untyped-def]
        self._restore()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.signal == 0:
            self.signal, self._received = number, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._received >= ECHO_SECONDS:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
