"""Signals wait for the end of the step; a second one does not."""

import signal

import pytest
from accelerate import Accelerator

from egma.training.interruption import Interrupted, Interruption


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_is_kept_until_asked_for(number: signal.Signals, code: int) -> None:
    before = signal.getsignal(number)
    with Interruption(Accelerator(cpu=True)) as interruption:
        assert not interruption.requested()
        signal.raise_signal(number)
        assert interruption.requested() and interruption.signal == number
    assert signal.getsignal(number) is before
    stop = Interrupted(interruption.signal, 7)
    assert stop.exit_code == code and str(stop).startswith(f"{number.name} at step 7")


def test_the_second_signal_acts_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), Interruption(Accelerator(cpu=True)):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
