r"""train.py with adapters: on a model of our own, and on a text-to-image pipeline."""

import json
import re
from pathlib import Path

import pytest
import torch
from pairs import pair
from pipelines import make_pipeline, photos
from tiny import compose, numbers, sample, train, weights

import scoregen
from scoregen.errors import UserError
from scoregen.models import merge_adapters

OWN = ["data=digits", "model.network.channels=[4,8]", "model.network.attention=[false,true]", "model.network.layers=1"]
OWN += ["trainer.precision=no", "trainer.batch_size=8", "trainer.log_every=1", "preview.every=null"]
OWN += ["trainer=lora", "trainer.workers=0", "trainer.optimizer.lr=0.05"]
SMALL = ["+experiment=smooth/lora", "data.size=8", "model.rank=2", "trainer.precision=no", "trainer.batch_size=4"]
SMALL += ["trainer.log_every=1", "trainer.workers=0", "trainer.checkpoint_every=2", "sampler.steps=2", "preview.n=2"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    r"""A model of our own, trained for a step; the rate is high, so that weights move."""
    return train(tmp_path_factory.mktemp("plain"), *OWN, "trainer.steps=1")


@pytest.fixture(scope="module")
def adapted(plain, tmp_path_factory):
    r"""Its adapters, trained for three steps."""
    overrides = [*OWN, f"init={plain}", "lora.rank=2", "trainer.steps=3"]
    return train(tmp_path_factory.mktemp("adapted"), *overrides, "trainer.checkpoint_every=2")


def test_adapters_of_our_own_model_are_trained_beside_the_weights_of_init(plain, adapted):
    before, after = weights(plain, "ema"), weights(adapted)
    kept = {n.replace("base_layer.", "").removeprefix("network."): w for n, w in after.items() if "lora_" not in n}
    assert kept.keys() == before.keys()
    assert all(torch.equal(kept[name], weight) for name, weight in before.items())
    assert all(w.abs().max() > 0 for n, w in after.items() if "lora_B" in n)


def test_a_checkpoint_with_adapters_loads_samples_and_merges(plain, adapted, tmp_path):
    denoiser, start = scoregen.load(adapted), scoregen.load(plain)
    u = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    label = torch.tensor([1, 2])
    found = denoiser(u, 1.0, label)
    assert (found - start(u, 1.0, label)).abs().max() > 1e-4
    torch.testing.assert_close(merge_adapters(denoiser)(u, 1.0, label), found, rtol=0, atol=1e-5)
    sample(adapted, tmp_path, "n=2", "sampler.steps=2")
    assert len(list((tmp_path / "images").iterdir())) == 2


def test_training_of_adapters_resumes_bit_for_bit(plain, adapted, tmp_path):
    overrides = [*OWN, f"init={plain}", "lora.rank=2", "trainer.checkpoint_every=2"]
    train(tmp_path, *overrides, "trainer.steps=2")
    train(tmp_path, *overrides, "trainer.steps=3", "trainer.resume=auto")
    for name in ("model", "ema"):
        assert all(torch.equal(weights(tmp_path, name)[k], w) for k, w in weights(adapted, name).items())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["lora=null"], "lora: must be a mapping with a _target_, got null"),
        (["lora.rank=2"], "lora.rank: adapters need trained weights. Give init="),
        (["init=PLAIN", "lora.rank=0"], "lora: rank must be a whole number >= 1"),
        (["init=PLAIN", "lora.rank=2.5"], "lora.rank: must be an integer"),
        (["init=PLAIN", "lora.rank=2", "lora.targets=[conv]"], None),
        (["init=PLAIN", "lora.rank=2", "lora.targets=[cnv]"], "lora: targets: this UNet has no layer 'cnv'"),
        (["init=PLAIN", "lora.rank=2", "+lora.alpha=1"], "lora.alpha: 'alpha' is not an argument"),
        (["lora_export.every=1"], "lora_export: every must be null for a Denoiser"),
        (["loss=latent"], "needs a model with latents"),
    ],
)
def test_adapters_that_cannot_be_are_an_error_before_any_work(plain, tmp_path, overrides, message):
    overrides = [override.replace("PLAIN", str(plain)) for override in overrides]
    arguments = (tmp_path / "run", *OWN, *overrides, "trainer.steps=1", "dry_run=true")
    if message is None:
        train(*arguments)
    else:
        with pytest.raises(UserError, match=message):
            train(*arguments)
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("place")
    make_pipeline(root)
    photos(root / "photos")
    return root


