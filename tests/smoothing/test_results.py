r"""Results files: resuming gives what one run gives, another job is refused, damage is noticed."""

import json
from pathlib import Path

import pytest
import torch
from pairs import pair
from torch import nn

from scoregen.errors import UserError
from scoregen.smoothing import Gaussian, Normalized, SmoothedClassifier
from scoregen.smoothing.bounds import round_down
from scoregen.smoothing.certificate import conclude
from scoregen.smoothing.choice import make_method
from scoregen.smoothing.classifiers import Exported
from scoregen.smoothing.dataset import certify_dataset, every_kth
from scoregen.smoothing.methods import Tally
from scoregen.smoothing.results import Results, fingerprint, load

NOISE = Gaussian(0.3)
METHOD = make_method("ladder", NOISE, n=500)
DATA = [(torch.tensor([v, 0.3]), int(v > 0.5)) for v in (0.0, 0.25, 0.45, 0.6, 0.8, 1.0)]


def sign(y):
    margin = y[:, 0] - 0.5
    return torch.stack((-margin, margin), 1)


sign.__module__ = "test_results"  # whichever way this file is imported: the name is in the header
G = SmoothedClassifier(sign, NOISE, 2)


def certify(out, indices=range(6), method=METHOD, seed=0, data=DATA):
    return certify_dataset(G, data, list(indices), method, out, seed=seed)


def test_results_are_the_certificates_of_the_library(tmp_path):
    run = certify(tmp_path)
    assert run.complete
    assert [record["label"] for record in run.records] == [0, 0, 0, 1, 1, 1]
    certificates = dict(G.stream([(i, x) for i, (x, _) in enumerate(DATA)], METHOD, 0))
    for record in run.records:
        certificate = certificates[record["index"]]
        assert record["counts"] == certificate.counts.tolist()
        assert certificate.radius - 1e-6 < record["radius"] <= certificate.radius


def test_radii_are_derived_from_the_counts_in_the_file(tmp_path):
    fixed = make_method("fixed", NOISE, n=500)
    for record in certify(tmp_path, method=fixed).records:
        selection, counts = torch.tensor(record["selection"]).numpy(), torch.tensor(record["counts"]).numpy()
        again = conclude(Tally(selection, [counts]), fixed, NOISE)
        assert record == {"index": record["index"], "label": record["label"], **again.record()}


def test_an_interrupted_job_ends_as_an_uninterrupted_one(tmp_path):
    certify(tmp_path / "whole")
    expected = load(tmp_path / "whole")

    class Broken(list):
        read = 0

        def __getitem__(self, index):
            self.read += index == 4
            if self.read == 3:  # before, for the copies that the classifier is asked about, and for the labels
                raise KeyboardInterrupt
            return super().__getitem__(index)

    file = tmp_path / "torn" / "certificates.jsonl"
    with pytest.raises(KeyboardInterrupt):
        G.batch_size = 1  # inputs are read one by one
        certify(tmp_path / "torn", data=Broken(DATA))
    G.batch_size = None
    done = load(tmp_path / "torn").records
    assert 0 < len(done) < 6
    with file.open("a") as stream:
        stream.write('{"index": 5, "label": 1, "radi')  # as a crash leaves it
    read = []

    class Counting(list):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    assert certify(tmp_path / "torn", data=Counting(DATA)) == expected
    assert not {record["index"] for record in done} & set(read[12:])  # six for copies and six for labels
    assert all(json.loads(line) for line in file.read_text().splitlines())


def test_a_torn_header_is_written_anew(tmp_path):
    (tmp_path / "certificates.jsonl").write_text('{"format": "scoregen cert')
    assert certify(tmp_path).complete


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "seed was 0, now 1"),
        ({"indices": [0, 1]}, r"indices was \[0, 1, 2, 3, 4, 5\], now \[0, 1\]"),
        ({"method": make_method("ladder", NOISE, n=600)}, "n was 500, now 600"),
        ({"method": make_method("ladder", NOISE, n=500, alpha=0.01)}, "alpha was 0.001, now 0.01"),
    ],
)
def test_a_folder_refuses_another_job(tmp_path, change, named):
    certify(tmp_path)
    with pytest.raises(ValueError, match=f"of another job: {named}. Choose another out"):
        certify(tmp_path, **change)


def test_a_folder_refuses_other_weights_and_another_noise(tmp_path):
    network = nn.Linear(2, 2).eval()
    certify_dataset(SmoothedClassifier(network, NOISE, 2), DATA, [0, 1], METHOD, tmp_path, seed=0)
    with torch.no_grad():
        network.weight[0, 0] += 1e-6
    with pytest.raises(ValueError, match="of another job: classifier was "):
        certify_dataset(SmoothedClassifier(network, NOISE, 2), DATA, [0, 1], METHOD, tmp_path, seed=0)
    with pytest.raises(ValueError, match=r"another job: noise was 'Gaussian\(sigma=0.3\)', now 'Gaussian"):
        certify_dataset(SmoothedClassifier(network, Gaussian(0.4), 2), DATA, [0, 1], METHOD, tmp_path, seed=0)


