r"""Flow maps in jobs: made of a trained denoiser, sampled in one call, exported as a program."""

import pytest
import torch
from tiny import TOY, sample, train

import scoregen
from scoregen.errors import UserError
from scoregen.models import MLP, Denoiser, UNet
from scoregen.models.interop.writing import written
from scoregen.models.program import save_program
from scoregen.rng import generator
from scoregen.sde import EDM


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    r"""A teacher and a flow map that starts from it and is not moved."""
    folder = tmp_path_factory.mktemp("flow_map")
    train(folder / "teacher", *TOY, "trainer.steps=3")
    still = ["trainer.optimizer.lr=0", "trainer.optimizer.weight_decay=0", "trainer.steps=1"]
    train(folder / "map", *TOY, *still, "loss=flow_map", f"init={folder / 'teacher'}")
    return folder


def test_a_flow_map_starts_as_the_averaged_teacher_and_is_told_the_next_level(folder, capsys):
    teacher, student = scoregen.load(folder / "teacher"), scoregen.load(folder / "map")
    assert student.takes_next and not teacher.takes_next
    u, s = torch.randn(4, 2, generator=generator(0)), torch.tensor([0.01, 0.5, 2.0, 80.0])
    assert (student(u, s, next_s=s / 3) == teacher(u, s)).all()


def test_a_network_that_is_told_but_not_trained_for_jumps_is_no_flow_map(tmp_path, capsys):
    told = [*TOY, "model.network.next_level=true", "dry_run=true"]
    train(tmp_path / "scores", *told)
    assert "told the next level, but this loss trains no jumps," in capsys.readouterr().out
    train(tmp_path / "map", *told, "loss=flow_map")
    assert "model: Denoiser, a flow map," in capsys.readouterr().out


def test_jumps_make_samples_in_one_call(folder):
    out = sample(folder / "map", folder / "samples", "sampler=flow_map", "sampler.steps=1", "n=3", "format=npz")
    assert (out / "samples.npz").exists()


def test_a_flow_map_is_no_start_of_a_model_that_is_not_told(folder, tmp_path):
    with pytest.raises(UserError, match="next"):
        train(tmp_path / "plain", *TOY, "trainer.steps=1", f"init={folder / 'map'}")


def test_a_network_that_cannot_be_told_is_refused_by_name(tmp_path):
    small = ["model.network.width=16", "model.network.depth=1", "model.network.heads=2"]
    with pytest.raises(UserError, match=r"got a Denoiser of DiT, which is not\. Choose a UNet or an MLP"):
        train(tmp_path, "data=digits", "model=dit", *small, "loss=flow_map", "trainer.steps=1")


def test_parts_of_a_batch_that_are_too_small_are_refused_before_any_work(tmp_path):
    small = [*TOY, "trainer.steps=1", "trainer.accumulate=8"]
    wrapped = {"_target_": "scoregen.losses.StepwiseVariation", "base_loss": {"_target_": "scoregen.losses.FlowMap"}}
    for loss in ({"_target_": "scoregen.losses.FlowMap"}, wrapped):
        with pytest.raises(UserError, match=r"trainer.batch_size: .* needs at least 2 samples .* got 1 of"):
            train(tmp_path / "run", *small, loss=loss)
    assert not (tmp_path / "run").exists()


def test_diffusers_refuses_a_flow_map_and_a_program_takes_the_next_level(tmp_path):
    with pytest.raises(UserError, match="a flow map"):
        written(Denoiser(UNet((1, 8, 8), (4, 8), 1, next_level=True), EDM()))
    model = Denoiser(MLP((2,), 8, 1, num_classes=3, next_level=True), EDM()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator(len(parameter))) / 3)
    assert "(u, s, next_s, label) -> D" in save_program(model, tmp_path / "program.pt2")
    u, label = torch.randn(5, 2, generator=generator(0)), torch.tensor([0, 1, 2, -1, 0])
    s = torch.tensor([0.01, 0.5, 2.0, 80.0, 1.0], dtype=torch.float64)
    program = torch.export.load(tmp_path / "program.pt2").module()
    torch.testing.assert_close(program(u, s, s / 2, label), model(u, s, label, next_s=s / 2))
