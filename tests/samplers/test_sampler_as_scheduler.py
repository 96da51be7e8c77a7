r"""Our samplers as schedulers of diffusers: in its loops, its pipelines and on its levels."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from scoregen.compat import repair_torchvision
from scoregen.models import Clamp, from_diffusers
from scoregen.samplers import (
    DDIM,
    Ancestral,
    Consistency,
    DiffusersSampler,
    EulerMaruyama,
    ExponentialAB,
    ExponentialABM,
    Heun,
    Karras,
    Levels,
    PredictorCorrector,
    SamplerScheduler,
    TimeTravel,
    VelocityABM,
)
from scoregen.sde import EDM, Affine, DiscretePath

diffusers = pytest.importorskip("diffusers")
# diffusers hands tensors to numpy in a way that NumPy 2 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


BETAS = {"beta_start": 1e-4, "beta_end": 0.02, "num_train_timesteps": 1000}


class Network(nn.Module):
    r"""A smooth function of (sample, index) with the interface of a diffusers network."""

    def __init__(self, **config) -> None:
        super().__init__()
        self.config = SimpleNamespace(**config)

    def forward(self, sample, timestep, class_labels=None):
        index = torch.as_tensor(timestep, dtype=sample.dtype).reshape(-1, *[1] * (sample.ndim - 1))
        shift = 0.0 if class_labels is None else class_labels.reshape(-1, *[1] * (sample.ndim - 1)) / 10
        return SimpleNamespace(
            sample=torch.tanh(sample * (1 + index / 2000)) + 0.1 * torch.cos(sample + index / 100) + shift
        )


SAMPLERS = pytest.mark.parametrize(
    "sampler",
    [
        DDIM(7),
        Ancestral(7),
        Consistency(3),
        Heun(7),
        Heun(7, churn=3.0, churn_max=20.0),
        ExponentialAB(7, order=3),
        ExponentialABM(7, order=2),
        VelocityABM(7),
        EulerMaruyama(7),
        PredictorCorrector(7),
        DDIM(4, grid=Levels([100.0, 3.0, 9.0, 1.0])),
        Heun(6, grid=TimeTravel(Karras(), 2)),
    ],
    ids=["ddim", "ancestral", "consistency", "heun", "churn", "ab3", "abm2", "velocity", "em", "pc", "jump", "travel"],
)


@SAMPLERS
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_a_sampler_as_a_scheduler_does_what_it_does_by_itself(sampler, prediction_type):
    network = Network()
    theirs = diffusers.DDPMScheduler(**BETAS, prediction_type=prediction_type, clip_sample=False)
    scheduler = SamplerScheduler.from_scheduler(sampler, theirs)
    scheduler.set_timesteps(sampler.steps)
    x = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    start = x.clone()
    generator = torch.Generator().manual_seed(1)
    for t in scheduler.timesteps:
        # the network sees the index in double precision here, as it does in our denoiser
        x = scheduler.step(network(scheduler.scale_model_input(x, t), t).sample, t, x, generator=generator).prev_sample
    denoiser = from_diffusers(network, theirs)
    t = denoiser.sde.time_of(sampler.grid(denoiser.sde, sampler.steps)[0])
    direct = sampler(
        denoiser,
        start=(denoiser.sde.from_u(start * (1 + denoiser.sde.noise_ratio(t) ** 2).sqrt(), t), t),
        generator=torch.Generator().manual_seed(1),
    )
    # timesteps are float32 indices up to 999: 3e-5 of an index of which the network moves by 1e-2 a unit
    torch.testing.assert_close(x, direct, atol=1e-5, rtol=1e-5)


def test_ddim_on_the_levels_of_diffusers_is_diffusers_ddim():
    network = Network()
    theirs = diffusers.DDIMScheduler(**BETAS, clip_sample=False, timestep_spacing="trailing")
    theirs.alphas_cumprod = theirs.alphas_cumprod.double()
    theirs.set_timesteps(20)
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    path = DiscretePath.from_scheduler(theirs)
    levels = path.noise_ratio(theirs.timesteps.double() / 999)
    ours = SamplerScheduler(DDIM(20, grid=Levels(levels.tolist())), path)
    torch.testing.assert_close(ours.timesteps, theirs.timesteps.float(), atol=1e-4, rtol=0)
    a = b = x
    for t, k in zip(ours.timesteps, theirs.timesteps, strict=True):
        a = ours.step(network(a, t).sample, t, a, return_dict=False)[0]
        b = theirs.step(network(b, k).sample, k, b).prev_sample
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)


def test_a_pipeline_of_diffusers_runs_our_sampler():
    repair_torchvision()
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    ).eval()
    theirs = diffusers.DDPMScheduler(**BETAS)
    pipeline = diffusers.DDPMPipeline(unet, SamplerScheduler.from_scheduler(ExponentialABM(), theirs))
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline(2, torch.Generator().manual_seed(0), num_inference_steps=6, output_type="np").images
    denoiser = from_diffusers(unet, theirs, chart=Affine(2.0, -1.0))
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    sde = denoiser.sde
    start = sde.from_u(x * (1 + sde.noise_ratio(1.0) ** 2).sqrt().float(), 1.0)
    direct = ExponentialABM(6)(Clamp(denoiser, 0.0, 1.0), start=(start, 1.0)).clamp(0, 1)
    torch.testing.assert_close(torch.from_numpy(image).permute(0, 3, 1, 2), direct, atol=1e-4, rtol=0)


def test_a_loop_may_begin_in_the_middle_from_noisy_data():
    network = Network()
    theirs = diffusers.DDPMScheduler(**BETAS, clip_sample=False)
    scheduler = SamplerScheduler.from_scheduler(Heun(8), theirs)
    x_0 = torch.rand(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = torch.randn(2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    times = scheduler.timesteps[5:]  # calls 0; 1, 2; 3, 4; 5: the second call at a level begins its step
    times = times if times[0] != times[1] else times[1:]
    x = scheduler.add_noise(x_0, noise, times[0])
    for t in times:
        x = scheduler.step(network(x, t).sample, t, x).prev_sample
    sde = from_diffusers(network, theirs).sde
    level = sde.time_of(Heun(8).grid(sde, 8)[3])
    grid = Levels(Heun(8).grid(sde, 8)[3:-1].tolist())
    noisy = sde.perturb(x_0, level, noise)
    direct = Heun(8, grid=grid)(from_diffusers(network, theirs), start=(noisy, level))
    torch.testing.assert_close(x, direct, atol=1e-5, rtol=1e-5)


def test_a_loop_that_was_left_begins_anew():
    network, scheduler = Network(), SamplerScheduler(Heun(4), DiscretePath([0.99, 0.6, 0.3, 0.01]))
    start = torch.ones(2, 3).double()

    def run() -> torch.Tensor:
        x = start
        for t in scheduler.timesteps:
            x = scheduler.step(network(x, t).sample, t, x).prev_sample
        return x

    whole = run()
    t = scheduler.timesteps[0]
    scheduler.step(network(start, t).sample, t, start)
    assert torch.equal(run(), whole)


def test_class_labels_reach_the_network_and_missing_ones_are_refused():
    denoiser = from_diffusers(Network(num_class_embeds=3), diffusers.DDPMScheduler(**BETAS, prediction_type="sample"))
    u, label = torch.zeros(2, 3).double(), torch.tensor([0, 2])
    assert denoiser.num_classes == 3
    difference = denoiser(u, 1.0, label) - denoiser(u, 1.0, torch.zeros(2).long())
    torch.testing.assert_close(difference, torch.tensor([0.0, 0.2]).double()[:, None].expand(2, 3))
    with pytest.raises(ValueError, match=r"label must lie in 0\.\.2"):
        denoiser(u, 1.0)


def test_a_discrete_path_goes_through_its_levels():
    scheduler = diffusers.DDPMScheduler(**BETAS)
    path = DiscretePath.from_scheduler(scheduler)
    abar, k = scheduler.alphas_cumprod.double(), torch.arange(1000)
    torch.testing.assert_close(path.alpha(k / 999) ** 2, abar, atol=1e-9, rtol=1e-6)
    torch.testing.assert_close(path.index_of(((1 - abar) / abar).sqrt()), k.double(), atol=1e-6, rtol=0)
    t = torch.linspace(0, 1, 777).double()
    torch.testing.assert_close(path.alpha(t) ** 2 + path.sigma(t) ** 2, torch.ones(777).double())
    torch.testing.assert_close(path.time_of(path.noise_ratio(t)), t, atol=1e-9, rtol=0)
    f, _, g2 = path.coefficients(t)
    torch.testing.assert_close(g2, -2 * f)  # variance preserving
    # log-linear between levels: half way is the geometric mean
    middle = path.noise_ratio(0.5 / 999)
    torch.testing.assert_close(middle**2, path.noise_ratio(0.0) * path.noise_ratio(1 / 999))


def test_a_discrete_path_from_a_config_is_that_of_the_scheduler():
    scheduler = diffusers.DDIMScheduler(**BETAS, beta_schedule="scaled_linear")
    torch.testing.assert_close(
        DiscretePath.from_scheduler(scheduler.config).log_levels, DiscretePath.from_scheduler(scheduler).log_levels
    )


def test_bad_arguments_are_refused():
    path = DiscretePath([0.9, 0.5, 0.1])
    with pytest.raises(ValueError, match="decrease strictly inside"):
        DiscretePath([0.5, 0.9])
    with pytest.raises(ValueError, match="The last may be 0"):
        DiscretePath([0.9, 0.0, 0.0])
    with pytest.raises(TypeError, match=r"got FlowMatchEulerDiscreteScheduler. scoregen.models.from_diffusers"):
        DiscretePath.from_scheduler(diffusers.FlowMatchEulerDiscreteScheduler())
    with pytest.raises(ValueError, match=r"prediction_type must be one of .* 'epsilon'"):
        SamplerScheduler(DDIM(2), path, "eps")
    with pytest.raises(ValueError, match="clip must be > 0"):
        SamplerScheduler(DDIM(2), path, clip=0.0)
    with pytest.raises(TypeError, match="fixed list of calls"):
        SamplerScheduler(DiffusersSampler(diffusers.EulerDiscreteScheduler), path)
    with pytest.raises(ValueError, match="Keep churn below the first level"):
        SamplerScheduler(Heun(2, Levels([2.0, 1.0]), churn=1.0), path)
    with pytest.raises(ValueError, match="num_inference_steps must be a whole number >= 1"):
        SamplerScheduler(DDIM(2), path).set_timesteps(0)
    scheduler = SamplerScheduler(DDIM(3), DiscretePath.from_scheduler(diffusers.DDPMScheduler(**BETAS)))
    with pytest.raises(ValueError, match="that begins a step"):
        scheduler.step(torch.zeros(1, 2), 17.3, torch.zeros(1, 2))
    assert len(scheduler) == 1000 and EDM().s_max == 80.0


def test_levels_of_a_fit_are_the_sigmas_of_diffusers():
    r"""As `scoregen fit_grid` writes them: s with a final 0, and s/(1 + s) for flow matching without a shift."""
    levels = [12.5, 2.25, 0.3, 0.05]
    scheduler = diffusers.EulerDiscreteScheduler(**BETAS)
    scheduler.set_timesteps(sigmas=[*levels, 0.0])
    assert scheduler.sigmas.tolist() == pytest.approx([*levels, 0.0], rel=1e-6)
    assert len(scheduler.timesteps) == 4
    straight = diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0)
    straight.set_timesteps(sigmas=[s / (1 + s) for s in levels])
    assert straight.sigmas.tolist() == pytest.approx([*(s / (1 + s) for s in levels), 0.0], rel=1e-6)
