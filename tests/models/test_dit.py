r"""The transformer denoiser: it starts as the identity of its preconditioning, and learns digits."""

import pytest
import torch
from tiny import COMMON, numbers, train

from scoregen import load
from scoregen.models import Denoiser, DiT
from scoregen.rng import generator, randn
from scoregen.sde import EDM


def test_it_starts_at_zero_so_that_the_denoiser_is_its_skip():
    denoiser = Denoiser(DiT((1, 8, 8), width=16, depth=1, heads=2), EDM(0.002, 80.0)).eval()
    u, s = randn((2, 1, 8, 8), generator(0)), 0.7
    assert torch.equal(denoiser(u, s), 0.5**2 / (s**2 + 0.5**2) * u)


def test_it_learns_digits_and_is_loaded_as_it_was_saved(tmp_path):
    small = ["model=dit", "model.network.width=32", "model.network.depth=2", "model.network.heads=2"]
    fast = ["trainer.optimizer.lr=3e-3", "trainer.schedule.warmup=5", "trainer.ema_halflife=500"]
    given = [*COMMON, "trainer.batch_size=64", "trainer.steps=60", "trainer.log_every=20"]
    run = train(tmp_path / "run", "data=digits", *small, *given, *fast)
    losses = [line["loss"] for line in numbers(run) if "loss" in line]
    assert losses[-1] < 0.75 * losses[0]
    again = load(run)
    assert again.shape == (1, 8, 8) and again.num_classes == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (8, 8)}, r"shape must be that of one image"),
        ({"width": 10, "heads": 4}, "width must be a multiple of heads, got width=10, heads=4"),
        ({"patch_size": 0}, "patch_size must be a whole number >= 1"),
        ({"dropout": 1}, "dropout must lie in"),
    ],
)
def test_values_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DiT(**({"shape": (1, 8, 8)} | arguments))
