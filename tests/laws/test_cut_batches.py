r"""A sample's loss does not depend on how the global batch is cut into processes and micro-batches.

Each of them sees a slice of the batch, with the keys and the quantiles of its places. Losses that cannot have the law
say why; a new loss joins the cases or gives its reason.
"""

import pytest
import torch
from laws.discovery import classes
from torch import nn

from scoregen import losses
from scoregen.keys import Keys
from scoregen.losses import DenoisingScoreMatching, Loss
from scoregen.models import Denoiser, FlatMLP
from scoregen.sde import EDM, Affine, Multiplicative

BATCH, SHAPE, CLASSES = 12, (1, 6, 6), 3
CASES = {
    "DenoisingScoreMatching": ("denoiser", {}),
    "DataUnitMatching": ("multiplicative", {}),
    "ConsistencyTuning": ("denoiser", {}),
    "JacobianPenalty": ("denoiser", {"base_loss": DenoisingScoreMatching()}),
    "AmbientScoreMatching": ("denoiser", {"sigma": 0.1}),
    "GaussianSplit": ("denoiser", {"sigma": 0.1}),
    "SpeckleSplit": ("multiplicative", {"looks": 4}),
    "FlowMap": ("map", {}),
    "CrossEntropy": ("classifier", {"noise_sigma": 0.5}),
    "ConsistencyRegularization": ("classifier", {"noise_sigma": 0.5}),
    "SmoothAdv": ("classifier", {"noise_sigma": 0.5}),
    "SmoothMix": ("classifier", {"noise_sigma": 0.5}),
    "MACER": ("classifier", {"noise_sigma": 0.5}),
}
WITHOUT = {
    "OptimalTransportPairing": "pairs the samples of one process, as docs/smooth.md says",
    "StepwiseVariation": "a running mean over all processes; test_micro_batches_share_the_mean_of_earlier_steps",
    "RepresentationConsistency": "tells a sample from the others of its micro-batch, as its docstring says",
    "ConsistencyDistillation": "draws as ConsistencyTuning does, and has a teacher from a file",
    "LatentLoss": "another loss, in latents of a pretrained pipeline",
    "TableScoreMatching": "of rows of a table, with a mask of what is missing",
    "NoProp": "of label embeddings; its noise is drawn as that of DenoisingScoreMatching",
    "ExplicitScoreMatching": "draws nothing by place; for measurements",
    "NonNegativeScoreMatching": "of one noise level; for measurements",
}


class Net(nn.Module):
    r"""A convolution, told the noise and the label."""

    num_classes = CLASSES

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.labels = nn.Conv2d(1, 1, 3, padding=1), nn.Embedding(CLASSES + 1, 1)

    def forward(self, z, c_noise, label=None):
        return self.conv(z) + (c_noise + self.labels(label + 1)[:, 0])[:, None, None, None]


def model(kind: str) -> nn.Module:
    torch.manual_seed(0)
    if kind == "classifier":
        found = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, CLASSES))
        found.num_classes = CLASSES
        return found.double()
    log = Multiplicative(EDM(0.01, 20.0), offset=0.1, data_range=(0.0, 1.0))
    sde = log if kind == "multiplicative" else EDM(chart=Affine(2.0, -1.0))
    return Denoiser(FlatMLP(SHAPE, 8, 1, CLASSES, next_level=True) if kind == "map" else Net(), sde).double()


@pytest.mark.parametrize("name", CASES)
def test_a_samples_loss_is_its_own(name):
    kind, options = CASES[name]
    trained, x = model(kind), torch.rand(BATCH, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    label, quantile = torch.arange(BATCH) % CLASSES, (torch.arange(BATCH) + 0.5) / BATCH

    def of(places):
        loss, here = getattr(losses, name)(**options), slice(places.start, places.stop)
        loss.begin(trained)
        return loss(trained, x[here].clone(), label[here], Keys(0, 1, 2, places), quantile[here]).detach()

    whole = of(range(BATCH))
    cut = torch.cat([of(range(first, first + 4)) for first in range(0, BATCH, 4)])
    assert whole.shape == (BATCH,) and len(set(whole.tolist())) > 1
    torch.testing.assert_close(cut, whole, rtol=1e-9, atol=1e-12)


def test_every_loss_has_the_law_or_a_reason():
    names = {target.rpartition(".")[2] for target in classes(Loss)}
    assert names == CASES.keys() | WITHOUT.keys()
