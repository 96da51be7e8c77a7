r"""Classifiers of torchvision, timm and transformers, certified on a folder of photographs."""

import json
import sys

import numpy as np
import pytest
import torch
from classifier_parts import FEW, TIMM, TORCHVISION
from PIL import Image
from safetensors.torch import save_file
from tiny import command

from scoregen.compat import repair_torchvision
from scoregen.errors import UserError
from scoregen.smoothing import ClassifierInput
from scoregen.smoothing.classifiers import open_classifier, read_classifier
from scoregen.smoothing.logits import logits_of

repair_torchvision()


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("socket.getaddrinfo", lambda *a, **k: pytest.fail("a name was looked up"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    r"""24 JPEGs of 224 x 224 in four classes."""
    folder, draw = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for k in range(24):
        path = folder / f"class{k % 4}" / f"{k}.jpg"
        path.parent.mkdir(exist_ok=True)
        noise = draw.integers(0, 256, (7, 7, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((224, 224)).save(path)
    return folder


KINDS = ["torchvision", "timm", "hf"]


@pytest.mark.parametrize("kind", KINDS)
def test_photographs_are_certified_end_to_end(photos, models, tmp_path, capsys, kind):
    source, weights, _ = models[kind]
    own = [] if weights is None else [f"classifier_weights={weights}"]
    argv = [f"classifier={source}", *own, "data=folder", f"data.path={photos}", *FEW, f"out={tmp_path / 'out'}"]
    assert command("certify", *argv) == 0, capsys.readouterr().err
    assert f"classifier: {source}; size " in capsys.readouterr().out
    (record,) = (tmp_path / "out/certificates.jsonl").read_text().splitlines()[1:]
    assert sum(json.loads(record)["counts"]) == 8


SAID = {  # by the libraries' own transforms of an image that has the size already
    "torchvision": (224, 256, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "timm": (160, 168, [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
    "hf": ([64, 64], None, [0.5] * 3, [0.25] * 3),
}


@pytest.mark.parametrize("kind", KINDS)
def test_size_and_normalisation_are_those_of_the_library(models, kind):
    r"""And the answer is that of the network to what its library's own transform makes of the image."""
    source, weights, network = models[kind]
    _, wants = open_classifier(source, weights=weights)
    size, _, mean, std = SAID[kind]
    assert (wants.mean, wants.std) == (pytest.approx(mean), pytest.approx(std))
    x = torch.rand(2, 3, *((wants.size,) * 2 if isinstance(wants.size, int) else wants.size))
    assert list(x.shape[2:]) == (size if isinstance(size, list) else [size] * 2)
    found = logits_of(read_classifier(source, weights=weights)(x))
    normal = (x - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(found, logits_of(network.eval()(normal)))


@pytest.mark.parametrize("kind", ["torchvision", "timm"])
def test_an_image_of_another_size_is_prepared_as_by_the_library(models, kind):
    r"""The oracle is the transform of the library, on the tensor."""
    source, weights, _ = models[kind]
    _, wants = open_classifier(source, weights=weights)
    x = torch.rand(1, 3, 300, 400)
    seen = []
    wants.around(lambda image: seen.append(image))(x)
    if kind == "torchvision":
        from torchvision.models import get_model_weights

        expected = get_model_weights(TORCHVISION).DEFAULT.transforms()(x)
    else:
        import timm

        made = timm.data.create_transform(**timm.data.resolve_data_config(model=timm.create_model(TIMM)))
        parts = [part for part in made.transforms if type(part).__name__ != "MaybeToTensor"]
        expected = x
        for part in parts:
            expected = part(expected)
    torch.testing.assert_close(seen[0], expected, atol=1e-4, rtol=1e-4)


def test_wishes_of_the_user_replace_those_of_the_library(models, photos, tmp_path):
    source, weights, _ = models["torchvision"]
    given = ClassifierInput(size=64, mean=[0.0] * 3, std=[1.0] * 3)
    _, wants = open_classifier(source, weights=weights, given=given)
    assert (wants.size, wants.resize, wants.mean) == (64, None, [0.0] * 3)


def weighted(models, path, change):
    state = dict(models["timm"][2].state_dict())
    change(state)
    torch.save(state, path) if path.suffix == ".pt" else save_file(state, path)
    return str(path)


def test_weights_of_other_programs_are_read(models, tmp_path):
    r"""A .pt of tensors; one inside "state_dict", with the prefix of a model on several devices."""
    network = models["timm"][2]
    torch.save(network.state_dict(), tmp_path / "a.pt")
    spread = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": spread}, tmp_path / "b.pt")
    for name in ("a.pt", "b.pt"):
        read, _ = open_classifier(f"timm:{TIMM}", weights=str(tmp_path / name))
        assert all(torch.equal(value, network.state_dict()[key]) for key, value in read.state_dict().items())


class Evil:
    def __reduce__(self):
        return pytest.fail, ("a pickle was run",)


def test_weights_that_do_not_fit_are_one_message(models, tmp_path):
    torch.save({"a": Evil()}, tmp_path / "evil.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "torn.safetensors").write_bytes(b"\x01")
    cases = {
        "evil.pt": "cannot be read as tensors alone",
        "list.pt": "must hold a state dict, got list",
        "torn.safetensors": "cannot be read",
        "none.safetensors": "does not exist",
        "less.safetensors": r"does not fit timm:test_resnet: the file lacks 'fc.bias'",
        "more.safetensors": r"does not fit timm:test_resnet: the model lacks 'zzz'",
        "other.safetensors": r"'conv1.*' is \(.*\) in the file and \(.*\) in the model",
    }
    weighted(models, tmp_path / "less.safetensors", lambda state: state.pop("fc.bias"))
    weighted(models, tmp_path / "more.safetensors", lambda state: state.update(zzz=torch.zeros(1)))
    first = next(iter(models["timm"][2].state_dict()))
    weighted(models, tmp_path / "other.safetensors", lambda state: state.update({first: torch.zeros(2, 2, 2, 2)}))
    for name, text in cases.items():
        with pytest.raises(UserError, match=text) as caught:
            read_classifier(f"timm:{TIMM}", weights=str(tmp_path / name))
        assert "\n" not in str(caught.value)


def test_sources_that_cannot_be_read_are_one_message(models, tmp_path, monkeypatch):
    cases = {
        "torchvision:resnet19": r"torchvision has no classifier 'resnet19'. Did you mean 'resnet1",
        "torchvision:fasterrcnn_resnet50_fpn": "torchvision has no classifier",
        "torchvision:resnet18": r"classifier_weights: torchvision:resnet18 has none of its own. .*=pretrained, which",
        "timm:resnet10tt": r"timm has no model 'resnet10tt'. Did you mean",
        "timm:hf-hub:owner/name": "timm has no model 'hf-hub:owner/name'",
        "timm:resnet10t": "classifier_weights: timm:resnet10t has none of its own",
        "hf:nowhere": "hf:nowhere must be a folder, or an id of the hub",
        f"hf:{tmp_path}": "cannot be read as an image classifier",
    }
    for source, text in cases.items():
        with pytest.raises(UserError, match=text) as caught:
            read_classifier(source)
        assert "\n" not in str(caught.value)
    for library, source in (("timm", f"timm:{TIMM}"), ("transformers", models["hf"][0])):
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(UserError, match=rf"needs {library} .*pip install 'scoregen\[classifiers\]'"):
            read_classifier(source)


def test_a_model_without_a_head_of_its_own_is_refused(tmp_path):
    r"""transformers would give it a random one and go on."""
    from transformers import ResNetConfig, ResNetModel, ViTImageProcessor

    ResNetModel(ResNetConfig(embedding_size=4, hidden_sizes=[4], depths=[1], layer_type="basic")).save_pretrained(
        tmp_path
    )
    with pytest.raises(UserError, match=r"has no weights for classifier\.\S+ and \d more: it is no classifier yet"):
        read_classifier(f"hf:{tmp_path}")
    assert ViTImageProcessor is not None


def test_a_folder_without_a_processor_needs_the_normalisation(models, tmp_path):
    models["hf"][2].save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"classifier_input.mean: .* \(no preprocessor_config.json\)"):
        open_classifier(f"hf:{tmp_path}")
    given = ClassifierInput(mean=[0.5] * 3, std=[0.5] * 3)
    assert open_classifier(f"hf:{tmp_path}", given=given)[1] == given
