r"""Tables of the library datasets: files of this machine; nothing is fetched."""

import builtins
import io

import numpy as np
import pytest
import torch
from PIL import Image

from scoregen import parallel
from scoregen.compat import repair_torchvision
from scoregen.data import HuggingFace
from scoregen.errors import UserError

repair_torchvision()
datasets = pytest.importorskip("datasets")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def png(value, size=(6, 4), mode="RGB"):
    file = io.BytesIO()
    Image.new(mode, size, value if mode == "L" else (value,) * 3).save(file, "PNG")
    return file.getvalue()


def table(values, names=("a", "b", "c"), **more):
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(names))}
    rows = {"image": [{"bytes": png(v), "path": None} for v in values], "label": [v % 3 for v in values]}
    features |= {name: datasets.Value("string") for name in more}
    return datasets.Dataset.from_dict(rows | more, features=datasets.Features(features))


def contents(part):
    x, label = part[:]
    assert x.dtype == torch.uint8 and x.shape[1:] == (3, 4, 6)
    return dict(zip(x[:, 0, 0, 0].tolist(), [None] * len(x) if label is None else label.tolist(), strict=True))


def parquet(folder):
    (folder / "data").mkdir()
    table(range(9)).to_parquet(folder / "data" / "train-00000-of-00001.parquet")
    table(range(9, 12)).to_parquet(folder / "data" / "test-00000-of-00001.parquet")
    return folder / "data"


def one_parquet(folder):
    table(range(12)).to_parquet(folder / "a.parquet")
    return folder / "a.parquet"


def arrow(folder):
    table(range(12)).save_to_disk(folder / "saved")
    return next((folder / "saved").glob("*.arrow"))


def saved(folder):
    splits = {"train": table(range(9)), "validation": table(range(9, 12))}
    datasets.DatasetDict(splits).save_to_disk(folder / "saved")
    return folder / "saved"


def imagefolder(folder):
    for v in range(12):
        file = folder / "data" / "abc"[v % 3] / f"{v}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(v))
    return folder / "data"


@pytest.mark.parametrize("make", [parquet, one_parquet, arrow, saved, imagefolder])
def test_every_picture_comes_with_its_own_class_whatever_the_files(tmp_path, make):
    source = HuggingFace(str(make(tmp_path)))
    parts = [source.part(name) for name in ("train", "validation", "test")]
    found = [contents(part) for part in parts if part is not None]
    assert {v: k for part in found for v, k in part.items()} == {v: v % 3 for v in range(12)}
    assert sum(map(len, found)) == 12
    assert source.num_classes == 3 and tuple(source.class_names) == ("a", "b", "c")
    if make in (parquet, saved):
        assert sorted(found[1]) == [9, 10, 11]


def test_webdataset_files_are_read(tmp_path):
    import tarfile

    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for v in range(6):
            for ending, content in (("png", png(v)), ("cls", b"%d" % (v % 3))):
                info = tarfile.TarInfo(f"{v}.{ending}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    assert contents(HuggingFace(str(tmp_path / "a.tar"), test="all").test) == {v: v % 3 for v in range(6)}


def test_bytes_in_a_plain_column_numbers_and_texts_are_understood(tmp_path):
    columns = {"x": [png(v) for v in range(4)], "y": [0, 1, 0, 1], "z": ["no", "yes", "no", "yes"]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    path = str(tmp_path / "a.parquet")
    none = HuggingFace(path, test="all")
    assert (none.num_classes, contents(none.test)) == (None, dict.fromkeys(range(4)))
    assert contents(HuggingFace(path, label="y", test="all").test) == {0: 0, 1: 1, 2: 0, 3: 1}
    named = HuggingFace(path, label="z", test="all")
    assert contents(named.test) == {0: 0, 1: 1, 2: 0, 3: 1} and tuple(named.class_names) == ("no", "yes")
    texts = HuggingFace(path, caption="z", test="all")
    assert texts.captions == ("no", "yes") and texts.num_classes is None


def test_texts_of_the_test_part_have_the_numbers_of_the_training_part(tmp_path):
    def rows(texts):
        return datasets.Dataset.from_dict({"image": [png(v) for v in range(len(texts))], "label": texts})

    path = tmp_path / "saved"
    datasets.DatasetDict({"train": rows(["a", "b", "c"]), "test": rows(["c", "b"])}).save_to_disk(path)
    assert contents(HuggingFace(str(path)).test) == {0: 2, 1: 1}
    datasets.DatasetDict({"train": rows(["a", "b"]), "test": rows(["d"])}).save_to_disk(tmp_path / "other")
    with pytest.raises(UserError, match="class 'd'"):
        _ = HuggingFace(str(tmp_path / "other")).test


def test_what_was_picked_is_said(tmp_path, capsys):
    parallel.say_once.cache_clear()
    HuggingFace(str(one_parquet(tmp_path)))
    assert "pictures of column 'image', labels of 'label'; the columns of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"split": "trian"}, "no split 'trian'. Did you mean 'train'"),
        ({"image": "img"}, "data.image: there is no column 'img'. Did you mean 'image'"),
        ({"label": "lable"}, "data.label: there is no column 'lable'. Did you mean 'label'"),
        ({"caption": "text"}, "data.caption: there is no column 'text'"),
        ({"label": "image"}, "data.label: column 'image' must hold a whole number or a text"),
        ({"label": "label", "caption": "label"}, "a class or a text"),
        ({"caption": "label"}, "data.caption: column 'label' must hold a text"),
    ],
)
def test_bad_columns_are_named(tmp_path, given, text):
    with pytest.raises(UserError, match=text):
        HuggingFace(str(one_parquet(tmp_path)), **given)


