r"""Exported folders are loaded by stock diffusers where scoregen cannot be imported, and make the same images."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from tiny import COMMON, DIGITS, command, job, train

from scoregen import load
from scoregen.errors import UserError
from scoregen.rng import generator, randn
from scoregen.samplers import DDIM, Karras

UNET = [*DIGITS, "model=unet", "model.network.channels=[8,16]", "model.network.attention=[]"]
REPAIR = """
import sys, torch
sys.modules["scoregen"] = None  # it is not installed there
library = torch.library.Library("torchvision", "FRAGMENT")  # of a torchvision that does not go with its torch
try:
    import torchvision
except RuntimeError:
    for name in [name for name in sys.modules if name.startswith("torchvision")]:
        del sys.modules[name]
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


def alone(tmp_path, usage, start, replaced):
    r"""What the lines of a card make of a start, in a process without scoregen."""
    torch.save(start, tmp_path / "start.pt")
    for old, new in replaced.items():
        assert old in usage
        usage = usage.replace(old, new)
    code = f"{REPAIR}\n{usage}\ntorch.save(x, {str(tmp_path / 'end.pt')!r})"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return torch.load(tmp_path / "end.pt")


def usage_of(out):
    return (out / "README.md").read_text().split("```python\n")[1].split("```")[0]


@pytest.fixture(scope="module")
def edm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("edm") / "run"
    train(folder, *UNET, "trainer.steps=3")
    return folder


def our_samples(model, u, label=None):
    r"""Euler steps through the levels of Karras from a state u at the largest noise."""
    sampler = DDIM(18, grid=Karras(rho=model.sde.rho))
    return sampler(model, start=(model.sde.from_chart(u), 1.0), label=label)


def test_an_edm_model_makes_the_same_images_in_diffusers(edm, tmp_path):
    out = job("export", "n=4", "seed=3", checkpoint=str(edm), licence="cc0-1.0", about="Digits.").run(tmp_path / "out")
    model = load(edm)
    noise = randn((4, 1, 8, 8), [generator(0, k) for k in range(4)])
    replaced = {"FOLDER": repr(str(out)), "torch.randn(4, 1, 8, 8)": f"torch.load({str(tmp_path / 'start.pt')!r})"}
    theirs = alone(tmp_path, usage_of(out), noise, replaced)
    ours = our_samples(model, noise * (model.sde.sigma_max**2 + 1) ** 0.5, torch.zeros(4, dtype=torch.int64))
    assert ours.std() > 0.1
    assert (ours - theirs).abs().max() < 1e-4


def test_numbers_of_other_weights_and_other_data_do_not_stand_on_the_card(edm, tmp_path):
    (tmp_path / "job.json").write_text(json.dumps({"checkpoint": "other", "weights_sha256": "0"}))
    (tmp_path / "metrics.json").write_text(json.dumps({"metrics": []}))
    given = {"checkpoint": str(edm), "n": 4}
    with pytest.raises(UserError, match=r"evaluation: '.*' measured the weights of 'other', which are not those of"):
        job("export", **given, evaluation=str(tmp_path)).plan(tmp_path / "out")
    with pytest.raises(UserError, match=r"data: toy2d has shape \(2,\), the model makes \(1, 8, 8\)"):
        job("export", **given, data={"_target_": "scoregen.data.Toy2D", "n": 20}).plan(tmp_path / "out")
    np.savez(tmp_path / "a.npz", images=np.linspace(-1, 1, 20 * 64).reshape(20, 8, 8))
    signed = {"_target_": "scoregen.data.Npz", "path": str(tmp_path / "a.npz"), "range": [-1, 1]}
    with pytest.raises(
        UserError, match=r"data.range: the model was trained on values in \(0.0, 1.0\), a has \(-1.0, 1"
    ):
        job("export", **given, data=signed).plan(tmp_path / "out")


def test_the_card_says_what_is_known(edm, tmp_path):
    out = job("export", "n=4", "data=digits", checkpoint=str(edm), licence="cc0-1.0", about="Digits.").run(
        tmp_path / "out"
    )
    text = (out / "README.md").read_text()
    for part in (
        "license: cc0-1.0",
        "Digits.",
        "3, each of 8 samples",
        "seed: 0",
        "none was left out",
        "The nearest of the 1,6",
    ):
        assert part in text, part
    assert (out / "samples.png").is_file() and (out / "nearest.png").is_file()
    assert json.loads((out / "job.json").read_text())["job"] == "export"


def test_an_unlike_network_is_refused_with_the_remedy(tmp_path):
    train(tmp_path / "run", "data=toy2d", "data.n=100", *COMMON, "trainer.steps=1")
    with pytest.raises(UserError, match=r"diffusers has no MLP.*program=true"):
        job("export", checkpoint=str(tmp_path / "run")).run(tmp_path / "out")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("kind", ["unet", "vectors"])
def test_a_program_is_the_denoiser(edm, tmp_path, kind):
    run = edm
    if kind == "vectors":
        run = train(tmp_path / "run", "data=toy2d", "data.n=100", *COMMON, "trainer.steps=1")
    out = job("export", "program=true", "n=0", checkpoint=str(run)).run(tmp_path / "out")
    program, model = torch.export.load(out / "program.pt2").module(), load(run)
    for count in (2, 5):
        u = randn((count, *model.shape), generator(1))
        s, label = torch.linspace(0.1, 3, count, dtype=torch.float64), torch.arange(count) % (model.num_classes or 1)
        given = (u, s) if model.num_classes is None else (u, s, label)
        with torch.no_grad():
            assert torch.allclose(program(*given), model(*given), atol=1e-5)


def test_a_hub_is_asked_only_when_it_is_named(edm, tmp_path, monkeypatch):
    pushed = []

    class Api:
        def create_repo(self, name, private, exist_ok):
            pushed.append((name, private))

        def upload_folder(self, folder_path, repo_id, ignore_patterns):
            pushed.append((repo_id, sorted(path.name for path in folder_path.iterdir())))

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    job("export", "n=0", checkpoint=str(edm)).run(tmp_path / "kept")
    assert pushed == []
    job("export", "n=0", checkpoint=str(edm), hub="me/digits").run(tmp_path / "pushed")
    assert pushed[0] == ("me/digits", True)
    assert {"README.md", "scheduler", "unet"} <= set(pushed[1][1])


def test_the_command_line_exports(edm, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("export", f"checkpoint={edm}", "n=0", "out=out", "dry_run=true") == 0
    assert "writes: unet, scheduler, README.md" in capsys.readouterr().out
    assert command("export", f"checkpoint={edm}", "hub=digits") == 1
    assert "hub: must be owner/name, got 'digits'" in capsys.readouterr().err
