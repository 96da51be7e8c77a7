r"""The key clamp: D in the range of the data at every call, and a count of what was cut."""

import json

import numpy as np
import pytest
import torch
from tiny import DIGITS, job, sample, train

from scoregen.errors import UserError
from scoregen.jobs import Sample
from scoregen.jobs.clamping import CountingClamp, clamped
from scoregen.samplers import DDIM
from scoregen.sde import EDM, Affine, GeometricBrownianMotion


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return train(tmp_path_factory.mktemp("run"), *DIGITS, "trainer.steps=1")


def images(folder):
    return np.load(folder / "samples.npz")["images"]


def test_a_clamp_that_cuts_nothing_changes_nothing_and_the_record_says_so(checkpoint, tmp_path, capsys):
    common = ["sampler=ddim", "sampler.steps=3", "format=npz", "batch_size=2"]
    plain = images(sample(checkpoint, tmp_path / "plain", *common, "n=4"))
    out = sample(checkpoint, tmp_path / "clamped", *common, "clamp=[0,1]", "n=2")
    assert "clamp: D to [0.0, 1.0] in units of the data" in capsys.readouterr().out
    sample(checkpoint, out, *common, "clamp=[0,1]", "n=4")
    assert json.loads((out / "job.json").read_text())["clamp"] == [0.0, 1.0]
    found = json.loads((out / "clamped.json").read_text())
    assert found["range"] == [0.0, 1.0] and found["samples"] == 4 and found["values"] == 4 * 64 * 3
    assert found["below"] == found["above"] == 0 and np.array_equal(images(out), plain)  # D of one step is near .5
    told = f"clamp [0, 1]: {found['below']} values of D below and {found['above']} above were cut, of 768 in all calls"
    assert told in capsys.readouterr().out
    with pytest.raises(UserError, match="clamp"):
        sample(checkpoint, out, *common, "n=4")


class Fixed:
    r"""A denoiser that says the same always."""

    def __init__(self, values, sde):
        self.values, self.sde = values, sde

    def __call__(self, u, s, label=None):
        return self.values.expand(u.shape).to(u)


def test_what_is_cut_is_counted_on_both_sides():
    values = torch.tensor([-1.5, -1.0, 0.0, 2.0, 1.5])
    clamp = clamped(Fixed(values, EDM(chart=Affine(2.0, -1.0))), [0.0, 1.0], (0.0, 1.0))
    assert isinstance(clamp, CountingClamp)
    x = DDIM(4)(clamp, (3, 5), generator=torch.Generator().manual_seed(0))
    assert clamp.counts() == {"values": 60, "below": 12, "above": 24}
    torch.testing.assert_close(x[0], torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0]))
    below = clamped(Fixed(values, EDM(chart=Affine(2.0, -1.0))), [0.0, None], None)
    DDIM(4)(below, (3, 5), generator=torch.Generator().manual_seed(0))
    assert below.counts() == {"values": 60, "below": 12, "above": 0}


def test_a_logarithm_is_clamped_in_units_of_the_data():
    values = torch.tensor([0.0, 3.0]).log1p()
    clamp = clamped(Fixed(values, GeometricBrownianMotion(0.8, offset=1.0)), [0.5, 2.0], (0.5, 2.0))
    torch.testing.assert_close(clamp(torch.zeros(1, 2), 0.5), torch.tensor([[0.5, 2.0]]).log1p())


@pytest.mark.parametrize("given", [[1, 0], [0], [None, None], [0, float("inf")], [0, 1, 2]], ids=str)
def test_what_is_no_range_is_refused(given):
    with pytest.raises(UserError, match=r"clamp: must be \[LOW, HIGH\] in units of the data"):
        Sample(checkpoint="x", clamp=given)


@pytest.mark.parametrize("given", [[0, 0.5], [-1, 0.9], [0.1, None]], ids=str)
def test_values_of_the_data_are_not_cut(given):
    with pytest.raises(UserError, match=r"clamp: would cut values of the data, which lie in \[0, 1\], got \["):
        clamped(Fixed(torch.zeros(2), EDM()), given, (0.0, 1.0))


def test_a_range_outside_the_chart_or_without_single_values_is_refused(tmp_path):
    law = Fixed(torch.zeros(2), GeometricBrownianMotion(0.8, offset=1.0))
    with pytest.raises(UserError, match=r"clamp: x \+ offset must be > 0"):
        clamped(law, [-1.0, 2.0], None)
    sde = EDM()
    sde.chart = type("Whole", (type(sde.chart),), {"elementwise": False})()
    with pytest.raises(UserError, match=r"clamp: needs a process of the values themselves.*the chart Whole"):
        clamped(Fixed(torch.zeros(2), sde), [0.0, 1.0], None)


def test_an_evaluation_clamps_the_samples_it_draws(checkpoint, tmp_path):
    nodes = {
        "data": {"_target_": "scoregen.data.Digits"},
        "features": {"_target_": "scoregen.metrics.RandomConvolution", "channels": None},
        "metrics": {"_target_": "scoregen.metrics.Settings", "bootstrap": 0, "subset": 20},
        "sampler": {"_target_": "scoregen.samplers.DDIM", "steps": 1},
        "cache": None,
        "n": 20,
    }
    out = job("evaluate", **nodes, checkpoint=str(checkpoint), clamp=[0, 1]).run(tmp_path / "out")
    assert json.loads((out / "samples" / "clamped.json").read_text())["samples"] == 20
    assert json.loads((out / "metrics.json").read_text())["metrics"][0]["protocol"]["clamp"] == [0.0, 1.0]
    with pytest.raises(UserError, match=r"clamp: needs checkpoint=\.\.\., which makes samples"):
        job("evaluate", **{k: v for k, v in nodes.items() if k not in ("sampler", "n")}, samples="x", clamp=[0, 1])
