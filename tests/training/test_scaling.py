r"""float16 with a scaled loss: the same numbers as float32 up to rounding, and the scale goes on where it was.

CPUs compute it slowly and are refused; here the refusal is lifted.
"""

import json

import pytest
from runs import assert_same_run
from tiny import TOY, numbers, train

from scoregen.losses import DenoisingScoreMatching

HALF = [*TOY, "trainer.precision=fp16", "trainer.checkpoint_every=2"]


@pytest.fixture(autouse=True)
def float16_on_a_cpu(monkeypatch):
    monkeypatch.setattr("scoregen.training.precision.on_cpu", lambda: False)


class Large(DenoisingScoreMatching):
    r"""Scales of the loss at which float16 overflows at first."""

    def forward(self, *arguments, **named):
        return 30.0 * super().forward(*arguments, **named)


def scale_of(folder) -> float:
    return json.loads((folder / "checkpoints" / "last" / "state.json").read_text())["scaler"]["scale"]


def test_the_norm_and_the_losses_are_those_of_float32(tmp_path):
    r"""Gradients are divided by the scale before they are measured and clipped: 1e-2, the precision of float16."""
    options = ["trainer.steps=6", "trainer.clip=0.5", "trainer.optimizer.lr=1e-4"]
    half = numbers(train(tmp_path / "half", *HALF, *options))
    full = numbers(train(tmp_path / "full", *TOY, *options))
    assert half[-1]["skipped"] < 3  # the first scale may be too large
    for line, other in [pair for pair in zip(half, full, strict=True) if "loss" in pair[0]]:
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-2)
        assert line["grad_norm"] == pytest.approx(other["grad_norm"], rel=3e-2)


def test_an_overflow_skips_the_step_and_halves_the_scale(tmp_path):
    loss = {"_target_": f"{__name__}.Large"}
    folder = train(tmp_path, *HALF, "trainer.steps=12", "trainer.max_skipped=12", loss=loss)
    lines = numbers(folder)
    skipped = lines[-1]["skipped"]
    assert 0 < skipped < 12 and scale_of(folder) == 65536.0 / 2**skipped
    assert lines[-1]["loss"] > 0


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
def test_a_run_in_float16_resumes_bit_for_bit(tmp_path, fused):
    options = [*HALF, "trainer.steps=9", "trainer.max_skipped=12", f"trainer.optimizer.fused={str(fused).lower()}"]
    loss, kill = {"_target_": f"{__name__}.Large"}, {"preview": {"_target_": "tiny.Kill", "every": 5}}
    whole = train(tmp_path / "whole", *options, loss=loss)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", *options, loss=loss, **kill)
    assert scale_of(tmp_path / "killed") < 65536.0
    assert_same_run(whole, train(tmp_path / "killed", *options, "trainer.resume=auto", loss=loss))
