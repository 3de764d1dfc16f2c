"""Signals of a driver: the first asks the run to stop, every other one ends the process."""

import signal
import threading

import pytest

from job.on_ray.stopping import CAUGHT, Signals


@pytest.mark.parametrize("number", CAUGHT)
def test_the_first_one_asks_and_the_second_ends(number, capfd):
    with Signals() as signals:
        stop = threading.Event()
        with signals.asking(stop):
            assert not stop.is_set()
            signal.raise_signal(number)
            assert stop.is_set()
            assert signals.status == 128 + number
            with pytest.raises(SystemExit) as end:
                signal.raise_signal(signal.SIGTERM)
    assert end.value.code == 128 + signal.SIGTERM
    assert "ended at once" in capfd.readouterr().err


@pytest.mark.parametrize("number", CAUGHT)
def test_where_nothing_trains_one_ends_the_process(number):
    with Signals() as signals, pytest.raises(SystemExit) as end:
        signal.raise_signal(number)
    assert end.value.code == 128 + number
    assert signals.caught is None


def test_handlers_are_put_back_also_those_that_ray_has_replaced():
    before = [signal.getsignal(number) for number in CAUGHT]
    with Signals() as signals:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as Ray does when it starts
        signals.catch()
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGTERM)
    assert [signal.getsignal(number) for number in CAUGHT] == before


def test_a_trial_in_another_thread_leaves_the_signals_alone():
    before = [signal.getsignal(number) for number in CAUGHT]
    seen = []

    def trial():
        with Signals():
            seen.extend(signal.getsignal(number) for number in CAUGHT)

    thread = threading.Thread(target=trial)
    thread.start()
    thread.join()
    assert seen == before
