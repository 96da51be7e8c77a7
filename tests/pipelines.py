r"""A text-to-image pipeline of a few thousand parameters, written as `save_pretrained` writes real ones."""

import json
from pathlib import Path

import torch
from PIL import Image

TOKENS = ["<|startoftext|>", "<|endoftext|>", *"abcdefghijklmnopqrstuvwxyz", *(f"{c}</w>" for c in "abcdefghijklmnop")]


def make_pipeline(folder: Path, prediction_type: str = "epsilon", seed: int = 0) -> Path:
    r"""Random weights; the autoencoder halves the sides, the tokenizer knows letters."""
    from scoregen.compat import repair_torchvision

    repair_torchvision()
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=4,
        in_channels=4,
        out_channels=4,
        block_out_channels=(4, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        cross_attention_dim=8,
        norm_num_groups=2,
    )
    vae = AutoencoderKL(
        block_out_channels=(4, 4),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=8,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction_type,
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=False,
    )
    parts = {"vae": vae, "text_encoder": _text_encoder(), "tokenizer": _tokenizer(folder / "letters"), "unet": unet}
    none = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipe = StableDiffusionPipeline(**parts, scheduler=scheduler, **none)
    pipe.save_pretrained(folder / "pipeline")
    return folder / "pipeline"


def _text_encoder():
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=len(TOKENS),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
        bos_token_id=0,
        eos_token_id=1,
    )
    return CLIPTextModel(config)


def _tokenizer(folder: Path):
    from transformers import CLIPTokenizer

    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(TOKENS)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=8)


def photos(folder: Path, captions=("a cab", "a face", "a cab", "dad", "bee", "egg"), side: int = 8) -> Path:
    r"""Random pictures with metadata.jsonl."""
    folder.mkdir(parents=True)
    g = torch.Generator().manual_seed(0)
    lines = []
    for i, text in enumerate(captions):
        pixels = torch.randint(256, (side, side, 3), generator=g, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "text": text}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder


UNET = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (4, 8),
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "attention_head_dim": 4,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}


def make_unet(seed: int = 0, **options):
    r"""A U-Net of pixels with random weights, by stock diffusers."""
    from diffusers import UNet2DModel

    torch.manual_seed(seed)
    return UNet2DModel(**UNET | options).eval()


def save_unet(folder: Path, scheduler, pipeline=None, **options) -> Path:
    r"""A pipeline of a U-Net of pixels and a scheduler, as `save_pretrained` writes it."""
    from diffusers import DDPMPipeline

    (pipeline or DDPMPipeline)(make_unet(**options), scheduler).save_pretrained(folder)
    return folder


def save_dit(folder: Path, scheduler, seed: int = 0) -> Path:
    r"""A class-conditional transformer of latents with a learned variance, and an autoencoder that halves sides."""
    from diffusers import AutoencoderKL, DiTPipeline, DiTTransformer2DModel

    torch.manual_seed(seed)
    transformer = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=4,
        in_channels=2,
        out_channels=4,
        num_layers=2,
        sample_size=4,
        num_embeds_ada_norm=1000,
    )
    vae = AutoencoderKL(
        in_channels=1,
        out_channels=1,
        block_out_channels=(4, 4),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=2,
        norm_num_groups=2,
        sample_size=8,
        scaling_factor=0.5,
    )
    DiTPipeline(transformer, vae, scheduler).save_pretrained(folder)
    return folder
