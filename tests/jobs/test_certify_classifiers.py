r"""The command line of certificates: classifiers from files and modules, and those that do not fit."""

import pytest
import torch
from brightest import network
from certify_parts import run

from scoregen.errors import UserError
from scoregen.smoothing.classifiers import probe, read_classifier
from scoregen.smoothing.results import fingerprint


def test_classifiers_from_files_answer_as_the_module_does(tmp_path):
    module, x = network(), torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    torch.export.save(program, tmp_path / "a.pt2")
    with pytest.warns(DeprecationWarning):
        torch.jit.script(module).save(tmp_path / "a.pt")
    for name in ("a.pt2", "a.pt"):
        read = read_classifier(str(tmp_path / name))
        torch.testing.assert_close(read(x), module(x))
        assert not any(part.training for part in read.modules())
        assert probe(read, x[0]) == 10


def test_unreadable_classifiers_are_refused(tmp_path, monkeypatch):
    (tmp_path / "a.pt").write_bytes(b"weights")
    (tmp_path / "unfinished.py").write_text("def network(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    for source, message in (
        (str(tmp_path / "b.pt2"), "does not exist"),
        (str(tmp_path / "a.pt"), "no torch.export .* file.*weights alone"),
        ("network", "neither a .pt2"),
        ("brightest:netwrk", "Did you mean 'network'"),
        ("brightest:number", "must return a classifier, got int"),
        ("unfinished:network", r"classifier: cannot import 'unfinished' \(unfinished.py, line 1: "),
        ("no_such_module:f", "cannot import 'no_such_module'"),
        ("torchvision:resnet19", "Did you mean 'resnet1"),
        ("brightest:broken", r"brightest:broken\(\) failed \(KeyError: 'weights'\)"),
    ):
        with pytest.raises(UserError, match=message):
            read_classifier(source)


def test_what_is_no_classifier_of_any_batch_is_refused(tmp_path):
    with pytest.raises(UserError, match="must return logits"):
        probe(lambda x: x.sum(1), torch.ones(3))
    with pytest.raises(UserError, match=r"must return logits \(B, K\)"):
        probe(lambda x: {"out": x[0]}, torch.ones(3))
    for size in (1, 2, 5):
        torch.export.save(torch.export.export(network(), (torch.rand(size, 1, 8, 8),)), tmp_path / "a.pt2")
        with pytest.raises(UserError, match=r"at once .*export it with a dynamic batch dimension\."):
            probe(read_classifier(str(tmp_path / "a.pt2")), torch.rand(1, 8, 8))


def test_a_classifier_of_another_shape_is_answered_with_the_key_of_the_shape(tmp_path):
    image, batch = torch.rand(2, 1, 8, 8), {0: torch.export.Dim("batch", min=2)}
    torch.export.save(torch.export.export(network(), (image,), dynamic_shapes=(batch,)), tmp_path / "a.pt2")
    with pytest.warns(DeprecationWarning):
        torch.jit.script(network()).save(tmp_path / "a.pt")

    def silent(x):
        raise AssertionError

    for classifier, reason in (
        (read_classifier(str(tmp_path / "a.pt2")), r"Guard failed: .*\[2\] == 8"),
        (read_classifier(str(tmp_path / "a.pt")), "RuntimeError: mat1 and mat2"),
        (silent, "AssertionError"),
    ):
        with pytest.raises(
            UserError, match=rf"2 at once \({reason}.*\)\. Give data of the shape .*data\.size"
        ) as error:
            probe(classifier, torch.rand(1, 9, 9))
        assert "batch" not in str(error.value)


def test_classifiers_that_do_not_fit_the_data_stop_before_any_work(tmp_path):
    with pytest.raises(UserError, match="has 5 classes, digits has 10"):
        run(tmp_path, classifier="brightest:few")
    with pytest.raises(UserError, match=r"cannot take inputs of shape \(1, 8, 8\)"):
        run(tmp_path, classifier="brightest:coloured")
    assert not list(tmp_path.iterdir())
    run(tmp_path / "double", classifier="brightest:exact")


def test_files_that_differ_in_a_constant_differ(tmp_path):
    r"""Frozen TorchScript has its weights as constants, which are neither parameters nor buffers."""
    hashes = set()
    for scale in (1.0, 2.0):
        module = network()
        module[1].weight.data *= scale
        with pytest.warns(DeprecationWarning):
            torch.jit.freeze(torch.jit.script(module)).save(tmp_path / "a.pt")
        hashes.add(fingerprint(read_classifier(str(tmp_path / "a.pt"))))
    assert len(hashes) == 2
