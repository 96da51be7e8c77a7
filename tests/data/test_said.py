r"""What a source drops, converts or guesses is refused or said: labels, parts, scales of integers, kinds of files."""

import io
import json
import re
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from scoregen import parallel
from scoregen.data import ArrayDataset, CaptionedFolder, Folder, Npy, Npz, Shards, Source
from scoregen.errors import UserError

RNG = np.random.default_rng(0)
BYTES, LABELS = RNG.integers(0, 256, (20, 8, 8), dtype=np.uint8), np.arange(20) % 4
FLOATS = torch.from_numpy(BYTES[:, None] / np.float32(255))


@pytest.fixture(autouse=True)
def say_again():
    parallel.say_once.cache_clear()


def npz(folder, **arrays):
    np.savez(folder / "a.npz", **arrays)
    return str(folder / "a.npz")


def pictures(folder, names, picture=None):
    for k, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (picture or Image.fromarray(BYTES[k])).save(folder / name)
    return folder


class Own(Source):
    r"""A user's own source of tensors."""

    name, range = "own", (0.0, 1.0)

    def __init__(self, x, label, classes=4):
        super().__init__()
        self.x, self.label, self.num_classes = x, label, classes

    def load(self, train):
        return (None if self.x is None else ArrayDataset(self.x, self.label)) if train else None


