r"""Sweeps: launchers and sweepers of Hydra compose with every job, run trainings, and hand failures on."""

import pickle

import pytest
import yaml
from tiny import ROOT, TOY, command, numbers

from scoregen.config import conf_dir
from scoregen.errors import Interrupted

OPTIONS = {
    "hydra/launcher=joblib": "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
    "hydra/launcher=submitit_slurm": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
    "hydra/launcher=submitit_local": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher",
    "hydra/sweeper=optuna": "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper",
}
for _plugin in ("joblib_launcher", "submitit_launcher", "optuna_sweeper"):
    pytest.importorskip(f"hydra_plugins.hydra_{_plugin}")
SHORT = [*TOY, "trainer.steps=2"]


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", ["train", "sample", "certify"])
def test_launchers_and_sweepers_compose(name, option):
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose(name, overrides=[option], return_hydra_config=True)
    assert config.hydra[option.split("=")[0].removeprefix("hydra/")]._target_ == OPTIONS[option]


def test_joblib_runs_trainings_side_by_side_and_hands_a_failure_on(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    sweep = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=all"]
    assert command("train", "-m", *sweep, *SHORT, "trainer.clip=1,2,-1") == 1
    assert [len(numbers(tmp_path / "all" / name)) for name in ("0", "1")] == [2, 2]
    assert not (tmp_path / "all" / "2").exists()
    assert "train: trainer: clip must be > 0 and finite, got clip=-1.0." in capfd.readouterr().err


@pytest.mark.filterwarnings("ignore:::optuna", "ignore::DeprecationWarning:sqlalchemy")
def test_optuna_minimises_what_the_training_returns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "hydra.sweep.dir=all", "hydra.sweeper.n_jobs=1"]
    assert command("train", "-m", *sweep, *SHORT, "trainer.optimizer.lr=interval(1e-4,1e-2)") == 0
    found = yaml.safe_load((tmp_path / "all" / "optimization_results.yaml").read_text())
    last = [numbers(tmp_path / "all" / name)[-1]["loss"] for name in ("0", "1")]
    assert found["best_value"] == min(last) and 1e-4 <= found["best_params"]["trainer.optimizer.lr"] <= 1e-2


def test_a_data_base_that_optuna_cannot_use_is_refused(monkeypatch, capsys):
    versions = {"optuna": "2.10.1", "sqlalchemy": "2.1.9"}
    monkeypatch.setattr("importlib.metadata.version", versions.get)
    assert command("train", "-m", "hydra/sweeper=optuna", "hydra.sweeper.storage=sqlite:///s.db", *SHORT) == 1
    assert "hydra.sweeper.storage: optuna 2.10.1, which" in capsys.readouterr().err


def test_what_ends_a_job_arrives_from_another_process():
    error = pickle.loads(pickle.dumps(Interrupted(75, "later")))
    assert error.status == 75 and str(error) == "later"
