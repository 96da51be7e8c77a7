r"""What a loss was built with can be read back, so that a run's record can describe it."""

import inspect

import pytest

from scoregen import losses
from scoregen.data import Flip, Shift
from scoregen.losses import DenoisingScoreMatching, Loss
from scoregen.models import MLP, Denoiser
from scoregen.sde import EDM

BASE, TEACHER = DenoisingScoreMatching(), Denoiser(MLP((2,)), EDM())
CONCRETE = [
    kind
    for kind in (getattr(losses, name) for name in losses.__all__)
    if not inspect.isabstract(kind)
    and not getattr(kind, "_is_protocol", False)
    and not issubclass(kind, losses.Weighting)  # those of tests/laws/test_weightings.py
]
GIVEN = {
    losses.CrossEntropy: {"noise_sigma": 0.3, "label_smoothing": 0.2},
    losses.ConsistencyRegularization: {"noise_sigma": 0.3, "num_noises": 3, "lbd": 2.0, "eta": 0.1},
    losses.SmoothAdv: {
        "noise_sigma": 0.3,
        "num_noises": 3,
        "eps": 0.7,
        "attack_steps": 5,
        "warmup": 0.2,
        "data_range": (-1.0, 1.0),
    },
    losses.NoProp: {
        "noise_levels": losses.FlowTime(),
        "weighting": losses.FlowWeighting(),
        "error": "squared",
        "noise_sigma": 0.3,
    },
    losses.MACER: {"noise_sigma": 0.3, "num_noises": 3, "lbd": 2.0, "gamma": 6.0, "beta": 4.0, "deferred": 0.3},
    losses.SmoothMix: {
        "noise_sigma": 0.3,
        "num_noises": 3,
        "attack_steps": 5,
        "step_size": 0.7,
        "eta": 2.0,
        "warmup": 0.2,
        "data_range": (-1.0, 1.0),
    },
    losses.ConsistencyTuning: {
        "noise_levels": losses.UniformTime(),
        "gap": losses.Gap(),
        "c": 0.03,
        "label_dropout": 0.2,
    },
    losses.ConsistencyDistillation: {
        "teacher": TEACHER,
        "noise_levels": losses.UniformTime(),
        "gap": losses.Gap(),
        "c": 0.03,
        "label_dropout": 0.2,
    },
    losses.FlowMap: {
        "target": "meanflow",
        "noise_levels": losses.UniformTime(),
        "weighting": losses.DataWeighting(),
        "matching": 0.4,
        "to_data": 0.3,
        "to_noise": 0.2,
        "upward": 0.5,
        "label_dropout": 0.2,
        "h": 0.02,
    },
    losses.Gap: {"q": 3.0, "k": 4.0, "b": 2.0, "stages": 5},
    losses.DenoisingScoreMatching: {
        "noise_levels": losses.UniformTime(),
        "weighting": losses.DataWeighting(),
        "label_dropout": 0.2,
        "uncertainty": True,
        "levels": "adaptive",
    },
    losses.DataUnitMatching: {
        "noise_levels": losses.UniformTime(),
        "weighting": losses.DataWeighting(),
        "label_dropout": 0.2,
        "power": 0.5,
        "high": 0.9,
    },
    losses.TableScoreMatching: {
        "noise_levels": losses.UniformTime(),
        "weighting": losses.DataWeighting(),
        "label_dropout": 0.2,
    },
    losses.SpeckleSplit: {
        "looks": 2.5,
        "split": (0.2, 0.6),
        "power": 0.5,
        "high": 0.9,
        "subsample": 2,
        "floor": 0.01,
        "label_dropout": 0.2,
        "weighting": losses.DataWeighting(),
    },
    losses.GaussianSplit: {
        "sigma": 0.2,
        "split": (0.2, 0.6),
        "label_dropout": 0.2,
        "weighting": losses.DataWeighting(),
    },
    losses.AmbientScoreMatching: {
        "sigma": 0.2,
        "noise_levels": losses.UniformTime(),
        "weighting": losses.DataWeighting(),
        "label_dropout": 0.2,
    },
    losses.ExplicitScoreMatching: {
        "score": lambda x, t: x,
        "noise_levels": losses.LogUniform(),
        "weighting": losses.NoiseWeighting(),
    },
    losses.NonNegativeScoreMatching: {"s": 0.3, "probes": 2},
    losses.FiniteDifference: {"h": 0.05},
    losses.LatentLoss: {"base_loss": BASE},
    losses.OptimalTransportPairing: {"base_loss": BASE},
    losses.StepwiseVariation: {
        "base_loss": BASE,
        "weight": "latent",
        "target": "per_level",
        "estimator": losses.VJP(),
        "every": 3,
        "strength": 2.0,
        "rate": 0.02,
    },
    losses.JacobianPenalty: {"base_loss": BASE, "strength": 2.0, "estimator": losses.VJP(), "every": 3},
    losses.RepresentationConsistency: {
        "views": Flip(),
        "second_views": Shift(1),
        "temperature": 0.3,
        "sigma_min": 0.01,
        "sigma_max": 20.0,
        "rho": 3.0,
        "resolution": losses.Resolution(),
        "momentum": losses.Momentum(),
    },
    losses.Resolution: {"first": 10, "last": 40},
    losses.Momentum: {"first": 0.9, "last": 0.99, "sharpness": 3.0},
    losses.LogNormal: {"mean": -0.5, "std": 0.7},
}


@pytest.mark.parametrize("kind", CONCRETE, ids=lambda kind: kind.__name__)
def test_an_argument_is_an_attribute_of_the_same_name(kind):
    given = GIVEN.get(kind, {})
    assert set(given) == (set() if kind.__init__ is object.__init__ else set(inspect.signature(kind).parameters))
    built = kind(**given)
    assert {name: getattr(built, name) for name in given} == given


@pytest.mark.parametrize("kind", [k for k in CONCRETE if issubclass(k, Loss)], ids=lambda kind: kind.__name__)
def test_a_default_is_an_attribute_too(kind):
    required = {
        name: value
        for name, value in GIVEN[kind].items()
        if inspect.signature(kind).parameters[name].default is inspect.Parameter.empty
    }
    built = kind(**required)
    assert all(hasattr(built, name) for name in inspect.signature(kind).parameters)
