r"""The table of docs/interop.md: what each family of diffusers models does in the jobs, or says that it does not."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pipelines import make_pipeline, save_dit, save_unet
from tiny import job, sample, train, weights
from torch import nn

import scoregen
from scoregen.compat import repair_torchvision
from scoregen.errors import UserError
from scoregen.rng import generator
from scoregen.samplers import RK4, log_likelihood

repair_torchvision()
import diffusers  # noqa: E402

SMALL = ["data=digits", "trainer.precision=no", "trainer.batch_size=4", "trainer.log_every=1", "trainer.workers=0"]
SMALL += ["trainer.steps=1", "trainer.optimizer.lr=0.05", "sampler.steps=1", "preview.every=null"]
FAMILIES = {
    "ddpm": lambda place: save_unet(place, diffusers.DDIMScheduler()),
    "classes": lambda place: save_unet(place, diffusers.DPMSolverMultistepScheduler(), num_class_embeds=11),
    "edm": lambda place: save_unet(place, diffusers.EDMEulerScheduler()),
    "flow": lambda place: save_unet(place, diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)),
    "consistency": lambda place: save_unet(place, diffusers.CMStochasticIterativeScheduler()),
    "dit": lambda place: save_dit(place, diffusers.DDIMScheduler()),
}
# what a family needs to be told: its sampler, and its labels and their null class
SAMPLER = {"consistency": ["sampler=consistency"]}
TOLD = {"classes": ["null_label=10"]}
LOSS = {"consistency": ["loss=consistency"]}
LABELS = {"classes": ["label=random"], "dit": ["label=random"]}
families = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    root = tmp_path_factory.mktemp("families")
    return {name: make(root / name) for name, make in FAMILIES.items()}


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.setitem(sys.modules, "row", sys.modules[__name__])


def sampler_of(family: str) -> list[str]:
    return SAMPLER.get(family, ["sampler.steps=1"])


def drawing(family: str) -> list[str]:
    return [*sampler_of(family), *TOLD.get(family, []), *LABELS.get(family, [])]


def network():
    r"""A classifier of digits: which row is brightest."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()


@families
def test_samples_are_images_of_its_shape(places, tmp_path, family):
    sample(places[family], tmp_path, "n=2", "format=npz", *drawing(family))
    images = np.load(tmp_path / "samples.npz")["images"]
    assert images.shape == (2, 1, 8, 8) and np.isfinite(images).all()


@pytest.mark.parametrize("family", ["classes", "dit"])
def test_guidance_is_away_from_the_null_class(places, tmp_path, family):
    for scale in (1, 3):
        options = ["n=1", "format=npz", "label=2", f"guidance={scale}", *sampler_of(family), *TOLD.get(family, [])]
        sample(places[family], tmp_path / str(scale), *options)
    plain, guided = (np.load(tmp_path / name / "samples.npz")["images"] for name in ("1", "3"))
    assert np.abs(plain - guided).max() > 1e-4


@families
def test_likelihood_is_that_of_pixels_or_refused(places, family):
    denoiser = scoregen.load(places[family], null_label=10 if family == "classes" else None)
    x = torch.rand(2, 1, 8, 8, generator=generator(0))
    options = {"solver": RK4(2), "probes": 1, "generator": generator(1)}
    if family in ("consistency", "dit"):
        with pytest.raises(ValueError, match="no density"):
            log_likelihood(denoiser, x, **options)
    else:
        assert log_likelihood(denoiser, x, **options).log_prob.isfinite().all()


@families
def test_seeds_are_interpolated(places, tmp_path, family):
    told = [*sampler_of(family), *TOLD.get(family, []), *(["label=1"] if family in LABELS else [])]
    job("interpolate", f"checkpoint={places[family]}", "between=[0,1]", "frames=2", *told).run(tmp_path)
    assert np.load(tmp_path / "frames.npz")["frames"].shape[-3:] == (1, 8, 8)


@families
def test_samples_are_measured(places, tmp_path, family):
    options = ["data=digits", "features=pixels", "cache=null", "n=4", "metrics=fast", *drawing(family)]
    job("evaluate", f"checkpoint={places[family]}", *options).run(tmp_path)
    assert (tmp_path / "metrics.json").is_file()


