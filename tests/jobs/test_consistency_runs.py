r"""A run with a loss of consistency says so in its checkpoint, so that nothing takes its D(u, s) for a mean."""

import numpy as np
import pytest
import torch
from tiny import DIGITS, TOY, job, sample, train

import scoregen
from scoregen.errors import UserError
from scoregen.losses import ConsistencyTuning, OptimalTransportPairing
from scoregen.metrics import information, memorisation
from scoregen.models import Denoiser, UNet
from scoregen.models.interop.writing import written
from scoregen.priors import ScorePrior
from scoregen.samplers import Heun, log_likelihood
from scoregen.sde import EDM


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("run") / "run", *TOY, "trainer.steps=2", "loss=consistency")


def test_a_tuned_model_is_loaded_as_a_consistency_function(run, tmp_path):
    model = scoregen.load(run)
    assert model.prediction == "edm" and model.is_consistency
    assert not scoregen.load(train(tmp_path / "plain", *TOY, "trainer.steps=1")).is_consistency
    assert OptimalTransportPairing(ConsistencyTuning()).consistency


def test_samplers_of_means_are_refused_and_its_own_sampler_runs(run, tmp_path):
    with pytest.raises(UserError, match=r"sampler must be Consistency for a consistency function, got VelocityABM"):
        sample(run, tmp_path / "no", "sampler=velocity_abm", "n=2", "format=npz")
    sample(run, tmp_path / "yes", "sampler=consistency", "n=2", "format=npz")
    assert (tmp_path / "yes" / "samples.npz").is_file()


def test_what_needs_a_mean_refuses_it(run):
    model, x, label = scoregen.load(run), torch.zeros(4, 2), torch.zeros(4, dtype=torch.long)
    wrong = [
        lambda: Heun(2)(model, shape=(1, 2), generator=torch.Generator()),
        lambda: log_likelihood(model, x),
        lambda: memorisation(model, (x, None), (x, None), [1.0]),
        lambda: information(model, x, label, levels=2),
        lambda: ScorePrior(model, 1.0),
    ]
    for number, call in enumerate(wrong):
        with pytest.raises(ValueError, match="consistency function"):
            call()
            pytest.fail(f"call {number} took it")


def test_a_training_with_previews_of_another_sampler_is_refused_before_it_begins(tmp_path):
    options = [*TOY, "loss=consistency", "trainer.steps=1", "preview.every=1"]
    with pytest.raises(UserError, match="preview: sampler must be Consistency for a consistency function"):
        train(tmp_path / "run", *options)
    assert not (tmp_path / "run" / "checkpoints").exists()
    train(tmp_path / "run", *options, "sampler=consistency")


def test_a_model_that_cannot_record_it_is_told(tmp_path, capsys):
    raw = [
        "sde=multiplicative",
        "sde.offset=9",
        "model._target_=scoregen.models.RawDenoiser",
        "model.prediction=stein",
    ]
    train(tmp_path / "run", *TOY, "trainer.steps=1", "loss=consistency", *raw)
    assert "a consistency function, which a RawDenoiser does not record" in capsys.readouterr().err


def test_a_resumed_run_stays_one(run):
    train(run, *TOY, "trainer.steps=3", "loss=consistency", "trainer.resume=auto")
    assert scoregen.load(run).is_consistency


def test_jobs_that_need_a_mean_refuse_it_before_any_work(tmp_path):
    options = ["conditional=false", "sde=multiplicative", "sde.offset=0.02", "loss=consistency", "trainer.steps=1"]
    tuned = train(tmp_path / "tuned", *DIGITS, *options)
    np.save(tmp_path / "scene.npy", np.full((9, 13), 0.5, np.float32))
    scene = [f"checkpoint={tuned}", f"images={tmp_path / 'scene.npy'}", "looks=4"]
    with pytest.raises(UserError, match="checkpoint: the denoiser must be a posterior mean, got a consistency"):
        job("restore", *scene).plan(tmp_path / "mean")
    with pytest.raises(UserError, match="sampler: sampler must be Consistency for a consistency function"):
        job("restore", *scene, "samples=2", "sampler=despeckle").plan(tmp_path / "draws")
    with pytest.raises(UserError, match="dimension: the denoiser must be a posterior mean, got a consistency function"):
        options = [f"checkpoint={tuned}", "data=digits", "features=pixels", "sampler=consistency", "dimension=true"]
        job("evaluate", *options).plan(tmp_path / "levels")


def test_diffusers_has_no_scheduler_for_its_coefficients():
    small = UNet((1, 8, 8), channels=(32,), attention=())
    with pytest.raises(UserError, match=r"other coefficients than prediction=edm. Train with model.prediction=consist"):
        written(Denoiser(small, EDM(), consistency=True))
