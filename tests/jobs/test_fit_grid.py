r"""Fitted levels from the command line: what is written, and that it goes back in."""

import json

import pytest
import yaml
from tiny import TOY, command, job, train

FAST = ["n=6", "evaluations=4", "reference=12", "sampler.steps=4"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "toy", *TOY, "trainer.steps=2")


def test_levels_are_written_said_and_taken_by_the_job_sample(run, tmp_path, capsys):
    assert command("fit_grid", f"checkpoint={run}", f"out={tmp_path}/fit", *FAST) == 0
    said = capsys.readouterr().out
    values = json.loads((tmp_path / "fit" / "fit.json").read_text())
    node = yaml.safe_load((tmp_path / "fit" / "levels.yaml").read_text())
    assert node == {"_target_": "scoregen.samplers.Levels", "values": values["levels"]}
    assert values["sigmas"] == [*values["levels"], 0.0] and values["flow_sigmas"][0] == pytest.approx(80 / 81)
    (line,) = (line for line in said.splitlines() if line.startswith("'sampler.grid="))
    override = line.strip("'")
    taken = command("sample", f"checkpoint={run}", f"out={tmp_path}/s", "n=2", "format=npz", "sampler=velocity_abm",
                    "sampler.steps=4", override)  # fmt: skip
    assert taken == 0
    record = json.loads((tmp_path / "s" / "job.json").read_text())
    assert record["sampler"]["grid"]["values"] == pytest.approx(values["levels"])
    assert record["network_calls"] == 4


def test_a_first_level_with_many_digits_goes_back_in(tmp_path, capsys):
    r"""sigma/alpha of VP ends at 152.16697: rounded to 152.167, it would lie outside the process."""
    run = train(tmp_path / "run", *TOY, "trainer.steps=1", "sde=vp")
    assert command("fit_grid", f"checkpoint={run}", f"out={tmp_path}/fit", *FAST) == 0
    (line,) = (one for one in capsys.readouterr().out.splitlines() if one.startswith("'sampler.grid="))
    taken = ["n=2", "format=npz", "sampler=velocity_abm", "sampler.steps=4", line.strip("'")]
    assert command("sample", f"checkpoint={run}", f"out={tmp_path}/s", *taken) == 0


def test_a_fit_is_a_function_of_its_values(run, tmp_path):
    first, again = (job("fit_grid", f"checkpoint={run}", *FAST).run(tmp_path / name) for name in "ab")
    assert (first / "fit.json").read_text() == (again / "fit.json").read_text()
    best = json.loads((first / "fit.json").read_text())
    kept = best["rmse_of_the_fit" if best["accepted"] else "rmse_of_the_grid"]
    assert job("fit_grid", f"checkpoint={run}", *FAST).result(first) == pytest.approx(sum(kept[1:]) / 2)


def test_levels_of_the_grid_are_kept_with_a_message(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("scoregen.samplers.fitting.minimise", lambda *_: [80.0, 79.0, 78.0, 77.0])
    job("fit_grid", f"checkpoint={run}", *FAST).run(tmp_path / "fit")
    assert "not better on both sets of other starts: the levels are those of Karras" in capsys.readouterr().out
    assert json.loads((tmp_path / "fit" / "fit.json").read_text())["accepted"] is False


@pytest.mark.parametrize(
    "overrides, text",
    [
        (["sampler=ancestral"], "fit_grid: sampler must be deterministic"),
        (["sampler.steps=1"], "fit_grid: sampler must have at least two steps"),
        (["start=100"], "fit_grid: start must lie between"),
        (["start=0.003"], "fit_grid: start must lie above 0.004, which is the least last level, got 0.003"),
        (["n=0"], "fit_grid: n must be a whole number >= 1"),
        (["guidance=2"], "fit_grid: guidance: needs labels"),
    ],
    ids=["noise", "steps", "start", "low-start", "n", "guidance"],
)
def test_mistakes_stop_before_any_work(run, tmp_path, capsys, overrides, text):
    assert command("fit_grid", f"checkpoint={run}", f"out={tmp_path}/fit", *overrides) == 1
    assert text in capsys.readouterr().err
    assert not (tmp_path / "fit").exists()


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(run, tmp_path, capsys):
    assert command("fit_grid", f"checkpoint={run}", f"out={tmp_path}/fit", "dry_run=true", *FAST) == 0
    assert "VelocityABM, 4 steps; 6 starts, at most 12 evaluations" in capsys.readouterr().out
    assert not (tmp_path / "fit" / "fit.json").exists()
