import math

import pytest
import torch

from scoregen.training.meter import Meter
from scoregen.training.parts import Progress

GOOD, SKIPPED = torch.tensor(0.0), torch.tensor(1.0)


def fresh(progress: Progress | None = None) -> Meter:
    return Meter(10, 4, torch.device("cpu"), progress or Progress())


def test_means_are_over_the_steps_since_the_last_reading():
    meter = fresh()
    for loss, norm in ((1.0, 10.0), (2.0, 20.0), (6.0, 60.0)):
        meter.add(torch.tensor(loss), torch.tensor(norm), GOOD)
    values = meter.read(3)
    assert (values["loss"], values["grad_norm"]) == (3.0, 30.0)
    meter.add(torch.tensor(5.0), torch.tensor(1.0), GOOD)
    assert meter.read(4)["loss"] == 5.0


def test_skipped_steps_take_time_and_do_not_enter_the_means():
    meter = fresh()
    meter.add(torch.tensor(2.0), torch.tensor(1.0), GOOD)
    meter.add(torch.tensor(math.nan), torch.tensor(math.nan), SKIPPED)
    assert meter.timed == 2
    assert meter.read(2)["loss"] == 2.0
    meter.add(torch.tensor(math.nan), torch.tensor(math.nan), SKIPPED)
    assert math.isnan(meter.read(3)["loss"])


def test_skipped_steps_are_counted_in_all_and_in_a_row():
    meter, counts = fresh(), []
    for skipped in (SKIPPED, GOOD, SKIPPED, SKIPPED, GOOD, SKIPPED):
        meter.add(torch.tensor(math.nan) if skipped else torch.tensor(1.0), torch.tensor(1.0), skipped)
        meter.store()
        counts.append((meter.progress.skipped, meter.progress.skipped_in_a_row))
    assert counts == [(1, 1), (1, 0), (2, 1), (3, 2), (3, 0), (4, 1)]
    meter.read(6)
    meter.add(torch.tensor(1.0), torch.tensor(1.0), SKIPPED)
    fresh(meter.progress).store()  # of a resumed run
    meter.store()
    assert (meter.progress.skipped, meter.progress.skipped_in_a_row) == (5, 2)
    assert meter.progress.window == (0.0, 0.0, 0)


def test_a_window_goes_on_where_it_was_left():
    first, whole = (fresh() for _ in range(2))
    for meter in (first, whole):
        meter.add(torch.tensor(0.1), torch.tensor(1.0), GOOD)
    assert first.store()[2] == 1
    second = fresh(first.progress)
    for meter in (second, whole):
        meter.add(torch.tensor(0.7), torch.tensor(3.0), GOOD)
    assert second.read(2)["loss"] == whole.read(2)["loss"] == pytest.approx(0.4)


def test_pauses_do_not_count_in_the_speed(monkeypatch):
    clock = iter([0.0, 1.0, 50.0, 51.0, 51.0])
    monkeypatch.setattr("scoregen.training.meter.time.perf_counter", lambda: next(clock))
    meter = fresh()
    meter.add(torch.tensor(1.0), torch.tensor(1.0), GOOD)
    meter.pause()
    meter.resume()
    meter.add(torch.tensor(1.0), torch.tensor(1.0), GOOD)
    values = meter.read(2)
    assert values["images_per_second"] == pytest.approx(2 * 4 / 2.0)
    assert values["eta_seconds"] == pytest.approx(8 * 4 / 4.0)
