import math

import pytest
import torch

from scoregen.training.meter import Meter


def test_means_are_over_the_steps_since_the_last_reading():
    meter = Meter(10, 4, torch.device("cpu"))
    for loss, norm in ((1.0, 10.0), (2.0, 20.0), (6.0, 60.0)):
        meter.add(torch.tensor(loss), torch.tensor(norm))
    values = meter.read(3)
    assert (values["loss"], values["grad_norm"]) == (3.0, 30.0)
    meter.add(torch.tensor(5.0), torch.tensor(1.0))
    assert meter.read(4)["loss"] == 5.0


def test_skipped_steps_take_time_and_do_not_enter_the_means():
    meter = Meter(10, 4, torch.device("cpu"))
    meter.add(torch.tensor(2.0), torch.tensor(1.0))
    meter.add(torch.tensor(math.nan), torch.tensor(math.nan), skipped=True)
    assert meter.timed == 2
    assert meter.read(2)["loss"] == 2.0
    meter.add(torch.tensor(math.nan), torch.tensor(math.nan), skipped=True)
    assert math.isnan(meter.read(3)["loss"])


def test_a_window_goes_on_where_it_was_left():
    first, whole = (Meter(10, 4, torch.device("cpu")) for _ in range(2))
    for meter in (first, whole):
        meter.add(torch.tensor(0.1), torch.tensor(1.0))
    second = Meter(10, 4, torch.device("cpu"), first.window())
    for meter in (second, whole):
        meter.add(torch.tensor(0.7), torch.tensor(3.0))
    assert second.read(2)["loss"] == whole.read(2)["loss"] == pytest.approx(0.4)


def test_pauses_do_not_count_in_the_speed(monkeypatch):
    clock = iter([0.0, 1.0, 50.0, 51.0, 51.0])
    monkeypatch.setattr("scoregen.training.meter.time.perf_counter", lambda: next(clock))
    meter = Meter(10, 4, torch.device("cpu"))
    meter.add(torch.tensor(1.0), torch.tensor(1.0))
    meter.pause()
    meter.resume()
    meter.add(torch.tensor(1.0), torch.tensor(1.0))
    values = meter.read(2)
    assert values["images_per_second"] == pytest.approx(2 * 4 / 2.0)
    assert values["eta_seconds"] == pytest.approx(8 * 4 / 4.0)
