r"""A text-to-image pipeline of the Stable Diffusion type as a denoiser of the latents of its autoencoder.

    z = (E(2x - 1) - shift) scale,   x = (G(z/scale + shift) + 1)/2,   u = z + s eps,   D(u, s, prompt)

Everything that samples, encodes or interpolates works on the latents z, whose chart is the identity. A label is the
number of a prompt in a list; -1 (and no label) is the empty prompt. The parts are read with their classes of diffusers
and transformers, from safetensors, and nothing that came with them is run.

Reference: Rombach et al. (2022), arXiv 2112.10752.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from scoregen.models.adapter import prediction_of
from scoregen.models.autoencoder import HasLatents, image_shape_of
from scoregen.models.denoiser import Denoiser
from scoregen.models.latent_denoiser import in_latents
from scoregen.models.lora import ATTENTION, add_adapters, require_peft
from scoregen.models.pipeline import read_pipeline
from scoregen.models.wrapper import DenoiserWrapper
from scoregen.sde.discrete import DiscretePath
from scoregen.sde.path import as_time

_ADAPTER = ".lora_"  # in the names of what is trained and saved


class LatentDiffusion(HasLatents, DenoiserWrapper):
    r"""A pipeline with adapters on the attention of its U-Net, which alone are trained and saved.

    Args:
        pipeline: a folder that `save_pretrained` wrote, or the hub id of a pipeline of `UNet2DConditionModel`,
            `AutoencoderKL` and `CLIPTextModel`, with weights as safetensors.
        rank: rank of the adapters; None for the pipeline as it is.
        targets: the layers they are at; attention unless given.
        revision: revision of a hub id.

    Raises:
        UserError: no such pipeline, a pipeline of another kind, a missing package.

    Attributes:
        outside: arguments that name places outside of a checkpoint.

    Reference: Guo et al. (2024), arXiv 2312.04410, section 4 (Smooth-LoRA).
    """

    outside: ClassVar = ("pipeline",)

    def __init__(
        self,
        pipeline: str,
        rank: int | None = 8,
        targets: tuple[str, ...] = ATTENTION,
        revision: str | None = None,
    ) -> None:
        parts = read_pipeline(pipeline, revision)
        path = DiscretePath.from_scheduler(parts.scheduler)
        unet = parts.unet.requires_grad_(False)
        if rank is not None:
            add_adapters(unet, rank, targets)
        prompts = Prompts(parts.tokenizer, parts.text_encoder)
        prediction = prediction_of(parts.scheduler.config.get("prediction_type"))
        super().__init__(Denoiser(_PromptedNetwork(unet, prompts, path), path, 1.0, prediction))
        self.vae = parts.vae.requires_grad_(False)
        self.sigma_data = 1.0
        self.pipeline, self.rank, self.targets = pipeline, rank, tuple(targets)
        self.revision = revision
        self.register_state_dict_post_hook(_keep_adapters)  # type: ignore[no-untyped-call]  # torch's own
        self.register_load_state_dict_post_hook(_expect_adapters)  # type: ignore[no-untyped-call]  # torch's own
        self.eval()

    @property
    def _network(self) -> "_PromptedNetwork":
        network = getattr(self.denoiser, "network", None)
        assert isinstance(network, _PromptedNetwork)  # made in the constructor
        return network

    @property
    def unet(self) -> nn.Module:
        r"""The U-Net, with its adapters."""
        return self._network.unet

    def with_prompts(self, prompts: Sequence[str]) -> Self:
        r"""Sets the texts that labels 0, 1, ... mean; returns self."""
        self._network.prompts.set(prompts)
        return self

    def forward(self, u: Tensor, s: Tensor | float, label: Tensor | None = None) -> Tensor:
        return self.denoiser(u, s, label)

    def in_images(self) -> DenoiserWrapper:
        r"""The same denoiser with images as data: samplers give pictures, not latents."""
        return _InImages(self)

    @property
    def shape(self) -> tuple[int, ...]:
        r"""The shape (C, H, W) of its images."""
        config: Any = self.unet.config
        size = config.sample_size
        sides = (size, size) if isinstance(size, int) else tuple(size)
        return image_shape_of(self.vae.config, (0, *sides))

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.vae.eval()
        self._network.prompts.eval()
        return self

    def save_lora(self, folder: Path | str) -> Path:
        r"""Writes the adapters as pytorch_lora_weights.safetensors, which `pipe.load_lora_weights(folder)` reads.

        Raises:
            ValueError: the model has no adapters (rank=None).
        """
        if not hasattr(self.unet, "peft_config"):
            raise ValueError("there are no adapters to save. Make the model with a rank, e.g. rank=8.")
        from diffusers import StableDiffusionPipeline
        from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers

        converted: Any = convert_state_dict_to_diffusers  # diffusers leaves it without types
        unet: Any = self.unet
        layers = converted(require_peft().get_peft_model_state_dict(unet))
        StableDiffusionPipeline.save_lora_weights(
            str(folder),
            unet_lora_layers={name: tensor.detach().cpu().contiguous() for name, tensor in layers.items()},
            unet_lora_adapter_metadata=unet.peft_config["default"].to_dict(),
        )
        return Path(folder)


class _InImages(DenoiserWrapper):
    r"""A pipeline whose data are images.

    Args:
        denoiser: the pipeline.
    """

    def __init__(self, denoiser: LatentDiffusion) -> None:
        super().__init__(denoiser)
        self.sde = in_latents(denoiser.sde, denoiser)

    def forward(self, u: Tensor, s: Tensor | float, label: Tensor | None = None) -> Tensor:
        return self.denoiser(u, s, label)


class Prompts(nn.Module):
    r"""Numbers of prompts to what the U-Net attends to; the last answer is kept, since samplers ask the same again.

    Args:
        tokenizer, text_encoder: of the pipeline; frozen here.
    """

    def __init__(self, tokenizer: Any, text_encoder: nn.Module) -> None:
        super().__init__()
        self.tokenizer, self.text_encoder = tokenizer, text_encoder.requires_grad_(False)
        self.set(())

    def set(self, texts: Sequence[str]) -> None:
        r"""Sets the texts that labels mean.

        Raises:
            TypeError: anything but a sequence of texts.
        """
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise TypeError(f"prompts must be a list of texts, got {texts!r}. One prompt is ['{texts}'].")
        self.texts = tuple(texts)
        self._last: tuple[list[int], Tensor] | None = None

    @torch.no_grad()
    def forward(self, label: Tensor | None, batch: int) -> Tensor:
        r"""Labels (B,) in -1..number of prompts - 1, or None -> embeddings (B, L, C)."""
        numbers = [-1] * batch if label is None else label.tolist()
        device = next(self.text_encoder.parameters()).device
        if self._last is None or self._last[0] != numbers or self._last[1].device != device:
            used = sorted(set(numbers))
            if used[-1] >= len(self.texts) or used[0] < -1:
                raise ValueError(
                    f"label must lie in -1..{len(self.texts) - 1}, the numbers of the {len(self.texts)} prompts, got "
                    f"{numbers}. Give the texts with with_prompts([...])."
                )
            with torch.inference_mode(False), torch.no_grad():  # a later training may meet what is kept
                embedding = self._encode(["" if k < 0 else self.texts[k] for k in used], device)
                self._last = numbers, embedding[[used.index(k) for k in numbers]]
        return self._last[1]

    def _encode(self, texts: list[str], device: torch.device) -> Tensor:
        config: Any = self.text_encoder.config
        # a tokenizer that does not say its longest text says 1e30
        length = min(self.tokenizer.model_max_length, config.max_position_embeddings)
        tokens = self.tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        masked = getattr(self.text_encoder.config, "use_attention_mask", False)
        mask = tokens.attention_mask.to(device) if masked else None
        embedding: Tensor = self.text_encoder(tokens.input_ids.to(device), attention_mask=mask)[0]
        return embedding


class _PromptedNetwork(nn.Module):
    r"""(z, c_noise = log(s)/4, label) -> unet(z, k(s), prompt), for k interpolated in log s."""

    compiled_parts: ClassVar[tuple[str, ...]] = ("unet",)

    def __init__(self, unet: nn.Module, prompts: Prompts, path: DiscretePath) -> None:
        super().__init__()
        self.unet, self.prompts, self.path = unet, prompts, path

    @property
    def num_classes(self) -> int | None:
        return len(self.prompts.texts) or None

    def forward(self, z: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        index = self.path.index_of((4 * as_time(c_noise)).exp()).to(c_noise)
        output: Tensor = self.unet(z, index, encoder_hidden_states=self.prompts(label, len(z)).to(z)).sample
        return output


def _keep_adapters(module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:
    for name in [n for n in state if n.startswith(prefix) and _ADAPTER not in n]:
        del state[name]


def _expect_adapters(module: nn.Module, incompatible: Any) -> None:
    incompatible.missing_keys[:] = [name for name in incompatible.missing_keys if _ADAPTER in name]
