r"""Trackers mirror metrics.jsonl; none of them may stop a run."""

from typing import ClassVar

import accelerate.tracking
import pytest
from tiny import TOY, numbers, train

from scoregen.data import Toy2D
from scoregen.losses import DenoisingScoreMatching
from scoregen.models import MLP, Denoiser
from scoregen.sde import EDM
from scoregen.training import JSONLines, NoLogger, TensorBoard, Trackers, Trainer, WandB
from scoregen.training.loggers import _has_key


@pytest.fixture
def offline(monkeypatch, tmp_path):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return tmp_path


class Run:
    r"""What a run of Weights & Biases would be."""

    def __init__(self, options) -> None:
        self.options, self.lines = options, []

    def log(self, values, step) -> None:
        self.lines.append((step, values))

    def finish(self) -> None:
        self.lines.append("finished")


@pytest.fixture
def runs(monkeypatch):
    made = []

    def init(**options):
        made.append(Run(options))
        return made[-1]

    monkeypatch.setattr("wandb.init", init)
    return made


def test_wandb_without_a_key_is_offline_and_with_one_online(offline, runs, monkeypatch):
    WandB().open(offline, {}, 0)
    (offline / "netrc").write_text("machine api.wandb.ai login user password " + "0" * 40 + "\n")
    WandB().open(offline, {}, 0)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    WandB().open(offline, {}, 0)
    WandB(mode="offline").open(offline, {}, 0)
    assert [run.options["mode"] for run in runs] == ["offline", "online", "disabled", "offline"]
    assert [run.options["resume"] for run in runs] == [None, "allow", None, None]
    assert len({run.options["id"] for run in runs}) == 1


def test_a_key_in_the_environment_counts(offline, monkeypatch):
    assert not _has_key()
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert _has_key()


def test_wandb_that_does_not_answer_is_tracked_offline(offline, monkeypatch, capsys):
    import wandb

    def init(mode, **options):
        if mode == "online":
            raise wandb.errors.CommError("timed out")
        return Run({"mode": mode, **options})

    monkeypatch.setattr("wandb.init", init)
    logger = WandB(mode="online")
    logger.open(offline, {}, 0)
    assert logger._run.options["mode"] == "offline"
    assert "no answer (timed out). The run is tracked offline" in capsys.readouterr().out


def test_wandb_gets_every_line_and_keeps_its_id_over_resume(offline, runs):
    overrides = [*TOY, "logger=wandb", "trainer.checkpoint_every=2", "trainer.resume=auto"]
    folder = train(offline / "run", *overrides, "trainer.steps=2")
    train(folder, *overrides, "trainer.steps=4")
    ids = [run.options["id"] for run in runs]
    assert ids[0] == ids[1] == (folder / "wandb_id.txt").read_text()
    assert [run.lines[-1] for run in runs] == ["finished", "finished"]
    seen = [(step, values["loss"]) for run in runs for step, values in run.lines[:-1]]
    assert seen == [(line["step"], line["loss"]) for line in numbers(folder)]


def test_the_real_wandb_runs_offline_without_a_key(offline):
    logger = WandB()
    logger.open(offline, {"seed": 0}, 0)
    logger.log(1, {"loss": 0.5})
    logger.close()
    identity = (offline / "wandb_id.txt").read_text()
    names = [p.name for p in (offline / "wandb").iterdir()]
    assert [name for name in names if name.startswith("offline-run") and name.endswith(identity)]


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="mode must be online, offline or disabled, got mode='off'"):
        WandB(mode="off")


def test_tensorboard_holds_the_lines_and_pictures(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = train(tmp_path, *TOY[:-1], "logger=tensorboard", "trainer.steps=2", "preview.n=2", "sampler.steps=1")
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    read = [(event.step, pytest.approx(event.value)) for event in events.Scalars("loss")]
    assert read == [(line["step"], line["loss"]) for line in numbers(folder)]
    assert [image.step for image in events.Images("samples")] == [2]


def test_tensorboard_without_its_extra_says_what_to_install(monkeypatch):
    monkeypatch.setattr("scoregen.training.loggers.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'scoregen\[tensorboard\]'"):
        TensorBoard()


def test_lines_after_the_resumed_step_are_dropped(tmp_path):
    lines = [f'{{"step": {k}, "a": {k}.0}}\n' for k in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("".join(lines) + '{"ste')
    logger = JSONLines()
    logger.open(tmp_path, {}, 2)
    logger.log(3, {"a": 4.0})
    logger.close()
    assert (tmp_path / "metrics.jsonl").read_text() == "".join(lines[:2]) + '{"step": 3, "a": 4.0}\n'


def test_what_was_opened_before_a_failing_logger_is_closed(tmp_path):
    closed = []

    class First(NoLogger):
        def close(self) -> None:
            closed.append("first")

    class Second(NoLogger):
        def open(self, *arguments) -> None:
            raise OSError("full")

        def close(self) -> None:
            closed.append("second")

    trainer, model = Trainer(1, 4, precision="no"), Denoiser(MLP((2,), 4, 1), EDM())
    with pytest.raises(OSError, match="full"):
        trainer.fit(model, DenoisingScoreMatching(), Toy2D(20), tmp_path, {}, loggers=[First(), Second()])
    assert closed == ["first"]


def test_trackers_of_accelerate_hold_the_lines_the_pictures_and_the_configuration(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = [*TOY[:-1], "logger=accelerate", "preview.n=2", "sampler.steps=1", "trainer.checkpoint_every=2"]
    train(tmp_path, *options, "trainer.steps=2", "trainer.resume=auto")
    folder = train(tmp_path, *options, "trainer.steps=3", "trainer.resume=auto")
    events = EventAccumulator(str(folder / "trackers" / "scoregen")).Reload()
    read = [(event.step, pytest.approx(event.value)) for event in events.Scalars("loss")]
    assert read == [(line["step"], line["loss"]) for line in numbers(folder)]
    assert [image.step for image in events.Images("samples")] == [2, 3]
    written = [path.read_text() for path in (folder / "trackers").rglob("hparams.yml")]
    assert any("trainer.batch_size: 8" in text for text in written)


class Kept(accelerate.tracking.GeneralTracker):
    r"""A tracker of a user's own, registered with Accelerate."""

    name, requires_logging_directory = "kept", False
    seen: ClassVar[list] = []

    def __init__(self, project: str, **options) -> None:
        super().__init__()
        self.seen.append((project, options))

    @property
    def tracker(self):
        return self.seen

    def log(self, values, step=None, **options):
        self.seen.append((step, values["loss"]))


def test_a_registered_tracker_is_used_by_its_name_with_its_options(tmp_path):
    if not hasattr(accelerate.tracking, "register_tracker_class"):
        pytest.skip("Accelerate knows no trackers of one's own yet")
    accelerate.tracking.register_tracker_class(Kept)
    options = ["logger=accelerate", "logger.names=[kept]", "logger.project=p", "logger.options={kept:{team:a}}"]
    folder = train(tmp_path, *TOY, "trainer.steps=2", *options)
    assert Kept.seen == [("p", {"team": "a"}), *[(line["step"], line["loss"]) for line in numbers(folder)]]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"names": ["tensorbored"]}, "name must be .* got name='tensorbored'"),
        ({"names": ["mlflow"]}, r"names: 'mlflow' is not installed. Install it: pip install mlflow."),
        ({"options": {"mlflow": {}}}, "options must be tensorboard, got options='mlflow'"),
    ],
    ids=["unknown", "absent", "unused"],
)
def test_trackers_that_cannot_be_used_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Trackers(**options)