def inputs(place):
    return [f"data.path={place / 'photos'}", f"model.pipeline={place / 'pipeline'}"]


@pytest.fixture(scope="module")
def smooth(place, tmp_path_factory):
    r"""Three steps of Smooth-LoRA at a high rate."""
    folder = tmp_path_factory.mktemp("smooth")
    return train(folder, *SMALL, *inputs(place), "trainer.steps=3", "trainer.optimizer.lr=0.1")


def test_smooth_lora_writes_what_diffusers_loads_and_scoregen_too(smooth, place):
    from diffusers import StableDiffusionPipeline

    denoiser = scoregen.load(smooth, trust=[str(place / "pipeline")]).with_prompts(["a cab"])
    pipe = StableDiffusionPipeline.from_pretrained(place / "pipeline")
    x, k = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([400])
    text = pipe.encode_prompt(["a cab"], "cpu", 1, False)[0]
    s = denoiser.sde.noise_ratio(k / 999.0)
    own = denoiser.denoiser.network(x, s.log() / 4, torch.tensor([0]))
    assert (pipe.unet(x, k, text).sample - own).abs().max() > 1e-3
    pipe.load_lora_weights(smooth / "lora")
    torch.testing.assert_close(pipe.unet(x, k, text).sample, own, rtol=1e-4, atol=1e-5)


def test_smooth_lora_keeps_only_adapters_and_logs_the_jacobian(smooth):
    assert all(".lora_" in name or name.startswith("loss.") for name in weights(smooth))
    assert weights(smooth)["loss.base_loss.a"].isfinite().all()
    lines = numbers(smooth)
    assert any(key.startswith("jacobian/") for key in lines[-1]) and "penalty" in lines[-1]
    assert sorted(p.name for p in smooth.iterdir()) == [
        "checkpoints",
        "config.yaml",
        "data.json.gz",
        "lora",
        "metrics.jsonl",
        "samples",
    ]
    assert (smooth / "samples" / "step_00000003.png").is_file()


def test_smooth_lora_resumes_bit_for_bit(smooth, place, tmp_path):
    overrides = [*SMALL, *inputs(place), "trainer.optimizer.lr=0.1", "trainer.resume=auto"]
    train(tmp_path, *overrides, "trainer.steps=2")
    train(tmp_path, *overrides, "trainer.steps=3")
    for name in ("model", "ema"):
        assert all(torch.equal(weights(tmp_path, name)[k], w) for k, w in weights(smooth, name).items())


def test_two_processes_train_the_adapters_that_one_does(smooth, place, tmp_path):
    r"""Gradients are averaged and the running mean is shared; to the rounding of float32 sums in another order."""
    overrides = [*SMALL, *inputs(place), "+trainer.optimizer.eps=1e-4", "trainer.steps=3", "preview.every=null"]
    process = pair(tmp_path, "train.py", *overrides, "hydra.run.dir=two")
    one = train(tmp_path / "one", *overrides)
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 0, output
    for name in ("model", "ema"):
        expected, found = weights(one, name), weights(tmp_path / "two", name)
        for key in expected:
            torch.testing.assert_close(found[key], expected[key], rtol=1e-4, atol=2e-6)
    for line, other in zip(numbers(one), numbers(tmp_path / "two"), strict=True):
        assert line == pytest.approx(other, rel=1e-3)
    assert (tmp_path / "two" / "lora" / "pytorch_lora_weights.safetensors").is_file()