SCALES = {
    "12 of 16 bits": (
        RNG.integers(0, 4096, (20, 8, 8)).astype("u2"),
        r"and 65535 is taken for .*data.range=\[0,4095\]",
    ),
    "10 of 16 bits": (RNG.integers(0, 1024, (20, 8, 8)).astype("u2"), r"and 65535 is .*data.range=\[0,1023\]"),
    "8 of 16 bits": (BYTES.astype("u2"), r"run from \d+ to 25\d, and 65535 .*data.range=\[0,255\]"),
    "16 greys": ((BYTES // 15).astype("u1"), r"run from 0 to 1\d, and 255 .*data.range=\[0,1\d\]"),
    "two greys": (BYTES // 200, r"run from 0 to 1, and 255 .*data.range=\[0,1\]"),
    "all": (BYTES, None),
    "16 bits": (BYTES.astype("u2") * 257, None),
}


@pytest.mark.parametrize("case", SCALES)
@pytest.mark.parametrize("kind", ["npz", "npy", "folder"])
def test_integers_that_use_little_of_their_full_scale_are_said_with_their_likely_one(tmp_path, capsys, case, kind):
    images, text = SCALES[case]
    if kind == "npz":
        Npz(npz(tmp_path, images=images))
    elif kind == "npy":
        for k, image in enumerate(images):
            np.save(tmp_path / f"{k}.npy", image)
        Npy(str(tmp_path))
    else:
        for k, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / f"{k}.png")
        Folder(str(tmp_path))
    said = capsys.readouterr().err
    assert said == "" if text is None else re.search(text, said), said


def test_integers_have_a_range_in_vectors_too_and_one_without_an_end_is_said(tmp_path, capsys):
    assert Npz(npz(tmp_path, x=BYTES[:, 0])).range == (0.0, 1.0)
    assert Npz(npz(tmp_path, x=BYTES[:, 0] / 255)).range is None
    assert capsys.readouterr().err == ""
    Npz(npz(tmp_path, images=BYTES), range=[0, float("inf")])
    assert "[0, inf] has no end, so 255, the full scale of the integers of 'images'" in capsys.readouterr().err


def test_what_float32_cannot_hold_is_refused_and_what_it_rounds_is_said(tmp_path, capsys):
    x = RNG.random((20, 3))
    with pytest.raises(UserError, match=r"as large as .*e\+\d+, beyond float32"):
        Npz(npz(tmp_path, x=x * 1e300))
    Npz(npz(tmp_path, x=x.astype(np.longdouble)))
    assert capsys.readouterr().err == ""
    Npz(npz(tmp_path, x=1.6e9 + 100 * x))
    assert re.search(r"float32 rounds the values of 'x' .* by up to \d\S* standard deviat", capsys.readouterr().err)


@pytest.mark.parametrize(
    "labels, remedy",
    [
        (LABELS.astype(float), r"labels.astype\('int64'\)"),
        (LABELS.astype(str), "np.unique"),
        (np.eye(4)[LABELS], r"labels.argmax\(1\)"),
    ],
    ids=["floats", "texts", "one-hot"],
)
def test_labels_of_other_types_are_refused_with_the_conversion(tmp_path, labels, remedy):
    with pytest.raises(UserError, match=f"must hold a whole number for each image.*{remedy}"):
        Npz(npz(tmp_path, images=BYTES, labels=labels))


TOLD = {
    "from one": ({"labels": LABELS + 1}, "1 of 5 classes have no training samples, .*: 0. Number the classes from 0."),
    "a gap": ({"labels": LABELS * 2}, "3 of 7 classes have no training samples, so they are not learned: 1, 3, 5."),
    "some none": ({"labels": LABELS - 1}, "of 18 training samples of a have no label"),
    "all none": ({"labels": 0 * LABELS - 1}, "'labels' of '.*' are all -1, which is no label"),
    "no test labels": ({"test_images": BYTES, "labels": LABELS}, "a has labels, but none for the test part"),
    "test labels": ({"test_images": BYTES, "test_labels": LABELS}, "a has labels, but none for the train part"),
    "other classes": (
        {"test_images": BYTES, "labels": LABELS, "test_labels": LABELS + 3},
        r"3 of 7 classes .*: 4, 5, 6\.",
    ),
    "right": ({"labels": LABELS, "test_images": BYTES, "test_labels": LABELS}, None),
}


@pytest.mark.parametrize("case", TOLD)
def test_samples_and_classes_that_are_not_learned_are_said(tmp_path, capsys, case):
    arrays, text = TOLD[case]
    source = Npz(npz(tmp_path, images=BYTES, **arrays))
    _ = source.train
    said = capsys.readouterr().err
    assert said == "" if text is None else re.search(text, said), said
    if case == "no test labels":
        assert Npz(npz(tmp_path, images=BYTES, **arrays), test="all").test.label is None
        assert "none for the test part. With data.test=all none are used." in capsys.readouterr().err
    if case == "all none":
        assert source.train.label is None and source.num_classes is None


def test_a_source_of_ones_own_is_held_to_its_classes_and_its_range(capsys):
    label = torch.from_numpy(LABELS)
    for bad, text in (
        (Own(FLOATS, label, 3), r"numbers of its 3 classes, .*got 0 to 3. State num_classes=4"),
        (Own(FLOATS, label - 2), "or -1 for none, got -2 to 1"),
        (Own(3 * FLOATS, label), r"of the values of the train part of own lie outside \[0, 1\]"),
        (Own(None, None), r"load\(train=True\) of own must return its data, got None"),
    ):
        with pytest.raises(UserError, match=text):
            _ = bad.train
    with pytest.raises(ValueError, match="must be tensors, got ndarray and Tensor"):
        _ = Own(FLOATS.numpy(), label).train
    _ = Own(FLOATS, label, None).train
    assert "own has labels and no num_classes, so that they are not used" in capsys.readouterr().err
    x = Own(FLOATS.clone().requires_grad_(), label).train[torch.arange(3)][0]
    assert not x.requires_grad


def test_folders_of_parts_are_known_in_capitals_and_alone_and_others_beside_them_are_said(tmp_path, capsys):
    parts = [f"{part}/{c}/{k}.png" for part in ("Train", "Test") for c in "ab" for k in range(3)]
    source = Folder(str(pictures(tmp_path / "capitals", parts)))
    assert (source.class_names, len(source.train), len(source.test)) == (("a", "b"), 6, 6)
    source = Folder(str(pictures(tmp_path / "alone", [f"train/{c}/{k}.png" for c in "ab" for k in range(5)])))
    assert (source.class_names, len(source.train), len(source.test)) == (("a", "b"), 9, 1)
    assert capsys.readouterr().err == ""
    three = [f"{part}/{k}.png" for part in ("train", "val", "unlabeled") for k in range(3)]
    assert Folder(str(pictures(tmp_path / "more", three))).num_classes == 3
    assert re.search("taken for classes: train, unlabeled, val. Parts are folders called", capsys.readouterr().err)


def test_a_part_from_elsewhere_shares_no_sample_with_the_training(tmp_path):
    pictures(tmp_path / "a", [f"{c}/{k}.png" for c in ("cat", "dog") for k in range(4)])
    for place, text in ((tmp_path / "a", "is data.path itself"), (tmp_path / "a" / "cat", "is in data.path")):
        with pytest.raises(UserError, match=rf"data.test: '.*' {text}, so that its samples are for training too"):
            _ = Folder(str(tmp_path / "a"), test=str(place)).train
    with pytest.raises(UserError, match=r"data.validation: must be auto or none with data.test=all, .* got 0.5"):
        Folder(str(tmp_path / "a"), test="all", validation=0.5)
    pictures(tmp_path / "b", [f"{part}/{k}.png" for part in ("train", "test") for k in range(4)])
    assert len(Folder(str(tmp_path / "b"), test=tmp_path / "b" / "test").test) == 4
    pictures(tmp_path / "a", [f"test/{k}.png" for k in range(4)])  # which is a class there
    with pytest.raises(UserError, match=r"is in data\.path"):
        _ = Folder(str(tmp_path / "a"), test=str(tmp_path / "a" / "test")).train


def test_numbers_below_0_and_inverted_greys_of_a_tiff_are_refused(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    cases = {
        "signed": (BYTES[0].astype("i1"), "minisblack", "1 channels of int8"),
        "inverted": (BYTES[0].astype("u2"), "miniswhite", "says that 0 is white"),
    }
    for name, (image, meaning, text) in cases.items():
        (tmp_path / name).mkdir()
        tifffile.imwrite(tmp_path / name / "1.tif", image, photometric=meaning)
        with pytest.raises(UserError, match=text):
            Folder(str(tmp_path / name), test="none")
    tifffile.imwrite(tmp_path / "a.tif", BYTES[0], photometric="miniswhite")
    (tmp_path / "signed" / "1.tif").unlink()
    (tmp_path / "a.tif").rename(tmp_path / "signed" / "1.tif")
    assert torch.equal(Folder(str(tmp_path / "signed"), test="none").train[0][0][0], torch.from_numpy(255 - BYTES[0]))


def test_a_link_without_its_file_is_called_so(tmp_path):
    pictures(tmp_path, ["a.png", "b.png"])
    (tmp_path / "c.png").symlink_to("nowhere.png")
    with pytest.raises(UserError, match=r"c.png' is a link to what does not exist\.$"):
        Folder(str(tmp_path))


@pytest.mark.parametrize(
    "member, label, text",
    [
        (("cls", ""), None, "4 of 4 samples have an empty name of a class"),
        (("json", '{"kind": true}'), "json.kind", "a whole number for each sample, or a name .* got True and True"),
        (("json", '{"kind": null}'), "json.kind", "'json.kind' gives no class for any sample"),
    ],
    ids=["empty", "flags", "null"],
)
def test_members_that_give_no_class_are_refused(tmp_path, member, label, text):
    ending, content = member
    picture = io.BytesIO()
    Image.fromarray(BYTES[0]).save(picture, "PNG")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for k in range(4):
            for name, held in ((f"{k}.png", picture.getvalue()), (f"{k}.{ending}", content.encode())):
                info = tarfile.TarInfo(name)
                info.size = len(held)
                archive.addfile(info, io.BytesIO(held))
    with pytest.raises(UserError, match=text):
        Shards(str(tmp_path), label=label)


def test_captions_that_are_empty_and_pictures_that_are_left_out_are_said(tmp_path, capsys):
    pictures(tmp_path, [f"{k}.png" for k in range(4)])
    rows = [("0.png", "a"), ("1.png", " "), ("2.png", "c"), ("./0.png", "again")]
    lines = [json.dumps({"file_name": name, "text": text}) for name, text in rows]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    (tmp_path / "2.txt").write_text("another text")
    assert len(CaptionedFolder(str(tmp_path), size=8, test=1).train) == 3
    said = capsys.readouterr().err
    assert "classes" not in said
    for text in ("1 of 4 captions", "1 lines of ", r"1 pictures .* \(first: '3.png'\)", "texts beside the pictures"):
        assert re.search(text, said), text


def test_an_array_is_told_from_an_archive_and_an_empty_one_refused(tmp_path):
    np.save(tmp_path / "a.npy", BYTES)
    np.save(tmp_path / "empty.npy", BYTES[:0])
    with pytest.raises(UserError, match=r"holds one array, and is no .npz file. data=npy reads it"):
        Npz(str(tmp_path / "a.npy"))
    with pytest.raises(UserError, match=r"must hold samples, got an array of shape \(0, 8, 8\)"):
        Npy(str(tmp_path / "empty.npy"))
