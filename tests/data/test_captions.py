r"""Folders of images with captions."""

import io
import json

import pytest
import torch
from PIL import Image

from scoregen.data import CaptionedFolder
from scoregen.errors import UserError


def picture(path, value, size=(6, 4), mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


def deep():
    file = io.BytesIO()
    Image.new("I;16", (6, 4), 40_000).save(file, "PNG")
    return file.getvalue()


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


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is not a readable image"),
        (b"%!PS-Adobe-3.0", "is not a readable image"),
        (deep(), "must have the same depth, but '.*0.png' has 8 bits, '.*2.png' 16 bits"),
    ],
    ids=["empty", "no picture", "16 bits"],
)
def test_pictures_that_cannot_be_used_are_named_before_anything_is_trained(table, content, text):
    (table / "2.png").write_bytes(content)
    with pytest.raises(UserError, match=text) as caught:
        CaptionedFolder(str(table), size=2)
    assert "2.png" in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("form", ["texts", "table"])
def test_captions_are_utf_8_or_the_file_is_named(table, form, encoding):
    if form == "texts":
        (table / "metadata.jsonl").unlink()
        for i in range(4):
            (table / f"{i}.txt").write_bytes("a café".encode(encoding))
    else:
        rows = (table / "metadata.jsonl").read_text().replace('"b"', '"a café"')
        (table / "metadata.jsonl").write_bytes(rows.encode(encoding))
    if encoding.startswith("utf-8"):
        assert "a café" in CaptionedFolder(str(table), size=2).captions
        return
    named = "'.*0.txt'" if form == "texts" else f"line {1 if '16' in encoding else 2} of '.*metadata.jsonl'"
    likely = "UTF-16" if encoding == "utf-16" else ""
    with pytest.raises(UserError, match=f"{named} is not|{named} is not UTF-8.*{likely}"):
        CaptionedFolder(str(table), size=2)


def test_a_long_line_and_a_long_text_are_refused(table):
    (table / "metadata.jsonl").write_bytes(b'{"a":' + b" " * 2**21)
    with pytest.raises(UserError, match=r"line 1 of .* has more than 1048576 bytes"):
        CaptionedFolder(str(table), size=2)
    (table / "metadata.jsonl").unlink()
    for i in range(4):
        (table / f"{i}.txt").write_bytes(b"a" * 2**21)
    with pytest.raises(UserError, match=r"0.txt' cannot be read \(it has more than"):
        CaptionedFolder(str(table), size=2)


def test_a_byte_order_mark_and_line_separators_inside_a_text_are_no_lines(table):
    rows = (table / "metadata.jsonl").read_text().replace('"b"', '"b\u2028b"')
    (table / "metadata.jsonl").write_text("\ufeff" + rows, encoding="utf-8")
    assert "b\u2028b" in CaptionedFolder(str(table), size=2).captions
