r"""Targets of a selector: the largest sigma whose certificate is right, recomputed from runs of three sigmas."""

import pytest
import torch

from scoregen.errors import UserError
from scoregen.smoothing import Gaussian, Laplace, SmoothedClassifier, best_sigma
from scoregen.smoothing.choice import make_method
from scoregen.smoothing.dataset import certify_dataset

SIGMAS = (0.05, 0.3, 1.0)
# far from the boundary at 0, near, very near, at a distance between, wrongly labelled
DATA = [(torch.tensor([v]), label) for v, label in ((3.0, 1), (0.35, 1), (0.1, 1), (-3.0, 0), (-0.35, 0), (3.0, 0))]


def sign(y):
    return torch.cat((-y, y), 1)


def run(folder, noise, indices=(10, 11, 12, 13, 14, 15), data=DATA):
    labelled = dict(zip(range(10, 10 + len(data)), data, strict=True))
    method = make_method("fixed", noise, 100)
    certify_dataset(SmoothedClassifier(sign, noise, 2), labelled, list(indices), method, folder, seed=0)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return [run(tmp_path_factory.mktemp("runs") / str(sigma), Gaussian(sigma)) for sigma in SIGMAS]


def test_the_target_is_the_largest_sigma_whose_certificate_is_right(runs):
    # 0.35 is 7, 1.2 and 0.35 sigma from the boundary, 0.1 is 2, 0.33 and 0.1; 100 draws prove above 0.5 sigma
    assert best_sigma(runs) == {10: 2, 11: 1, 12: 0, 13: 2, 14: 1, 15: 0}
    assert best_sigma([str(runs[0]), str(runs[2])]) == {10: 1, 11: 0, 12: 0, 13: 1, 14: 0, 15: 0}


def test_by_radius_the_target_is_the_right_run_with_the_largest_one(tmp_path):
    # 0.6 is 12, 2 and 0.6 sigma from the boundary: all are right, with radii of about 0.07, 0.4 and 0.2
    inputs = [(torch.tensor([v]), 1) for v in (0.6, 3.0, -0.6)]
    runs = [run(tmp_path / str(sigma), Gaussian(sigma), (10, 11, 12), inputs) for sigma in SIGMAS]
    assert best_sigma(runs) == {10: 2, 11: 2, 12: 0}
    assert best_sigma(runs, "radius") == {10: 1, 11: 2, 12: 0}
    with pytest.raises(ValueError, match="rule must be right or radius, got rule='largest'"):
        best_sigma(runs, "largest")


def test_runs_that_do_not_belong_together_are_refused(runs, tmp_path):
    with pytest.raises(UserError, match=r"two or more, one for each expert, got 1"):
        best_sigma(runs[:1])
    with pytest.raises(UserError, match=r"by increasing noise, as the experts do, got Gaussian\(sigma=1.0\), Gauss"):
        best_sigma(runs[::-1])
    with pytest.raises(UserError, match="must have the same inputs"):
        best_sigma([runs[0], run(tmp_path / "fewer", Gaussian(1.0), range(10, 15))])
    flipped = [(x, 1 - label) for x, label in DATA]
    with pytest.raises(UserError, match="must have the same labels"):
        best_sigma([runs[0], run(tmp_path / "flipped", Gaussian(1.0), data=flipped)])
    moved = [(x + 0.01, label) for x, label in DATA]
    with pytest.raises(UserError, match="must have the same inputs"):
        best_sigma([runs[0], run(tmp_path / "moved", Gaussian(1.0), data=moved)])
    with pytest.raises(UserError, match="must have the same norm"):
        best_sigma([runs[0], run(tmp_path / "other", Laplace(1.0))])
    part = run(tmp_path / "part", Gaussian(1.0)) / "certificates.jsonl"
    part.write_text("".join(part.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match="has 5 of 6 certificates"):
        best_sigma([runs[0], part.parent])
