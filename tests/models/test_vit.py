r"""The vision transformer: what each noise level sees, and one network for all stages."""

import math

import pytest
import torch

from scoregen.models import ViT, ViTClassifier
from scoregen.models.projector import GlobalBatchNorm
from scoregen.models.vit import time_embedding


def small(**arguments) -> ViTClassifier:
    torch.manual_seed(0)
    given = {"patch_size": 3, "width": 16, "depth": 2, "heads": 2, "hidden": 8, "projection": 8} | arguments
    return ViTClassifier((1, 8, 7), 10, **given).double()


def images(n=6):
    return torch.rand(n, 1, 8, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_time_of_the_classifier_is_twice_sigma_exactly():
    r"""x + sigma eps on [0, 1] is y + 2 sigma eps on [-1, 1]: the clean y and the noise enter by one map."""
    model, x = small(noise_sigma=0.3), images()
    eps = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = model.head(model.represent((2 * x - 1) + 0.6 * eps, 0.6))
    torch.testing.assert_close(model(x + 0.3 * eps), expected, rtol=1e-12, atol=1e-12)


def test_patches_see_inputs_scaled_by_c_in_and_padded_with_grey():
    model, seen = small(), []
    model.encoder.patches.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    u = images()
    model.represent(u, torch.linspace(0.1, 5, 6, dtype=torch.float64))
    c_in = [1 / math.sqrt(t * t + 0.25) for t in torch.linspace(0.1, 5, 6, dtype=torch.float64).tolist()]
    torch.testing.assert_close(seen[0][:, :, :8, :7], u * torch.tensor(c_in).double().reshape(6, 1, 1, 1))
    assert seen[0].shape == (6, 1, 9, 9)
    assert float(seen[0][:, :, 8:].abs().sum() + seen[0][:, :, :, 7:].abs().sum()) == 0


def test_times_are_told_apart_on_the_logarithmic_scale():
    r"""Pair i of the embedding turns by 250 f_i ln 2 when t doubles, f_i = 1e-4^(i/half)."""
    half = 4
    one, two = (time_embedding(torch.tensor([t], dtype=torch.float64), 2 * half)[0] for t in (0.7, 1.4))
    for i in range(half):
        turn = 250 * math.log(2) * 1e-4 ** (i / half)
        found = torch.complex(two[i], two[half + i]) / torch.complex(one[i], one[half + i])
        assert found.real.item() == pytest.approx(math.cos(turn), abs=1e-9)
        assert found.imag.item() == pytest.approx(math.sin(turn), abs=1e-9)


def test_a_sample_does_not_depend_on_its_batch():
    model, x = small().eval(), images()
    t = torch.tensor([0.1, 1.0, 10.0, 80.0, 0.002, 3.0], dtype=torch.float64)
    whole = model.represent(x, t)
    for i in range(6):
        torch.testing.assert_close(model.represent(x[i : i + 1], t[i].item())[0], whole[i], rtol=1e-10, atol=1e-10)


def test_every_patch_reaches_the_class_token():
    model, x = small(), images(1).requires_grad_()
    model(x)[0, 0].backward()
    assert int((x.grad != 0).sum()) == x.numel()


def test_an_untrained_network_sees_where_a_patch_is():
    r"""The class token moves when two patches change places, by more than a twentieth of what it moves between images.

    With positions much smaller than the tokens it moved by a thousandth, and a short training never learned them.
    """
    model, x = small(), images(64)
    swapped = x.clone()
    swapped[:, :, :3, :3], swapped[:, :, 3:6, 3:6] = x[:, :, 3:6, 3:6], x[:, :, :3, :3]
    with torch.no_grad():
        token, moved = (model.represent(model.to_chart(v), 0.002) for v in (x, swapped))
    spread = (token - token.mean(0)).square().mean().sqrt()
    assert (moved - token).square().mean().sqrt() > 0.05 * spread


@pytest.mark.parametrize("trainable", [["encoder", "projector"], ["head"], ["encoder", "head"]], ids=str)
def test_only_the_parts_of_a_stage_learn_and_all_stages_share_their_weights(trainable):
    model = small(trainable=trainable)
    learning = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert learning == set(trainable)
    small().load_state_dict(model.state_dict())


def test_the_layers_hold_every_parameter_once_from_the_input_to_the_head():
    model = small()
    layers = model.layers()
    assert len(layers) == 4
    assert sorted(id(p) for layer in layers for p in layer) == sorted(map(id, model.parameters()))
    assert any(p is model.encoder.positions for p in layers[0])
    assert any(p is model.head.weight for p in layers[-1])


def test_batch_norm_is_torchs_in_one_process():
    torch.manual_seed(0)
    own, torchs = GlobalBatchNorm(5).double(), torch.nn.BatchNorm1d(5).double()
    for batch in (4, 9):
        x = torch.randn(batch, 5, dtype=torch.float64)
        torch.testing.assert_close(own(x), torchs(x))
    for (name, value), expected in zip(own.state_dict().items(), torchs.state_dict().values(), strict=True):
        torch.testing.assert_close(value, expected, msg=name)
    torch.testing.assert_close(own.eval()(x), torchs.eval()(x))


BAD = {
    "shape": ({"shape": (8, 7)}, "shape must be that of one image"),
    "patch": ({"patch_size": 8}, r"patch_size must lie in \[1, 7\], got patch_size=8"),
    "width": ({"width": 15}, "width must be an even multiple of heads, got width=15, heads=4"),
    "depth": ({"depth": 0}, "depth must be a whole number >= 1, got depth=0"),
    "dropout": ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got dropout=1.0"),
    "classes": ({"num_classes": 1}, "num_classes must be a whole number >= 2, got num_classes=1"),
    "sigma": ({"noise_sigma": 0.0}, "noise_sigma must be > 0 and finite, got noise_sigma=0.0"),
    "parts": ({"trainable": ("body",)}, r"trainable must name some of encoder, projector, head, got \['body'\]"),
    "hidden": ({"hidden": 0}, "hidden must be a whole number >= 1, got hidden=0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_refused(case):
    arguments, text = BAD[case]
    with pytest.raises(ValueError, match=text):
        ViTClassifier(**{"shape": (1, 8, 7), "num_classes": 10} | arguments)


def test_images_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"images must have shape \(B, 1, 8, 8\), got \(2, 3, 8, 8\)"):
        ViT((1, 8, 8))(torch.zeros(2, 3, 8, 8), 1.0)


@pytest.mark.parametrize("t", [0.0, -1.0, math.inf, math.nan])
def test_times_out_of_range_are_refused(t):
    with pytest.raises(ValueError, match="t must be positive and finite"):
        ViT((1, 8, 8))(torch.zeros(2, 1, 8, 8), t)


@pytest.mark.parametrize("training", [True, False])
def test_a_network_in_bfloat16_projects(training):
    model = small().to(torch.bfloat16).train(training)
    assert model.projector(torch.randn(4, model.encoder.width, dtype=torch.bfloat16)).dtype == torch.bfloat16