@families
def test_it_is_fine_tuned_and_loaded_without_its_folder(places, tmp_path, family):
    r"""The weights of the folder are where the training begins; config and weights are all in the checkpoint."""
    folder = Path(shutil.copytree(places[family], tmp_path / "folder"))
    told = [*SMALL, *sampler_of(family), *TOLD.get(family, [])]
    run = train(tmp_path / "run", *told, f"init={folder}", "trainer.optimizer.lr=1e-12")
    first = scoregen.load(folder, null_label=10 if family == "classes" else None)
    shutil.rmtree(folder)
    again = scoregen.load(run)
    assert type(again) is type(first) and again.num_classes == first.num_classes
    for name, tensor in first.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=0, atol=1e-9)
    u, label = torch.randn(2, *again.sde.chart.shape_of((1, 8, 8)), generator=generator(0)), torch.tensor([1, 2])
    label = label if again.num_classes else None
    with torch.no_grad():
        torch.testing.assert_close(again(u, 0.5, label), first(u, 0.5, label), rtol=1e-5, atol=1e-5)
    if family not in ("classes", "dit"):
        return
    more = train(tmp_path / "more", *SMALL, *sampler_of(family), f"init={run}")
    assert any((weights(more)[name] - tensor).abs().max() > 1e-4 for name, tensor in weights(run).items())


@families
def test_adapters_are_trained_on_it(places, tmp_path, family):
    told = [*SMALL, *sampler_of(family), *TOLD.get(family, [])]
    run = train(tmp_path, *told, f"init={places[family]}", "lora.rank=2")
    plain = scoregen.load(places[family], null_label=10 if family == "classes" else None).state_dict()
    kept = {n.replace("base_layer.", "").replace("network.network.", "network."): w for n, w in weights(run).items()}
    assert all(torch.equal(kept[name], tensor) for name, tensor in plain.items())
    assert any("lora_B" in name and tensor.abs().max() > 0 for name, tensor in kept.items())
    assert scoregen.load(run).shape == (1, 8, 8)


@families
def test_it_purifies_for_certificates_or_says_that_it_cannot(places, tmp_path, family):
    sampler = ["sampler=consistency"] if family == "consistency" else []
    told = [*sampler, *(f"purify.{option}" for option in TOLD.get(family, []))]
    arguments = ["data=digits", "n=20", "n0=10", "max_inputs=1", f"purify.checkpoint={places[family]}", *told]
    whole = family in ("ddpm", "classes")  # of the others one input is purified: a dry run tries the classifier
    run = job("certify", *arguments, *([] if whole else ["dry_run=true"]), classifier="row:network")
    if family == "dit":
        with pytest.raises(UserError, match="must have an affine or a log chart, got Latent"):
            run.run(tmp_path)
    else:
        run.run(tmp_path)
        assert (tmp_path / "certificates.jsonl").exists() == whole


@pytest.mark.parametrize(
    ("family", "overrides", "message"),
    [
        ("ddpm", ["model=unet_tiny"], r"model: the model of '.*' brings its own. Leave model=... out"),
        ("ddpm", ["sde=vp"], "sde: the model of .* brings its own"),
        ("ddpm", ["chart=unit_range"], "chart: the model of .* takes the range of the data"),
        ("ddpm", ["null_label=3"], "null_label: .* is unconditional"),
        ("classes", ["null_label=11"], r"null_label: must lie in 0\.\.10"),
        ("dit", ["null_label=3"], "null_label: .* has a class of its own"),
        ("ddpm", ["data=toy2d"], r"data: .* has shape \(2,\), the model of .* makes \(1, 8, 8\)"),
        (
            "consistency",
            ["sampler=heun", "preview.every=1"],
            "preview: sampler must be Consistency for a consistency function, got Heun",
        ),
        (None, ["null_label=3"], "null_label: needs init=..., a network of diffusers"),
    ],
)
def test_what_does_not_fit_is_an_error_before_any_work(places, tmp_path, family, overrides, message):
    init = [] if family is None else [f"init={places[family]}"]
    small = [part for part in SMALL if not (part == "data=digits" and overrides[0].startswith("data="))]
    with pytest.raises(UserError, match=message):
        train(tmp_path / "run", *small, *init, *overrides)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["weights=model"], "weights: .* is of diffusers and has one set"),
        (["sampler=heun"], "sampler: sampler must be Consistency .*, got Heun"),
    ],
)
def test_what_a_folder_does_not_have_is_refused(places, tmp_path, overrides, message):
    with pytest.raises(UserError, match=message):
        sample(places["consistency"], tmp_path / "out", "n=1", "sampler=consistency", *overrides)


