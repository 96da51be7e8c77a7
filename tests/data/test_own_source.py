r"""The source of docs/data.md as it stands: trained on from the command line, and held to the law of sources."""

import importlib
import re
from pathlib import Path

import torch
from laws.test_sources import check_part
from tiny import COMMON, command, numbers

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
BLOCK = next(block for block in re.findall(r"```python\n(.*?)```", PAGE, re.S) if "class MySource" in block)


def test_the_source_of_the_page_trains_and_keeps_its_contract(tmp_path, monkeypatch):
    (tmp_path / "mysource.py").write_text(BLOCK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    typed = re.search(r"python train.py (.*)", BLOCK)[1].replace("3000", "40").split()
    small = ["model=unet_tiny", "model.network.channels=[4]", "model.network.attention=[]", "trainer.steps=2"]
    assert command("train", *typed, *small, *COMMON, "hydra.run.dir=run") == 0
    assert [line["step"] for line in numbers(tmp_path / "run")] == [1, 2]
    source = importlib.import_module("mysource").MySource(40)
    assert (source.shape, len(source.train), len(source.test)) == ((1, 16, 16), 36, 4)
    for part in (source.train, source.test):
        check_part(source, part)
    radius = (source.train.in_units(slice(None))[0].sum((1, 2, 3)) / torch.pi).sqrt()
    assert bool((radius.round() == 3 + source.train.label).all())
