r"""Averages of any length of a run: snapshots, loading, resuming, jobs."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from average_parts import Walk
from runs import assert_same_run
from tiny import TOY, command, train, weights

import scoregen
from scoregen import average_lengths, averages
from scoregen.average_lengths import coefficients, decay
from scoregen.averages import LENGTHS, Moment
from scoregen.errors import UserError
from scoregen.training import Trainer
from scoregen.training.ema import EMA
from scoregen.training.power_averages import PowerAverages, begin_snapshots

KEPT = [*TOY, "trainer.steps=16", "trainer.checkpoint_every=4", "trainer.ema_snapshots=8", "trainer.keep_last=9"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "kept", *KEPT)


def test_a_run_keeps_snapshots_evenly_and_its_checkpoints_the_averages(run):
    assert list(averages.snapshots(run)) == [2, 4, 6, 8, 10, 12, 14, 16]
    last = averages.read(averages.path_of(run, 16))
    own = averages.read(run / "checkpoints" / "last" / "powers.safetensors")
    assert (own.step, own.images) == (last.step, last.images) == (16, 128)
    for length in LENGTHS:
        for name, value in own.values[length].items():
            assert last.values[length][name].dtype == torch.float16 and value.dtype == torch.float32
            torch.testing.assert_close(last.values[length][name].to(value), value, rtol=2**-11, atol=1e-7)
    decays = [decay(0.05, 8, 8 * (k + 1)) for k in range(16)]
    assert decays[0] == 0 and all(a < b for a, b in pairwise(decays))


def test_a_length_is_loaded_from_a_run_and_from_an_earlier_checkpoint(run):
    tracked = scoregen.load(run, ema=0.05).state_dict()
    own = averages.read(run / "checkpoints" / "last" / "powers.safetensors").values[0.05]
    assert own and all(torch.equal(tracked[name], value) for name, value in own.items())
    between = scoregen.load(run, ema=0.08).state_dict()
    same = scoregen.load(run, weights="ema:0.08").state_dict()
    assert all(torch.equal(between[name], same[name]) for name in between)
    assert any(not torch.equal(between[name], tracked[name]) for name in own)
    files = [averages.read(path) for at, path in averages.snapshots(run).items() if at < 8]
    files.append(averages.read(run / "checkpoints" / "step_00000008" / "powers.safetensors"))
    early = scoregen.load(run / "checkpoints" / "step_00000008", ema=0.08).state_dict()
    for name in own:
        places = [(m, one) for m in files for one in m.values]
        x, _ = coefficients([m.images for m, _ in places], [one for _, one in places], 64, 0.08)
        exact = sum(a * m.values[one][name].double() for a, (m, one) in zip(x.tolist(), places, strict=True))
        torch.testing.assert_close(early[name], exact.float())


def test_an_average_is_made_of_earlier_snapshots_and_the_checkpoint_itself(run):
    found = averages.sources(run / "checkpoints" / "step_00000008")
    assert [path.stem for path in found] == ["step_00000002", "step_00000004", "step_00000006", "powers"]
    last = run / "checkpoints" / "last"
    assert len({averages.digest_of(last, length) for length in (0.08, 0.09)}) == 2
    assert averages.digest_of(last, 0.08) != averages.digest_of(run / "checkpoints" / "step_00000008", 0.08)


@pytest.mark.parametrize("value", [1e6, 1e-7], ids=["large", "small"])
def test_values_that_half_precision_does_not_hold_are_kept(value, tmp_path):
    tensors = {"w": torch.full((3,), value), "zero": torch.zeros(2), "usual": torch.ones(2)}
    averages.write(tmp_path / "a", Moment(1, 8, {0.05: tensors}), half=True)
    found = averages.read(tmp_path / "a").values[0.05]
    assert torch.equal(found["w"], tensors["w"])
    assert found["zero"].dtype == found["usual"].dtype == torch.float16


def test_snapshots_of_steps_that_are_made_again_are_removed(tmp_path):
    (tmp_path / "averages").mkdir()
    for step in (3, 6, 9):
        averages.path_of(tmp_path, step).touch()
    begin_snapshots(tmp_path, 6)
    assert list(averages.snapshots(tmp_path)) == [3, 6]


@pytest.mark.parametrize("length", ["0.08", True, None])
def test_a_length_that_is_no_number_is_refused(length):
    with pytest.raises(UserError, match=r"ema: the length of an average must be a number, got"):
        average_lengths.check_length(length, "ema")


def test_averages_of_another_model_are_refused(tmp_path):
    averages.write(tmp_path / "a", PowerAverages(EMA(Walk(3))).moment(1, 8))
    with pytest.raises(UserError, match="does not fit the model: 'w'"):
        PowerAverages(EMA(Walk(4))).load(tmp_path / "a")


def test_a_killed_run_resumes_to_the_same_bits(run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", *KEPT, preview={"_target_": "tiny.Kill", "every": 11})
    assert max(averages.snapshots(tmp_path / "killed")) == 10  # after the checkpoint of step 8
    resumed = train(tmp_path / "killed", *KEPT, "trainer.resume=auto")
    assert_same_run(run, resumed)
    a, b = (weights(folder, "powers") for folder in (run, resumed))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    for step, path in averages.snapshots(run).items():
        assert path.read_bytes() == averages.path_of(resumed, step).read_bytes()


def test_a_run_that_goes_on_elsewhere_takes_its_snapshots_along(run, tmp_path):
    start = run / "checkpoints" / "step_00000008"
    new = train(tmp_path / "new", *KEPT, f"trainer.resume={start}")
    assert list(averages.snapshots(new)) == list(averages.snapshots(run))


def test_damage_is_named_with_its_remedy(run, tmp_path):
    import shutil

    copy = tmp_path / "run"
    shutil.copytree(run, copy, symlinks=True)
    path = averages.path_of(copy, 6)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"step_00000006.*content is not what was written.*Delete it"):
        scoregen.load(copy, ema=0.08)
    path.unlink()
    scoregen.load(copy, ema=0.08)
    shutil.rmtree(copy / "averages")
    scoregen.load(copy, ema=0.05)
    with pytest.raises(UserError, match="need the snapshots of the run"):
        scoregen.load(copy, ema=0.08)


def test_more_snapshots_than_steps_are_refused():
    assert Trainer(4, ema_snapshots=4).ema_snapshots == 4
    with pytest.raises(ValueError, match=r"ema_snapshots must be at most the steps, 4, got ema_snapshots=5"):
        Trainer(4, ema_snapshots=5)


def test_a_run_without_snapshots_says_how_to_train_with_them(tmp_path):
    plain = train(tmp_path / "plain", *TOY, "trainer.steps=2")
    assert not (plain / "averages").exists()
    with pytest.raises(UserError, match=r"its run kept none. Train with trainer.ema_snapshots=32"):
        scoregen.load(plain, ema=0.08)
    with pytest.raises(UserError, match="Give one of them"):
        scoregen.load(plain, "model", ema=0.08)


def test_a_rough_length_is_said(run, capsys):
    from scoregen.parallel import say_once

    say_once.cache_clear()
    scoregen.load(run, ema=0.02)
    assert "weights: the average of length 0.02 is a rough one" in capsys.readouterr().err


def test_a_sharded_run_is_refused_by_name():
    from scoregen.losses import DenoisingScoreMatching

    trainer = Trainer(4, shard=True, ema_snapshots=2)
    with pytest.raises(UserError, match=r"trainer.ema_snapshots: must be null for a sharded model"):
        trainer.check(torch.nn.Linear(2, 2), DenoisingScoreMatching())


SAMPLING = ["sampler=ddim", "sampler.steps=2", "n=3", "format=npz"]


def test_jobs_take_a_length_and_record_it(run, tmp_path, capsys):
    assert command("sample", f"checkpoint={run}", f"out={tmp_path}/a", "weights=ema:0.08", *SAMPLING) == 0
    assert "averaged (length 0.08) weights" in capsys.readouterr().out
    record = json.loads((tmp_path / "a" / "job.json").read_text())
    assert record["weights"] == "ema:0.08"
    assert record["weights_sha256"] == averages.digest_of(run / "checkpoints" / "last", 0.08)
    assert command("sample", f"checkpoint={run}", f"out={tmp_path}/a", "weights=ema:0.09", *SAMPLING) == 1
    assert "holds other results" in capsys.readouterr().err


def test_autoguidance_is_away_from_the_short_average(run, tmp_path, capsys):
    from scoregen.models import Autoguidance
    from scoregen.rng import Stream, generators
    from scoregen.samplers import DDIM

    taken = ["weights=ema:0.1", "autoguidance=true", "guidance=2"]
    assert command("sample", f"checkpoint={run}", f"out={tmp_path}/a", *taken, *SAMPLING) == 0
    assert "guidance: 2, away from averaged (length 0.05) weights" in capsys.readouterr().out
    record = json.loads((tmp_path / "a" / "job.json").read_text())
    assert record["network_calls"] == 4 and record["weak_sha256"] != record["weights_sha256"]
    guided = Autoguidance(scoregen.load(run, ema=0.1), scoregen.load(run, ema=0.05), 2.0)
    expected = DDIM(2)(guided, (3, 2), generator=generators(0, Stream.SAMPLE, 0, range(3)))
    found = np.load(tmp_path / "a" / "samples.npz")["images"]
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "overrides, text",
    [
        (["autoguidance=true"], "guidance: must differ from 1, which is none, with autoguidance=ema:0.05"),
        (["autoguidance=ema", "guidance=2"], "autoguidance: must name other weights than weights=ema, got ema"),
        (["autoguidance=ema:0.050", "weights=ema:0.05", "guidance=2"], "autoguidance: must name other weights"),
        (["autoguidance=worse", "guidance=2"], "autoguidance: weights: must be ema, model or ema:LENGTH"),
        (["weights=ema:0.5"], r"weights: the length of an average must lie in .01..0.28, got 0.5"),
    ],
    ids=["no-scale", "same", "same-length", "name", "length"],
)
def test_weights_that_guide_nothing_are_refused(run, tmp_path, capsys, overrides, text):
    assert command("sample", f"checkpoint={run}", f"out={tmp_path}/a", *overrides, *SAMPLING) == 1
    assert text in capsys.readouterr().err


def test_a_sweep_measures_several_lengths(run, tmp_path, capsys):
    quick = ["data=toy2d", "data.n=100", "features=pixels", "n=5", "metrics.bootstrap=0", "cache=null", "calls=[2]"]
    lengths = ["samplers=[ddim]", "ema=[.03,.1]", f"out={tmp_path}/sweep"]
    assert command("sweep", f"checkpoint={run}", *quick, *lengths) == 0
    said = capsys.readouterr().out
    assert "| ddim, ema:0.03 | 2 | 2 |" in said and "| ddim, ema:0.1 | 2 | 2 |" in said
    reports = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert [report["metrics"][0]["protocol"]["weights"] for report in reports] == ["ema:0.03", "ema:0.1"]
    assert (tmp_path / "sweep" / "ddim_ema_0.1_002_calls" / "metrics.json").is_file()
    assert command("sweep", f"checkpoint={run}", *quick, "ema=[.1]", "weights=model", f"out={tmp_path}/b") == 1
    assert "weights: are chosen by ema, got weights='model'. Leave it out." in capsys.readouterr().err
