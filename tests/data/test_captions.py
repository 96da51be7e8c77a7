r"""Folders of images with captions."""

import json

import pytest
import torch
from PIL import Image

from scoregen.data import CaptionedFolder
from scoregen.errors import UserError


def picture(path, value, size=(6, 4), mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


@pytest.fixture
def table(tmp_path):
    r"""Four pictures of the greys 0, 51, 102, 153, the first and the last of one caption."""
    rows = []
    for i, text in enumerate(["a", "b", "c", "a"]):
        picture(tmp_path / f"{i}.png", 51 * i)
        rows.append({"file_name": f"{i}.png", "text": text, "more": 1})
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    return tmp_path


def test_every_image_comes_with_its_own_caption(table):
    source = CaptionedFolder(str(table), size=2)
    expected = {0.0: "a", 0.2: "b", 0.4: "c", 0.6: "a"}
    found = {}
    for part in (source.train, source.test):
        x, label = part.in_units(slice(None))
        assert x.shape[1:] == (3, 2, 2)
        found |= {round(x[i, 0, 0, 0].item(), 3): source.captions[label[i]] for i in range(len(x))}
    assert found == expected
    assert (len(source.train), len(source.test), source.captions, source.shape) == (3, 1, ("a", "b", "c"), (3, 2, 2))


def test_text_files_beside_the_images_say_the_same(table):
    before = CaptionedFolder(str(table), size=2)
    for i, text in enumerate(["a", "b", "c", "a"]):
        (table / f"{i}.txt").write_text(f" {text}\n")
    (table / "metadata.jsonl").unlink()
    after = CaptionedFolder(str(table), size=2)
    assert after.captions == before.captions
    assert torch.equal(after.train[:][0], before.train[:][0])
    assert after.train.fingerprint() == before.train.fingerprint()


def test_indices_slices_and_lists_agree(table):
    part = CaptionedFolder(str(table), size=2).train
    whole, labels = part[:]
    assert torch.equal(part[1][0], whole[1])
    assert torch.equal(part[[2, 0]][0], whole[[2, 0]])
    assert part.__getitems__([2, 0])[1].tolist() == labels[[2, 0]].tolist()
    assert part[:0][0].shape == (0, 3, 2, 2)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1 of .* is not JSON"),
        ('{"file_name": "0.png"}', "must have the text 'text'"),
        ('{"file_name": "0.png", "txt": "a"}', "Did you mean 'txt'"),
        ("[]", "must have the text 'file_name'"),
        ('{"file_name": "9.png", "text": "a"}', "does not exist"),
        ("", "is empty"),
    ],
)
def test_bad_lines_are_named(table, line, message):
    (table / "metadata.jsonl").write_text(line)
    with pytest.raises(UserError, match=message):
        CaptionedFolder(str(table), size=2)


def test_missing_captions_images_and_folders_are_named(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        CaptionedFolder(str(tmp_path / "none"))
    with pytest.raises(UserError, match="no images"):
        CaptionedFolder(str(tmp_path))
    picture(tmp_path / "a.png", 0)
    picture(tmp_path / "in" / "b.png", 0)
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(UserError, match=r"1 of the 2 images .* have no caption, the first is 'in/b.png'.*'b.txt'"):
        CaptionedFolder(str(tmp_path))
    with pytest.raises(UserError, match="is not a folder"):
        CaptionedFolder(str(tmp_path / "a.png"))
    with pytest.raises(ValueError, match="size must be a whole number >= 1, got size=0"):
        CaptionedFolder(str(tmp_path), size=0)


def test_pictures_of_more_than_8_bits_are_refused_not_cut_off(table):
    Image.new("I;16", (6, 4), 40_000).save(table / "2.png")
    source = CaptionedFolder(str(table), size=2)
    with pytest.raises(UserError, match=r"'2.png' has more than 8 bits"):
        for part in (source.train, source.test):
            _ = part[:]


def test_a_byte_order_mark_and_line_separators_inside_a_text_are_no_lines(table):
    rows = (table / "metadata.jsonl").read_text().replace('"b"', '"b\u2028b"')
    (table / "metadata.jsonl").write_text("\ufeff" + rows, encoding="utf-8")
    assert "b\u2028b" in CaptionedFolder(str(table), size=2).captions