def test_a_dry_run_of_a_pipeline_writes_nothing(place, tmp_path, capsys):
    train(tmp_path / "run", *SMALL, *inputs(place), "trainer.steps=1", "dry_run=true")
    assert "LatentDiffusion" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_v_prediction_trains_with_its_weighting(place, tmp_path):
    make_pipeline(tmp_path, "v_prediction")
    small = [*SMALL, "trainer.steps=1", "preview.every=null", "lora_export.every=null"]
    overrides = [*small, f"data.path={place / 'photos'}", f"model.pipeline={tmp_path / 'pipeline'}"]
    weighting = "loss.base_loss.base_loss.weighting._target_=scoregen.losses.VelocityWeighting"
    train(tmp_path / "run", *overrides, weighting, "loss.base_loss.estimator=vjp")
    assert scoregen.load(tmp_path / "run", trust=[str(tmp_path / "pipeline")]).denoiser.prediction == "v"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.size=9"], "data.size: the sides .* divisible by 2.* [Gg]ive data.size=8"),
        (["model.pipeline=none/at/all"], "model.pipeline: 'none/at/all' does not exist"),
        (["model.pipeline=???"], "model.pipeline: a value is required"),
        (["data.path=nowhere"], "data.path: 'nowhere' does not exist"),
        (["lora.rank=4"], "lora.rank: must be null for scoregen.models.LatentDiffusion"),
        (["data=digits", "model=latent_diffusion"], "is trained on images with captions, digits has none"),
    ],
)
def test_mistakes_with_pipelines_are_an_error_before_any_work(place, tmp_path, overrides, message):
    if overrides[0] == "data=digits":
        arguments = [*overrides, f"model.pipeline={place / 'pipeline'}", "trainer.steps=1"]
    else:
        arguments = [*SMALL, *inputs(place), *overrides]
    with pytest.raises(UserError, match=message):
        train(tmp_path / "run", *arguments)
    assert not (tmp_path / "run").exists()


def test_images_without_captions_are_an_error(place, tmp_path):
    folder = photos(tmp_path / "photos")
    (folder / "metadata.jsonl").unlink()
    with pytest.raises(UserError, match=r"6 of the 6 images .* have no caption"):
        train(tmp_path / "run", *SMALL, f"data.path={folder}", f"model.pipeline={place / 'pipeline'}")


def test_the_loss_without_the_regulariser_is_an_option(place, tmp_path):
    small = [part for part in SMALL if part not in ("+experiment=smooth/lora", "preview.n=2")]
    train(
        tmp_path,
        "data=captions",
        "model=latent_diffusion",
        "loss=latent",
        *small,
        *inputs(place),
        "trainer.steps=1",
        "preview.every=null",
    )
    assert not any("jacobian" in key for key in numbers(tmp_path)[0])
    assert all(".lora_" in name for name in weights(tmp_path))


def test_the_examples_of_the_page_run(smooth, place, tmp_path, monkeypatch):
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "smooth_lora").symlink_to(smooth)
    (tmp_path / "PHOTOS").symlink_to(place / "photos")
    (tmp_path / "PIPELINE").symlink_to(place / "pipeline")
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[1] / "docs" / "smooth_lora.md").read_text()
    first, second = re.findall(r"```python\n(.*?)```", page, re.S)
    names: dict = {}
    exec(first.replace("steps=50", "steps=2"), names)
    assert names["picture"].size == (8, 8)
    for large, small in (
        ("size=512", "size=8"),
        ("RK4(16)", "RK4(1)"),
        ("steps=50", "steps=2"),
        ("steps=9", "steps=3"),
    ):
        assert large in second
        second = second.replace(large, small)
    exec(second, names)
    assert (names["z"].shape, names["strip"].shape) == ((2, 4, 4, 4), (3, 3, 8, 8))
    assert names["again"].shape == names["new"].shape == (2, 3, 8, 8)


def test_the_experiment_is_the_recipe_of_the_paper():
    config = compose("+experiment=smooth/lora", "data.path=x", "model.pipeline=y", "trainer.steps=1")
    optimizer = config["trainer"]["optimizer"]
    assert (optimizer["lr"], optimizer["weight_decay"], config["trainer"]["clip"]) == (1e-4, 1e-4, 1.0)
    assert (config["model"]["rank"], config["loss"]["base_loss"]["base_loss"]["label_dropout"]) == (8, 0.1)
    assert json.dumps(config)
