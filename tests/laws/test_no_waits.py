r"""Nothing that a training step or a sampler call does waits for an accelerator, or copies to it but what is stated.

`meta` stands in for the accelerator. The copies that are stated: the batch itself, in a training step; the noise of the
images, drawn on the CPU so that it is the same everywhere, and the labels, in a sampler call.
"""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.device_spy import DEVICE, OneDevice, Spy, stand_in
from scoregen.data import ArrayDataset, Flip, Source
from scoregen.losses import (
    MACER,
    ConsistencyTuning,
    CrossEntropy,
    DataUnitMatching,
    DenoisingScoreMatching,
    FlowMap,
    Loss,
    SmoothAdv,
    SmoothMix,
    SpeckleSplit,
    StepwiseVariation,
)
from scoregen.losses.noise_levels import LogUniform, UniformTime
from scoregen.models import ClassifierFreeGuidance, Denoiser, Inpainting, MatrixObservation, PiGDM
from scoregen.rng import generators
from scoregen.samplers import DDIM, Ancestral, Consistency, DaleLangevin, Heun, PredictorCorrector, VelocityABM
from scoregen.sde import EDM, VP, Affine, GeometricBrownianMotion, GeometricOU, Multiplicative
from scoregen.sde.multiplicative import Linear
from scoregen.smoothing import PurifiedClassifier
from scoregen.training import ExponentiatedGradient
from scoregen.training.ema import EMA
from scoregen.training.meter import Meter
from scoregen.training.parts import Parts, Progress
from scoregen.training.power_averages import PowerAverages
from scoregen.training.settings import Settings
from scoregen.training.step import Step

SHAPE, BATCH = (1, 4, 4), 6
SDES = {
    "edm": lambda: EDM(chart=Affine(2.0, -1.0)),
    "vp": lambda: VP(chart=Affine(2.0, -1.0)),
    "gbm": lambda: GeometricBrownianMotion(0.8, offset=0.1),
    "gbm-varying": lambda: GeometricBrownianMotion(Linear(0.5, 1.5), offset=0.1),
    "multiplicative": lambda: Multiplicative(EDM(0.01, 20.0), offset=0.1, data_range=(0.0, 1.0)),
    "ou": lambda: GeometricOU(offset=0.1).with_moments(torch.zeros(SHAPE), torch.ones(SHAPE)),
}


class Net(nn.Module):
    r"""A convolution, told the noise and the label."""

    num_classes = 3

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.labels = nn.Conv2d(1, 1, 3, padding=1), nn.Embedding(4, 1)

    def forward(self, z, c_noise, label=None):
        label = torch.full((len(z),), -1, device=z.device) if label is None else label
        return self.conv(z) + (c_noise + self.labels(label + 1)[:, 0])[:, None, None, None]


class Bytes(Source):
    r"""Pictures and labels in memory."""

    name, range, num_classes = "bytes", (0.0, 1.0), 3

    def load(self, train: bool) -> ArrayDataset:
        return ArrayDataset(torch.full((20, *SHAPE), 7, dtype=torch.uint8), torch.arange(20) % 3)


def denoiser(sde=None) -> Denoiser:
    return Denoiser(Net(), sde or SDES["edm"]()).to(DEVICE)


def spied(loss: Loss, model: nn.Module, optimizer=None, augmentation=None) -> Spy:
    r"""Two steps between log steps, after a first one that may make what is kept."""
    settings, progress = Settings(5, BATCH, precision="no"), Progress()
    with stand_in():
        made = (optimizer or (lambda p: torch.optim.AdamW(p, fused=True)))(model.parameters())
        parts = Parts(
            settings=settings,
            seed=0,
            accelerator=OneDevice(DEVICE),
            model=model,
            loss=loss.to(DEVICE),
            optimizer=made,
            rates=[1e-3],
            ema=(ema := EMA(model)),
            powers=PowerAverages(ema),
            source=Bytes(augmentation),
            folder=Path(),
            config={},
            progress=progress,
        )
        step, meter = Step(parts), Meter(5, BATCH, DEVICE, progress)
        with Spy():
            meter.add(*step())
        with Spy() as spy:
            meter.add(*step())
            meter.add(*step())
    return spy


