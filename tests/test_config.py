r"""From YAML nodes to objects: names, types, missing values; and every configuration builds and takes a step."""

import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from laws.test_networks import NETWORKS
from laws.test_sources import SOURCES
from tiny import COMMON, DIGITS, TOY, compose, job, numbers, train

from scoregen import load, sde
from scoregen.config import build, conf_dir, locate, typed
from scoregen.description import option
from scoregen.errors import UserError, absent, closest, listed
from scoregen.losses import DenoisingScoreMatching
from scoregen.rng import generators

CONF = conf_dir()


# they take steps in test_lora_commands.py, and in jobs/test_tables.py
ELSEWHERE = ("captions", "latent", "latent_diffusion", "smooth_lora", "table")


def options(group: str) -> list[str]:
    return sorted(path.relative_to(CONF / group).with_suffix("").as_posix() for path in (CONF / group).rglob("*.yaml"))


def steps_of(group: str) -> list[str]:
    return [name for name in options(group) if name not in ELSEWHERE]


def test_nested_nodes_are_built_inside_out():
    node = {
        "_target_": "scoregen.losses.DenoisingScoreMatching",
        "noise_levels": {"_target_": "scoregen.losses.LogNormal", "std": 2},
    }
    loss = build(node)
    assert isinstance(loss, DenoisingScoreMatching)
    assert loss.noise_levels.std == 2.0 and isinstance(loss.noise_levels.std, float)


def test_partial_nodes_wait_for_their_other_arguments():
    make = build({"_target_": "scoregen.sde.VE", "_partial_": True, "sigma_min": 0.5})
    assert make(sigma_max=3.0).sigma_max == 3.0


def test_plain_data_are_passed_through():
    assert build({"a": [1, {"b": "c"}], "d": None}) == {"a": [1, {"b": "c"}], "d": None}


@pytest.mark.parametrize(
    "node, text",
    [
        (
            {"sigma_mn": 1},
            r"sde.sigma_mn: 'sigma_mn' is not an argument of scoregen.sde.EDM. Did you mean 'sigma_min'\?",
        ),
        ({"sigma_min": "a"}, r"sde.sigma_min: must be a number, got 'a' \(a text\)"),
        ({"sigma_min": True}, r"must be a number, got True \(true or false\)"),
        ({"sigma_min": None}, "must be a number, got null"),
        ({"sigma_min": 100}, "sde: sigma_min must satisfy 0 < sigma_min < sigma_max < inf, got sigma_min=100.0"),
        ({"sigma_min": "???"}, "sde.sigma_min: a value is required; give sde.sigma_min=..."),
        ({"chart": 5}, r"sde.chart: must be Chart or null, got 5 \(an integer\)"),
        ({"chart": {"_target_": "scoregen.sde.EDM"}}, "sde.chart: must be Chart or null, got .*EDM"),
        ({"_target_": "scoregen.sde.EDN"}, r"sde._target_: 'scoregen.sde' has no 'EDN'. Did you mean 'EDM'\?"),
        ({"_target_": "scoregn.sde.EDM"}, "sde._target_: 'scoregn.sde.EDM' cannot be found: No module named 'scoregn'"),
        (
            {"_target_": "mynet.Net"},
            "looked for in '.*' and among the installed packages. Run the command in the folder",
        ),
        ({"_target_": "EDM"}, "sde._target_: must be MODULE.CLASS, such as mynet.Net of the file mynet.py, got 'EDM'"),
        ({"_target_": "./mynet.Net"}, "sde._target_: must be MODULE.CLASS, .* got './mynet.Net'"),
        ({"_target_": "scoregen.data.Npz"}, "sde.path: a value is required by scoregen.data.Npz; give sde.path=..."),
    ],
)
def test_a_slip_is_one_message_with_its_place(node, text):
    with pytest.raises(UserError, match=text):
        build({"_target_": "scoregen.sde.EDM", **node}, where="sde")


@pytest.mark.parametrize(
    "value, hint, result",
    [
        (3, float, 3.0),
        (3, int | None, 3),
        (None, int | None, None),
        ([1, 2], tuple[int, ...], (1, 2)),
        ([1, 2.5], tuple[float, float], (1.0, 2.5)),
        ((1,), list[int], [1]),
        ("a", int | str, "a"),
        ("auto", None, "auto"),
        (Path("a"), Path | str, Path("a")),
    ],
)
def test_values_take_the_type_of_their_annotation(value, hint, result):
    assert typed(value, hint, "a") == result
    assert type(typed(value, hint, "a")) is type(result)


