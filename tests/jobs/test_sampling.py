r"""The job sample by the command line: its images whatever the batches, its formats, and what it refuses."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from tiny import TOY, job, pixels, refused, sample, train

from scoregen.errors import UserError

SAMPLING = ["n=5", "sampler.steps=2", "label=all"]


def images(out: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((out / "images").iterdir())]


@pytest.mark.parametrize("name, batches", [("heun", (64, 1, 2)), ("ancestral", (64, 2))])
def test_image_k_is_the_same_whatever_the_batch_size(digits, tmp_path, name, batches):
    r"""In numbers up to the order of sums in float32, so to one grey level of 255."""
    made = []
    for size in batches:
        out = sample(digits, tmp_path / f"{name}{size}", *SAMPLING, f"sampler={name}", f"batch_size={size}")
        made.append(pixels(out))
    assert all(np.abs(other - made[0]).max() <= 1 for other in made[1:])
    assert np.abs(made[0][0] - made[0][1]).max() > 1


def test_what_is_there_is_kept_and_only_the_rest_is_made(digits, tmp_path, capsys):
    out = sample(digits, tmp_path, *SAMPLING)
    whole = images(out)
    (out / "images" / "000003.png").unlink()
    (out / "images" / "000001.png").write_bytes(whole[0])
    capsys.readouterr()
    sample(digits, tmp_path, *SAMPLING)
    assert "5 samples, 4 already there" in capsys.readouterr().out
    assert images(out) == [whole[0], whole[0], *whole[2:]]
    sample(digits, tmp_path, *SAMPLING, "n=7")
    assert len(images(out)) == 7


def test_the_weights_are_named(digits, tmp_path, capsys):
    sample(digits, tmp_path / "a", *SAMPLING)
    assert "averaged (EMA) weights" in capsys.readouterr().out
    sample(digits, tmp_path / "b", *SAMPLING, "weights=model")
    assert "last step's weights" in capsys.readouterr().out


def test_an_archive_holds_the_unrounded_images(digits, tmp_path):
    png = sample(digits, tmp_path / "png", *SAMPLING)
    npz = sample(digits, tmp_path / "npz", *SAMPLING, "format=npz")
    archive = np.load(npz / "samples.npz")["images"]
    assert archive.shape == (5, 1, 8, 8)
    np.testing.assert_array_equal((archive[:, 0].clip(0, 1) * 255).round(), pixels(png))


def test_random_labels_belong_to_the_image(digits, tmp_path):
    few = sample(digits, tmp_path / "few", *SAMPLING, "format=npz", "label=random", "batch_size=2")
    many = sample(digits, tmp_path / "many", *SAMPLING, "format=npz", "label=random", "n=40")
    few, many = np.load(few / "samples.npz"), np.load(many / "samples.npz")
    assert few["labels"].tolist() == many["labels"][:5].tolist()
    assert len(set(many["labels"].tolist())) > 5
    np.testing.assert_allclose(few["images"], many["images"][:5], atol=1e-5)


def test_bfloat16_is_the_network_alone(digits, tmp_path):
    r"""Other samples, by rounding; drawn by the same noise."""
    exact = sample(digits, tmp_path / "exact", *SAMPLING, "format=npz")
    rounded = sample(digits, tmp_path / "rounded", *SAMPLING, "format=npz", "precision=bf16")
    exact, rounded = (np.load(folder / "samples.npz")["images"] for folder in (exact, rounded))
    assert 0 < np.abs(exact - rounded).max() < 0.1 * np.abs(exact).max()


def test_an_archive_holds_the_labels_that_were_asked_for(digits, tmp_path):
    npz = sample(digits, tmp_path, *SAMPLING, "format=npz", "label=[3,1]")
    assert np.load(npz / "samples.npz")["labels"].tolist() == [3, 1, 3, 1, 3]


BAD_SAMPLING = {
    "none": ([], "checkpoint: a value is required. Give checkpoint=outputs"),
    "missing": (["checkpoint=x"], "checkpoint: 'x' does not exist"),
    "no-checkpoint": (["checkpoint=."], "checkpoint: '.' is not a checkpoint of scoregen"),
    "key": (["chekpoint=x"], r"chekpoint: there is no key 'chekpoint'. Did you mean 'checkpoint'\?"),
    "key+": (["+labels=3"], r"labels: .*Did you mean 'label'\?"),
    "n": (["n=0"], "n must be >= 1, got n=0"),
    "type": (["n=few"], "n: must be an integer, got 'few'"),
    "format": (
        ["checkpoint=x", "format=jpg"],
        r"format: must be png, npz, csv or parquet, got 'jpg'. Did you mean 'png'\?",
    ),
    "weights": (
        ["checkpoint=x", "weights=emma"],
        r"weights: must be ema, model or ema:LENGTH .*'emma'. Did you mean 'ema'\?",
    ),
    "precision": (["checkpoint=x", "precision=half"], "precision: must be no or bf16, got 'half'"),
    "interpolate": (["RUN", "interpolate=[0,1]"], "interpolate: is a job of its own: scoregen interpolate between="),
    "restore": (["RUN", "restore=x"], "restore: is a job of its own: scoregen restore images="),
    "label": (["RUN", "label=10"], r"label: must lie in 0..9 \(or be 'all' or 'random'\), got 10"),
    "label-list": (["RUN", "label=[]"], "label: must not be an empty list"),
    "label-text": (
        ["RUN", "label=three"],
        "label: must lie in 0..9 .*, got 'three'; the classes of this checkpoint have no names",
    ),
    "guidance": (["RUN", "guidance=2"], "guidance: needs labels, got guidance=2.0 without. Give label=all"),
    "guidance-inf": (["RUN", "guidance=inf", "label=1"], "guidance: scale must be finite"),
    "unconditional": (["TOY", "label=1", "format=npz"], "label: the model is unconditional, got label=1"),
    "vectors": (["TOY"], r"format: png needs grey or RGB images, the model makes shape \(2,\). Give format=npz"),
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "toy", *TOY, "trainer.steps=1", "conditional=false")


@pytest.mark.parametrize("case", BAD_SAMPLING)
def test_a_mistake_in_sampling_is_one_message(case, digits, toy, here, capsys):
    argv, text = BAD_SAMPLING[case]
    runs = {"RUN": f"checkpoint={digits}", "TOY": f"checkpoint={toy}"}
    assert re.search(text, refused("sample", capsys, *[runs.get(a, a) for a in argv]))


def test_an_output_folder_with_other_things_is_refused(digits, here, capsys):
    sample(digits, here / "out", *SAMPLING)
    before = images(here / "out")
    other = [f"checkpoint={digits}", "out=out", *SAMPLING]
    assert "holds other results: seed was 0, now 1." in refused("sample", capsys, *other, "seed=1")
    assert "format was 'png', now 'npz'." in refused("sample", capsys, *other, "format=npz")
    assert "sampler.steps was 2, now 3." in refused("sample", capsys, *other, "sampler.steps=3")
    record = json.loads((here / "out" / "job.json").read_text())
    assert record["network_calls"] > 0
    (here / "out" / "job.json").write_text(json.dumps(record | {"weights_sha256": "of a run that stood there"}))
    assert "weights_sha256 was" in refused("sample", capsys, *other)
    (here / "out" / "job.json").write_text("{")
    assert "job.json' is missing or damaged" in refused("sample", capsys, *other)
    (here / "out" / "job.json").unlink()
    assert "contains 'grid.png' that this job did not write" in refused("sample", capsys, *other)
    assert images(here / "out") == before


def test_an_evaluation_samples_its_checkpoint(digits, tmp_path):
    options = ["data=digits", "features=random", "metrics=fast", "n=10", "sampler.steps=2", "cache=null"]
    job("evaluate", f"checkpoint={digits}", *options).run(tmp_path)
    assert len(np.load(tmp_path / "samples" / "samples.npz")["images"]) == 10
    assert "network_calls" in (tmp_path / "metrics.json").read_text()


def test_an_evaluation_that_fails_early_leaves_the_folder_free(digits, tmp_path):
    options = [f"checkpoint={digits}", "data=digits", "features=random", "metrics=fast", "n=10", "sampler.steps=2"]
    options += ["cache=null"]
    with pytest.raises(UserError, match="label: must lie in"):
        job("evaluate", *options, "label=99").run(tmp_path / "out")
    job("evaluate", *options).run(tmp_path / "out")
    assert (tmp_path / "out" / "job.json").exists()


def test_fewer_samples_than_are_there_are_refused(digits, tmp_path):
    sample(digits, tmp_path, *SAMPLING, "n=3")
    with pytest.raises(UserError, match=r"n: .* already contains 3 samples, but n=2"):
        sample(digits, tmp_path, *SAMPLING, "n=2")


def test_samples_of_a_sampler_that_couples_its_batch_do_not_depend_on_it(digits, tmp_path):
    options = ["sampler=adaptive_flow", "n=3", "format=npz"]
    for size in (1, 3):
        sample(digits, tmp_path / str(size), *options, f"batch_size={size}")
    one, three = (np.load(tmp_path / str(size) / "samples.npz")["images"] for size in (1, 3))
    assert np.array_equal(one, three)
