r"""The repair of torchvision, on a stand-in package that fails as the real one does beside a CPU build of torch."""

import sys

import pytest
import torch

from scoregen import compat

BROKEN = """
import torch
from torchvision import part
try:
    torch.ops.{space}.nms
except AttributeError:
    raise RuntimeError("operator torchvision::nms does not exist")
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    r"""Puts a package named torchvision first on the path; the real one is back afterwards."""
    for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    kept = list(compat._keep_alive)
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(body: str | None):
        folder = tmp_path / "torchvision"
        folder.mkdir()
        (folder / "part.py").write_text("value = 1\n")
        (folder / "__init__.py").write_text(body)

    yield write
    for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    compat._keep_alive[:] = kept


@pytest.fixture
def registry(monkeypatch):
    r"""Operators are declared in a namespace of the test's own, and recorded."""
    declared, library = [], torch.library.Library

    class Recorded:
        def __init__(self, namespace, kind):
            assert (namespace, kind) == ("torchvision", "FRAGMENT")
            self.library = library("scoregen_test_vision", "FRAGMENT")

        def define(self, schema):
            declared.append(schema)
            self.library.define(schema)

    monkeypatch.setattr(torch.library, "Library", Recorded)
    return declared


def test_where_torchvision_loads_nothing_is_touched(stand_in, registry):
    stand_in("loads = 1\n")
    compat.repair_torchvision()
    import torchvision

    assert torchvision.loads == 1 and registry == []


def test_missing_operators_are_declared_once(stand_in, registry):
    stand_in(BROKEN.format(space="scoregen_test_vision"))
    compat.repair_torchvision()
    signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    assert registry == [f"nms{signature}", f"qnms{signature}"]
    import torchvision

    assert torchvision.part.value == 1
    compat.repair_torchvision()
    assert len(registry) == 2


def test_another_failure_is_not_hidden(stand_in, registry):
    stand_in("raise RuntimeError('no such driver')\n")
    with pytest.raises(RuntimeError, match="no such driver"):
        compat.repair_torchvision()
    assert registry == []


def test_without_torchvision_nothing_happens(stand_in, registry):
    stand_in("raise ImportError('none')\n")
    compat.repair_torchvision()
    assert registry == [] and "torchvision" not in sys.modules


def test_the_real_one_works_after_the_repair():
    compat.repair_torchvision()
    compat.repair_torchvision()
    from torchvision import datasets
    from torchvision.transforms import v2

    assert datasets.MNIST and v2.Resize
