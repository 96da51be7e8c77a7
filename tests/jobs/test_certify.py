r"""The command line of certificates: a run, its continuation and a comparison."""

import re

import numpy as np
import pytest
import torch
from certify_parts import comparison, run

from scoregen.command_line import lists_of_paths
from scoregen.config import build
from scoregen.description import option
from scoregen.errors import UserError
from scoregen.smoothing.noise import AbstractNoise
from scoregen.smoothing.results import load
from scoregen.smoothing.verify import problems

NOISES = ("gaussian", "uniform", "laplace", "log_normal", "gain", "gamma")


@pytest.mark.parametrize("name", NOISES)
def test_every_noise_of_the_configuration_builds(name):
    assert isinstance(build(option("noise", name), where=name), AbstractNoise)


def test_a_noise_with_a_sigma_a_channel_asks_for_them_and_takes_a_list_or_a_file(tmp_path):
    with pytest.raises(UserError, match=r"noise.sigma: a value is required; give noise.sigma=..."):
        build(option("noise", "anisotropic"), where="noise")
    with pytest.raises(UserError, match=r"sigma must be one number for each of the 1 channels .*, got \(2,\)"):
        run(tmp_path / "a", noise=option("noise", "anisotropic") | {"sigma": [0.5, 0.2]})
    sigma = np.linspace(0.1, 0.5, 64).reshape(1, 8, 8)
    np.save(tmp_path / "sigma.npy", sigma)
    noise = option("noise", "anisotropic") | {"sigma": f"{tmp_path}/sigma.npy"}
    run(tmp_path / "b", "export=csv", noise=noise)
    assert problems(tmp_path / "b") == []
    assert re.search(
        r"radius \(l2 of 0.27\d* x / sigma, sigma [0-9a-f]{16}\)", (tmp_path / "b" / "table.md").read_text()
    )
    comparison(tmp_path / "c", tmp_path / "b")
    np.save(tmp_path / "sigma.npy", sigma[:, ::-1])
    with pytest.raises(UserError, match="holds results of another job: noise was"):
        run(tmp_path / "b", noise=noise)


