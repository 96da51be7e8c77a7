r"""A folder of pictures: an index of names, classes and parts by folders, cases from practice, damaged pictures."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from scoregen import parallel
from scoregen.data import Folder
from scoregen.data.index import IMAGE_SUFFIXES, files_of
from scoregen.errors import UserError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (16, 16), dtype=np.uint8)
L = Image.fromarray(GREY)
LA = Image.fromarray(np.dstack([GREY, np.full_like(GREY, 255)]), "LA")
RGB = Image.fromarray(RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8))


def folder(path, pictures):
    for name, picture in pictures.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(path / name)
    return str(path)


def numbered(count, start=0):
    r"""Pictures whose value is their number."""
    return {f"{k:03d}.png": Image.new("L", (2, 2), k) for k in range(start, start + count)}


@pytest.mark.parametrize("pictures", [[LA] * 4, [L.convert("P")] * 4, [LA, L] * 2, [L, LA, L.convert("P"), L]])
def test_greys_with_alpha_or_a_palette_have_one_channel(tmp_path, pictures):
    source = Folder(folder(tmp_path, {f"{k}.png": picture for k, picture in enumerate(pictures)}), test="none")
    assert source.shape == (1, 16, 16)
    assert all(np.array_equal(x[0].numpy(), GREY) for x in source.train[:][0])


def test_mixed_channels_are_refused_with_advice_that_helps(tmp_path):
    path = folder(tmp_path, {f"{k}.png": picture for k, picture in enumerate([L, RGB] * 2)})
    with pytest.raises(UserError, match=r"same channels, .* Give data.channels=3 .* or data.channels=1"):
        Folder(path)
    three, one = Folder(path, channels=3, test="none").train[:][0], Folder(path, channels=1, test="none").train[:][0]
    assert three.shape == (4, 3, 16, 16) and one.shape == (4, 1, 16, 16)
    assert all(np.array_equal(band.numpy(), GREY) for band in three[0]) and np.array_equal(one[0, 0].numpy(), GREY)


def test_a_grey_picture_that_is_found_later_gets_three_channels_and_a_coloured_one_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("scoregen.data.pictures._HEADERS", 1)
    path = folder(tmp_path / "a", {"0.png": RGB, "1.png": L})
    x = Folder(path, test="none").train[:][0]
    assert x.shape == (2, 3, 16, 16) and all(np.array_equal(band.numpy(), GREY) for band in x[1])
    path = folder(tmp_path / "b", {"0.png": L, "1.png": RGB})
    with pytest.raises(UserError, match="same channels"):
        _ = Folder(path, test="none").train[:]


@pytest.mark.parametrize("held", ["test", "val"])
def test_train_and_test_folders_are_the_parts(tmp_path, held):
    pictures = numbered(8)
    tree = {f"{'train' if k < 6 else held}/{'ab'[k % 2]}/{name}": p for k, (name, p) in enumerate(pictures.items())}
    source = Folder(folder(tmp_path, tree))
    assert source.class_names == ("a", "b") and (len(source.train), len(source.test)) == (6, 2)
    x, label = source.test[:]
    assert x[:, 0, 0, 0].tolist() == [6, 7] and label.tolist() == [0, 1]


def test_train_val_and_test_are_three_parts(tmp_path):
    tree = {f"{part}/{k}.png": Image.new("L", (2, 2), k) for k, part in enumerate(["train", "train", "val", "test"])}
    source = Folder(folder(tmp_path, tree))
    found = [part[:][0][:, 0, 0, 0].tolist() for part in (source.train, source.validation, source.test)]
    assert found == [[0, 1], [2], [3]] and source.num_classes is None


def test_folders_of_other_names_beside_train_are_classes(tmp_path):
    tree = {f"{name}/{k}.png": L for name in ("train", "test", "bus") for k in range(4)}
    assert Folder(folder(tmp_path, tree)).class_names == ("bus", "test", "train")


def test_classes_of_several_levels_are_named_by_their_path(tmp_path):
    tree = {f"{name}/{k}.png": L for name in ("cats/black", "cats/white", "dogs") for k in range(3)}
    source = Folder(folder(tmp_path, tree), test="none")
    assert source.class_names == ("cats/black", "cats/white", "dogs")
    assert source.train.label.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_sixteen_bit_pictures_fill_the_range(tmp_path):
    for k, value in enumerate((0, 13107, 65535)):
        Image.fromarray(np.full((4, 4), value, np.uint16)).save(tmp_path / f"{k}.png")
    x = Folder(str(tmp_path), range=[-1, 1], test="none").train.in_units(slice(None))[0]
    torch.testing.assert_close(x[:, 0, 0, 0], torch.tensor([-1.0, -0.6, 1.0]))


def test_the_index_is_the_names_in_order_with_links_and_without_what_is_hidden(tmp_path):
    folder(tmp_path / "a", {"b/2.png": L, "b/10.png": L, "a b/1.PNG": L, ".hidden/1.png": L, "b/.2.png": L})
    (tmp_path / "a" / "link").symlink_to(tmp_path / "a" / "b")
    (tmp_path / "a" / "b" / "loop").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "b" / "notes.txt").write_text("x")
    found = files_of(tmp_path / "a", IMAGE_SUFFIXES)
    assert found.names == ["a b/1.PNG", "b/10.png", "b/2.png", "link/10.png", "link/2.png"]
    assert found[1] == tmp_path / "a" / "b/10.png" and found[-1] == found[4] and found[1:3] == [found[1], found[2]]


def test_a_kept_index_is_good_until_a_folder_changes(tmp_path, monkeypatch):
    monkeypatch.setattr("scoregen.data.index._MANY", 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder(tmp_path / "a", {"b/1.png": L, "c/1.png": L, "c/x.gif": L})
    for place in ("a", "a/b", "a/c"):
        os.utime(tmp_path / place, ns=(10**9, 10**9))
    first = files_of(tmp_path / "a", IMAGE_SUFFIXES)
    assert len(list((tmp_path / "cache").rglob("*.npz"))) == 1
    with monkeypatch.context() as patch:
        patch.setattr("scoregen.data.index._scan", None)  # not called
        assert files_of(tmp_path / "a", IMAGE_SUFFIXES).names == first.names == ["b/1.png", "c/1.png"]
    L.save(tmp_path / "a" / "c" / "2.png")
    assert files_of(tmp_path / "a", IMAGE_SUFFIXES).names == ["b/1.png", "c/1.png", "c/2.png"]
    next((tmp_path / "cache").rglob("*.npz")).write_bytes(b"PK")
    assert len(files_of(tmp_path / "a", IMAGE_SUFFIXES)) == 3


@pytest.mark.parametrize("kept", [False, True])
def test_folders_without_pictures_are_named_also_from_a_kept_index(tmp_path, monkeypatch, capsys, kept):
    monkeypatch.setattr("scoregen.data.index._MANY", 1 if kept else 10_000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder(tmp_path / "a", {"b/deep/1.png": L, "c/1.png": L})
    for place in ("empty/deeper", "b/bare", ".hidden"):
        (tmp_path / "a" / place).mkdir(parents=True)
    for place in ("a", "a/b", "a/c", "a/b/deep", "a/b/bare", "a/empty", "a/empty/deeper"):
        os.utime(tmp_path / place, ns=(10**9, 10**9))
    for _ in range(2):
        parallel.say_once.cache_clear()
        files_of(tmp_path / "a", IMAGE_SUFFIXES)
        assert "without images are left out: 'b/bare', 'empty'.\n" in capsys.readouterr().err


def test_a_class_that_only_the_test_part_has_is_named(tmp_path, capsys):
    parallel.say_once.cache_clear()
    tree = {f"{place}/{k}.png": L for place in ("train/a", "train/b", "test/b", "test/c") for k in range(2)}
    source = Folder(folder(tmp_path, tree))
    assert source.class_names == ("a", "b", "c") and len(source.train) == 4
    assert "1 of 3 classes have no training samples, so they are not learned: 'c'." in capsys.readouterr().err


def test_what_resizing_cuts_and_enlarges_is_said(tmp_path, capsys):
    parallel.say_once.cache_clear()
    wide, tall, square = (Image.new("L", size) for size in ((40, 32), (10, 20), (16, 16)))
    Folder(folder(tmp_path, {"1.png": wide, "2.png": tall, "3.png": square}), size=16, test="none")
    said = capsys.readouterr().err
    assert "2 of 3 that were looked at are not square" in said and "up to 50 % of a picture" in said
    assert "1 of 3 that were looked at are smaller than 16 pixels, down to 10, and are enlarged" in said
    parallel.say_once.cache_clear()
    Folder(folder(tmp_path / "squares", {"1.png": L}), size=16, test="none")
    assert capsys.readouterr().err == ""


def test_colours_of_print_are_converted_with_a_word(tmp_path, capsys):
    parallel.say_once.cache_clear()
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "1.jpg")
    x = Folder(str(tmp_path), test="none").train.in_units(slice(None))[0]
    assert x[0, :, 0, 0].gt(0.5).tolist() == [True, False, False]
    assert "pictures in CMYK are converted to RGB" in capsys.readouterr().err


def test_a_folder_that_has_just_changed_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("scoregen.data.index._MANY", 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files_of(tmp_path / "a" if folder(tmp_path / "a", {"1.png": L}) else tmp_path, IMAGE_SUFFIXES)
    assert not (tmp_path / "cache").exists()


def damaged(path, count, bad):
    folder(path, numbered(count))
    for k in bad:
        content = (path / f"{k:03d}.png").read_bytes()
        (path / f"{k:03d}.png").write_bytes(content[:-25] if k % 2 else b"")
    return str(path)


def test_damaged_pictures_are_replaced_by_the_next_one_counted_and_named(tmp_path, capsys):
    source = Folder(damaged(tmp_path, 50, [3, 4, 49]), max_corrupt=0.1, test="none")
    x = source.train[[2, 3, 4, 5, 49]][0][:, 0, 0, 0]
    assert x.tolist() == [2, 5, 5, 5, 0]
    assert source.train.damaged == 3
    error = capsys.readouterr().err
    assert all(f"{k:03d}.png' is not a readable image" in error for k in (3, 4, 49)) and error.count("is skipped") == 3
    assert source.train[4][0].max() == 5 and not capsys.readouterr().err  # known by now


def test_what_stands_in_does_not_depend_on_what_was_drawn_before(tmp_path):
    path = damaged(tmp_path, 50, [3, 4])
    in_order, backwards = (Folder(path, max_corrupt=0.1, test="none").train for _ in range(2))
    forth = [int(in_order[k][0].max()) for k in range(8)]
    back = [int(backwards[k][0].max()) for k in reversed(range(8))][::-1]
    assert forth == back == [0, 1, 2, 5, 5, 5, 6, 7]


def test_a_substitute_keeps_its_own_label_and_stays_in_its_part(tmp_path):
    for k in range(20):
        folder(tmp_path, {f"{'ab'[k % 2]}/{k:02d}.png": Image.new("L", (2, 2), k)})
    for k in (4, 9, 16):
        (tmp_path / "ab"[k % 2] / f"{k:02d}.png").write_bytes(b"")
    source = Folder(str(tmp_path), max_corrupt=0.5)
    x, label = source.train[:]
    values = x[:, 0, 0, 0]
    assert torch.equal(values % 2, label) and not {4, 9, 16} & set(values.tolist())
    held = [k for k in range(20) if k not in (4, 9, 16) and k not in values.tolist()]
    assert len(held) <= 2  # what was held out


def test_too_many_damaged_ones_end_it(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"000.png' is not a readable image"):
        Folder(damaged(tmp_path / "a", 20, range(0, 20, 2)))  # seen in the headers
    monkeypatch.setattr("scoregen.data.pictures._HEADERS", 1)
    source = Folder(damaged(tmp_path / "b", 20, [3, 5]), max_corrupt=0.05, test="none")
    _ = source.train[[2, 3, 4]]
    with pytest.raises(
        UserError, match=r"2 of 20 samples that cannot be read.*data.max_corrupt=0.05. Repair or remove"
    ):
        _ = source.train[[5]]


def test_no_sample_stands_in_where_numbers_are_reported(tmp_path):
    source = Folder(damaged(tmp_path, 20, [3]), max_corrupt=0.5, test="all")
    with pytest.raises(UserError, match=r"003.png' is not a readable image"):
        _ = source.test[:]


def test_twenty_thousand_pictures_start_fast_and_small(tmp_path):
    L.save(tmp_path / "one", "PNG")
    for k in range(10):
        (tmp_path / str(k)).mkdir()
        for i in range(2000):
            os.link(tmp_path / "one", tmp_path / str(k) / f"{i:04d}.png")
    (tmp_path / "one").unlink()
    code = (
        "import resource, sys, time; from scoregen.data import Folder; peak = lambda: resource.getrusage(0).ru_maxrss; "
    )
    code += "m, t = peak(), time.process_time(); s = Folder(sys.argv[1]); len(s.train); "
    code += "print(time.process_time() - t, (peak() - m) / 1024)"
    seconds, mebibytes = map(float, subprocess.check_output([sys.executable, "-c", code, tmp_path], text=True).split())
    assert seconds < 1 and mebibytes < 60
