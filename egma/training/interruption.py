"""Ctrl-C and SIGTERM end a run after the step at hand, with a checkpoint; a second one ends it at once."""

import signal
from types import FrameType, TracebackType
from typing import Any

import torch
from accelerate import Accelerator

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """A run that a signal ended, after its checkpoint was written."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(f"{signal.Signals(number).name} at step {step}: a checkpoint is written")
        # as shells count it
        self.exit_code = 128 + number


class Interruption:
    """While it is entered, the first signal is kept until `requested` asks for it."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.signal = 0
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interruption":
        self._handlers = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):  # type: ignore[no-untyped-def]
        self._restore()

    def requested(self) -> bool:
        """Whether any process got a signal; all processes must ask, and all get the same answer.

        Costs an all-reduce of one number when there are several processes.
        """
        if self.accelerator.num_processes > 1:
            own = torch.tensor([float(self.signal)], device=self.accelerator.device)
            self.signal = int(self.accelerator.gather(own).max())
        return self.signal != 0

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.signal == 0:
            self.signal = number
            return
        self._restore()
        signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
