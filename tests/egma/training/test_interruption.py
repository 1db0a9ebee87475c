"""Signals wait for the end of the step; a second Ctrl-C does not, but what a launcher passes on is the first one."""

import signal

import pytest

from egma.training import interruption
from egma.training.interruption import Interrupted, Interruption


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_is_kept_until_asked_for(number: signal.Signals, code: int) -> None:
    before = signal.getsignal(number)
    with Interruption() as kept:
        assert kept.signal == 0
        signal.raise_signal(number)
        assert kept.signal == number
    assert signal.getsignal(number) is before
    stop = Interrupted(kept.signal, 7)
    assert stop.exit_code == code and str(stop).startswith(f"{number.name} at step 7")


def test_a_second_ctrl_c_acts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "ECHO_SECONDS", 0)
    with pytest.raises(KeyboardInterrupt), Interruption():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("numbers", [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGTERM)])
def test_a_signal_that_terminal_and_launcher_both_send_is_one(numbers: tuple[signal.Signals, signal.Signals]) -> None:
    with Interruption() as kept:
        for number in numbers:
            signal.raise_signal(number)
        assert kept.signal == numbers[0]
