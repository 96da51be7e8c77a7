r"""Reading a text-to-image pipeline of the Stable Diffusion type.

Each part is read with its own class of diffusers or transformers, weights from safetensors only: no code and no pickles
that came with it are run.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scoregen.errors import UserError, absent
from scoregen.models.lora import require_peft


@dataclass(frozen=True)
class Parts:
    r"""The parts of a pipeline, objects of diffusers and transformers, which have no common types."""

    unet: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    scheduler: Any


def read_pipeline(pipeline: str, revision: str | None) -> Parts:
    r"""The parts of a pipeline.

    Args:
        pipeline: a folder of `save_pretrained`, or a hub id. revision: revision of a hub id.

    Raises:
        UserError: no such pipeline, a pipeline of another kind, weights that are not safetensors, a missing package.
    """
    _check_place(pipeline)
    require_peft()
    try:
        from transformers import CLIPTextModel, CLIPTokenizer
    except ModuleNotFoundError as error:
        raise UserError(f"a pipeline needs the extra `lora` ({error}): pip install 'scoregen[lora]'.") from error
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel

    weights: dict[str, Any] = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}
    plain: dict[str, Any] = {"tokenizer": CLIPTokenizer, "scheduler": DDPMScheduler}
    read = {}
    for name, kind in (weights | plain).items():
        options = {"use_safetensors": True} if name in weights else {}
        try:
            read[name] = kind.from_pretrained(pipeline, subfolder=name, revision=revision, **options)
        except (OSError, ValueError, TypeError, KeyError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"model.pipeline: the {name} ({kind.__name__}) of '{pipeline}' cannot be read: {reason} Give a folder "
                "that save_pretrained(..., safe_serialization=True) wrote, or a hub id with safetensors."
            ) from error
    parts = Parts(**read)
    _check_kind(pipeline, parts)
    _check_schedule(pipeline, revision)
    return parts


def _check_schedule(pipeline: str, revision: str | None) -> None:
    r"""Refuses the scheduler of another process, which diffusers would read with betas of its own."""
    from diffusers import DDPMScheduler

    config = DDPMScheduler.load_config(pipeline, subfolder="scheduler", revision=revision)
    if not {"beta_start", "trained_betas"} & set(config):
        raise UserError(
            f"model.pipeline: the scheduler of '{pipeline}' is a {config.get('_class_name')}, which has no betas. Give "
            "a pipeline that was trained with a DDPM schedule."
        )


def _check_place(pipeline: str) -> None:
    r"""Refuses a path that is no pipeline, before a hub is asked for it."""
    path = Path(pipeline)
    local = path.exists() or path.is_absolute() or pipeline.startswith(".") or pipeline.count("/") > 1
    if local and not path.exists():
        raise UserError(f"model.pipeline: {absent(path)}")
    if local and not (path / "model_index.json").is_file():
        raise UserError(
            f"model.pipeline: '{path}' is not a pipeline of diffusers (no model_index.json). Give the folder that "
            "pipe.save_pretrained wrote."
        )


def _check_kind(pipeline: str, parts: Parts) -> None:
    unet, vae, text = parts.unet.config, parts.vae.config, parts.text_encoder.config
    unlike = {
        f"its U-Net also needs '{unet.addition_embed_type}' conditions (SDXL)": unet.addition_embed_type is not None,
        f"its U-Net takes {unet.in_channels} channels, its autoencoder gives {vae.latent_channels} (inpainting)": (
            unet.in_channels != vae.latent_channels
        ),
        f"its U-Net attends to {unet.cross_attention_dim} numbers a token, its text encoder gives {text.hidden_size}": (
            unet.cross_attention_dim != text.hidden_size
        ),
    }
    for reason, found in unlike.items():
        if found:
            raise UserError(f"model.pipeline: '{pipeline}' is not of the Stable Diffusion 1 or 2 type: {reason}.")