def test_several_columns_of_pictures_or_classes_are_asked_for(tmp_path):
    both = table(range(4))
    both = both.add_column("other", [png(1)] * 4).cast_column("other", datasets.Image())
    both.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(
        UserError, match=r"data.image: must name the column of the pictures, 2 .* Choices: image, other"
    ):
        HuggingFace(str(tmp_path / "a.parquet"))
    fine = table(range(4)).add_column("fine", [0, 1, 0, 1]).cast_column("fine", datasets.ClassLabel(names=["x", "y"]))
    fine.to_parquet(tmp_path / "b.parquet")
    with pytest.raises(UserError, match=r"data.label: must name the column of the classes. Choices: label, fine"):
        HuggingFace(str(tmp_path / "b.parquet"))


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ({"bytes": None, "path": "/etc/hostname"}, "row 1 of 'image' names the file '/etc/hostname', which is not in"),
        ({"bytes": None, "path": "../../x.png"}, "which is not in the folder of the data"),
        ({"bytes": None, "path": "http://127.0.0.1:9/x.png"}, "which is not in the folder of the data"),
        ({"bytes": None, "path": None}, "row 1 of 'image' has no picture"),
        ({"bytes": b"", "path": None}, "row 1 of 'image' is not|'row 1 of 'image'' is not"),
        ({"bytes": png(1)[:45], "path": None}, "is not a readable image"),
        ({"bytes": png(1, size=(5, 5)), "path": "b.png"}, r"must have the same size.*b.png"),
        ({"bytes": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "path": "b.png"}, "is not a readable image"),
    ],
    ids=["file", "relative", "address", "nothing", "empty", "damaged", "shape", "program"],
)
def test_hostile_and_damaged_rows_are_one_message(tmp_path, cell, text):
    schema = datasets.Features({"image": datasets.Image()}).arrow_schema
    cells = [{"bytes": png(0), "path": None}, cell]
    pq.write_table(pa.Table.from_pylist([{"image": one} for one in cells], schema), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=text) as caught:
        HuggingFace(str(tmp_path / "a.parquet"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("nowhere", "'nowhere' does not exist. An id on the hub is OWNER/NAME"),
        ("a/b/c", "does not exist"),
        ("owner/name", "cannot be read by datasets"),
    ],
)
def test_what_cannot_be_found_is_named(path, text):
    with pytest.raises(UserError, match=text):
        HuggingFace(path)


@pytest.mark.parametrize("content", [b"", b"PAR1 not really", b"x" * 5000], ids=["empty", "short", "text"])
def test_damaged_files_are_one_message(tmp_path, content):
    for name in ("a.parquet", "a.arrow"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=rf"'.*{name}' cannot be read by datasets") as caught:
            HuggingFace(str(tmp_path / name))
        assert "\n" not in str(caught.value)
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"must be a folder, or a file .parquet, .arrow or .tar"):
        HuggingFace(str(tmp_path / "a.csv"))


def test_no_code_of_a_folder_is_run(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "data.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (folder / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: x.pkl\n---\n")
    (folder / "x.pkl").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(UserError, match="cannot be read by datasets"):
        HuggingFace(str(folder))
    assert not (tmp_path / "ran").exists()


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    real = builtins.__import__

    def absent(name, *arguments, **named):
        if name == "datasets":
            raise ImportError("No module named 'datasets'")
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(UserError, match=r"data=hf needs the library datasets.*pip install 'scoregen\[datasets\]'"):
        HuggingFace("owner/name")


def test_the_fingerprint_moves_with_the_data_not_with_the_place(tmp_path):
    first = HuggingFace(str(one_parquet(tmp_path))).train.fingerprint()
    (tmp_path / "a.parquet").rename(tmp_path / "b.parquet")
    assert HuggingFace(str(tmp_path / "b.parquet")).train.fingerprint() == first
    assert HuggingFace(str(arrow(tmp_path))).train.fingerprint() == first
    table([*range(11), 99]).to_parquet(tmp_path / "c.parquet")
    assert HuggingFace(str(tmp_path / "c.parquet")).train.fingerprint() != first


def test_pictures_are_decoded_once_and_by_one_reader(tmp_path, monkeypatch):
    source = HuggingFace(str(one_parquet(tmp_path)), test="all")
    monkeypatch.setattr(datasets.Image, "decode_example", None)
    assert len(contents(source.test)) == 12


def test_rows_are_read_alone_from_the_mapped_table(tmp_path):
    source = HuggingFace(str(arrow(tmp_path)), test="all")
    part = source.load(train=True)
    assert part.table.cache_files
    assert np.array_equal(part[[5, 2]][0], part[:][0][[5, 2]])
