r"""Classifiers of other libraries with random weights, and a certificate of little work."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from scoregen.compat import repair_torchvision

TIMM, TORCHVISION = "test_resnet", "squeezenet1_1"
FEW = ["n=8", "n0=2", "method=fixed", "alpha=.1", "noise.sigma=0.1", "max_inputs=1", "batch_size=4"]


def random_classifiers(folder: Path) -> dict[str, tuple[str, str | None, nn.Module]]:
    r"""The three kinds with random weights, on disk: SOURCE, FILE of weights or None, and the network itself."""
    repair_torchvision()
    import timm
    from torchvision.models import get_model
    from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    made = {
        "torchvision": get_model(TORCHVISION, weights=None, num_classes=4),
        "timm": timm.create_model(TIMM, pretrained=False, num_classes=4),
    }
    for name, network in made.items():
        save_file(network.state_dict(), folder / f"{name}.safetensors")
    config = ResNetConfig(embedding_size=4, hidden_sizes=[4, 4], depths=[1, 1], layer_type="basic", num_labels=4)
    made["hf"] = ResNetForImageClassification(config)
    made["hf"].save_pretrained(folder / "hf")
    processor = ViTImageProcessor(size={"height": 64, "width": 64}, image_mean=[0.5] * 3, image_std=[0.25] * 3)
    processor.save_pretrained(folder / "hf")
    return {
        "torchvision": (f"torchvision:{TORCHVISION}", str(folder / "torchvision.safetensors"), made["torchvision"]),
        "timm": (f"timm:{TIMM}", str(folder / "timm.safetensors"), made["timm"]),
        "hf": (f"hf:{folder / 'hf'}", None, made["hf"]),
    }