def test_a_run_leaves_certificates_table_curve_and_page_and_goes_on_where_it_stopped(tmp_path, capsys):
    run(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {
        "job.json",
        "certificates.jsonl",
        "table.md",
        "data.json.gz",
        "curve.png",
        "report.html",
    }
    first = (tmp_path / "certificates.jsonl").read_text()
    assert load(tmp_path).header["indices"] == [0, 36, 72, 108, 144]
    printed = capsys.readouterr().out
    assert (tmp_path / "table.md").read_text() in printed
    assert "s an input on 1 process(es)" in printed
    run(tmp_path)
    assert "s an input" not in capsys.readouterr().out  # nothing was left to do
    assert (tmp_path / "certificates.jsonl").read_text() == first
    with pytest.raises(UserError, match=r"holds other results: alpha was 0.001, now 0.01"):
        run(tmp_path, "alpha=0.01")


def test_maps_are_added_to_a_finished_run_and_change_no_certificate(tmp_path):
    run(tmp_path)
    first = (tmp_path / "certificates.jsonl").read_text()
    assert "map of" not in (tmp_path / "report.html").read_text()
    run(tmp_path, "explain=300")
    assert (tmp_path / "certificates.jsonl").read_text() == first
    page = (tmp_path / "report.html").read_text()
    assert page.count('alt="map of input') == page.count("map of label") == 5  # each input once
    with np.load(tmp_path / "explanations.npz") as found:
        assert sorted(found["index"]) == [0, 36, 72, 108, 144]
        assert found["gradient"].shape == found["direction"].shape == (5, 1, 8, 8)
        candidates = {record["index"]: record["candidate"] for record in load(tmp_path).records}
        assert dict(zip(found["index"].tolist(), found["label"].tolist(), strict=True)) == candidates


def test_an_attack_is_added_to_a_finished_run_and_changes_no_certificate(tmp_path, capsys):
    clear = "noise.sigma=0.05"
    run(tmp_path, clear)
    first = (tmp_path / "certificates.jsonl").read_text()
    assert "<h2>Attack</h2>" not in (tmp_path / "report.html").read_text()
    run(tmp_path, clear, "attack=true")
    assert (tmp_path / "certificates.jsonl").read_text() == first
    assert "<h2>Attack</h2>" in (tmp_path / "report.html").read_text()
    assert "| 0.99 R | 0.0 | 0 of " in (tmp_path / "table.md").read_text()
    assert load(tmp_path, "attacks").header["factors"] == [0.99, 1.25, 1.5, 2.0]
    assert "| 2 R | " in capsys.readouterr().out


def test_runs_are_compared_in_one_table(tmp_path, capsys):
    for name, method in (("a", "ladder"), ("b", "fixed")):
        run(tmp_path / name, f"method={method}")
    capsys.readouterr()
    comparison(tmp_path / "both", tmp_path / "a", tmp_path / "b")
    assert capsys.readouterr().out.splitlines()[0] == "| radius (l2) | a | b |"
    assert (tmp_path / "both" / "curve.png").exists()
    with pytest.raises(UserError, match="holds other results: job was 'certify', now 'compare'"):
        comparison(tmp_path / "a", tmp_path / "b")


def test_radii_of_two_distances_are_not_compared(tmp_path):
    noises = {name: option("noise", name) for name in ("gain", "gamma")}
    noises |= {f"offset {c}": {**option("noise", "log_normal"), "offset": c} for c in (0.1, 10.0)}
    for name, noise in noises.items():
        run(tmp_path / name, noise=noise)
    for pair in (("gain", "gamma"), ("offset 0.1", "offset 10.0")):
        with pytest.raises(UserError, match="must have one norm of the radii"):
            comparison(tmp_path / "both", *(tmp_path / name for name in pair))


def test_compare_is_a_list_and_no_sweep():
    given = ["compare=a,runs/b=1", "compare=[a,b]", "n=5"]
    assert lists_of_paths(given, {"compare": "runs"}) == ["runs=['a','runs/b=1']", "runs=[a,b]", "n=5"]


PURIFY = {"_target_": "scoregen.jobs.Purify"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nn": 1}, "nn: 'nn' is not an argument of scoregen.jobs.Certify"),
        ({"classifier": None}, "give one of checkpoint=PATH"),
        ({"checkpoint": "a"}, "give one of checkpoint=PATH"),
        ({"precision": "int8"}, "precision: must be no, bf16 or fp16"),
        ({"purify": None}, "purify: must be Purify, got null"),
        (
            {"purify": PURIFY | {"votes": 7}},
            "purify.votes: needs purify.checkpoint=..., the denoiser, got purify.votes=7",
        ),
        ({"sampler": option("sampler", "heun")}, "sampler: needs purify.checkpoint=..., the denoiser"),
        ({"weights": "model"}, "weights: needs checkpoint=..., whose weights they are"),
        ({"precision": ["bf16"]}, "precision: must be no, bf16 or fp16"),
        ({"purify": PURIFY | {"chekpoint": "a"}}, "purify.chekpoint: .* Did you mean 'checkpoint'"),
        ({"purify": PURIFY | {"votes": "two"}}, "purify.votes: must be an integer, got 'two'"),
        ({"step": 0.1, "method": "fixed"}, "step needs method='ladder' or 'ladder_top2', whose rungs it spaces"),
        ({"step": 1e-9}, "step must leave at most 1000 rungs"),
        ({"n": 5}, "n must be at least"),
        ({"method": "ladderr"}, "Did you mean 'ladder'"),
        ({"explain": 3}, "explain must be a whole number >= 4, got explain=3"),
        ({"explain": 100, "noise": option("noise", "laplace")}, "noise must be Gaussian, whose Stein identity"),
        ({"alpha": "abc"}, "alpha: must be a number, got 'abc'"),
        ({"n": None}, "n: must be an integer, got null"),
        ({"seed": 0.5}, "seed: must be an integer"),
        ({"strict": "no"}, "strict: must be true or false"),
        ({"max_radius": 3.5}, "no n is enough to certify radius 3.5: .* Choose a smaller radius"),
    ],
)
def test_mistakes_are_one_message(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        run(tmp_path, **change)


def test_rows_are_the_rungs_that_were_asked_for(tmp_path, capsys):
    run(tmp_path, "max_radius=0.25", "step=0.1")
    rows = [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("| 0")]
    assert rows[:4] == ["0", "0.1", "0.2", "0.25"]


def test_an_unfinished_run_is_not_compared(tmp_path):
    run(tmp_path / "a")
    file = tmp_path / "a" / "certificates.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:3]))
    with pytest.raises(UserError, match="has 2 of 5 certificates"):
        comparison(tmp_path / "both", tmp_path / "a")


def test_labels_are_part_of_the_job_and_none_is_negative(tmp_path):
    pictures, label = (np.arange(12 * 64) * 7 % 256).astype("uint8").reshape(12, 8, 8), torch.arange(12) % 10

    def certify(labels, out):
        np.savez(
            tmp_path / "a.npz", train_images=pictures, train_labels=labels, test_images=pictures, test_labels=labels
        )
        data = {"_target_": "scoregen.data.Npz", "path": str(tmp_path / "a.npz")}
        run(tmp_path / out, data=data)

    certify(label.numpy(), "a")
    with pytest.raises(UserError, match="holds results of other data: samples or labels differ"):
        certify((label + 1).numpy() % 10, "a")
    with pytest.raises(UserError, match="labels must be >= 0, got -1"):
        certify((label - 1).numpy(), "b")


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (["a", "a"], "runs: must name different folders"),
        (["nowhere"], "no certificates in"),
        ([], "runs: must not be empty"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path, runs, message):
    with pytest.raises(UserError, match=message):
        comparison(tmp_path, *runs)