def test_two_processes_share_what_is_left_and_agree_with_one(tmp_path):
    r"""On a folder where one process had done two of six inputs."""
    expected = certify(tmp_path / "one")
    lines = (tmp_path / "one" / "certificates.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "certificates.jsonl").write_text("".join(lines[:3]))
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    script = f"import sys; sys.path[:0] = {folders}; from test_results import certify\n"
    script += "from scoregen.parallel import *; initialize(); certify(sys.argv[1]); finalize()"
    (tmp_path / "two.py").write_text(script)
    process = pair(tmp_path, str(tmp_path / "two.py"), str(tmp_path / "two"))
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    assert load(tmp_path / "two") == expected
    counts = {path.name: len(path.read_text().splitlines()) for path in (tmp_path / "two").iterdir()}
    assert counts == {"certificates.jsonl": 1 + 2 + 2, "certificates.1.jsonl": 1 + 2}


def test_a_description_that_differs_says_where(tmp_path):
    certify_dataset(G, DATA, [0], METHOD, tmp_path, seed=0, description={"sampler": {"steps": 1, "name": "x" * 60}})
    with pytest.raises(ValueError, match=r"another job: description.sampler.steps was 1, now 2"):
        certify_dataset(G, DATA, [0], METHOD, tmp_path, seed=0, description={"sampler": {"steps": 2, "name": "x" * 60}})


def test_another_classifier_of_the_same_name_is_another_job(tmp_path):
    r"""Two closures, and two exported programs that differ in a buffer."""

    def shifted(by):
        return lambda y: sign(y - by)

    certify_dataset(SmoothedClassifier(shifted(0.0), NOISE, 2), DATA, [0, 1], METHOD, tmp_path, seed=0)
    with pytest.raises(ValueError, match="of another job: answers was "):
        certify_dataset(SmoothedClassifier(shifted(0.4), NOISE, 2), DATA, [0, 1], METHOD, tmp_path, seed=0)
    hashes = set()
    for mean in (0.0, 5.0):
        program = torch.export.export(Normalized(nn.Linear(2, 2), [mean], [1.0]).eval(), (torch.rand(3, 1, 1, 2),))
        hashes.add(fingerprint(Exported(program.module())))
    assert len(hashes) == 2


def test_damage_inside_a_file_is_an_error(tmp_path):
    certify(tmp_path)
    file = tmp_path / "certificates.jsonl"
    lines = file.read_text().splitlines()
    lines[2] = lines[2][:10]
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match="damaged inside"):
        load(tmp_path)
    for line in ('{"label": 1}', '{"index": "a"}', "[1]", "null"):
        file.write_text("\n".join([lines[0], line]) + "\n")
        with pytest.raises(UserError, match=r"damaged inside \(line 2 has no index\)"):
            load(tmp_path)
    for line in ('{"format": "something else"}', "[1]"):
        file.write_text(line + "\n")
        with pytest.raises(UserError, match="not a results file of this version"):
            Results(tmp_path, {})


def test_an_empty_folder_has_no_results(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must hold certificates\.jsonl"):
        load(tmp_path)


def test_fingerprint_follows_weights_structure_and_settings():
    def network(scale, activation):
        layer = nn.Linear(2, 2)
        nn.init.constant_(layer.weight, scale)
        nn.init.constant_(layer.bias, 0.0)
        return nn.Sequential(layer, activation)

    reference = fingerprint(network(1.0, nn.ReLU()))
    assert fingerprint(network(1.0, nn.ReLU())) == reference
    assert fingerprint(network(1.0 + 1e-6, nn.ReLU())) != reference
    assert fingerprint(network(1.0, nn.Tanh())) != reference
    assert fingerprint(sign) != fingerprint(certify)

    class Threshold(nn.Module):
        def __init__(self, buffer, tensor, number):
            super().__init__()
            self.register_buffer("hidden", torch.tensor(buffer), persistent=False)
            self.tensor, self.number = torch.tensor(tensor), number

    kinds = {fingerprint(Threshold(*v)) for v in ((0.1, 0.1, 0.1), (0.2, 0.1, 0.1), (0.1, 0.2, 0.1), (0.1, 0.1, 0.2))}
    assert len(kinds) == 4 and fingerprint(Threshold(0.1, 0.1, 0.1)) in kinds


def test_round_down_never_exceeds_the_value():
    generator = torch.Generator().manual_seed(0)
    values = (torch.rand(2000, generator=generator, dtype=torch.float64) * 5).tolist()
    for value in [*values, 0.1, 0.3, 1.1, 2.675, 0.0]:
        rounded = round_down(value, 3)
        assert rounded <= value < rounded + 0.001 + 1e-12
        assert rounded == float(f"{rounded:.3f}")


def test_radii_of_data_in_small_units_keep_their_digits():
    for value in (2.0481e-7, 3.33333333e-3, 0.5, 1.23456789, 1e-300):
        assert value * (1 - 1.1e-5) - 1e-200 <= round_down(value) <= value
    assert round_down(0.0) == 0.0


def test_indices_are_one_or_more_and_differ(tmp_path):
    for indices in ([], [0, 1, 0]):
        with pytest.raises(ValueError, match="indices must hold one or more different numbers"):
            certify(tmp_path, indices=indices)


def test_a_file_that_another_run_begins_at_the_same_moment_is_left_to_it(tmp_path, monkeypatch):
    (tmp_path / "certificates.jsonl").touch()
    monkeypatch.setattr(Path, "exists", lambda self: False)
    with pytest.raises(ValueError, match="begun by another run this moment"):
        Results(tmp_path, {"indices": [0]})


def test_two_runs_in_one_folder_lose_no_line(tmp_path):
    r"""The first one began the file; at a place of its own it would write over what the second one adds."""
    with Results(tmp_path, {"indices": [0, 1]}) as first, Results(tmp_path, {"indices": [0, 1]}) as second:
        second.append({"index": 0})
        first.append({"index": 1})
    assert [record["index"] for record in load(tmp_path).records] == [0, 1]


def test_inputs_are_spread_over_the_data_set():
    assert every_kth(10_000, 500) == list(range(0, 10_000, 20))
    assert every_kth(5, None) == every_kth(5, 9) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="max_inputs must be a whole number"):
        every_kth(5, 0)
