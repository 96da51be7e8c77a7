import json

import numpy as np
import pytest
import torch

from scoregen.errors import UserError
from scoregen.metrics import read_samples
from scoregen.metrics.samples import read_record


def pictures(folder, images):
    from PIL import Image

    folder.mkdir(parents=True)
    for i, image in enumerate(images):
        array = image.permute(1, 2, 0).numpy()
        Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(folder / f"{i:06d}.png")


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_come_back_as_they_were_in_order(tmp_path, channels):
    images = torch.randint(0, 256, (12, channels, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pictures(tmp_path / "images", images)
    assert read_samples(tmp_path / "images").equal(images)


def test_a_folder_of_sample_py_is_its_images_without_the_grid(tmp_path):
    images = torch.full((2, 1, 5, 5), 7, dtype=torch.uint8)
    pictures(tmp_path / "images", images)
    pictures(tmp_path / "grids", torch.zeros(1, 3, 9, 9, dtype=torch.uint8))
    (tmp_path / "job.json").write_text(json.dumps({"seed": 3}))
    assert read_samples(tmp_path).equal(images)
    assert read_record(tmp_path) == {"seed": 3}


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_archives_keep_their_type(tmp_path, dtype):
    images = np.arange(24).reshape(2, 1, 3, 4).astype(dtype)
    np.savez(tmp_path / "samples.npz", images=images)
    found = read_samples(tmp_path / "samples.npz")
    assert found.equal(torch.from_numpy(images))
    assert read_samples(tmp_path).equal(found)
    assert read_record(tmp_path / "samples.npz") == {}


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"x": np.zeros((2, 1, 3, 3), np.float32)}, r"must hold an array 'images' .* got \['x'\]"),
        ({"images": np.zeros((0, 1, 3, 3), np.float32)}, "is empty"),
        ({"images": np.zeros((2, 1, 3, 3), np.int64)}, "uint8 or float, got torch.int64"),
    ],
    ids=["name", "empty", "type"],
)
def test_other_archives_are_refused(tmp_path, arrays, text):
    np.savez(tmp_path / "samples.npz", **arrays)
    with pytest.raises(UserError, match=text):
        read_samples(tmp_path / "samples.npz")


def test_what_is_not_there_or_damaged_is_one_message(tmp_path):
    with pytest.raises(UserError, match=r"samples: .*nothing\.npz' does not exist"):
        read_samples(tmp_path / "nothing.npz")
    (tmp_path / "bad.npz").write_text("no archive")
    with pytest.raises(UserError, match=r"not a readable \.npz"):
        read_samples(tmp_path / "bad.npz")


@pytest.mark.parametrize("kept", [0, 20, 60, 150])
def test_a_damaged_archive_is_one_message(tmp_path, kept):
    np.savez_compressed(tmp_path / "a.npz", images=np.arange(900, dtype=np.uint8).reshape(9, 1, 10, 10))
    whole = (tmp_path / "a.npz").read_bytes()
    for damaged in (whole[:kept], whole[:kept] + b"\x00\xff" * 20 + whole[kept + 40 :]):
        (tmp_path / "a.npz").write_bytes(damaged)
        with pytest.raises(UserError, match=r"not a readable \.npz"):
            read_samples(tmp_path / "a.npz")


def test_a_record_is_of_the_samples_that_sample_py_wrote(tmp_path):
    (tmp_path / "job.json").write_text('{"sampler": {"_target_": "x"}, "seed": 3}')
    assert read_record(tmp_path / "samples.npz") == read_record(tmp_path / "images") == read_record(tmp_path)
    assert read_record(tmp_path)["seed"] == 3
    assert read_record(tmp_path / "other.npz") == {}
    for text in ("", "[1]", "{"):
        (tmp_path / "job.json").write_text(text)
        assert read_record(tmp_path) == {}
