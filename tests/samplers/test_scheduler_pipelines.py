r"""Our samplers in the loops of stock pipelines: the images are those of our own loop."""

import pytest
import torch
from pipelines import make_pipeline, save_dit, save_unet

import scoregen
from scoregen.compat import repair_torchvision
from scoregen.models import Clamp, LatentDiffusion
from scoregen.rng import randn
from scoregen.samplers import DDIM, Ancestral, ExponentialABM, SamplerScheduler
from scoregen.samplers.base import Bound
from scoregen.sde import DiscretePath

repair_torchvision()
import diffusers  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")


def with_sampler(kind, folder, sampler):
    r"""A stock pipeline whose scheduler is our sampler."""
    pipe = kind.from_pretrained(folder)
    pipe.scheduler = SamplerScheduler.from_scheduler(sampler, pipe.scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(images) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def by_ourselves(denoiser, sampler, noise, label=None, generator=None):
    r"""The sampler in its own loop from a state x of unit variance at s_max; in coordinates."""
    sde = denoiser.sde
    grid = sampler.grid(sde, sampler.steps)
    start = noise * (1 + float(grid[0]) ** 2) ** 0.5
    with torch.no_grad():
        return sampler.integrate(Bound(denoiser, label), start, grid, lambda u: randn(u.shape, generator, u.dtype))


@pytest.mark.parametrize("sampler", [ExponentialABM(4), Ancestral(4)], ids=["abm", "ancestral"])
def test_ddim_pipelines_run_them_with_their_generator(tmp_path, sampler):
    r"""The stock scheduler clips the denoised data, as Clamp does."""
    folder = save_unet(tmp_path, diffusers.DDIMScheduler())
    pipe, eta = with_sampler(diffusers.DDIMPipeline, folder, sampler), getattr(sampler, "eta", 0.0)
    found = pipe(2, seeded(), eta=eta, num_inference_steps=4, use_clipped_model_output=True, output_type="np").images
    generator = seeded()
    noise = randn((2, 1, 8, 8), generator)
    denoiser = Clamp(scoregen.load(folder), 0.0, 1.0)
    wanted = denoiser.sde.from_chart(by_ourselves(denoiser, sampler, noise, generator=generator)).clamp(0, 1)
    torch.testing.assert_close(picture(found), wanted, rtol=0, atol=1e-4)


def test_dit_pipelines_run_them(tmp_path):
    folder = save_dit(tmp_path, diffusers.DDIMScheduler(clip_sample=False))
    pipe = with_sampler(diffusers.DiTPipeline, folder, ExponentialABM(4))
    found = pipe([3, 7], guidance_scale=1.0, generator=seeded(), num_inference_steps=4, output_type="np").images
    denoiser = scoregen.load(folder)
    u = by_ourselves(denoiser, ExponentialABM(4), randn((2, 2, 4, 4), seeded()), torch.tensor([3, 7]))
    torch.testing.assert_close(picture(found), denoiser.sde.from_chart(u).detach().clamp(0, 1), rtol=0, atol=1e-4)


def test_text_to_image_pipelines_run_them(tmp_path):
    folder = make_pipeline(tmp_path)
    pipe = with_sampler(diffusers.StableDiffusionPipeline, folder, ExponentialABM(4))
    options = {"num_inference_steps": 4, "guidance_scale": 1.0, "output_type": "pt"}
    found = pipe(["a cab"], latents=randn((1, 4, 4, 4), seeded()), **options).images
    model = LatentDiffusion(str(folder), rank=None).with_prompts(["a cab"])
    u = by_ourselves(model, ExponentialABM(4), randn((1, 4, 4, 4), seeded()), torch.tensor([0]))
    torch.testing.assert_close(found, model.images(u).clamp(0, 1), rtol=0, atol=2e-4)


def test_what_the_sampler_does_not_do_is_refused():
    scheduler = SamplerScheduler(DDIM(2, eta=0.5), DiscretePath([0.9, 0.5, 0.1]))
    x, t = torch.zeros(1, 2), scheduler.timesteps[0]
    assert scheduler.step(x, t, x, eta=0.5, use_clipped_model_output=False).prev_sample.shape == x.shape
    with pytest.raises(ValueError, match=r"eta must be that of the sampler or 0, got eta=1.0 with DDIM"):
        scheduler.step(x, t, x, eta=1.0)
    with pytest.raises(ValueError, match="use_clipped_model_output needs a scheduler that clips"):
        scheduler.step(x, t, x, use_clipped_model_output=True)
