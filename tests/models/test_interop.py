r"""Models of diffusers: the stock pipeline, or the stock scheduler in its own loop, is the oracle of our denoiser."""

import pytest
import torch
from pipelines import make_unet, save_dit, save_unet

import scoregen
from scoregen.compat import repair_torchvision
from scoregen.models import Clamp, ClassifierFreeGuidance, LatentDenoiser, from_diffusers
from scoregen.models.interop import process_of
from scoregen.models.interop.schedulers import SCHEDULERS
from scoregen.rng import generator, randn
from scoregen.samplers import DDIM, RK4, Consistency, Heun, encode, log_likelihood
from scoregen.samplers.base import Bound

repair_torchvision()
import diffusers  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers, since NumPy 2
PLAIN = {"clip_sample": False}
ZERO_SNR = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}


def ours(denoiser, noise: torch.Tensor, levels, label=None) -> torch.Tensor:
    r"""DDIM in data units from u = s eps, through the given noise ratios."""
    grid = torch.as_tensor([float(s) for s in levels], dtype=torch.float64)
    with torch.no_grad():
        u = DDIM().integrate(Bound(denoiser, label), noise, grid, torch.zeros_like)
        return denoiser.sde.from_chart(u)


def loop(unet, scheduler, steps: int, noise: torch.Tensor) -> torch.Tensor:
    r"""The loop of a pipeline of diffusers, by hand, since not every scheduler has one of pixels; x in [0, 1]."""
    scheduler.set_timesteps(steps)
    x = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    with torch.no_grad():
        for t in scheduler.timesteps:
            scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            x = scheduler.step(unet(scaled, t).sample, t, x).prev_sample
    return x / 2 + 0.5


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def images(pipe, seed: int, **options) -> torch.Tensor:
    found = quiet(pipe)(generator=torch.Generator().manual_seed(seed), output_type="np", **options).images
    return torch.from_numpy(found).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    "options",
    [{}, {"prediction_type": "v_prediction"}, {"prediction_type": "sample"}, ZERO_SNR],
    ids=["eps", "v", "x0", "zero-snr"],
)
def test_ddim_makes_the_images_of_the_stock_pipeline(tmp_path, options):
    r"""Zero terminal SNR starts at pure noise: its last level stands for alpha = 0 (the cut leaves 6e-8 of x)."""
    folder = save_unet(tmp_path, diffusers.DDIMScheduler(**PLAIN, **options))
    pipe = diffusers.DDIMPipeline.from_pretrained(folder)
    wanted = images(pipe, 1, batch_size=2, num_inference_steps=4)
    denoiser, noise = scoregen.load(folder), randn((2, 1, 8, 8), generator_of(1))
    levels = denoiser.sde.noise_ratio(pipe.scheduler.timesteps.double() / 999).tolist()
    start = noise * (1 + levels[0] ** 2) ** 0.5
    torch.testing.assert_close(ours(denoiser, start, [*levels, 0]).clamp(0, 1), wanted, rtol=0, atol=1e-4)