def assert_only_the_batch(spy: Spy) -> None:
    batch = [((BATCH, *SHAPE), torch.uint8), ((BATCH,), torch.int64)]
    assert (spy.waits, spy.copies) == ([], 2 * batch)


@pytest.mark.parametrize("sde", SDES)
def test_a_training_step_waits_for_nothing_and_copies_the_batch_alone(sde):
    assert_only_the_batch(spied(DenoisingScoreMatching(), denoiser(SDES[sde]())))


@pytest.mark.parametrize(
    "loss",
    [
        lambda: DenoisingScoreMatching(UniformTime()),
        lambda: DenoisingScoreMatching(LogUniform()),
        lambda: DataUnitMatching(power=0.5),
        lambda: SpeckleSplit(4.0, subsample=2),
        lambda: DenoisingScoreMatching(uncertainty=True, levels="adaptive"),
    ],
    ids=["uniform-time", "log-uniform", "data-units", "speckle-split", "learned"],
)
def test_laws_of_levels_and_units_wait_for_nothing(loss):
    assert_only_the_batch(spied(loss(), denoiser(SDES["gbm"]())))


@pytest.mark.parametrize(
    "loss",
    [ConsistencyTuning, lambda: StepwiseVariation(DenoisingScoreMatching(), target="per_level")],
    ids=["consistency", "stepwise-variation"],
)
def test_losses_of_two_calls_wait_for_nothing(loss, monkeypatch):
    r"""The stand-in has no generator, whose state they keep for dropout; that of an accelerator is on the host."""
    monkeypatch.setattr("scoregen.losses.consistency.forked", lambda device: nullcontext())
    monkeypatch.setattr("scoregen.losses.jacobian.forked", lambda device: nullcontext())
    monkeypatch.setattr("scoregen.losses.jacobian.random_state", lambda device: [torch.get_rng_state()])
    monkeypatch.setattr("scoregen.losses.jacobian.full_precision", lambda kind: nullcontext())
    assert_only_the_batch(spied(loss(), denoiser()))


class ToldNet(Net):
    r"""The same, told the next level; with a network that states that it has no dropout."""

    next_level, dropout = True, 0.0

    def forward(self, z, c_noise, label=None, gap=None):
        return super().forward(z, c_noise, label) + (0.0 if gap is None else gap[:, None, None, None])


@pytest.mark.parametrize("dropout", [0.0, None], ids=["one-call", "two-calls"])
@pytest.mark.parametrize("target", ["progressive", "meanflow"])
def test_a_flow_map_waits_for_nothing(target, dropout, monkeypatch):
    monkeypatch.setattr("scoregen.losses.flow_map.forked", lambda device: nullcontext())
    monkeypatch.setattr("scoregen.losses.flow_map.random_state", lambda device: [torch.get_rng_state()])
    monkeypatch.setattr("scoregen.losses.flow_map_targets.full_precision", lambda kind: nullcontext())
    model = Denoiser(ToldNet(), SDES["edm"]()).to(DEVICE)
    model.network.dropout = dropout
    assert_only_the_batch(spied(FlowMap(target), model))
    spy = sampled(model, DDIM(3))
    assert (spy.waits, spy.copies) == ([], noise(1))


def test_training_a_classifier_with_noise_and_augmentation_waits_for_nothing():
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).to(DEVICE)
    assert_only_the_batch(spied(CrossEntropy(0.5), classifier, augmentation=Flip()))


@pytest.mark.parametrize(
    "loss", [SmoothAdv(0.5), MACER(0.5), SmoothMix(0.5, warmup=0.0)], ids=lambda loss: type(loss).__name__
)
def test_training_for_certificates_waits_for_nothing(loss):
    classifier = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(16, 3)).to(DEVICE)
    assert_only_the_batch(spied(loss, classifier))


