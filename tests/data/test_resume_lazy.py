r"""A run on pictures that are read in workers, killed and resumed, is the run without workers that was not."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image
from runs import assert_same_run
from tiny import DIGITS, train

from scoregen.compat import repair_torchvision

RUN = [*DIGITS[1:], "trainer.steps=4", "trainer.checkpoint_every=2", "+data.augmentation={_target_:scoregen.data.Crop}"]


def encoded() -> list[bytes]:
    found = []
    for image in np.random.default_rng(0).integers(0, 256, (12, 8, 8), dtype=np.uint8):
        found.append(io.BytesIO())
        Image.fromarray(image).save(found[-1], "PNG")
    return [file.getvalue() for file in found]


def folder(path):
    path.mkdir()
    for k, content in enumerate(encoded()):
        (path / f"{k}.png").write_bytes(content)
    return path


def shards(path):
    with tarfile.open(path.with_suffix(".tar"), "w") as archive:
        for k, content in enumerate(encoded()):
            info = tarfile.TarInfo(f"{k}.png")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path.with_suffix(".tar")


def hf(path):
    repair_torchvision()
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict({"image": encoded()}).save_to_disk(path)
    return path


@pytest.mark.parametrize("make", [folder, shards, hf])
def test_killed_and_resumed_equals_uninterrupted_bit_for_bit_whatever_the_workers(tmp_path, make):
    overrides = [*RUN, f"data={make.__name__}", f"data.path={make(tmp_path / 'data')}"]
    whole = train(tmp_path / "whole", *overrides, "trainer.workers=0")
    with pytest.raises(KeyboardInterrupt):
        kill = {"preview": {"_target_": "tiny.Kill", "every": 3}}
        train(tmp_path / "killed", *overrides, "trainer.workers=2", **kill)
    assert_same_run(whole, train(tmp_path / "killed", *overrides, "trainer.workers=2", "trainer.resume=auto"))
