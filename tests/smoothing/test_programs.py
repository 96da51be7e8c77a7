r"""Files of torch.export: their pickles are never read."""

import contextlib
import json
import os
import pickle
import zipfile
from functools import partial

import pytest
import torch
from torch import nn

from scoregen.errors import UserError
from scoregen.smoothing.classifiers import read_classifier


class Evil:
    def __init__(self, mark) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def pickled(mark) -> bytes:
    content = pickle.dumps(Evil(mark))
    return content + bytes(-len(content) % 4)  # so that it might be a tensor


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.shift = nn.Linear(4, 3), torch.arange(3.0)  # the second is a constant of the program

    def forward(self, x):
        return self.linear(x) + self.shift


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "model.pt2"
    program = torch.export.export(Net(), (torch.zeros(3, 4),), dynamic_shapes={"x": {0: torch.export.Dim("b")}})
    torch.export.save(program, path)
    return path


def rewritten(source, path, change) -> None:
    r"""The archive with other members, by name without the folder that torch puts around them."""
    with zipfile.ZipFile(source) as archive:
        folder = archive.namelist()[0].split("/")[0]
        members = {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.removeprefix("/") if name[0] == "/" else f"{folder}/{name}", content)


def payload(kind: str, **values: object):
    r"""Changes the entry of the first tensor in the table of weights or constants."""

    def change(members, evil):
        table = f"data/{kind}/model_{kind}_config.json"
        config = json.loads(members[table])
        first = next(iter(config["config"].values()))
        first.update(values)
        members[table] = json.dumps(config).encode()
        members[f"data/{kind}/{first['path_name']}"] = evil

    return change


def member(*names: str):
    return lambda members, evil: members.update(dict.fromkeys(names, evil))


LEGACY = ("exported_program.json", "state_dict.pt", "constants.pt", "example_inputs.pt")
HOSTILE = {
    "weights": payload("weights", use_pickle=True),
    "constants": payload("constants", use_pickle=True),
    "flag": payload("weights", use_pickle=1),
    "opaque": payload("constants", path_name="opaque_obj_0"),
    "custom": payload("constants", path_name="custom_obj_0"),
    "hidden": payload("constants", path_name="opaque_obj_0/../tensor_0"),
    "legacy weights": member("data/weights/model.pt"),
    "legacy constants": member("data/constants/model.pt"),
    "library": member("data/aotinductor/model/a.so"),
    "second model": member("models/other.json", "data/sample_inputs/other.pt"),
    "version": member("/version", *(f"/serialized_{name}" for name in LEGACY)),
    "inputs": member("data/sample_inputs/model.pt"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_no_pickle_is_read(exported, tmp_path, kind):
    mark = tmp_path / "mark"
    evil = pickled(mark)
    path = tmp_path / "a.pt2"
    rewritten(exported, path, lambda members: HOSTILE[kind](members, evil))
    with pytest.raises(UserError, match=r"a.pt2' is no torch.export") as caught:
        read_classifier(str(path))
    assert not mark.exists() and "\n" not in str(caught.value)


def test_torch_itself_would_read_them(exported, tmp_path):
    r"""The oracle: these files do run code where they are loaded without looking."""
    for kind in ("weights", "constants", "opaque", "legacy weights"):
        mark = tmp_path / kind
        evil = pickled(mark)
        rewritten(exported, tmp_path / "a.pt2", partial(HOSTILE[kind], evil=evil))
        with contextlib.suppress(Exception):
            torch.export.load(tmp_path / "a.pt2")
        assert mark.exists(), kind


def test_a_saved_pickle_of_torch_among_the_inputs_is_not_run(exported, tmp_path):
    mark = tmp_path / "mark"
    torch.save(Evil(mark), tmp_path / "evil.pt")
    evil = (tmp_path / "evil.pt").read_bytes()
    rewritten(exported, tmp_path / "a.pt2", lambda members: members.update({"data/sample_inputs/model.pt": evil}))
    with pytest.raises(UserError, match=r"is no torch.export"):
        read_classifier(str(tmp_path / "a.pt2"))
    assert not mark.exists()


def test_a_bomb_is_not_unpacked(exported, tmp_path, monkeypatch):
    monkeypatch.setattr("scoregen.smoothing.programs._MOST_BYTES", 2**22)
    with zipfile.ZipFile(exported) as old, zipfile.ZipFile(tmp_path / "a.pt2", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
        with new.open(f"{name.split('/')[0]}/extra/a", "w") as file:
            file.write(bytes(2**23))
    with pytest.raises(UserError, match="more than four times its size"):
        read_classifier(str(tmp_path / "a.pt2"))


def test_an_honest_program_is_read(exported, tmp_path):
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    classifier = read_classifier(str(exported))
    assert torch.equal(classifier(x), torch.export.load(exported).module()(x))
    rewritten(exported, tmp_path / "b.pt2", lambda members: None)  # what changes a member changes no other one
    assert torch.equal(read_classifier(str(tmp_path / "b.pt2"))(x), classifier(x))
