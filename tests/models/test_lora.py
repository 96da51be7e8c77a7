r"""Adapters: no change at the start, low rank, nothing else trained, folded in exactly."""

import sys

import pytest
import torch

from scoregen.models import MLP, Denoiser, LoRA, UNet, merge_adapters
from scoregen.models.lora import ATTENTION
from scoregen.sde import EDM


def unet():
    torch.manual_seed(0)
    network = UNet((1, 4, 4), (4, 8), layers=1, attention=(False, True))
    torch.nn.init.normal_(network.net.conv_out.weight)
    return network.double()


def shake(model, scale=1.0):
    r"""Adapters as training leaves them: B is no longer 0."""
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=scale)
    return model


U, C = torch.randn(2, 1, 4, 4, dtype=torch.float64), torch.tensor([0.1, -0.4], dtype=torch.float64)


def test_new_adapters_change_nothing():
    before = unet()(U, C)
    torch.testing.assert_close(LoRA(unet(), 2).double()(U, C), before, rtol=0, atol=1e-12)


def test_only_adapters_of_every_attention_layer_are_trained():
    model = LoRA(unet(), 2)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    layers = [n for n, m in unet().named_modules() if isinstance(m, torch.nn.Linear) and n.endswith(ATTENTION)]
    assert len(layers) >= 8
    assert sorted(trained) == sorted(f"network.{n}.lora_{ab}.default.weight" for n in layers for ab in "AB")


def test_the_change_of_a_weight_is_the_product_of_the_adapters_of_scale_one():
    plain, adapted = unet(), shake(LoRA(unet(), 2).double())
    pieces = dict(adapted.named_parameters())
    changed = dict(merge_adapters(adapted).named_parameters())
    for name, weight in plain.named_parameters():
        root = f"network.{name.removesuffix('.weight')}"
        a, b = (pieces.get(f"{root}.lora_{ab}.default.weight") for ab in "AB")
        change = torch.zeros_like(weight) if a is None else b @ a
        torch.testing.assert_close(changed[name] - weight, change, rtol=0, atol=1e-12)
        assert a is None or torch.linalg.matrix_rank(change) == 2


def test_merged_adapters_compute_the_same_with_plain_weights():
    denoiser = Denoiser(shake(LoRA(unet(), 2).double()), EDM())
    before = denoiser(U, 0.7)
    assert (before - Denoiser(unet(), EDM())(U, 0.7)).abs().max() > 0.01
    merged = merge_adapters(denoiser)
    torch.testing.assert_close(merged(U, 0.7), before, rtol=0, atol=1e-12)
    assert merged.state_dict().keys() == Denoiser(unet(), EDM()).state_dict().keys()
    assert merge_adapters(merged) is merged


def test_the_labels_of_the_network_are_kept():
    assert LoRA(UNet((1, 4, 4), (4, 8), 1, (False, True), num_classes=3), 2).num_classes == 3


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (lambda: UNet((1, 4, 4), (4, 8), 1), {}, r"UNet has no attention .*model.network.attention.* of conv, conv1"),
        (lambda: MLP((2,), 4, 1), {}, "MLP has no attention .* of first, into.0"),
        (unet, {"targets": ("conv9",)}, "no layer 'conv9'. Its layers are .*conv1"),
        (unet, {"targets": ()}, "no layer"),
        (unet, {"rank": 0}, "rank must be a whole number >= 1, got rank=0"),
    ],
    ids=["no attention", "mlp", "unknown", "none", "rank"],
)
def test_what_cannot_be_adapted_is_refused_with_a_remedy(network, options, message):
    with pytest.raises(ValueError, match=message):
        LoRA(network(), **options)


def test_other_layers_can_be_named():
    model = LoRA(MLP((2,), 4, 1), 1, targets=("into.0", "out_of.0"))
    assert sum(p.requires_grad for p in model.parameters()) == 4
    assert sum(p.requires_grad for p in LoRA(unet(), 1, targets=("conv1",)).parameters()) > 0


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ValueError, match=r"pip install 'scoregen\[lora\]'"):
        LoRA(unet(), 2)
