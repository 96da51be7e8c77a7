r"""A trace of some steps is written into the run folder; a run without enough steps says so."""

import json

import pytest
from tiny import TOY, numbers, train


def test_the_trace_holds_the_steps_that_were_asked_for(tmp_path, capfd):
    plain = train(tmp_path / "plain", *TOY, "trainer.steps=6")
    folder = train(tmp_path / "traced", *TOY, "trainer.steps=6", "trainer.profile=2")
    path = folder / "profile" / "trace_0.json"
    events = json.loads(path.read_text())["traceEvents"]
    steps = {event["name"] for event in events if event.get("name", "").startswith("ProfilerStep")}
    assert len(steps) == 2
    assert sum(event.get("name") == "Optimizer.step#AdamW.step" for event in events) == 2
    assert f"profile: 2 steps in '{path}'. Open it at https://ui.perfetto.dev" in capfd.readouterr().err
    assert numbers(plain) == numbers(folder)
    assert [file.name for file in path.parent.iterdir()] == ["trace_0.json"]


def test_a_run_that_ends_before_the_trace_says_so(tmp_path, capfd):
    train(tmp_path / "short", *TOY, "trainer.steps=2", "trainer.profile=5")
    assert "trainer.profile: nothing was recorded: the run ended after 2 steps" in capfd.readouterr().err
    train(tmp_path / "less", *TOY, "trainer.steps=5", "trainer.profile=5")
    assert "profile: 2 steps in" in capfd.readouterr().err


def test_a_profile_of_no_steps_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"trainer: profile must be >= 1, got profile=0"):
        train(tmp_path, *TOY, "trainer.steps=1", "trainer.profile=0")
