r"""A text-to-image pipeline as a denoiser: the pipeline itself is the oracle."""

import copy
import json
import shutil
import sys

import pytest
import torch
from pipelines import make_pipeline

from scoregen.errors import UserError
from scoregen.losses import VJP, DenoisingScoreMatching, FiniteDifference, LatentLoss, LogUniform, StepwiseVariation
from scoregen.models import ClassifierFreeGuidance, LatentDiffusion
from scoregen.models.recompute import recompute_blocks
from scoregen.rng import generator, randn
from scoregen.samplers import DDIM, RK4, decode, encode, interpolate

PROMPTS = ("deaf bee", "a cab")  # not in alphabetical order


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def folder(request, tmp_path_factory):
    return make_pipeline(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def pipe(folder):
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def model(folder):
    return trained(LatentDiffusion(str(folder), rank=3).with_prompts(PROMPTS))


def trained(model):
    r"""Adapters as training leaves them: B is no longer 0."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    return model


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_ddim_makes_the_pictures_of_the_pipeline(folder, pipe, scale):
    r"""Tokens, text, levels, prediction type, guidance and autoencoder, all at once, for two prompts."""
    model = LatentDiffusion(str(folder), rank=None).with_prompts(PROMPTS)
    noise = randn((2, 4, 4, 4), generator(0))
    wanted = pipe(list(PROMPTS), latents=noise, num_inference_steps=5, guidance_scale=scale, output_type="pt").images
    levels = [801, 601, 401, 201, 1, 0]
    grid = model.sde.noise_ratio(torch.tensor(levels, dtype=torch.float64) / 999)
    alpha = (1 + grid**2).rsqrt().float()
    guided, label = ClassifierFreeGuidance(model, scale), torch.arange(2)

    def denoise(u, s):
        return guided(u, s, label)

    u = DDIM().integrate(denoise, noise / alpha[0], grid, torch.zeros_like)
    torch.testing.assert_close(model.images(alpha[-1] * u.detach()).clamp(0, 1), wanted, rtol=0, atol=2e-4)


@pytest.mark.parametrize(
    "text", ["", "bee", "a cab", "a face a face a face"], ids=["empty", "short", "more", "truncated"]
)
def test_a_prompt_is_padded_cut_and_encoded_as_the_pipeline_does(model, pipe, text):
    wanted = pipe.encode_prompt([text], "cpu", 1, False)[0]
    found = model.with_prompts([text]).denoiser.network.prompts(torch.tensor([0]), 1)
    assert found.shape == (1, 8, 8)
    torch.testing.assert_close(found, wanted)


def test_latents_are_those_of_the_autoencoder(folder, pipe):
    model = LatentDiffusion(str(folder), rank=None)
    x = torch.rand(2, 3, 8, 8, generator=generator(0))
    posterior = pipe.vae.encode(pipe.image_processor.normalize(x)).latent_dist
    scale = pipe.vae.config.scaling_factor
    torch.testing.assert_close(model.latents(x), scale * posterior.mean)
    draw = model.latents(x, generator(3)) - model.latents(x)
    torch.testing.assert_close(draw, scale * posterior.std * randn(draw.shape, generator(3)), rtol=1e-4, atol=1e-6)
    assert model.latent_shape((3, 8, 12)) == (4, 4, 6)


def test_no_label_and_a_dropped_label_are_the_empty_prompt(model):
    u = randn((2, 4, 4, 4), generator(0))
    empty = model(u, 2.0)
    assert torch.equal(model(u, 2.0, torch.tensor([-1, -1])), empty)
    mixed = model(u, 2.0, torch.tensor([-1, 1]))
    torch.testing.assert_close(mixed[0], empty[0])
    assert (mixed[1] - empty[1]).abs().max() > 1e-4
    model.with_prompts(("", PROMPTS[1]))
    torch.testing.assert_close(model(u, 2.0, torch.tensor([0, 1])), mixed)


def test_saved_adapters_make_the_pipeline_of_diffusers_the_same(model, pipe, folder, tmp_path):
    model.save_lora(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["pytorch_lora_weights.safetensors"]
    x, k = randn((2, 4, 4, 4), generator(0)), torch.tensor([300, 700])
    text = pipe.encode_prompt(list(PROMPTS), "cpu", 1, False)[0]
    s = model.sde.noise_ratio(k / 999.0)
    network = model.denoiser.network
    own = network(x, s.log() / 4, torch.arange(2))
    assert (pipe.unet(x, k, text).sample - own).abs().max() > 1e-3
    pipe.load_lora_weights(tmp_path)
    torch.testing.assert_close(pipe.unet(x, k, text).sample, own, rtol=1e-4, atol=1e-5)
    pipe.unload_lora_weights()


def test_only_the_adapters_are_trained_and_saved(model, folder):
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == model.state_dict().keys()
    assert all(".lora_" in name and "unet" in name for name in trainable)
    other = LatentDiffusion(str(folder), rank=3).with_prompts(PROMPTS)
    u = randn((2, 4, 4, 4), generator(0))
    assert not torch.equal(other(u, 1.0), model(u, 1.0))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(u, 1.0), model(u, 1.0))
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict(dict(list(model.state_dict().items())[1:]))


def test_the_frozen_parts_stay_in_evaluation_mode(model):
    model.train()
    assert model.unet.training
    assert not model.vae.training and not model.denoiser.network.prompts.text_encoder.training


def test_latents_encode_decode_and_interpolate(model):
    z, label = 0.5 * randn((2, 4, 4, 4), generator(0)), torch.arange(2)
    options = {"s": 0.5, "label": label, "solver": RK4(3)}
    noise = encode(model, z, **options)
    torch.testing.assert_close(decode(model, noise, **options), z, rtol=0, atol=2e-3)
    path = interpolate(model, z, z.flip(0), steps=3, **options)
    torch.testing.assert_close(path[::2], torch.stack([z, z.flip(0)]), rtol=0, atol=2e-3)
    assert (path[1] - path[0]).abs().max() > 0.1


def gradients(model, estimator, **options):
    loss = LatentLoss(StepwiseVariation(DenoisingScoreMatching(LogUniform()), estimator=estimator, strength=1.0))
    x = torch.rand(2, 3, 8, 8, generator=generator(0))
    loss(model.train(), x, torch.arange(2), generator(1)).sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("estimator", [VJP(), FiniteDifference()], ids=["vjp", "fd"])
def test_recomputed_blocks_give_the_same_gradient(model, estimator):
    less = copy.deepcopy(model)
    recompute_blocks(less)
    plain, again = gradients(model, estimator), gradients(less, estimator)
    assert plain.keys() == again.keys() and len(plain) == 64
    for name in plain:
        torch.testing.assert_close(again[name], plain[name], rtol=1e-3, atol=1e-4 * plain[name].abs().max().item())


@pytest.mark.parametrize(("estimator", "fused"), [(VJP(), False), (FiniteDifference(), True)], ids=["vjp", "fd"])
def test_fused_attention_is_avoided_only_for_the_second_derivative(model, estimator, fused):
    seen = []
    model.unet.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cuda.flash_sdp_enabled()))
    assert gradients(model, estimator)
    assert set(seen) == {fused}
    assert torch.backends.cuda.flash_sdp_enabled()


def test_a_latent_loss_is_its_base_loss_on_the_latents(model):
    class Base(DenoisingScoreMatching):
        def forward(self, model, x_0, label=None, generator=None, quantile=None):
            return x_0.flatten(1).mean(1)

    x = torch.rand(2, 3, 8, 8, generator=generator(0))
    found = LatentLoss(Base())(model, x, generator=generator(5))
    assert torch.equal(found, model.latents(x, generator(5)).flatten(1).mean(1))
    with pytest.raises(TypeError, match=r"needs a model with latents .* got Linear"):
        LatentLoss(Base())(torch.nn.Linear(1, 1), x)
    with pytest.raises(TypeError, match="base_loss must be a loss"):
        LatentLoss(torch.nn.MSELoss())


def test_dropped_prompts_are_trained_as_the_empty_one(model):
    x, label = torch.rand(2, 3, 8, 8, generator=generator(0)), torch.arange(2)
    model.with_prompts(("", "deaf bee"))
    always, never = (LatentLoss(DenoisingScoreMatching(label_dropout=p)) for p in (1.0, 0.0))
    empty = torch.zeros_like(label)
    torch.testing.assert_close(always(model, x, label, generator(1)), never(model, x, empty, generator(1)))
    assert not torch.equal(never(model, x, label, generator(1)), never(model, x, empty, generator(1)))


def test_labels_prompts_and_sides_that_do_not_fit_are_named(model):
    with pytest.raises(UserError, match=r"sides .* divisible by 2, .* got 9 x 8. Give data.size=8"):
        model.latents(torch.zeros(1, 3, 9, 8))
    with pytest.raises(UserError, match="must have 3 channels"):
        model.latents(torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"label must lie in -1..1, .* 2 prompts"):
        model(torch.zeros(1, 4, 4, 4), 1.0, torch.tensor([2]))
    with pytest.raises(TypeError, match="prompts must be a list of texts"):
        model.with_prompts("a cab")


def test_without_adapters_there_is_nothing_to_save(folder, tmp_path):
    with pytest.raises(ValueError, match="no adapters to save"):
        LatentDiffusion(str(folder), rank=None).save_lora(tmp_path)


def rewrite_unet(place, **options):
    r"""Puts a U-Net of other options into a pipeline."""
    from diffusers import UNet2DConditionModel

    config = json.loads((place / "unet" / "config.json").read_text())
    UNet2DConditionModel.from_config(config | options).save_pretrained(place / "unet")


def test_places_that_hold_no_pipeline_are_named(tmp_path):
    (tmp_path / "pipes").mkdir()
    with pytest.raises(UserError, match=r"'.*/pipe' does not exist. Did you mean '.*/pipes'"):
        LatentDiffusion(str(tmp_path / "pipe"))
    with pytest.raises(UserError, match="is not a pipeline of diffusers"):
        LatentDiffusion(str(tmp_path / "pipes"))


def test_pipelines_of_another_type_are_refused(folder, tmp_path):
    place = shutil.copytree(folder, tmp_path / "pipeline")
    rewrite_unet(place, in_channels=9)
    with pytest.raises(UserError, match=r"takes 9 channels, its autoencoder gives 4 \(inpainting\)"):
        LatentDiffusion(str(place))
    rewrite_unet(place, in_channels=4, cross_attention_dim=4)
    with pytest.raises(UserError, match="attends to 4 numbers a token, its text encoder gives 8"):
        LatentDiffusion(str(place))
    rewrite_unet(place, cross_attention_dim=8, addition_embed_type="text")
    with pytest.raises(UserError, match=r"'text' conditions \(SDXL\)"):
        LatentDiffusion(str(place))


def test_pickled_weights_are_not_read(folder, tmp_path):
    place = shutil.copytree(folder, tmp_path / "pipeline")
    file = place / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save({}, file.with_suffix(".bin"))
    file.unlink()
    with pytest.raises(UserError, match=r"the unet \(UNet2DConditionModel\) of .* cannot be read"):
        LatentDiffusion(str(place))


def test_a_missing_package_is_named_with_its_extra(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"pip install 'scoregen\[lora\]'"):
        LatentDiffusion(str(folder))


def test_latents_and_images_take_the_type_of_the_autoencoder(model):
    x = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    z = model.latents(x)
    assert z.dtype == torch.float64 and model.images(z).dtype == torch.float64
    torch.testing.assert_close(z.float(), model.latents(x.float()), rtol=1e-4, atol=1e-5)


def test_prompts_that_were_encoded_in_inference_mode_serve_a_training(folder):
    model = LatentDiffusion(str(folder), rank=2).with_prompts(PROMPTS)
    z, label = torch.randn(1, *model.latent_shape((3, 16, 16))), torch.tensor([0])
    with torch.inference_mode():
        model(z, torch.ones(1), label)
    model(z, torch.ones(1), label).sum().backward()


def test_a_scheduler_without_betas_is_refused(folder, tmp_path):
    place = shutil.copytree(folder, tmp_path / "pipeline")
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}
    (place / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="is a FlowMatchEulerDiscreteScheduler, which has no betas"):
        LatentDiffusion(str(place))
