r"""Recomputing blocks changes no number; compiling changes rounding at most; neither changes a name."""

import copy

import pytest
import torch
from torch import nn

from scoregen.errors import UserError
from scoregen.models import MLP, Classifier, ClassifierFreeGuidance, Denoiser, UNet, ViTClassifier
from scoregen.models.compiled import Compiler, check_compiler, compiles, lay_out
from scoregen.models.recompute import recompute_blocks
from scoregen.models.regions import blocks, convolves, networks
from scoregen.rng import generator
from scoregen.sde import EDM

DRAWS = generator(0)
IMAGES, LEVELS = torch.rand(4, 1, 8, 8, generator=DRAWS), torch.rand(4, generator=DRAWS) + 0.1
MODELS = {  # model and arguments; dropout everywhere, running statistics in the classifier
    "mlp": (Denoiser(MLP((3,), 8, 2, 3, 0.3), EDM()), (torch.randn(4, 3), LEVELS, torch.arange(4) - 1)),
    "unet": (Denoiser(UNet((1, 8, 8), (4, 8), 1, (False, True), 3, 0.3), EDM()), (IMAGES, LEVELS, torch.arange(4) - 1)),
    "classifier": (Classifier((1, 8, 8), 3, (4, 8), (1, 1), dropout=0.3), (IMAGES,)),
    "vit": (ViTClassifier((1, 8, 8), 3, width=8, depth=2, heads=2, dropout=0.3), (IMAGES,)),
}
each = pytest.mark.parametrize("name", MODELS)


def model_of(name):
    model, arguments = copy.deepcopy(MODELS[name])
    with torch.no_grad():
        for parameter in model.parameters():  # some layers start at zero
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=DRAWS))
    return model, arguments


def step(model, arguments):
    r"""Loss, gradients, and the state afterwards, with one mask of dropout."""
    torch.manual_seed(1)
    model.zero_grad()
    loss = model(*arguments).square().mean()
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return loss.detach(), gradients, {name: value.clone() for name, value in model.state_dict().items()}


@each
def test_recomputing_changes_neither_loss_nor_gradient_nor_statistics(name):
    model, arguments = model_of(name)
    again = copy.deepcopy(model)
    recompute_blocks(again)
    found = [step(one, arguments) for one in (model, again, copy.deepcopy(again))]
    for loss, gradients, state in found[1:]:
        torch.testing.assert_close(loss, found[0][0], rtol=1e-6, atol=0)
        torch.testing.assert_close(gradients, found[0][1], rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(state, found[0][2], rtol=0, atol=0)


@each
def test_recomputing_keeps_less(name):
    r"""What autograd saves: of the network, or of one block of it."""

    def kept(model, arguments):
        sizes = []

        def pack(tensor):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(*arguments)
        return sum(sizes)

    model, arguments = model_of(name)
    before = kept(model, arguments)
    recompute_blocks(model)
    assert kept(model, arguments) < 0.7 * before


def test_a_copy_recomputes_itself_and_not_what_it_was_copied_from():
    model, arguments = model_of("mlp")
    recompute_blocks(model)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.network.last.bias.add_(1.0)
    assert not torch.equal(model.eval()(*arguments), other.eval()(*arguments))
    assert type(other.network).__name__ == "MLP" and isinstance(other.network, MLP)


def test_second_derivatives_pass_through_recomputed_blocks():
    model, (u, s, label) = model_of("mlp")
    again = copy.deepcopy(model)
    recompute_blocks(again)
    found = []
    for one in (model.eval(), again.eval()):
        v = u.clone().requires_grad_()
        (slope,) = torch.autograd.grad(one(v, s, label).sum(), v, create_graph=True)
        slope.square().sum().backward()
        found.append({name: p.grad for name, p in one.named_parameters() if p.grad is not None})
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["mlp", "classifier", "vit"])
def test_compiling_keeps_names_gradients_and_masks_of_dropout(name):
    r"""By dynamo and AOTAutograd; code generation by the C++ compiler takes a minute on a CPU."""
    model, arguments = model_of(name)
    fast = copy.deepcopy(model)
    Compiler("aot_eager", dynamic=False)(fast)
    (loss, gradients, state), (other, others, after) = step(model, arguments), step(fast, arguments)
    torch.testing.assert_close(loss, other, rtol=1e-5, atol=0)
    torch.testing.assert_close(gradients, others, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(state, after, rtol=1e-5, atol=1e-6)  # the same names


def test_blocks_that_are_recomputed_are_compiled_one_by_one():
    model, arguments = model_of("vit")
    fast = copy.deepcopy(model)
    Compiler("aot_eager", dynamic=False, regional=True)(fast)
    recompute_blocks(fast)
    torch.testing.assert_close(step(model, arguments)[1], step(fast, arguments)[1], rtol=1e-4, atol=1e-6)


def test_the_network_is_found_in_every_wrapper():
    denoiser = MODELS["unet"][0]
    assert networks(ClassifierFreeGuidance(denoiser, 2.0)) == [denoiser.network.net]
    own = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    assert networks(own) == [own] and blocks(own) == [own]
    kinds = [type(block).__name__ for block in blocks(denoiser.network.net)]
    assert set(kinds) == {"ResnetBlock2D", "Attention"}
    assert [type(block).__name__ for block in blocks(networks(MODELS["vit"][0])[0])] == ["TransformerEncoderLayer"] * 2


def test_channels_are_last_where_a_network_convolves_and_only_if_it_pays():
    for name, last, expected in (("unet", True, True), ("unet", None, False), ("unet", False, False)):
        model, arguments = model_of(name)
        before = model.eval()(*arguments)
        lay_out(model, last, torch.device("cpu"))
        weight = model.network.net.conv_in.weight
        assert weight.is_contiguous(memory_format=torch.channels_last) is (expected or weight.shape[1] == 1)
        torch.testing.assert_close(model(*arguments), before, rtol=1e-4, atol=1e-5)
    assert not convolves(MODELS["mlp"][0])


def test_a_cpu_does_not_compile_by_itself_and_says_what_it_needs(monkeypatch):
    assert not compiles(torch.device("cpu"))
    monkeypatch.setattr("scoregen.models.compiled.shutil.which", lambda name: None)
    with pytest.raises(UserError, match=r"trainer.compile: true needs a C\+\+ compiler on a CPU, .* Install g\+\+"):
        check_compiler(torch.device("cpu"), "trainer.compile")
    with pytest.raises(UserError, match=r"compile: true needs Triton on a device of type meta"):
        check_compiler(torch.device("meta"), "compile")
