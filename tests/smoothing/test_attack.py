r"""An attack inside certified radii, on digits, with the control that it succeeds outside."""

import pytest
import torch
from torch import nn

from scoregen.data import Digits
from scoregen.smoothing import Gaussian, Laplace, SmoothedClassifier
from scoregen.smoothing.attack import attack

SIGMA = 0.25


@pytest.fixture(scope="module")
def smoothed():
    x, label = Digits().train[:]
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / max(parameter.shape[-1], 10) ** 0.5)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(300):
        batch = torch.randint(len(x), (256,), generator=generator)
        noisy = x[batch] + SIGMA * torch.randn(256, *x.shape[1:], generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(noisy), label[batch]).backward()
        optimizer.step()
    return SmoothedClassifier(network.eval(), Gaussian(SIGMA), 10)


def test_no_attack_breaks_a_certificate_and_nearly_all_break_it_at_twice_the_radius(smoothed):
    x, label = Digits().test[:25]
    generator = torch.Generator().manual_seed(1)
    certificates = smoothed.certify(x, n=2000, method="fixed", generator=generator)
    certified = [i for i, c in enumerate(certificates) if c.label == label[i] and c.radius > 0.1]
    assert len(certified) >= 18
    flips = {}
    for factor in (0.99, 2.0):
        attacked = torch.stack(
            [
                attack(smoothed, x[i], certificates[i].label, factor * certificates[i].radius, generator)
                for i in certified
            ]
        )
        distance = (attacked - x[certified]).flatten(1).norm(dim=1)
        radius = torch.tensor([factor * certificates[i].radius for i in certified])
        assert bool((distance <= radius * (1 + 1e-5)).all())
        voted = smoothed.predict(attacked, n=2000, generator=generator)
        flips[factor] = int(((voted != label[certified]) & (voted != -1)).sum())
    assert flips[0.99] == 0
    assert flips[2.0] >= 0.8 * len(certified)


def test_noise_whose_balls_are_of_another_kind_is_refused(smoothed):
    g = SmoothedClassifier(smoothed.classifier, Laplace(0.5), 10)
    with pytest.raises(TypeError, match="noise must be Gaussian"):
        attack(g, torch.rand(1, 8, 8), 0, 0.5, torch.Generator())
