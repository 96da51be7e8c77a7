r"""What makes a network fast changes neither its numbers nor its checkpoints."""

import copy

import pytest
import torch
from runs import assert_same_run
from tiny import DIGITS, TOY, numbers, train, weights

from scoregen.errors import UserError
from scoregen.losses import DenoisingScoreMatching, JacobianPenalty, NonNegativeScoreMatching
from scoregen.models import MLP, Classifier, Denoiser
from scoregen.models.compiled import Compiler
from scoregen.sde import EDM
from scoregen.training import Trainer
from scoregen.training.speed import compiler_of, matmul_precision, speed_up

RUN = [*TOY, "data.validation=0.2", "model.network.dropout=0.3", "trainer.steps=6", "trainer.checkpoint_every=2"]
MONITOR = ["early_stopping.every=2", "early_stopping.n=20"]
CPU = torch.device("cpu")


@pytest.fixture
def eager_backend(monkeypatch):
    r"""The launcher's choice of a backend that needs no C++ compiler."""
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "AOT_EAGER")


def kill(step: int) -> dict:
    return {"preview": {"_target_": "tiny.Kill", "every": step}}


def test_a_compiled_run_is_the_same_run_and_resumes_bit_for_bit(tmp_path, monkeypatch):
    r"""The monitor that runs first, with other shapes, changes no graph of the steps after it."""
    plain = train(tmp_path / "plain", *RUN, *MONITOR)
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "AOT_EAGER")
    whole = train(tmp_path / "whole", *RUN, *MONITOR)
    names = weights(whole).keys(), weights(whole, "ema").keys()
    assert not any("_orig_mod" in name for name in (*names[0], *names[1]))
    for a, b in zip(numbers(plain), numbers(whole), strict=True):
        assert a == pytest.approx(b, rel=1e-4)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", *RUN, *MONITOR, **kill(3))
    killed = train(tmp_path / "killed", *RUN, "trainer.resume=auto", *MONITOR)
    assert_same_run(whole, killed)


def test_a_recomputed_run_is_the_same_run_bit_for_bit(tmp_path):
    for base in (RUN, [*DIGITS, "model.network.dropout=0.3", "trainer.steps=2"]):
        name = str(len(base))
        plain = train(tmp_path / f"plain{name}", *base)
        again = train(tmp_path / f"again{name}", *base, "trainer.recompute=true")
        assert numbers(plain) == numbers(again)
        assert all(torch.equal(value, weights(again)[key]) for key, value in weights(plain).items())


def test_a_run_goes_on_with_other_keys_of_speed(tmp_path):
    train(tmp_path, *TOY, "trainer.steps=2", "trainer.checkpoint_every=2")
    options = ["trainer.recompute=true", "trainer.channels_last=true", "trainer.compile=false"]
    train(tmp_path, *TOY, "trainer.steps=3", "trainer.resume=auto", *options)
    with pytest.raises(UserError, match=r"trainer.matmul: the run in .* has 'high', now it is 'highest'"):
        train(tmp_path, *TOY, "trainer.steps=4", "trainer.resume=auto", "trainer.matmul=highest")


def test_losses_with_second_derivatives_are_not_compiled(monkeypatch):
    r"""By themselves they are left as they are; asked for, it is refused: AOTAutograd cannot."""
    monkeypatch.setattr("scoregen.training.speed.compiles", lambda device: True)
    twice = [NonNegativeScoreMatching(0.3), JacobianPenalty(DenoisingScoreMatching(), 1.0, "vjp")]
    for loss in twice:
        assert compiler_of(loss, Trainer(1, precision="no"), CPU) is None
        with pytest.raises(UserError, match=r"trainer.compile: must be false for \w+, which differentiates the netw"):
            compiler_of(loss, Trainer(1, precision="no", compile=True), CPU)
    once = JacobianPenalty(DenoisingScoreMatching(), 1.0, "finite_difference")
    assert compiler_of(once, Trainer(1, precision="no"), CPU) == Compiler(dynamic=False)


def test_compiling_is_what_the_configuration_and_the_launcher_agree_on(monkeypatch):
    loss = DenoisingScoreMatching()
    assert compiler_of(loss, Trainer(1, precision="no"), CPU) is None  # a CPU does not by itself
    assert compiler_of(loss, Trainer(1, precision="no", compile=True), CPU) == Compiler(dynamic=False)
    regional = compiler_of(loss, Trainer(1, precision="no", compile=True, recompute=True), CPU)
    assert regional == Compiler(dynamic=False, regional=True)
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR")
    monkeypatch.setenv("ACCELERATE_DYNAMO_MODE", "max-autotune")
    assert compiler_of(loss, Trainer(1, precision="no"), CPU) == Compiler(mode="max-autotune", dynamic=False)
    with pytest.raises(UserError, match=r"trainer.compile=False, but the launcher says True \(--dynamo_backend\)"):
        compiler_of(loss, Trainer(1, precision="no", compile=False), CPU)


def test_products_of_matrices_have_their_precision_on_cuda_while_training():
    before = torch.get_float32_matmul_precision()
    with matmul_precision("high", torch.device("cuda")):
        assert torch.get_float32_matmul_precision() == "high"
    with matmul_precision("medium", CPU):
        assert torch.get_float32_matmul_precision() == before
    assert torch.get_float32_matmul_precision() == before
    with pytest.raises(ValueError, match="matmul must be highest, high or medium, got matmul='tf32'"):
        Trainer(1, precision="no", matmul="tf32")


def test_speeding_up_leaves_a_copy_free(eager_backend):
    r"""Teachers are copies that a loss makes of the model."""
    model = Denoiser(MLP((2,), 8, 1), EDM())
    speed_up(model, DenoisingScoreMatching(), Trainer(1, precision="no"), CPU)
    assert model.network._compiled_call_impl is not None
    assert copy.deepcopy(model).network._compiled_call_impl is None


def test_images_have_their_channels_last_where_asked():
    model = Classifier((3, 8, 8), 3, (4, 8), (1, 1))
    settings = Trainer(1, precision="no", channels_last=True)
    speed_up(model, DenoisingScoreMatching(), settings, CPU)
    assert model.stages[0][0].weight.is_contiguous(memory_format=torch.channels_last)