def test_a_null_label_is_for_networks_of_diffusers(places, tmp_path):
    run = train(tmp_path / "run", *SMALL, f"init={places['classes']}", "null_label=10")
    with pytest.raises(UserError, match="null_label: is for networks of diffusers"):
        sample(run, tmp_path / "out", "n=1", "null_label=10")


def test_a_checkpoint_cannot_have_other_code_built_by_the_training_that_starts_from_it(places, tmp_path):
    run = train(tmp_path / "run", *SMALL, f"init={places['ddpm']}")
    config = next(run.glob("checkpoints/step_*/config.yaml"))
    config.write_text(re.sub(r"_target_: scoregen\.models\.Denoiser", "_target_: os.system", config.read_text()))
    with pytest.raises(UserError, match=r"'os.system' is refused|is missing or damaged"):
        train(tmp_path / "new", *SMALL, f"init={config.parent}")


def test_a_text_to_image_pipeline_samples_pictures_of_its_prompts(tmp_path):
    r"""In turn: pictures 0 and 2 are of the first prompt; the same noise with another prompt gives another picture."""
    folder = make_pipeline(tmp_path)
    tokenizer = folder / "tokenizer" / "tokenizer_config.json"
    config = json.loads(tokenizer.read_text())
    assert config.pop("model_max_length") == 8
    tokenizer.write_text(json.dumps(config))  # as of tokenizers that do not say their longest text
    options = ["format=npz", "sampler.steps=1", "n=3"]
    sample(folder, tmp_path / "a", *options, "prompts=[a cab, deaf bee]", "guidance=3")
    sample(folder, tmp_path / "b", *options, "prompts=[a cab, a cab]", "guidance=3")
    a, b = (np.load(tmp_path / name / "samples.npz")["images"] for name in ("a", "b"))
    assert a.shape == (3, 3, 8, 8)
    assert np.array_equal(a[[0, 2]], b[[0, 2]]) and np.abs(a[1] - b[1]).max() > 1e-4


def test_prompts_are_for_text_to_image_models(places, tmp_path):
    with pytest.raises(UserError, match="prompts: are for text-to-image models"):
        sample(places["ddpm"], tmp_path / "out", "n=1", "prompts=[a cab]")
    folder = make_pipeline(tmp_path)
    with pytest.raises(UserError, match="is a text-to-image pipeline, which this job does not take"):
        job("interpolate", f"checkpoint={folder}", "between=[0,1]").run(tmp_path / "out")
    with pytest.raises(UserError, match="null_label: 'no label' of a text-to-image pipeline is the empty prompt"):
        scoregen.load(folder, null_label=1)


@families
def test_a_fine_tuned_model_goes_out_as_it_came_in(places, tmp_path, family):
    r"""The exported folder has the same denoiser, and stock diffusers loads its parts."""
    run = train(tmp_path / "run", *SMALL, f"init={places[family]}", *TOLD.get(family, []), *LOSS.get(family, []))
    job("export", "n=0", "weights=model", checkpoint=str(run)).run(tmp_path / "out")
    null = {"null_label": 10} if family == "classes" else {}
    before, after = scoregen.load(run, weights="model"), scoregen.load(tmp_path / "out", **null)
    shape = before.sde.chart.shape_of(before.shape)
    u, s = torch.randn(2, *shape, generator=generator(0)), torch.tensor([0.3, 2.0], dtype=torch.float64)
    label = torch.tensor([1, 2]) if before.num_classes else None
    with torch.no_grad():
        assert (before(u, s, label) - after(u, s, label)).abs().max() < 1e-4
    if family in ("ddpm", "classes", "consistency", "dit"):
        assert quiet_pipeline(tmp_path / "out") is not None
    else:
        index = json.loads((tmp_path / "out" / "scheduler" / "scheduler_config.json").read_text())
        scheduler = getattr(diffusers, index["_class_name"]).from_pretrained(tmp_path / "out", subfolder="scheduler")
        scheduler.set_timesteps(3)
        assert diffusers.UNet2DModel.from_pretrained(tmp_path / "out", subfolder="unet").config.in_channels == 1


def quiet_pipeline(folder):
    return diffusers.DiffusionPipeline.from_pretrained(folder)