def test_multiplicative_steps_of_an_optimizer_wait_for_nothing():
    assert_only_the_batch(spied(DenoisingScoreMatching(), denoiser(), ExponentiatedGradient))


def test_an_optimizer_without_a_verdict_waits_once_a_step():
    spy = spied(DenoisingScoreMatching(), denoiser(), lambda p: torch.optim.SGD(p, 0.1))
    assert spy.waits == ["item"] * 2


SAMPLERS = {
    "heun": (Heun(3), 0),
    "heun-churn": (Heun(3, churn=1.0), 3),
    "velocity": (VelocityABM(4), 0),
    "consistency": (Consistency(3), 2),
    "ancestral": (Ancestral(3), 2),
    "corrector": (PredictorCorrector(2), 3),
    "dale": (DaleLangevin(3), 2),
}


def sampled(model, sampler, **options) -> Spy:
    r"""A call, after a first one that may make what is kept."""
    for spy in (Spy(), Spy()):
        with spy:
            sampler(model, (BATCH, *SHAPE), generator=generators(0, 1, 0, range(BATCH)), **options)
    return spy


def noise(draws: int) -> list:
    return [((BATCH, *SHAPE), torch.float32)] * draws


@pytest.mark.parametrize("sde", SDES)
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_call_waits_for_nothing_and_copies_the_noise_of_the_images_alone(name, sde):
    sampler, draws = SAMPLERS[name]
    spy = sampled(denoiser(SDES[sde]()), sampler)
    assert (spy.waits, spy.copies) == ([], noise(1 + draws))


@pytest.mark.parametrize("sde", SDES)
def test_guidance_copies_the_labels_once(sde):
    guided = ClassifierFreeGuidance(denoiser(SDES[sde]()), 2.0, (0.1, 10.0))
    spy = sampled(guided, Heun(3), label=torch.arange(BATCH) % 3)
    assert (spy.waits, spy.copies) == ([], [*noise(1), ((BATCH,), torch.int64)])


@pytest.mark.parametrize("kind", ["inpainting", "matrix"])
def test_pigdm_waits_for_nothing(kind):
    observation = (
        Inpainting(torch.rand(SHAPE), torch.rand(SHAPE) < 0.5, noise=0.1)
        if kind == "inpainting"
        else MatrixObservation(torch.rand(BATCH, 2), torch.rand(2, 16), noise=0.1)
    )
    spy = sampled(PiGDM(denoiser(), observation), Heun(3))
    assert (spy.waits, spy.copies) == ([], noise(1))


@pytest.mark.parametrize("sampler", [Heun(3), Consistency(1), Consistency(3)], ids=["heun", "one", "three"])
def test_purification_draws_where_it_runs(sampler):
    r"""From bits of the input, on the device."""
    purified = PurifiedClassifier(nn.Flatten(), denoiser(), sampler, 0.25)
    x = torch.empty(BATCH, *SHAPE, device=DEVICE)
    with Spy() as spy, torch.no_grad():
        purified(x)
    assert (spy.waits, spy.copies) == ([], [])


@pytest.mark.parametrize("what", ["item", "cpu", "tensor", "index", "bincount"])
def test_the_spy_sees(what):
    x = torch.zeros(3, 2, device=DEVICE)
    with Spy() as spy:
        if what == "item":
            assert not x.sum() > 0
        elif what == "cpu":
            x.cpu()
        elif what == "tensor":
            torch.tensor([1.0, 2.0], device=DEVICE)
        elif what == "index":
            x[torch.tensor([0, 1])]
        else:
            with pytest.raises(NotImplementedError):
                x[:, 0].long().bincount()
    assert len(spy.waits) == (what in ("item", "cpu", "bincount")) and len(spy.copies) == (what in ("tensor", "index"))


class Looks(DenoisingScoreMatching):
    r"""A loss that looks at its values."""

    def forward(self, *arguments, **named):
        losses = super().forward(*arguments, **named)
        losses.mean().item()
        return losses


def test_a_look_put_back_is_seen():
    assert spied(Looks(), denoiser()).waits == ["item"] * 2