@pytest.mark.parametrize(
    "value, hint, text",
    [
        (1.5, int, r"a: must be an integer, got 1.5 \(a number\)"),
        (True, int, "must be an integer, got True"),
        (1, bool, "must be true or false, got 1"),
        (3, tuple[int, ...], "must be a list of integers, got 3"),
        ([1, "b"], tuple[int, ...], r"a\[1\]: must be an integer, got 'b'"),
        ([1.0], tuple[float, float], "must be a list of 2, got .* of 1"),
        ("b", float | None, "must be a number or null, got 'b'"),
        (None, int, "must be an integer, got null"),
    ],
)
def test_values_of_another_type_are_refused(value, hint, text):
    with pytest.raises(UserError, match=text):
        typed(value, hint, "a")


def test_the_nearest_name_is_offered_or_all():
    assert closest("stepss", ["steps", "seed"]) == "Did you mean 'steps'?"
    assert closest("xyz", ["steps", "seed"]) == "Choices: seed, steps."
    assert closest("xyz", []) == ""


def test_an_absent_path_offers_its_nearest_neighbour_only(tmp_path):
    (tmp_path / "images").mkdir()
    assert absent(tmp_path / "image") == f"'{tmp_path}/image' does not exist. Did you mean '{tmp_path}/images'?"
    assert absent(tmp_path / "xyz") == f"'{tmp_path}/xyz' does not exist."
    assert absent("/nowhere/at/all") == "'/nowhere/at/all' does not exist."


def test_configuration_is_found_beside_a_checkout_and_inside_an_installed_package(tmp_path, monkeypatch):
    assert (conf_dir() / "train.yaml").is_file()
    monkeypatch.setattr("scoregen.config.__file__", str(tmp_path / "scoregen" / "config.py"))
    assert conf_dir() == tmp_path / "scoregen" / "conf"
    (tmp_path / "conf").mkdir()  # a foreign folder of this name beside an installed package
    assert conf_dir() == tmp_path / "scoregen" / "conf"


def small_sampler(name: str) -> list[str]:
    node = yaml.safe_load((CONF / "sampler" / f"{name}.yaml").read_text())
    return ["sampler.steps=2"] if node.get("steps") else []


STEP = ["trainer.steps=1", "preview.every=1", "preview.n=2", "sampler.steps=2"]


@pytest.mark.parametrize("name", options("sde"))
def test_every_process_takes_a_step_and_samples(tmp_path, name):
    folder = train(tmp_path, *DIGITS, *STEP, f"sde={name}")
    assert (folder / "samples.png").is_file() and (folder / "trajectory.png").is_file()


@pytest.mark.parametrize("name", options("sde"))
def test_processes_take_the_chart_of_the_data(name):
    config, _ = job("train", "data=digits", f"sde={name}")._resolved(Path("unused"))
    process = build(config["sde"])
    assert isinstance(process, sde.SDE)
    assert process.to_chart(process.from_chart(process.to_chart(np_half()))).item() == pytest.approx(
        process.to_chart(np_half()).item()
    )
    if not isinstance(process, sde.GeometricBrownianMotion | sde.GeometricOU | sde.Multiplicative):
        assert process.to_chart(np_half()).item() == 0.0  # x = 1/2 is y = 0


def np_half():
    return torch.full((1, 1), 0.5, dtype=torch.float64)


@pytest.fixture(scope="module")
def denoisers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("denoisers")
    return {name: load(train(folder / name, *DIGITS, "trainer.steps=1", f"sde={name}")) for name in ("edm", "gbm")}


