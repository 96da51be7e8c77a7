r"""Jobs and their data: which images they use, names of classes, units, and what a moved or changed folder means."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import COMMON, command, job, train
from torch import nn

from scoregen.data import Digits, Folder, Toy2D
from scoregen.errors import UserError
from scoregen.jobs.conditioning import class_number, known_of, labels_of
from scoregen.jobs.data_moments import merged
from scoregen.smoothing.results import load

NETWORK = ["model=unet_tiny", "model.network.channels=[4]", "model.network.attention=[]"]


def pictures(folder, classes=("",), count=12, seed=0, suffix="png"):
    draws = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.fromarray(draws.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / name / f"{i}.{suffix}")
    return folder


def run(out, data, steps, *more):
    return train(out, f"data.path={data}", "data=folder", *NETWORK, *COMMON, f"trainer.steps={steps}",
                 "trainer.checkpoint_every=2", "trainer.resume=auto", *more)  # fmt: skip


def step_of(out):
    return json.loads((out / "checkpoints" / "last" / "state.json").read_text())["step"]


def test_a_run_goes_on_with_a_folder_that_was_moved_and_refuses_one_that_was_changed(tmp_path):
    pictures(tmp_path / "a")
    run(tmp_path / "run", tmp_path / "a", 2)
    (tmp_path / "a").rename(tmp_path / "b")
    run(tmp_path / "run", tmp_path / "b", 4)
    assert step_of(tmp_path / "run") == 4
    Image.new("L", (8, 8), 9).save(tmp_path / "b" / "3.png")
    with pytest.raises(UserError, match=r"has other data: of 12 files, 1 changed \(first: '3.png'\)"):
        run(tmp_path / "run", tmp_path / "b", 6)
    pictures(tmp_path / "c", count=13)
    with pytest.raises(UserError, match=r"data.size: the run in .* has None, now it is 4"):
        run(tmp_path / "run", tmp_path / "c", 6, "data.size=4")


def test_a_test_part_elsewhere_may_be_moved_too(tmp_path):
    pictures(tmp_path / "a")
    pictures(tmp_path / "t", seed=1)
    run(tmp_path / "run", tmp_path / "a", 2, f"data.test={tmp_path / 't'}")
    (tmp_path / "t").rename(tmp_path / "u")
    run(tmp_path / "run", tmp_path / "a", 4, f"data.test={tmp_path / 'u'}")
    assert step_of(tmp_path / "run") == 4
    with pytest.raises(UserError, match=r"data.test: the run in .* has 'PATH', now it is 'auto'"):
        run(tmp_path / "run", tmp_path / "a", 6)


def brightest():
    layer = nn.Linear(64, 4)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(4).repeat(1, 16))
        layer.bias.zero_()
    return nn.Sequential(nn.Flatten(), layer).eval()


def certify(out, data, *more):
    return job("certify", "data=folder", f"data.path={data}", "n=300", *more, classifier="brightest:brightest").run(out)


def test_all_images_of_a_test_folder_are_certified_and_every_start_says_how_many(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "brightest", sys.modules[__name__])
    data = pictures(tmp_path / "a", [f"class{k}" for k in range(4)], count=10)
    certify(tmp_path / "few", data)
    said = capsys.readouterr().out
    assert "certifying 4 of 4 test images, held out of 40" in said
    certify(tmp_path / "all", data, "data.test=all")
    assert "certifying 40 of 40 images, all that the data have (data.test=all)" in capsys.readouterr().out
    found = load(tmp_path / "all")
    with pytest.raises(UserError, match=r"data.test, .* of other parts of these data: 40 test samples, and now 36 tr"):
        certify(tmp_path / "all", data)
    assert len(found.records) == 40 and {record["label"] for record in found.records} == {0, 1, 2, 3}
    data.rename(tmp_path / "b")
    certify(tmp_path / "all", tmp_path / "b", "data.test=all")
    Image.new("L", (8, 8), 9).save(tmp_path / "b" / "class2" / "3.png")
    with pytest.raises(UserError, match=r"of other data: of 40 files, 1 changed \(first: 'class2/3.png'\)"):
        certify(tmp_path / "all", tmp_path / "b", "data.test=all")


def test_a_training_has_no_use_for_data_that_are_all_a_test_part(tmp_path):
    with pytest.raises(UserError, match=r"digits has no train part: data.test=all leaves none"):
        train(tmp_path / "run", "data=digits", "data.test=all", *COMMON)
    with pytest.raises(UserError, match=r"objective: accuracy chooses between trainings, and digits has no validation"):
        job("train", "data=digits", "accuracy.every=1", "objective=accuracy")


def test_classes_have_names_in_the_checkpoint_and_samples_are_asked_for_by_name(tmp_path, capsys):
    data = pictures(tmp_path / "a", ["animals/cat", "animals/dog", "cars"], count=4)
    run(tmp_path / "run", data, 2)
    known = known_of(tmp_path / "run" / "checkpoints" / "last")
    assert known.classes == ("animals/cat", "animals/dog", "cars") and known.range == (0.0, 1.0)
    few = [f"checkpoint={tmp_path / 'run'}", "n=2", "sampler.steps=1", "format=npz"]
    assert command("sample", *few, "label=cars", f"out={tmp_path / 'x'}") == 0
    assert np.load(tmp_path / "x" / "samples.npz")["labels"].tolist() == [2, 2]
    assert command("sample", *few, "label=[animals/dog,cars]", f"out={tmp_path / 'y'}") == 0
    assert np.load(tmp_path / "y" / "samples.npz")["labels"].tolist() == [1, 2]
    assert command("sample", *few, "label=animals/dig", f"out={tmp_path / 'z'}") == 1
    assert "there is no class 'animals/dig'" in (said := capsys.readouterr().err) and "'animals/dog'?" in said


@pytest.mark.parametrize(
    ("value", "names", "text"),
    [
        ("cat", None, "must lie in 0..2 .*, got 'cat'; the classes of this checkpoint have no names"),
        ("kat", ("cat", "dog", "emu"), "there is no class 'kat' .*Did you mean 'cat'"),
        (3, ("cat", "dog", "emu"), r"must lie in 0..2 .*, got 3"),
        (1, ("0", "10", "1"), "class number 1 is named '10', and another class is named '1'"),
    ],
)
def test_a_class_that_is_not_there_or_could_be_two_is_refused(value, names, text):
    with pytest.raises(UserError, match=f"label: {text}"):
        class_number(value, 3, names)


def test_numbers_and_names_mean_the_same_classes():
    model = nn.Module()
    model.num_classes = 3
    names = ("cat", "dog", "emu")
    for label in (["emu", "cat"], [2, 0]):
        assert labels_of(label, 4, model, 0, names).tolist() == [2, 0, 2, 0]


def test_samples_and_their_pictures_are_in_the_units_of_the_data(tmp_path):
    r"""The same run in other units: the arrays are in these units, and the pictures are those of [0, 1]."""
    data, found = pictures(tmp_path / "a"), {}
    low, high = 0, 255
    for name, given in (("unit", []), ("other", [f"data.range=[{low},{high}]"])):
        run(tmp_path / name, data, 2, "preview.every=2", "preview.n=4", *given)
        few = [f"checkpoint={tmp_path / name}", "n=3", "sampler.steps=2"]
        for kind in ("png", "npz"):
            assert command("sample", *few, f"format={kind}", f"out={tmp_path / name / kind}") == 0
        grids = [tmp_path / name / place for place in ("png/grid.png", "npz/grid.png", "samples.png", "real.png")]
        found[name] = np.load(tmp_path / name / "npz" / "samples.npz")["images"], [Image.open(file) for file in grids]
    expected = low + (high - low) * found["unit"][0]
    np.testing.assert_allclose(found["other"][0], expected, atol=2e-3 * (high - low))
    for one, other in zip(found["unit"][1], found["other"][1], strict=True):
        np.testing.assert_allclose(np.array(one, float), np.array(other, float), atol=1.01)


def test_moments_of_batches_are_those_of_all():
    x, found = torch.randn(70, 3, dtype=torch.float64) + 5, None
    for batch in x.split(32):
        found = merged(found, batch)
    torch.testing.assert_close(found[1], x.mean(0))
    torch.testing.assert_close(found[2] / (found[0] - 1), x.var(0))


def test_evaluations_say_what_they_measure_against(tmp_path, capsys):
    np.savez(tmp_path / "samples.npz", images=Digits().test.x.numpy())
    nodes = {"metrics": {"_target_": "scoregen.metrics.Settings", "bootstrap": 0, "subset": 20}, "cache": None}
    nodes |= {"features": {"_target_": "scoregen.metrics.Pixels"}, "samples": str(tmp_path / "samples.npz")}
    job("evaluate", "data=digits", **nodes).run(tmp_path / "one")
    assert (
        "reference: 1,617 training images; floor: 180 of 180 test images, held out of 1,797" in capsys.readouterr().out
    )
    job("evaluate", "data=digits", "data.test=all", **nodes).run(tmp_path / "two")
    assert "reference: 1,797 images, all that the data have (data.test=all); no floor" in capsys.readouterr().out


def test_the_identity_of_data_holds_what_a_record_needs(tmp_path):
    data = pictures(tmp_path / "a", ["cat", "dog"])
    one = Folder(str(data), validation=4).identity()
    assert one["samples"] == {"train": 18, "validation": 4, "test": 2} and one["classes"] == ["cat", "dog"]
    shutil.copytree(data, tmp_path / "b")
    assert Folder(str(tmp_path / "b"), validation=4).identity() == one
    assert Toy2D(n=20).identity() != Toy2D(n=20, seed=1).identity()


def test_the_same_pictures_in_three_units_have_one_distance_and_unstated_units_are_refused(tmp_path):
    digits = Digits(test="all").test.x.numpy()
    noisy = digits[:60] + 0.1 * np.random.default_rng(0).normal(size=digits[:60].shape).astype(np.float32)
    settings = {"_target_": "scoregen.metrics.Settings", "bootstrap": 0, "subset": 20}
    nodes = {"metrics": settings, "features": {"_target_": "scoregen.metrics.Pixels"}, "cache": str(tmp_path / "cache")}
    found = []
    for low, high in ((0, 1), (-1, 1), (0, 255)):
        name = f"{low}_{high}"
        np.savez(tmp_path / f"{name}.npz", images=low + (high - low) * digits)
        np.savez(tmp_path / f"samples_{name}.npz", images=low + (high - low) * noisy)
        data = ["data=npz", f"data.path={tmp_path / name}.npz"]
        given = nodes | {"samples": f"{tmp_path}/samples_{name}.npz"}
        if (low, high) != (0, 1):
            with pytest.raises(UserError, match=rf"data.range=\[{low},{high}\]"):
                job("evaluate", *data, **given)
        out = job("evaluate", *data, f"data.range=[{low},{high}]", **given).run(tmp_path / "out" / name)
        numbers = json.loads((out / "metrics.json").read_text())["metrics"]
        found.append({number["name"]: [number["value"], number["floor"]] for number in numbers})
    for name, values in found[0].items():
        for other in found[1:]:
            assert other[name] == pytest.approx(values, rel=1e-6, abs=1e-9), name
