r"""The recipes of docs/certification.md for denoiser and classifier that were not trained here, on tiny random models.

Each model is written by its own library, and read by the command from disk alone.
"""

import json

import numpy as np
import pytest
import torch
from laws.test_sources import images
from PIL import Image
from pipelines import save_unet
from safetensors.torch import save_file
from tiny import command

import scoregen
from scoregen.compat import repair_torchvision
from scoregen.samplers import Heun
from scoregen.smoothing import PurifiedClassifier
from scoregen.smoothing.classifiers import read_classifier

repair_torchvision()
FEW = ["n=8", "n0=4", "method=fixed", "alpha=.1", "max_inputs=1", "precision=bf16", "batch_size=4"]
ADM = {  # the blocks of guided-diffusion, with a learned variance
    "in_channels": 3,
    "out_channels": 6,
    "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "downsample_type": "resnet",
    "upsample_type": "resnet",
    "resnet_time_scale_shift": "scale_shift",
}


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("socket.getaddrinfo", lambda *a, **k: pytest.fail("a name was looked up"))


def vit(folder):
    r"""An image classifier of transformers with its processor, which wants 16 x 16 pixels."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = transformers.ViTConfig(image_size=16, patch_size=8, num_labels=10, **sizes)
    network = transformers.ViTForImageClassification(config).eval()
    network.save_pretrained(folder)
    processor = transformers.ViTImageProcessor(
        size={"height": 16, "width": 16}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    processor.save_pretrained(folder)
    return network, processor


def draws(out):
    r"""The draws of each certificate."""
    _, *records = [json.loads(line) for line in (out / "certificates.jsonl").read_text().splitlines()]
    return [sum(record["counts"]) for record in records]


def test_cifar10_by_a_pipeline_of_diffusers_and_a_classifier_of_transformers(tmp_path, capsys):
    diffusers = pytest.importorskip("diffusers")
    vit(tmp_path / "vit")
    save_unet(tmp_path / "ddpm", diffusers.DDPMScheduler(), in_channels=3, out_channels=3)
    np.savez(tmp_path / "cifar10_subset.npz", **images((8, 8, 3)))
    argv = [f"classifier=hf:{tmp_path / 'vit'}", f"purify.checkpoint={tmp_path / 'ddpm'}"]
    argv += ["data=cifar10", f"data.root={tmp_path}", "noise.sigma=0.5", *FEW, f"out={tmp_path / 'out'}"]
    assert command("certify", *argv) == 0, capsys.readouterr().err
    assert draws(tmp_path / "out") == [8]
    assert (tmp_path / "out/table.md").exists()


def test_imagenet_by_a_network_of_diffusers_and_weights_of_timm(tmp_path, capsys):
    r"""The network alone, without a pipeline: a folder with its scheduler."""
    timm, diffusers = pytest.importorskip("timm"), pytest.importorskip("diffusers")
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", pretrained=False, num_classes=4)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    save_unet(tmp_path / "adm", diffusers.DDIMScheduler(), **ADM)
    (tmp_path / "adm/scheduler/scheduler_config.json").rename(tmp_path / "adm/unet/scheduler_config.json")
    draw = np.random.default_rng(0)
    for k in range(8):
        path = tmp_path / "val" / f"n0000{k % 4}" / f"{k}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (12, 14, 3), dtype=np.uint8)).save(path)
    argv = ["classifier=timm:test_resnet", f"classifier_weights={tmp_path / 'weights.safetensors'}"]
    argv += [f"purify.checkpoint={tmp_path / 'adm/unet'}", "data=folder", f"data.path={tmp_path / 'val'}"]
    argv += ["data.test=all", "data.size=8", "noise.sigma=0.25", *FEW, f"out={tmp_path / 'out'}"]
    assert command("certify", *argv) == 0, capsys.readouterr().err
    assert draws(tmp_path / "out") == [8]


def test_a_noisy_image_is_denoised_and_prepared_as_by_the_libraries_themselves(tmp_path):
    r"""Stock U-Net and scheduler at the level whose noise is sigma, stock processor, stock classifier."""
    diffusers = pytest.importorskip("diffusers")
    network, processor = vit(tmp_path / "vit")
    scheduler = diffusers.DDPMScheduler(clip_sample=False)
    save_unet(tmp_path / "ddpm", scheduler, in_channels=3, out_channels=3)
    level = 300
    kept = scheduler.alphas_cumprod[level].double()
    sigma = float(((1 - kept) / kept).sqrt() / 2)  # of images in [0, 1], which the network sees in [-1, 1]
    f = PurifiedClassifier(read_classifier(f"hf:{tmp_path / 'vit'}"), scoregen.load(tmp_path / "ddpm"), Heun(1), sigma)
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    noisy = x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        unet = diffusers.UNet2DModel.from_pretrained(tmp_path / "ddpm/unet").eval()
        state = kept.sqrt().float() * (2 * noisy - 1)
        clean = scheduler.step(unet(state, level).sample, level, state).pred_original_sample
        seen = torch.nn.functional.interpolate((clean + 1) / 2, size=(16, 16), mode="bilinear", antialias=True)
        expected = network((seen - 0.5) / 0.5).logits
        torch.testing.assert_close(f.eval()(noisy), expected, atol=2e-5, rtol=1e-4)
    assert (processor.size["height"], processor.resample) == (16, 2)
