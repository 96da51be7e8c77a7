r"""Models of this package as folders of diffusers, which load and sample where scoregen is not installed.

| model | scheduler | pipeline |
|---|---|---|
| prediction edm | EDMEuler | none takes its preconditioning: network and scheduler, with a loop |
| prediction eps, x0, v with time=index | DDIM | DDIMPipeline; DiTPipeline in latents |
| prediction flow with time=flow | FlowMatchEulerDiscrete | none of pixels: network and scheduler, with a loop |
| prediction consistency | CMStochasticIterative | ConsistencyModelPipeline |

Exact are networks of diffusers as they are, and the U-Net of this package where it does nothing of its own: patch_size
1, sides that its levels divide.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scoregen.errors import UserError
from scoregen.models.adapter import DiffusersNetwork, import_diffusers
from scoregen.models.denoiser import Denoiser
from scoregen.models.latent_denoiser import LatentDenoiser
from scoregen.models.unet import UNet
from scoregen.sde.discrete import DiscretePath
from scoregen.sde.process import SDE

_KINDS = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}


@dataclass(frozen=True)
class Written:
    r"""A model in the terms of diffusers.

    Attributes:
        network: an object of diffusers. part: its folder, unet or transformer.
        scheduler: an object of diffusers.
        pipeline: one of diffusers, None where none suits; the loop does.
        usage: lines of Python that load the folder and sample.
    """

    network: Any
    part: str
    scheduler: Any
    pipeline: Any
    usage: str


def written(denoiser: nn.Module) -> Written:
    r"""A denoiser in the terms of diffusers.

    Raises:
        UserError: diffusers has no such network, preconditioning or chart.
    """
    if not isinstance(denoiser, Denoiser):
        raise UserError(
            f"checkpoint: a {type(denoiser).__name__} has no counterpart in diffusers. Exported are denoisers of "
            "U-Nets and of networks of diffusers."
        )
    network, part = _network(denoiser.network)
    scheduler = _scheduler(denoiser)
    if isinstance(denoiser, LatentDenoiser):
        kind = import_diffusers().DiTPipeline
        return Written(network, part, scheduler, kind(network, denoiser.autoencoder.vae, scheduler), _DIT)
    _require_pixels(denoiser.sde)
    if denoiser.prediction in _KINDS:
        return Written(network, part, scheduler, import_diffusers().DDIMPipeline(network, scheduler), _DDIM)
    if denoiser.prediction == "consistency":
        kind = import_diffusers().ConsistencyModelPipeline
        return Written(network, part, scheduler, kind(network, scheduler), _CONSISTENCY)
    return Written(network, part, scheduler, None, _EDM if denoiser.prediction == "edm" else _FLOW)


def save(denoiser: nn.Module, folder: Path) -> Written:
    r"""Writes a denoiser into a folder: one folder a part, and model_index.json where a pipeline takes them."""
    found = written(denoiser)
    if found.pipeline is not None:
        found.pipeline.save_pretrained(folder, safe_serialization=True)
        return found
    found.network.save_pretrained(folder / found.part, safe_serialization=True)
    found.scheduler.save_pretrained(folder / "scheduler")
    return found


def _network(network: nn.Module) -> tuple[Any, str]:
    if isinstance(network, DiffusersNetwork):
        return network.model, "transformer" if network.kind.startswith("DiT") else "unet"
    if not isinstance(network, UNet):
        raise UserError(
            f"checkpoint: diffusers has no {type(network).__name__}. Train with model=unet to export the network, or "
            "give program=true for a torch.export program of this one."
        )
    if network.next_level:
        raise UserError(
            "checkpoint: its U-Net is told the next level (a flow map), which diffusers' is not. Give program=true for "
            "a torch.export program of D(u, s, next_s)."
        )
    if network.patch_size != 1 or any(side % network.multiple for side in network.shape[1:]):
        raise UserError(
            f"checkpoint: its U-Net unshuffles or pads images ({network.shape[1]} x {network.shape[2]}, patch_size="
            f"{network.patch_size}, {len(network.channels)} levels), which diffusers' does not. Train with "
            f"patch_size=1 and sides divisible by {2 ** (len(network.channels) - 1)}, or give program=true."
        )
    return network.net, "unet"


def _scheduler(denoiser: Denoiser) -> Any:
    r"""The scheduler whose loop hands the network what the denoiser would."""
    kinds, sde = import_diffusers(), denoiser.sde
    told = (denoiser.prediction, denoiser.time)
    if denoiser.consistency and denoiser.prediction != "consistency":
        raise UserError(
            "checkpoint: a loss of consistency made it a consistency function, and diffusers' scheduler for those has "
            f"other coefficients than prediction={denoiser.prediction}. Train with model.prediction=consistency, or "
            "give program=true for a torch.export program of D(u, s)."
        )
    if denoiser.prediction == "edm" and denoiser.time == "log":
        low, high = (float(sde.noise_ratio(t)) for t in (0.0, 1.0))
        rho = float(getattr(sde, "rho", 7.0))
        return kinds.EDMEulerScheduler(sigma_min=low, sigma_max=high, sigma_data=denoiser.sigma_data, rho=rho)
    if denoiser.prediction in _KINDS and isinstance(sde, DiscretePath) and denoiser.time == "index":
        return kinds.DDIMScheduler(
            num_train_timesteps=len(sde.alphas_cumprod),
            trained_betas=_betas(sde),
            prediction_type=_KINDS[denoiser.prediction],
            clip_sample=False,
            timestep_spacing="trailing",
        )
    if told == ("flow", "flow"):
        return kinds.FlowMatchEulerDiscreteScheduler(shift=float(getattr(sde, "shift_factor", 1.0)))
    if denoiser.prediction == "consistency":
        low, high = (float(sde.noise_ratio(t)) for t in (0.0, 1.0))
        return kinds.CMStochasticIterativeScheduler(
            sigma_min=low, sigma_max=high, sigma_data=denoiser.sigma_data, rho=float(getattr(sde, "rho", 7.0))
        )
    raise UserError(
        f"checkpoint: no scheduler of diffusers goes with prediction={denoiser.prediction}, time={denoiser.time} on "
        f"{type(sde).__name__}. Exported are edm with time=log, flow with time=flow, and eps, x0, v with time=index on "
        "a DiscretePath."
    )


def _betas(sde: DiscretePath) -> list[float]:
    before = torch.cat([torch.ones(1, dtype=torch.float64), sde.alphas_cumprod[:-1]])
    betas: list[float] = (1 - sde.alphas_cumprod / before).tolist()
    return betas


def _require_pixels(sde: SDE) -> None:
    chart = sde.chart.as_affine()
    if chart is None:
        raise UserError(
            f"checkpoint: the model works in a {type(sde.chart).__name__}, which diffusers does not have. Give "
            "program=true for a torch.export program."
        )


def pixels(sde: SDE) -> str:
    r"""The Python that takes model coordinates y to data."""
    chart = sde.chart.as_affine()
    assert chart is not None
    return f"(y - {chart.shift:g}) / {chart.scale:g}"


_EDM = """import torch
from diffusers import EDMEulerScheduler, UNet2DModel

