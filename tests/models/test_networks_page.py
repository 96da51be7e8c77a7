r"""The network of docs/networks.md as it stands."""

import re
from pathlib import Path

import pytest
import torch

from scoregen.models import Denoiser
from scoregen.sde import EDM

PAGE = (Path(__file__).parents[2] / "docs" / "networks.md").read_text()


@pytest.mark.parametrize("num_classes", [None, 2])
def test_its_rows_depend_on_noise_and_label_alone_and_on_no_other_row(num_classes):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    names: dict = {"__name__": "mynet"}
    exec(compile(code, "networks.md", "exec"), names)
    torch.manual_seed(0)
    denoiser = Denoiser(names["Net"]((3, 8, 8), num_classes, width=4), EDM()).double()
    u, s = torch.randn(3, 3, 8, 8, dtype=torch.float64), torch.tensor([0.5, 0.5, 2.0], dtype=torch.float64)
    label = None if num_classes is None else torch.tensor([0, -1, 1])
    whole = denoiser(u, s, label)
    assert whole.shape == u.shape
    for k in range(3):
        alone = denoiser(u[k : k + 1], s[k : k + 1], None if label is None else label[k : k + 1])
        torch.testing.assert_close(whole[k : k + 1], alone)
    same = u[:1].expand(3, -1, -1, -1)
    found = denoiser(same, s, label)
    assert not torch.equal(found[0], found[2])
    assert torch.equal(found[0], found[1]) == (label is None)
