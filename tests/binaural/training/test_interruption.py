import os
import signal

import pytest

from binaural.training.interruption import Interruption, StopRequested


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_work_at_hand_is_finished_first(number):
    done = []
    before = signal.signal(number, signal.SIG_DFL)  # these tests may run under nohup
    try:
        with Interruption() as interruption, pytest.raises(StopRequested, match=signal.Signals(number).name):
            for item in interruption.watch(range(5)):
                if item == 2:
                    os.kill(os.getpid(), number)
                done.append(item)
    finally:
        signal.signal(number, before)
    assert done == [0, 1, 2]


def test_a_second_ctrl_c_stops_at_once():
    with Interruption(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_a_hang_up_stays_ignored_under_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with Interruption():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
