r"""What a training asks of a network of the user's own, before any work."""

import sys

import pytest
import torch
from tiny import command
from torch import nn

from scoregen.data import Digits
from scoregen.errors import UserError
from scoregen.jobs.rehearsal import check_loss
from scoregen.losses import DenoisingScoreMatching
from scoregen.models import Denoiser
from scoregen.sde import EDM

SMALL = ["data=digits", "trainer.steps=1", "preview.every=null", "hydra.run.dir=run", "dry_run=true"]


class Forgetful(nn.Module):
    r"""It has a row for each class and none for "no label"."""

    def __init__(self, num_classes=10, rows=0):
        super().__init__()
        self.num_classes, self.label = num_classes, nn.Embedding(num_classes + rows, 64)

    def forward(self, z, c_noise, label=None):
        return z if label is None else z + self.label(label).view_as(z)


class Half(Forgetful):
    r"""Its weights have half precision, and so has the z that it gets, but not c_noise."""

    def __init__(self):
        super().__init__()
        self.time = nn.Linear(1, 64)
        self.to(torch.bfloat16)

    def forward(self, z, c_noise, label=None):
        return z + self.time(c_noise[:, None]).view_as(z)


class Wrapped(Forgetful):
    r"""It gives labels of its own to "no label"."""

    def forward(self, z, c_noise, label=None):
        return super().forward(z, c_noise, None if label is None else label % self.num_classes)


def rehearsed(network, dropout=0.1):
    check_loss(DenoisingScoreMatching(label_dropout=dropout), Denoiser(network, EDM()), Digits(), 1)


@pytest.mark.parametrize(
    ("network", "text"),
    [
        (Forgetful(), r"index out of range in self \(test_rehearsal.py, line \d+\)\. A label may be -1, which stands"),
        (Half(), r"same dtype.*test_rehearsal.py, line \d+\)\. c_noise has at least float32: use c_noise\.to\(z\)\."),
    ],
    ids=["no-label", "type"],
)
def test_a_mistake_in_a_network_is_found_with_its_line_and_a_remedy(network, text):
    with pytest.raises(UserError, match=text):
        rehearsed(network)


def test_no_label_is_tried_only_where_labels_are_dropped():
    rehearsed(Forgetful(), dropout=0.0)
    rehearsed(Wrapped())


def test_a_network_that_does_not_keep_its_number_of_classes_is_refused(tmp_path, monkeypatch, capsys):
    r"""The job hands labels only to a network that has them, so they would be left out in silence."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mynet", raising=False)
    (tmp_path / "mynet.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, num_classes=None):\n"
        "        super().__init__()\n"
        "        self.last = nn.Conv2d(1, 1, 1)\n"
        "    def forward(self, z, c_noise, label=None):\n"
        "        return self.last(z)\n"
    )
    own = ["model.network._target_=mynet.Net", "trust=[mynet]"]
    assert command("train", *SMALL, *own) == 1
    assert "Net is given num_classes=10 but has no attribute num_classes" in capsys.readouterr().err
    assert command("train", *SMALL, *own, "conditional=false") == 0
    sys.modules.pop("mynet")