unet = UNet2DModel.from_pretrained(FOLDER, subfolder="unet").eval()
scheduler = EDMEulerScheduler.from_pretrained(FOLDER, subfolder="scheduler")
scheduler.set_timesteps(STEPS)
y = scheduler.init_noise_sigma * NOISE
with torch.no_grad():
    for t in scheduler.timesteps:
        y = scheduler.step(unet(scheduler.scale_model_input(y, t), t, LABEL).sample, t, y).prev_sample
x = PIXELS
"""
_FLOW = """import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UNet2DModel

unet = UNet2DModel.from_pretrained(FOLDER, subfolder="unet").eval()
scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(FOLDER, subfolder="scheduler")
scheduler.set_timesteps(STEPS)
y = NOISE
with torch.no_grad():
    for t in scheduler.timesteps:
        y = scheduler.step(unet(y, t, LABEL).sample, t, y).prev_sample
x = PIXELS
"""
_DDIM = """from diffusers import DDIMPipeline

images = DDIMPipeline.from_pretrained(FOLDER)(batch_size=4, num_inference_steps=STEPS).images
"""
_CONSISTENCY = """from diffusers import ConsistencyModelPipeline

images = ConsistencyModelPipeline.from_pretrained(FOLDER)(batch_size=4, num_inference_steps=1).images
"""
_DIT = """from diffusers import DiTPipeline

images = DiTPipeline.from_pretrained(FOLDER)(class_labels=[0, 1], num_inference_steps=STEPS).images
"""


def usage(denoiser: nn.Module, found: Written) -> str:
    r"""The lines that load and sample, with what is known of the model filled in."""
    assert isinstance(denoiser, Denoiser)
    shape, labelled = denoiser.shape, denoiser.num_classes is not None
    noise = "torch.randn(4" + "".join(f", {side}" for side in shape or ()) + ")"
    text = found.usage.replace("STEPS", "18").replace("NOISE", noise)
    text = text.replace(", LABEL", ", torch.zeros(4, dtype=torch.int64)" if labelled else "")
    return text.replace("PIXELS", pixels(denoiser.sde)) if "PIXELS" in text else text
