r"""Every public class of a kind is exported, and has a file of conf/ from which it is built; or it says why not."""

from typing import NamedTuple

import pytest
from laws.discovery import classes, node_of, options, package_of, unconfigured, unexported, unlisted

from scoregen.config import build
from scoregen.data import Augmentation, Dataset, Source
from scoregen.losses import Estimator, Loss, NoiseLevels, Weighting
from scoregen.metrics import FeatureExtractor
from scoregen.models import Observation
from scoregen.samplers import Grid, ODESolver, PixelObservation, Sampler
from scoregen.sde import SDE, Chart
from scoregen.smoothing import AbstractNoise
from scoregen.training import Hook, Logger, Schedule


class Kind(NamedTuple):
    r"""A base, its group of conf/ (None: its classes stand inside nodes), and why some of its classes have no file."""

    base: type
    group: str | None = None
    without: dict[str, str] = {}  # noqa: RUF012


KINDS = [
    Kind(Sampler, "sampler", {"DiffusersSampler": "wraps a scheduler of diffusers, an object in memory"}),
    Kind(PixelObservation, "observation"),
    Kind(SDE, "sde", {"DiscretePath": "read from the scheduler of a diffusers pipeline"}),
    Kind(AbstractNoise, "noise"),
    Kind(Source, "data"),
    Kind(
        Loss,
        "loss",
        {
            "ExplicitScoreMatching": "takes the exact score, a function in memory; for measurements",
            "NonNegativeScoreMatching": "of one noise level, in two derivatives; for measurements",
        },
    ),
    Kind(FeatureExtractor, "features", {"ClassifierFeatures": "takes a classifier in memory; else CheckpointFeatures"}),
    Kind(Logger, "logger", {"JSONLines": "is always on"}),
    Kind(
        Chart,
        "chart",
        {
            "Columns": "of a table, whose columns and rows say what it is",
            "Latent": "stands inside latent denoisers, which build it from their autoencoder",
            "Log": "stands inside multiplicative processes, which build it from their offset",
            "Compose": "stands inside multiplicative processes, which build it from their data_range",
        },
    ),
    Kind(Weighting, None, {"VelocityWeighting": "for v-prediction pipelines, as conf/loss/latent.yaml says"}),
    Kind(NoiseLevels),
    Kind(
        Grid,
        None,
        {
            "EqualTimes": "the default of DalePaper",
            "OpenEnd": "the default of Consistency",
            "LogLinear": "another choice for sampler.grid",
            "UniformTime": "PowerTime with power 1",
            "TimeTravel": "wraps another grid, for guidance from Python",
        },
    ),
    Kind(Schedule, None, {"InverseSqrt": "another choice for trainer.schedule"}),
    Kind(
        Augmentation,
        None,
        dict.fromkeys(("Crop", "Transforms", "InstanceNoise"), "another choice for data.augmentation"),
    ),
    Kind(Hook),
]
# exported like the others, but given in Python alone
IN_PYTHON = [Estimator, Observation, ODESolver]


def each(kinds):
    return pytest.mark.parametrize("kind", kinds, ids=lambda kind: kind.base.__name__)


@pytest.mark.parametrize("base", [kind.base for kind in KINDS] + IN_PYTHON, ids=lambda base: base.__name__)
def test_every_class_is_exported_by_its_package(base):
    assert not [text for found in classes(base).values() if (text := unexported(found))]


@pytest.mark.parametrize("base", [kind.base for kind in KINDS] + [*IN_PYTHON, Dataset], ids=lambda base: base.__name__)
def test_the_base_of_a_kind_is_exported_too(base):
    assert unexported(base) is None


@each(KINDS)
def test_every_class_has_a_file_of_conf_or_says_why_not(kind):
    found = [found for found in classes(kind.base).values() if found.__name__ not in kind.without]
    assert not [text for one in found if (text := unconfigured(one, kind.group))]


@each(KINDS)
def test_no_class_is_excused_without_need(kind):
    found = {one.__name__: one for one in classes(kind.base).values()}
    assert all(unconfigured(found[name], kind.group) for name in kind.without)


FILLED = {
    "channels": 1,
    "features": 4,
    "looks": 4.0,
    "gain": 1.0,
    "step": 0.1,
    "low": 0.0,
    "high": 1.0,
}  # by data or job
IN_FILES = {"data", "features", "loss"}  # groups with keys that have no default


@each([kind for kind in KINDS if kind.group])
def test_every_class_is_what_its_file_builds(kind):
    r"""Files whose keys have no default (???) are built with files of their own: tests/test_config.py."""
    for target, found in classes(kind.base).items():
        for name in options(kind.group, target):
            node = node_of(kind.group, name)
            if (kind.group, name) == ("noise", "anisotropic"):
                node["sigma"] = [0.5]  # one for each channel of the data
            if "???" in str(node):
                assert kind.group in IN_FILES
                continue
            node |= {key: FILLED[key] for key, value in node.items() if value is None and key in FILLED}
            if (kind.group, name) != ("features", "inception"):  # weights of 90 MB
                assert type(build(node, where=kind.group)) is found, name


@each([kind for kind in KINDS if kind.group])
def test_every_plain_argument_is_a_key_of_a_file(kind):
    r"""A key that no file has is refused on the command line, and is not in the help."""
    for target, found in classes(kind.base).items():
        keys = {key for name in options(kind.group, target) for key in node_of(kind.group, name)}
        assert found.__name__ in kind.without or unlisted(found, kind.group, keys) is None


def test_a_class_that_its_package_hides_is_named():
    hidden = type("Hidden", (Weighting,), {"__module__": "scoregen.losses.weightings"})
    assert unexported(hidden) == (
        "Hidden: not in scoregen.losses.__all__; import it in scoregen/losses/__init__.py and add its name there."
    )
    assert package_of(hidden) == "scoregen.losses"
