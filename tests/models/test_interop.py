r"""Models of diffusers: the stock pipeline, or the stock scheduler in its own loop, is the oracle of our denoiser."""

import json
import shutil

import pytest
import torch
from pipelines import make_unet, save_dit, save_unet

import scoregen
from scoregen.compat import repair_torchvision
from scoregen.errors import UserError
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


@pytest.fixture
def unet(tmp_path):
    return save_unet(tmp_path / "pipe", diffusers.DDPMScheduler())


def rewrite(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_a_network_alone_takes_the_scheduler_in_it_or_beside_it(unet, tmp_path):
    assert scoregen.load(unet / "unet").sde.s_max == scoregen.load(unet).sde.s_max
    alone = shutil.copytree(unet / "unet", tmp_path / "alone")
    with pytest.raises(UserError, match=r"is a network without a scheduler.* Put scheduler_config.json into it"):
        scoregen.load(alone)
    diffusers.EDMEulerScheduler(sigma_max=5.0).save_pretrained(alone)
    assert scoregen.load(alone).sde.s_max == pytest.approx(5.0)


def test_a_pipeline_with_its_parts_in_one_folder_is_read(unet):
    r"""As google/ddpm-cifar10-32 and others of the first days are."""
    wanted = scoregen.load(unet).state_dict()
    for part in ("unet", "scheduler"):
        for file in (unet / part).iterdir():
            file.rename(unet / file.name)
        (unet / part).rmdir()
    found = scoregen.load(unet).state_dict()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        (
            "model_index.json",
            {"_class_name": "StableDiffusionXLPipeline"},
            "is a StableDiffusionXLPipeline, whose U-Net",
        ),
        ("model_index.json", {"_class_name": "StableDiffusionInpaintPipeline"}, "also takes the picture and a mask"),
        ("model_index.json", {"_class_name": ["mine", "Pipe"]}, "of its own code .* which is not run"),
        ("model_index.json", {"unet": ["mine", "Net"]}, "is a DDPMPipeline, which is not read. Known are"),
        ("unet/config.json", {"_class_name": "Other"}, "must hold a UNet2DModel, got a 'Other'"),
        ("unet/config.json", {"sample_size": None}, "does not say the size of its images"),
        ("unet/config.json", {"out_channels": 3}, "takes 1 channels and gives 3"),
        ("unet/config.json", {"time_embedding_type": "fourier"}, "embeddings of another kind"),
        ("unet/config.json", {"block_out_channels": [4, 16]}, "weights do not fit the model"),
        ("unet/config.json", {"block_out_channels": [4, 2**40]}, "more than its weights have numbers"),
        ("unet/config.json", {"layers_per_block": 10_000}, "larger model than its weights|do not fit"),
        ("unet/config.json", {"norm_num_groups": 3}, "refuses it"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**9}, "must be an integer from 2 to 10000"),
        ("scheduler/scheduler_config.json", {"_class_name": "os.system"}, "got os.system"),
    ],
)
def test_folders_that_are_not_read_are_named(unet, file, changes, message):
    rewrite(unet / file, **changes)
    with pytest.raises(UserError, match=message):
        scoregen.load(unet)


def test_what_this_diffusers_does_not_know_is_said(unet, capsys):
    rewrite(unet / "unet" / "config.json", brand_new=[1], unused=None)
    scoregen.load(unet)
    assert "UNet2DModel of this diffusers does not know brand_new; left out" in capsys.readouterr().err


def test_pickles_are_not_read(unet):
    file = unet / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save({}, file.with_suffix(".bin"))
    file.unlink()
    with pytest.raises(UserError, match=r"has diffusion_pytorch_model.bin. Pickles are not read.*save_pretrained"):
        scoregen.load(unet)


def test_weights_in_several_files_and_under_their_old_names_are_read(unet, tmp_path):
    from safetensors.torch import load_file, save_file

    file = unet / "unet" / "diffusion_pytorch_model.safetensors"
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    tensors = {}
    for name, tensor in load_file(file).items():
        for now, before in old.items():
            name = name.replace(now, before)
        tensors[name] = tensor
    assert any(".query." in name for name in tensors)
    wanted = scoregen.load(unet).state_dict()
    file.unlink()
    halves = [dict(list(tensors.items())[k::2]) for k in (0, 1)]
    places = {}
    for k, half in enumerate(halves):
        save_file(half, file.with_name(f"part-{k}.safetensors"))
        places |= dict.fromkeys(half, f"part-{k}.safetensors")
    index = file.with_name(f"{file.name}.index.json")
    index.write_text(json.dumps({"weight_map": places}))
    found = scoregen.load(unet).state_dict()
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
    index.write_text(json.dumps({"weight_map": {"a": "../../elsewhere.safetensors"}}))
    with pytest.raises(UserError, match=r"has no '../../elsewhere.safetensors', which its index names"):
        scoregen.load(unet)


@pytest.fixture
def hub(unet, tmp_path, monkeypatch):
    r"""A copy of the hub on this disk in its own layout, without network access."""
    import huggingface_hub

    cache = tmp_path / "cache"
    place = cache / "models--owner--name"
    shutil.copytree(unet, place / "snapshots" / "abc")
    (place / "refs").mkdir()
    for reference in ("main", "v1"):
        (place / "refs" / reference).write_text("abc")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["owner/name", "owner/name@v1"])
def test_a_hub_id_is_its_copy(hub, name):
    assert scoregen.load(name).shape == (1, 8, 8)


def test_a_hub_id_that_is_not_there_and_paths_are_told_apart(hub, monkeypatch):
    import huggingface_hub

    with pytest.raises(UserError, match=r"'owner/other' is no folder here, and the hub did not give it"):
        scoregen.load("owner/other")

    def fetched(*arguments, **named):
        raise AssertionError("something was fetched")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetched)
    (hub / "mine").mkdir()
    for path in ("mine/run", "outputs/demo", "./owner/name", "/owner/name", "~/name", "a/b/c", "name"):
        with pytest.raises(UserError, match="does not exist"):
            scoregen.load(path)
