r"""The law of sources: values in range, labels of the stated classes, parts that are apart and always the same."""

import inspect
import io
import json
import math
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from laws.discovery import uncovered
from PIL import Image
from tiny import image_folder, mnist_like

from scoregen import data
from scoregen.compat import repair_torchvision
from scoregen.data import Flip, Source


class Small(NamedTuple):
    r"""How a source is built for its law.

    Args:
        arguments: all of its arguments, none of them a default where there is a choice; files are made in the folder.
        range: that its data should have; images are in [0, 1].
    """

    arguments: Callable[[Path], dict[str, Any]]
    range: tuple[float, float] | None = (0.0, 1.0)


FLIP = Flip()
PARTS = {"test": 1, "validation": 2}
READ = {"size": 3, "channels": 3, "range": [-1.0, 1.0], "augmentation": FLIP, "max_pixels": 100, "max_corrupt": 0.01}


def images(shape: tuple[int, ...], labels: bool = True) -> dict[str, np.ndarray]:
    found = {"train_images": np.random.default_rng(0).integers(0, 256, (9, *shape), dtype=np.uint8)}
    return found | ({"train_labels": np.arange(9)} if labels else {})


def npz(folder: Path) -> dict[str, Any]:
    np.savez(folder / "a.npz", **images((4, 4, 3)))
    given = {"path": str(folder / "a.npz"), "augmentation": FLIP, "max_bytes": 10**6, "test": 2, "validation": 1}
    return given | {"range": [-1.0, 1.0], "layout": "channels_last"}


def pictures(folder: Path) -> dict[str, Any]:
    given = {"path": str(image_folder(folder)), "size": 3, "augmentation": FLIP, "max_pixels": 100}
    parts = {"test": 1, "validation": "none", "max_corrupt": 0.01}
    return given | parts | {"range": [-1.0, 1.0], "channels": 3}


def captions(folder: Path) -> dict[str, Any]:
    for k in range(5):
        Image.new("L", (6, 4), 51 * k).save(folder / f"{k}.png")
    rows = [json.dumps({"file_name": f"{k}.png", "text": str(k)}) for k in range(5)]
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    return {"path": str(folder), "size": 3, "augmentation": FLIP, "max_pixels": 100, "max_corrupt": 0.01} | PARTS


def encoded(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (6, 4), value).save(file, "PNG")
    return file.getvalue()