@pytest.mark.filterwarnings("ignore:AmbientLangevin")  # two steps are too few for it, as it says
@pytest.mark.parametrize("name", options("sampler"))
def test_every_sampler_samples(denoisers, name):
    r"""And sample k is that of seed k: the last of three alone is the last of three."""
    sampler = build(compose(f"sampler={name}", *small_sampler(name))["sampler"])
    denoiser = denoisers["gbm" if "langevin" in name else "edm"]
    label, frames = torch.arange(3), []
    whole = sampler(
        denoiser,
        (3, 1, 8, 8),
        label=label,
        generator=generators(0, 1, 0, range(3)),
        callback=lambda *a: frames.append(a),
    )
    assert frames and whole.isfinite().all()
    if name != "adaptive_flow":  # its steps are those that the whole batch needs
        last = sampler(denoiser, (1, 1, 8, 8), label=label[2:], generator=generators(0, 1, 0, [2]))
        torch.testing.assert_close(last, whole[2:], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", steps_of("model"))
def test_every_model_takes_a_step(tmp_path, name):
    others = {"mlp": TOY, "mlp_flat": ["data=digits", *TOY[2:]], "unet_patch": [*DIGITS, "model.network.channels=[8]"]}
    others["noprop"] = ["data=digits", "loss=noprop", *COMMON]
    overrides = others.get(name, DIGITS)
    network = option("model", name).get("network", {})
    if network and name not in others and "channels" not in network:  # one that stands in the table of its law alone
        (shape,) = {n.shape for n in NETWORKS.values() if network["_target_"].endswith(f".{type(n).__name__}")}
        overrides = ["data=digits" if len(shape) == 3 else "data=toy2d", *COMMON]
    if name in ("classifier", "classifier_fast", "vit", "vit_small"):
        overrides = ["data=digits", "loss=cross_entropy", "conditional=true", *TOY[4:]]
        overrides += ["loss.noise_sigma=0.5"] if name.startswith("vit") else []  # what a ViT is told
    folder = train(tmp_path, *overrides, f"model={name}", "trainer.steps=1")
    assert numbers(folder)[0]["loss"] > 0


@pytest.mark.parametrize("name", steps_of("loss"))
def test_every_loss_takes_a_step(tmp_path, name):
    overrides = TOY
    if name in ("cross_entropy", "consistency_regularization", "smooth_adv", "macer", "smooth_mix"):
        overrides = ["data=digits", "model=classifier", *TOY[4:]]
    if name.startswith("noprop"):
        overrides = ["data=digits", "model=noprop", f"model.network.blocks={3 if name == 'noprop_dt' else 1}", *TOY[4:]]
    if name == "representation":
        overrides = ["data=digits", "model=vit", "model.trainable=[encoder,projector]", *TOY[4:]]
    if name == "consistency_distillation":
        teacher = train(tmp_path / "teacher", *TOY, "trainer.steps=1")
        overrides = [*TOY, f"loss.teacher.path={teacher}"]
    needed = {"ambient": ["loss.sigma=0.1"], "gaussian_split": ["loss.sigma=0.1"]}
    if name == "speckle_split":  # intensities
        needed[name] = ["loss.looks=4", "loss.floor=0.03"]
        overrides = ["data=digits", "sde=multiplicative", "sde.offset=0.1", *DIGITS[1:]]
    folder = train(tmp_path / "run", *overrides, f"loss={name}", *needed.get(name, []), "trainer.steps=1")
    assert len(numbers(folder)) == 1


@pytest.mark.parametrize("name", steps_of("data"))
def test_every_data_set_takes_a_step(tmp_path, name):
    kind = locate(option("data", name)["_target_"], "data")
    given = SOURCES[kind].arguments(tmp_path)
    shape = kind(**given).shape
    overrides = [f"data={name}", *(DIGITS[1:] if len(shape) == 3 else TOY[2:])]
    overrides += [f"data.{key}={value}" for key, value in given.items() if isinstance(value, int | float | str)]
    overrides += ["model.network.patch_size=4"] if shape[-1] == 28 else []
    folder = train(tmp_path / "run", *overrides, *STEP)
    assert (folder / "report.html").is_file()


@pytest.mark.parametrize("name", options("logger"))
def test_every_logger_is_built(name):
    assert build(compose(f"logger={name}")["logger"]).open


@pytest.mark.parametrize("name", options("experiment"))
def test_every_experiment_composes(name):
    r"""By each of the commands in its head."""
    text = (CONF / "experiment" / f"{name}.yaml").read_text()
    commands = re.findall(r"^# .*?python train\.py ([^()\n]*)", text, re.MULTILINE)
    assert commands and all("+experiment=" in command and name in command for command in commands)
    for command in commands:
        config = compose(*shlex.split(command))
        for group in ("sde", "loss", "sampler", "trainer"):
            build(config[group], where=group)


def test_names_beyond_the_first_are_counted():
    names = [str(k) for k in range(6)]
    assert [listed(names[:n]) for n in (0, 1, 5, 6)] == ["", "0", "0, 1, 2, 3, 4", "0, 1, 2, 3, 4 and 1 more"]
