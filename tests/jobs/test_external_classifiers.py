r"""Classifiers of torchvision, timm and transformers, and of the user's own, certified on a folder of photographs."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny import DIGITS, command, job, train
from torch import nn

from scoregen.compat import repair_torchvision
from scoregen.errors import UserError
from scoregen.smoothing import ClassifierInput, Gaussian, Normalized, Resized, SmoothedClassifier
from scoregen.smoothing.classifiers import open_classifier, probe, read_classifier
from scoregen.smoothing.logits import logits_of

repair_torchvision()
TIMM, TORCHVISION = "test_resnet", "squeezenet1_1"
FEW = ["n=8", "n0=2", "method=fixed", "alpha=.1", "noise.sigma=0.1", "max_inputs=1", "batch_size=4"]


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


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    r"""The three kinds with random weights, on disk: SOURCE, FILE of weights or None, and the network itself."""
    import timm
    from torchvision.models import get_model
    from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessor

    folder = tmp_path_factory.mktemp("models")
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


GREY = Normalized(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), [0.5], [0.5]).eval()


@pytest.mark.parametrize(
    ("wrap", "fits"),
    [
        (lambda logits: logits, True),
        (lambda logits: (logits,), True),
        (lambda logits: (logits, torch.zeros(len(logits), 4, 2, 2)), True),
        (lambda logits: {"logits": logits, "features": logits}, True),
        (lambda logits: {"out": logits}, True),
        (lambda logits: SimpleNamespace(logits=logits, loss=None), True),
        (lambda logits: (logits, logits), r"got tuple of a tensor \(\d+, 10\), a tensor \(\d+, 10\)"),
        (lambda logits: {"a": logits[0]}, r"got dict of 'a' a tensor \(10,\)"),
        (lambda logits: [], "got list of nothing"),
        (lambda logits: None, "got NoneType"),
        (lambda logits: logits[:, :, None], r"got a tensor \(\d+, 10, 1\)"),
    ],
    ids=["tensor", "tuple", "with-features", "named", "only", "object", "two", "vector", "empty", "none", "3d"],
)
def test_logits_are_found_where_classifiers_put_them(wrap, fits):
    x = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def classify(g):
        return g.certify(x, n=20, n0=5, method="fixed", generator=torch.Generator().manual_seed(0))

    g = SmoothedClassifier(lambda image: wrap(GREY(image)), Gaussian(0.1), 10)
    if fits is True:
        plain = SmoothedClassifier(GREY, Gaussian(0.1), 10)
        assert torch.equal(torch.as_tensor(classify(g)[0].counts), torch.as_tensor(classify(plain)[0].counts))
        assert probe(g.classifier, x[0]) == 10
        return
    with pytest.raises(ValueError, match=f"must return logits .*{fits}"):
        classify(g)
    with pytest.raises(UserError, match=f"classifier: must return logits .*{fits}"):
        probe(g.classifier, x[0])


def test_nan_is_named():
    x = torch.rand(1, 8, 8)
    with pytest.raises(UserError, match="its logits hold NaN for the first input"):
        probe(lambda image: GREY(image) / 0 * 0, x)
    with pytest.raises(ValueError, match="finite numbers, got NaN"):
        SmoothedClassifier(lambda image: GREY(image) / 0 * 0, Gaussian(0.1), 10).certify(x[None], n=10, method="fixed")


def test_resizing_and_normalising_are_exact_where_they_can_be():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    seen = []
    Resized(Normalized(seen.append, [2.0], [4.0]), size=2)(x)
    torch.testing.assert_close(seen[0], (nn.functional.interpolate(x, 2, mode="bilinear", antialias=True) - 2) / 4)
    Resized(seen.append, size=4, resize=9)(x)  # it has the size
    assert seen[1] is x
    Resized(seen.append, size=2, resize=4)(x)
    assert torch.equal(seen[2], x[:, :, 1:3, 1:3])
    Resized(seen.append, size=(2, 3), resize=2)(torch.rand(1, 1, 4, 8))
    assert seen[3].shape[2:] == (2, 3)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Normalized(GREY, [0.5], [0.5, 0.5]), "a number for each channel"),
        (lambda: Normalized(GREY, [0.5], [0.0]), "std > 0"),
        (lambda: Normalized(GREY, [0.5] * 3, [0.5] * 3)(torch.rand(1, 1, 8, 8)), r"of 3 channels, got .* \(1, 8, 8\)"),
        (lambda: Resized(GREY, 8, resize=4), "resize must be at least size"),
        (lambda: Resized(GREY, 0), "size must be a whole number"),
        (lambda: ClassifierInput(mean=[0.5]), "mean and std belong together"),
        (lambda: ClassifierInput(resize=8), "resize needs size"),
    ],
)
def test_mistakes_in_them_are_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def gray():
    return GREY


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gray", sys.modules[__name__])

    def certify(*overrides, **nodes):
        return job("certify", "data=digits", *FEW, *overrides, **nodes).run(tmp_path / "certified")

    return certify


MISTAKES = {
    "channels": (
        ["classifier_input.mean=[0,0,0]", "classifier_input.std=[1,1,1]"],
        "takes images of 3 channels, digits",
    ),
    "no-source": (["classifier=null", "checkpoint=a", "classifier_weights=b"], "classifier_weights: needs classifier="),
    "half": (["classifier_input.mean=[0.5]"], "classifier_input: mean and std belong together"),
    "weights": (["classifier_weights=nowhere.pt"], "classifier_weights: 'nowhere.pt' does not exist"),
    "size": (["classifier_input.size=[8]"], "classifier_input"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_of_a_job_are_one_message(run, case):
    argv, text = MISTAKES[case]
    with pytest.raises(UserError, match=text):
        run("classifier=gray:gray", *argv)


def test_a_library_that_takes_other_units_or_channels_is_named(models, run, tmp_path):
    source, weights, _ = models["timm"]
    with pytest.raises(UserError, match=f"classifier: '{source}' takes images of 3 channels, digits has 1"):
        run(f"classifier={source}", f"classifier_weights={weights}")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    r"""A denoiser of digits of 8 pixels, and a source of 16 pixels."""
    return train(tmp_path_factory.mktemp("small") / "run", *DIGITS, "trainer.steps=1")


def enlarged(folder, side=16, channels=1):
    x = np.random.default_rng(0).integers(0, 256, (12, channels, side, side), dtype=np.uint8)
    label = np.arange(12) % 10
    np.savez(folder / "a.npz", train_images=x, train_labels=label, test_images=x, test_labels=label)
    return {"_target_": "scoregen.data.Npz", "path": str(folder / "a.npz")}


def pooled():
    return nn.Sequential(nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Linear(64, 10)).eval()


def test_a_denoiser_of_smaller_images_sees_means_where_that_is_stated(small, run, tmp_path):
    purify, source = ["classifier=gray:pooled", f"purify.checkpoint={small}"], enlarged(tmp_path)
    with pytest.raises(
        UserError, match=r"purify.size: the denoiser of '.*' takes images \(1, 8, 8\), a has \(1, 16, 16"
    ):
        run(*purify, data=source)
    for wrong in (4, 16):
        with pytest.raises(
            UserError, match=rf"got purify.size={wrong}. Give data of its size \(data.size=8\), or purify"
        ):
            run(*purify, f"purify.size={wrong}", data=source)
    assert (run(*purify, "purify.size=8", data=source) / "certificates.jsonl").is_file()
    for side, channels in ((12, 1), (8, 3)):
        with pytest.raises(UserError, match=r"purify.(size|checkpoint): the denoiser of"):
            run(*purify, "purify.size=8", data=enlarged(tmp_path, side, channels))
    with pytest.raises(UserError, match=r"purify.size: needs purify.checkpoint"):
        run("classifier=gray:pooled", "purify.size=8", data=source)