def shards(folder: Path) -> dict[str, Any]:
    with tarfile.open(folder / "a.tar", "w") as archive:
        for k in range(9):
            for ending, content in (("png", encoded(20 * k)), ("txt", b"%d" % (k % 3))):
                info = tarfile.TarInfo(f"{k}.{ending}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return {"path": str(folder / "a.tar"), "image": "png", "label": "txt", "caption": None} | READ | PARTS


def hugging_face(folder: Path) -> dict[str, Any]:
    pytest.importorskip("datasets")
    repair_torchvision()
    from datasets import Dataset, DatasetDict, disable_progress_bars

    disable_progress_bars()
    rows = {"picture": [encoded(20 * k) for k in range(9)], "kind": [k % 3 for k in range(9)]}
    DatasetDict({"first": Dataset.from_dict(rows)}).save_to_disk(str(folder / "data"))
    columns = {"split": "first", "image": "picture", "label": "kind", "caption": None, "subset": None, "revision": None}
    return {"path": str(folder / "data")} | columns | READ | PARTS


def npy(folder: Path) -> dict[str, Any]:
    for k in range(9):
        np.save(folder / f"{k}.npy", images((4, 4, 3))["train_images"][k])
    given = {"path": str(folder), "labels": None, "layout": "channels_last", "range": [-1.0, 1.0], "augmentation": FLIP}
    return given | {"max_corrupt": 0.01, "test": 2, "validation": 1}


def scenes(folder: Path) -> dict[str, Any]:
    for name, value in (("a", 1.0), ("b", 2.0), ("test/c", 3.0)):
        (folder / name).parent.mkdir(exist_ok=True)
        np.save(
            folder / f"{name}.npy", value * np.random.default_rng(0).uniform(0.1, 1, (3, 60, 61)).astype(np.float32)
        )
    given = {"size": 3, "cover": 0.1, "unit": "amplitude", "scale": 3.0, "range": [0.0, 1.0], "nodata": -1.0}
    place = {"path": str(folder), "test": str(folder / "test"), "validation": "none"}
    return place | given | {"layout": "channels_first", "augmentation": FLIP}


def cifar10(folder: Path) -> dict[str, Any]:
    np.savez(folder / "cifar10_subset.npz", **images((8, 8, 3)))
    return {"root": str(folder), "download": False, "augmentation": FLIP} | PARTS


def mnist(name: str) -> Callable[[Path], dict[str, Any]]:
    def arguments(folder: Path) -> dict[str, Any]:
        mnist_like(folder, name)
        return {"root": str(folder), "download": False, "augmentation": FLIP} | PARTS

    return arguments


def table(folder: Path) -> dict[str, Any]:
    pytest.importorskip("pandas")
    rows = "".join(f"{0.5 * k + 1};{'ab'[k % 2]}\n" for k in range(30))
    (folder / "a.csv").write_text("size;kind\n" + rows)
    form = {"separator": ";", "decimal": ".", "thousands": "'", "na_values": ["?"], "date_format": None}
    form |= {"encoding": "latin-1", "keep_default_na": False}
    return {"path": str(folder / "a.csv"), "columns": {"size": "real"}} | form | PARTS


SOURCES = {
    data.Digits: Small(lambda folder: {"augmentation": FLIP} | PARTS),
    data.MNIST: Small(mnist("MNIST")),
    data.FashionMNIST: Small(mnist("FashionMNIST")),
    data.KMNIST: Small(mnist("KMNIST")),
    data.CIFAR10: Small(cifar10),
    data.Npz: Small(npz, (-1.0, 1.0)),
    data.Npy: Small(npy, (-1.0, 1.0)),
    data.Folder: Small(pictures, (-1.0, 1.0)),
    data.CaptionedFolder: Small(captions),
    data.Scenes: Small(scenes),
    data.Shards: Small(shards, (-1.0, 1.0)),
    data.HuggingFace: Small(hugging_face, (-1.0, 1.0)),
    data.Toy2D: Small(lambda folder: {"n": 100, "noise": 0.1, "seed": 3} | PARTS, None),
    data.TableFile: Small(table, None),
    data.BreastCancer: Small(lambda folder: {"seed": 3} | PARTS, (0.0, math.inf)),
    data.Wine: Small(lambda folder: {"seed": 3} | PARTS, (0.0, math.inf)),
}


def check_source(kind: type[Source], small: Small, folder: Path) -> None:
    r"""The law of one row of SOURCES."""
    given = small.arguments(folder)
    assert set(given) == set(inspect.signature(kind).parameters)
    source, again = kind(**given), kind(**given)
    assert {name: getattr(source, kind.argument_attributes.get(name, name)) for name in given} == given
    assert isinstance(source.name, str) and source.range == small.range
    names = ("train", "test") if source.part("validation") is None else ("train", "validation", "test")
    for part, same in ((source.part(name), again.part(name)) for name in names):
        check_part(source, part)
        assert part.fingerprint() == same.fingerprint() and len(part.fingerprint()) == 16
        torch.testing.assert_close(part.in_units(slice(None)), same.in_units(slice(None)), rtol=0, atol=0)
    seen = [x.numpy().tobytes() for name in names for x in source.part(name).x]
    assert len(set(seen)) == len(seen)


def check_part(source: Source, part: data.Dataset) -> None:
    stored = part[:][0]
    x, label = part.in_units(slice(None))
    assert stored.dtype in (torch.uint8, torch.float32) and torch.equal(part.units(stored), x)
    low, high = source.range or (-math.inf, math.inf)
    assert x.dtype == torch.float32 and x.shape == (len(part), *source.shape) and len(part.x) == len(part)
    assert bool(x.isfinite().all()) and float(x.min()) >= low and float(x.max()) <= high
    if source.num_classes is not None:
        assert label.shape == (len(part),) and int(label.min()) >= 0 and int(label.max()) < source.num_classes


@pytest.mark.parametrize("kind", SOURCES, ids=lambda kind: kind.__name__)
def test_a_source_keeps_to_its_contract(tmp_path, kind):
    check_source(kind, SOURCES[kind], tmp_path)


def missing(sources: dict[type[Source], Small]) -> list[str]:
    return uncovered(Source, sources, "add small arguments to SOURCES in tests/laws/test_sources.py")


def test_every_source_is_tried():
    assert not missing(SOURCES)
