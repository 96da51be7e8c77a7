r"""Arrays in files: mapped rows are those of the file, in memory or not; folders; what is damaged or differs."""

import pickle
import tracemalloc

import numpy as np
import pytest
import torch

from scoregen import parallel
from scoregen.data import Npy, Npz
from scoregen.data.mapped import map_array, map_member
from scoregen.errors import UserError

X = np.random.default_rng(0).integers(0, 256, (20, 6, 5), dtype=np.uint8)


def saved(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
    return str(path)


@pytest.mark.parametrize(
    "array", [X, np.asfortranarray(X), X.astype(">u2"), X / 255, X.astype(np.float16)[:, :, :, None]]
)
def test_a_mapped_array_is_that_of_the_file(tmp_path, array):
    mapped = map_array(tmp_path / "a.npy", "data.path") if np.save(tmp_path / "a.npy", array) is None else None
    assert np.array_equal(mapped.rows, array) and mapped.rows.dtype == array.dtype
    assert np.array_equal(pickle.loads(pickle.dumps(mapped)).rows, array)
    np.savez(tmp_path / "a.npz", first=np.zeros(3), images=array)
    assert np.array_equal(map_member(tmp_path / "a.npz", "images", "data.path").rows, array)
    np.savez_compressed(tmp_path / "a.npz", images=array)
    assert map_member(tmp_path / "a.npz", "images", "data.path") is None


def test_a_mapped_array_costs_no_memory(tmp_path):
    path = saved(tmp_path / "a.npy", np.random.default_rng(0).integers(0, 256, (4000, 64, 64), dtype=np.uint8))
    source = Npy(path, test="none")
    tracemalloc.start()
    x, _ = source.train[list(range(0, 4000, 400))]
    assert tracemalloc.get_traced_memory()[1] < 10 * x.nbytes  # the file has 400 times as much
    tracemalloc.stop()


@pytest.mark.parametrize("compressed", [False, True])
def test_archives_are_read_alike_whether_they_are_mapped_or_not(tmp_path, compressed, capsys, monkeypatch):
    parallel.say_once.cache_clear()
    monkeypatch.setattr("scoregen.data.arrays._SAID", 100)
    (np.savez_compressed if compressed else np.savez)(tmp_path / "a.npz", images=X, labels=np.arange(20) % 4)
    source = Npz(str(tmp_path / "a.npz"), test="none")
    assert np.array_equal(source.train[:][0][:, 0].numpy(), X) and source.train.label.tolist() == [
        k % 4 for k in range(20)
    ]
    assert ("is compressed, so all" in capsys.readouterr().err) == compressed
    np.savez(tmp_path / "b.npz", images=X)
    assert Npz(str(tmp_path / "b.npz"), test="none").train.fingerprint() == source.train.fingerprint()


def test_one_file_with_labels(tmp_path):
    path = saved(tmp_path / "a.npy", X)
    source = Npy(path, labels=saved(tmp_path / "l.npy", np.arange(20)[:, None] % 3))
    assert (source.name, source.shape, source.num_classes, len(source.train), len(source.test)) == (
        "a",
        (1, 6, 5),
        3,
        18,
        2,
    )
    for part in (source.train, source.test):
        x, label = part[:]
        places = [next(k for k in range(20) if np.array_equal(X[k], row[0])) for row in x.numpy()]
        assert label.tolist() == [place % 3 for place in places]
    with pytest.raises(UserError, match="a label for each of its 20 images, got 3"):
        Npy(path, labels=saved(tmp_path / "l.npy", np.arange(3)))


def test_a_folder_of_samples_with_classes_and_parts(tmp_path):
    for part, count in (("train", 6), ("test", 3)):
        for k in range(count):
            saved(tmp_path / part / "ab"[k % 2] / f"{k}.npy", X[k] / 255)
    source = Npy(str(tmp_path))
    assert (source.class_names, source.shape, len(source.train), len(source.test)) == (("a", "b"), (1, 6, 5), 6, 3)
    x, label = source.train.in_units(slice(None))
    assert label.tolist() == [0, 0, 0, 1, 1, 1]
    torch.testing.assert_close(x[:, 0], torch.from_numpy(X[[0, 2, 4, 1, 3, 5]] / 255).float())


def test_a_folder_of_files_of_several_samples(tmp_path):
    x = np.random.default_rng(0).random((9, 6, 6, 2))
    saved(tmp_path / "0.npy", x[:5])
    saved(tmp_path / "1.npy", x[5:])
    source = Npy(str(tmp_path), test="none")
    assert source.shape == (2, 6, 6)
    torch.testing.assert_close(
        source.train[[7, 0, 4, 5]][0], torch.from_numpy(np.moveaxis(x, -1, 1)[[7, 0, 4, 5]]).float()
    )


@pytest.mark.parametrize("other", [X[0][:5], X[0].astype(np.float32)], ids=["shape", "type"])
def test_arrays_of_a_folder_must_be_alike(tmp_path, other):
    saved(tmp_path / "0.npy", X[0])
    saved(tmp_path / "1.npy", other)
    with pytest.raises(UserError, match=r"arrays must be alike, but '.*0.npy' has \(6, 5\) of uint8, '.*1.npy'"):
        Npy(str(tmp_path), test="none")


@pytest.mark.parametrize("damage", ["cut", "text", "pickle", "empty", "claims"])
def test_damaged_files_are_one_message(tmp_path, damage):
    path = tmp_path / "a.npy"
    np.save(path, np.array([{}], dtype=object) if damage == "pickle" else X)
    content = path.read_bytes()
    changed = {
        "cut": content[:-1],
        "text": b"hello",
        "empty": b"",
        "claims": content.replace(b"(20, 6, 5)", b"(20, 6, 6)"),
    }
    path.write_bytes(changed.get(damage, content))
    with pytest.raises(UserError, match=r"data.path: '.*a.npy' is not a readable .npy file"):
        Npy(str(path))


@pytest.mark.parametrize("dtype", [np.int64, np.int16, bool, np.uint32, complex])
def test_types_without_full_scale_are_refused(tmp_path, dtype):
    with pytest.raises(UserError, match=r"must be \(N, ...\) of uint8, uint16 or floats, got \(20, 6, 5\) of"):
        Npy(saved(tmp_path / "a.npy", X.astype(dtype)))
