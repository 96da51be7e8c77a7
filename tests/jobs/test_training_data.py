r"""Data for a classifier are in its units, and their classes have its numbers."""

import numpy as np
import pytest
from PIL import Image
from tiny import COMMON, job, train

from scoregen.data import Digits, Folder, TableFile
from scoregen.errors import UserError
from scoregen.jobs.picks import told_steps
from scoregen.jobs.training_data import check_names
from scoregen.training import Trainer

SMALL = ["model=classifier_fast", "loss=cross_entropy", *COMMON]
FEW = ["n=8", "n0=2", "method=fixed", "alpha=.1", "max_inputs=2"]


def pictures(folder, *classes):
    draw = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for k in range(4):
            Image.fromarray(draw.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / name / f"{k}.png")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    r"""A classifier of cats, dogs and eels, and the folder of their pictures."""
    folder = tmp_path_factory.mktemp("trained")
    photos = pictures(folder / "photos", "cat", "dog", "eel")
    return photos, train(folder / "run", "data=folder", f"data.path={photos}", "trainer.steps=1", *SMALL)


def certify(run, *overrides):
    return job("certify", f"checkpoint={run}", "data=folder", *FEW, *overrides)


def test_classes_with_other_numbers_are_refused_and_found_by_name_beside_the_training_data(trained, tmp_path):
    photos, run = trained
    others = pictures(tmp_path / "others", "dog", "eel")
    with pytest.raises(
        UserError, match=r"'dog' is class 0 of others, but class 1 of the classifier.*data\.test=FOLDER"
    ):
        certify(run, f"data.path={others}", "data.test=all").run(tmp_path / "refused")
    known = certify(run, f"data.path={photos}", f"data.test={others}")
    assert sorted(set(known.data.test.label.tolist())) == [1, 2]
    known.run(tmp_path / "out")
    assert (tmp_path / "out" / "certificates.jsonl").exists()


def test_other_names_are_told_and_the_first_ones_pass_without_a_word(trained, tmp_path, capsys):
    _, run = trained
    for names, said in ((("cat", "dog"), False), (("perro", "zorro"), True)):
        folder = pictures(tmp_path / names[0], *names)
        certify(run, f"data.path={folder}", "data.test=all", "dry_run=true").run(tmp_path / "out")
        told = "classes: by number, as their names differ" in capsys.readouterr().out
        assert told == said


@pytest.mark.parametrize("name", ["certify", "predict"])
def test_data_in_other_units_are_refused(trained, tmp_path, name):
    photos, run = trained
    few = FEW if name == "certify" else ["n=8"]
    overrides = ["data=folder", f"data.path={photos}", "data.test=all", "data.range=[-1,1]"]
    with pytest.raises(
        UserError, match=r"trained on values in \[0\.0, 1\.0\], photos has \[-1\.0, 1\.0\].*range=\[0,1\]"
    ):
        job(name, f"checkpoint={run}", *few, *overrides).run(tmp_path / "out")


def test_a_classifier_without_names_is_held_against_the_classes_by_number(tmp_path):
    source = Folder(str(pictures(tmp_path / "pets", "cat", "dog")), size=8)
    line = "classes: by number, as the classifier names none: 0 cat, 1 dog"
    assert check_names([], source, 2) == [line]
    assert check_names([], source, 1000) == [f"{line}; it has 1,000 classes, pets has 2"]
    assert check_names([], Digits(), 10) == []
    assert check_names([], Digits(), 11) == [
        "classes: by number, as the classifier names none; it has 11 classes, digits has 10"
    ]


def test_a_training_names_its_classes(tmp_path, capsys):
    photos = pictures(tmp_path / "photos" / "pets", "cat", "dog").parent
    job("train", "data=folder", f"data.path={photos}", "dry_run=true", *SMALL).run(tmp_path / "run")
    assert "classes: 2 (pets/cat, pets/dog)\n" in capsys.readouterr().out


def test_a_training_says_how_often_it_reads_each_sample_where_that_is_too_often(tmp_path):
    (line,) = told_steps(Trainer(steps=20_000, batch_size=128), Digits())
    assert "20,000 steps read each of the 1,617 images 1,583 times, and more than 500 times teaches images" in line
    assert line.endswith("Give trainer.steps=6316, or early_stopping.every with data.validation=0.1.")
    assert told_steps(Trainer(steps=6316, batch_size=128), Digits()) == []
    pytest.importorskip("pandas")
    (tmp_path / "a.csv").write_text("a,b\n" + "".join(f"{k}.5,{'xy'[k % 2]}\n" for k in range(40)))
    table = TableFile(str(tmp_path / "a.csv"), validation=0.1)
    (line,) = told_steps(Trainer(steps=20_000, batch_size=128), table)
    assert "times teaches rows by heart" in line and line.endswith("or early_stopping.every.")


def test_classes_need_labels_of_the_training_samples(tmp_path):
    images, label = np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8), np.arange(20) % 4
    np.savez(tmp_path / "a.npz", images=images, labels=np.where(label == 2, -1, label), test_images=images)
    np.savez(tmp_path / "b.npz", images=images, test_images=images, test_labels=label)
    given = ["data=npz", *COMMON, "trainer.steps=1"]
    with pytest.raises(
        UserError, match=r"CrossEntropy needs labels, and 5 of 20 training samples of a have none \(-1\)"
    ):
        job("train", *given, *SMALL[:2], f"data.path={tmp_path / 'a.npz'}").plan(tmp_path / "run")
    tiny = [*given, "model=unet_tiny", "model.network.channels=[4]", "model.network.attention=[]"]
    with pytest.raises(UserError, match=r"b has 4 classes, but its training part has no labels. Give them, or cond"):
        job("train", *tiny, f"data.path={tmp_path / 'b.npz'}").plan(tmp_path / "run")
    job("train", *tiny, f"data.path={tmp_path / 'b.npz'}", "conditional=false").plan(tmp_path / "run")