def generator_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    "scheduler",
    [diffusers.EulerDiscreteScheduler(), diffusers.EDMEulerScheduler(), diffusers.EDMEulerScheduler(0.01, 20.0, 0.7)],
    ids=["euler", "edm", "edm-other"],
)
def test_euler_makes_the_images_of_the_stock_scheduler(tmp_path, scheduler):
    denoiser = scoregen.load(save_unet(tmp_path, scheduler))
    noise = randn((2, 1, 8, 8), generator_of(1))
    wanted = loop(make_unet(), scheduler, 4, noise)
    start = noise * float(scheduler.init_noise_sigma)
    torch.testing.assert_close(ours(denoiser, start, scheduler.sigmas), wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_matching_makes_the_images_of_the_stock_scheduler(tmp_path, shift):
    r"""At t = 1 the noise ratio is infinite; 1e7 stands for it."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    denoiser = scoregen.load(save_unet(tmp_path, scheduler))
    noise = randn((2, 1, 8, 8), generator_of(1))
    wanted = loop(make_unet(), scheduler, 4, noise)
    t = scheduler.sigmas.double()
    levels = (t / (1 - t)).clamp(max=1e7)
    found = ours(denoiser, noise * (1 + float(levels[0])), levels)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
    assert denoiser.sde.noise_ratio(0.25).item() == pytest.approx(shift / 3)


def test_a_consistency_model_makes_the_images_of_the_stock_pipeline(tmp_path):
    folder = save_unet(tmp_path, diffusers.CMStochasticIterativeScheduler(), diffusers.ConsistencyModelPipeline)
    denoiser = scoregen.load(folder)
    pipe = diffusers.ConsistencyModelPipeline.from_pretrained(folder)
    wanted = images(pipe, 1, batch_size=2, num_inference_steps=1)
    with torch.no_grad():
        found = denoiser.sde.from_chart(denoiser(80.0 * randn((2, 1, 8, 8), generator_of(1)), 80.0)).clamp(0, 1)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
        x = Consistency(1)(denoiser, (2, 1, 8, 8), generator=[generator_of(k) for k in (1, 2)])
    assert x.shape == (2, 1, 8, 8)
    u = randn((2, 1, 8, 8), generator_of(2))
    torch.testing.assert_close(denoiser(u, 0.002), u)  # the boundary: the identity at the least noise


def test_a_consistency_function_is_not_taken_for_a_mean(tmp_path):
    denoiser = scoregen.load(save_unet(tmp_path, diffusers.CMStochasticIterativeScheduler()))
    x = torch.rand(2, 1, 8, 8, generator=generator(0))
    with pytest.raises(ValueError, match=r"sampler must be Consistency .*, got Heun"):
        Heun(2)(Clamp(denoiser, 0, 1), (2, 1, 8, 8))
    for measure in (log_likelihood, encode):
        with pytest.raises(ValueError, match="got a consistency function, which has no density and no encoding"):
            measure(denoiser, x)


@pytest.fixture(scope="module")
def dit(tmp_path_factory):
    return save_dit(tmp_path_factory.mktemp("dit"), diffusers.DDIMScheduler(**PLAIN))


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_dit_makes_the_images_of_the_stock_pipeline(dit, scale):
    r"""Latents, autoencoder, labels, the null class 1000 and the dropped variance, all at once."""
    pipe = quiet(diffusers.DiTPipeline.from_pretrained(dit))
    wanted = images(pipe, 1, class_labels=[3, 7], guidance_scale=scale, num_inference_steps=3)
    denoiser, noise = scoregen.load(dit), randn((2, 2, 4, 4), generator_of(1))
    assert isinstance(denoiser, LatentDenoiser) and denoiser.shape == (1, 8, 8) and denoiser.num_classes == 1000
    levels = denoiser.sde.noise_ratio(pipe.scheduler.timesteps.double() / 999).tolist()
    guided = ClassifierFreeGuidance(denoiser, scale)
    found = ours(guided, noise * (1 + levels[0] ** 2) ** 0.5, [*levels, 0], torch.tensor([3, 7]))
    torch.testing.assert_close(found.clamp(0, 1), wanted, rtol=0, atol=1e-4)


def test_a_latent_has_a_flow_but_no_density_and_no_noise_of_images(dit):
    denoiser, x = scoregen.load(dit), torch.rand(2, 1, 8, 8, generator=generator(0))
    label = torch.tensor([1, 2])
    assert encode(denoiser, x, label=label, solver=RK4(1)).shape == (2, 2, 4, 4)
    with pytest.raises(ValueError, match="which give images no density"):
        log_likelihood(denoiser, x, label=label, solver=RK4(1), probes=1, generator=generator(1))
    with pytest.raises(ValueError, match="start must be None for a process of latents"):
        DDIM(2)(denoiser, start=(x, 0.5), label=label)


@pytest.mark.parametrize("null_label", [None, 3, 1])
def test_labels_are_the_classes_of_the_network(tmp_path, null_label):
    folder = save_unet(tmp_path, diffusers.DDPMScheduler(), num_class_embeds=4)
    denoiser, unet = scoregen.load(folder, null_label=null_label), make_unet(num_class_embeds=4)
    assert denoiser.num_classes == (3 if null_label == 3 else 4)
    u, s = randn((2, 1, 8, 8), generator(0)), denoiser.sde.noise_ratio(400 / 999)
    k, z = torch.tensor([400, 400]), u * (1 + s**2).rsqrt().float()
    with torch.no_grad():
        eps = (u - denoiser(u, s, torch.tensor([2, 0]))) / s.float()
        torch.testing.assert_close(eps, unet(z, k, torch.tensor([2, 0])).sample, rtol=1e-4, atol=1e-4)
        if null_label is None:
            with pytest.raises(ValueError, match=r"label must lie in 0\.\.3 .* give null_label="):
                denoiser(u, s)
        else:
            eps = (u - denoiser(u, s)) / s.float()
            wanted = unet(z, k, torch.full((2,), null_label)).sample
            torch.testing.assert_close(eps, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_a_scheduler_and_its_configuration_say_the_same(name):
    scheduler = getattr(diffusers, name)()
    a, b = process_of(scheduler), process_of({**scheduler.config, "_class_name": name})
    t = torch.linspace(0, 0.99, 7, dtype=torch.float64)
    assert torch.equal(a.sde.noise_ratio(t), b.sde.noise_ratio(t))
    assert (a.prediction, a.time, a.sigma_data, a.time_scale) == (b.prediction, b.time, b.sigma_data, b.time_scale)
    denoiser = from_diffusers(make_unet(), scheduler)
    assert not denoiser.training and denoiser.sde.s_max > 1  # in the mode that the network is in


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (diffusers.ScoreSdeVeScheduler(), r"scheduler must be one whose process is known, got ScoreSdeVeScheduler\. "),
        (diffusers.LCMScheduler(), None),
        (diffusers.EDMEulerScheduler(prediction_type="v_prediction"), "prediction_type of EDMEulerScheduler must be"),
        (diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True), "invert_sigmas of .* must be false"),
        (diffusers.DDIMScheduler(prediction_type="score"), "prediction_type must be one of diffusers' names"),
    ],
    ids=["ve", "levels-of-its-own", "edm-v", "inverted", "prediction"],
)
def test_what_no_denoiser_has_is_named(scheduler, message):
    if message is None:  # any scheduler with the levels of a DDPM
        assert process_of(scheduler).time == "index"
    else:
        with pytest.raises((TypeError, ValueError), match=message):
            process_of(scheduler)
