r"""Early stopping, quality and accuracy: values of oracles, the same whatever the batches, and what they keep."""

import json

import pytest
import torch
from tiny import DIGITS, TOY, numbers, train

from scoregen import data
from scoregen.data import ArrayDataset
from scoregen.errors import UserError
from scoregen.losses import ConsistencyTuning, DenoisingScoreMatching, LogUniform, StepwiseVariation
from scoregen.losses.weightings import DataWeighting
from scoregen.metrics import Pixels, frechet_distance
from scoregen.models.denoiser import AbstractDenoiser
from scoregen.monitors import Accuracy, EarlyStopping, Quality
from scoregen.rng import generator
from scoregen.samplers import DDIM
from scoregen.sde import EDM
from scoregen.training import Moment


class Source(data.Source):
    name, range = "pair", (0.0, 1.0)

    def __init__(self, train, held_out, label=None, validation="auto"):
        super().__init__(validation=validation)
        self.parts = ArrayDataset(train, label), ArrayDataset(held_out, label)

    def load(self, train):
        return self.parts[not train]

    def load_validation(self):
        return self.parts[1]


class Constant(AbstractDenoiser):
    r"""D = the value of its parameter."""

    sigma_data = 0.5

    def __init__(self, value=0.0):
        super().__init__()
        self.sde, self.value = EDM(0.002, 80.0), torch.nn.Parameter(torch.tensor(value))

    def forward(self, u, s, label=None):
        return u * 0 + self.value


class Noisy(Constant):
    r"""D = u: the error is s eps, so it shows the noise."""

    def forward(self, u, s, label=None):
        return u


class Journal:
    r"""A run folder that keeps what a hook logs and saves."""

    def __init__(self, folder):
        self.folder, self.step, self.saved, self.logged = folder, 0, [], []

    def moment(self, model):
        self.step += 1
        return Moment(self.step, model, self.folder, self.log, lambda *_: None, lambda name: self.saved.append(name))

    def log(self, values):
        self.logged.append(values)
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": self.step, **values}) + "\n")


def loss():
    return DenoisingScoreMatching(LogUniform(), DataWeighting(), label_dropout=0.0)


def halves_and_ones():
    return Source(torch.full((30, 1, 2, 2), 0.5), torch.ones(30, 1, 2, 2))


def test_the_excess_is_held_out_minus_training_loss(tmp_path):
    r"""D = 0, training data 1/2, held-out data 1: losses 1/4 and 1 at every noise level."""
    journal = Journal(tmp_path)
    EarlyStopping(halves_and_ones(), loss(), every=1, n=30, bins=3)(journal.moment(Constant()))
    expected = {"heldout_loss": 1.0, "heldout_excess": 0.75} | {f"heldout_excess_bin{k}": 0.75 for k in range(3)}
    assert journal.logged == [pytest.approx(expected)]


def test_the_noise_is_frozen_and_independent_of_the_batches(tmp_path):
    journal = Journal(tmp_path)
    for batch_size in (250, 250, 7):
        EarlyStopping(halves_and_ones(), loss(), every=1, n=30, batch_size=batch_size)(journal.moment(Noisy()))
    first, again, other = (values["heldout_loss"] for values in journal.logged)
    assert first == again == pytest.approx(other, rel=1e-6)


def test_noise_levels_run_from_low_to_high(tmp_path):
    r"""With D = u the loss is s^2, so held-out and training images are seen at the same levels."""
    levels = []

    class Recording(Noisy):
        def forward(self, u, s, label=None):
            levels.extend(torch.as_tensor(s).tolist())
            return u

    EarlyStopping(halves_and_ones(), loss(), every=1, n=30)(Journal(tmp_path).moment(Recording()))
    assert levels[:30] == sorted(levels[:30])
    assert levels[:30] == levels[30:]


def test_it_keeps_the_best_and_stops_after_its_patience(tmp_path):
    r"""Held-out losses (1 - value)^2: better, better, worse, worse; the third hook resumes from the log."""
    journal, stops = Journal(tmp_path), []
    for value in (0.5, 0.9, 0.7, 0.6):
        hook = EarlyStopping(halves_and_ones(), loss(), every=1, patience=2, n=30)
        hook(journal.moment(Constant(value)))
        stops.append(hook.stop)
    assert stops == [False, False, False, True]
    assert journal.saved == ["best_heldout", "best_heldout"]


def test_a_run_that_memorises_is_ended(tmp_path):
    r"""20 training points: the run stops where the held-out loss has turned, and the best step has its checkpoint.

    Its last step has a preview. The same command does no more; with more patience it goes on.
    """
    command = [*TOY, "data.n=20", "trainer.steps=400", "early_stopping.every=20", "early_stopping.patience=1",
               "trainer.optimizer.lr=0.03", "model.network.width=64", "trainer.checkpoint_every=400",
               "trainer.resume=auto", "preview.every=400", "preview.n=4", "data.validation=0.1"]  # fmt: skip
    train(tmp_path, *command)
    history = {line["step"]: line["heldout_loss"] for line in numbers(tmp_path) if "heldout_loss" in line}
    best = min(history, key=history.get)
    assert max(history) == best + 20 < 400
    state = json.loads((tmp_path / "checkpoints" / "best_heldout" / "state.json").read_text())
    assert state["step"] == best
    assert (tmp_path / "report.html").exists()
    written = (tmp_path / "metrics.jsonl").read_text()
    train(tmp_path, *command)
    assert (tmp_path / "metrics.jsonl").read_text() == written
    train(tmp_path, *command, "early_stopping.patience=3")
    assert max(line["step"] for line in numbers(tmp_path)) >= best + 60


def test_quality_is_the_distance_of_its_samples_and_keeps_the_best(tmp_path):
    r"""Samples of D = v are the constant v: the distance to data of mean m and the same part of the covariance."""
    real = torch.rand((40, 1, 2, 2), generator=generator(0))
    source, journal = Source(real, real), Journal(tmp_path)
    for value, batch_size in ((0.2, 100), (0.4, 100), (0.4, 3), (0.3, 3)):
        hook = Quality(source, DDIM(1), Pixels(), every=1, n=8, batch_size=batch_size)
        hook(journal.moment(Constant(value)))
    expected = frechet_distance(torch.full((8, 4), 102 / 255), real.flatten(1))  # .4 on the grid of 8 bits
    distances = [values[Pixels().frechet_name] for values in journal.logged]
    assert distances[1] == pytest.approx(expected, rel=1e-2)
    assert distances[1] == distances[2]
    assert journal.saved == ["best"] * sum(d < min(distances[:i], default=9e9) for i, d in enumerate(distances))


def test_accuracy_is_the_share_of_right_answers(tmp_path):
    class FirstPixel(torch.nn.Module):
        num_classes = 2

        def __init__(self):
            super().__init__()
            self.zero = torch.nn.Parameter(torch.zeros(()))

        def forward(self, x):
            return torch.stack([0.5 - x[:, 0, 0, 0], x[:, 0, 0, 0] - 0.5], 1) + self.zero

    label = torch.arange(20) % 2
    images = label.float().view(-1, 1, 1, 1).expand(-1, 1, 2, 2).clone()
    images[:5] = 1 - images[:5]
    journal = Journal(tmp_path)
    Accuracy(Source(images, images, label), None, every=1, batch_size=3)(journal.moment(FirstPixel()))
    assert journal.logged == [{"accuracy": 15 / 20}]


class Says(torch.nn.Module):
    r"""Gives every image the same class."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.zero = answer, torch.nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return torch.nn.functional.one_hot(torch.full((len(x),), self.answer), 3) + self.zero


def test_accuracy_keeps_the_best_on_a_validation_part_and_never_on_test_data(tmp_path):
    images, label = torch.zeros(10, 1, 2, 2), torch.tensor([0] * 5 + [1] * 3 + [2] * 2)
    with pytest.raises(UserError, match=r"accuracy.keep_best: needs a validation part, and pair has none"):
        Accuracy(Source(images, images, label, "none"), None, every=1, keep_best=True)
    source, journal = Source(images, images, label), Journal(tmp_path)
    hook = Accuracy(source, None, every=1, keep_best=True)
    for count, answer in enumerate((2, 1, 2, 1, 0), start=1):
        hook(journal.moment(Says(answer)))
        assert len(journal.saved) == [1, 2, 2, 2, 3][count - 1]


class Sealed(ArrayDataset):
    r"""A part that nobody may read."""

    shape = (1, 2, 2)

    def __getitem__(self, index):
        raise AssertionError("the test part was read")


def test_nothing_that_chooses_reads_the_test_part(tmp_path):
    class Parts(Source):
        def load(self, train):
            return self.parts[0] if train else Sealed(torch.zeros(9, 1, 2, 2), torch.zeros(9).long())

    label, journal = torch.zeros(30).long(), Journal(tmp_path)
    source = Parts(torch.full((30, 1, 2, 2), 0.5), torch.ones(30, 1, 2, 2), label)
    EarlyStopping(source, loss(), every=1, n=30, bins=3)(journal.moment(Constant()))
    Quality(source, DDIM(1), Pixels(), every=1, n=8)(journal.moment(Constant(1.0)))
    Accuracy(source, None, every=1, keep_best=True)(journal.moment(Says(0)))
    assert journal.logged[0]["heldout_loss"] == pytest.approx(1.0)
    assert journal.logged[1]["FD-pixels"] == pytest.approx(0.0, abs=1e-9)  # of the validation part, not of 1/2
    assert journal.logged[2] == {"accuracy": 1.0} and journal.saved == ["best_heldout", "best", "best"]


@pytest.mark.parametrize("changes", [{"patience": 0}, {"n": 0}, {"bins": 0}, {"every": 0}])
def test_bad_settings_are_refused(changes):
    with pytest.raises(ValueError, match="must be >= 1"):
        EarlyStopping(halves_and_ones(), loss(), **{"every": 1, **changes})


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["few_calls.levels=[90.0]"], "few_calls: Consistency does not fit EDM: noise ratios must lie between"),
        (["few_calls.every=null", "quality.every=1", "sampler=consistency_two", "sde.sigma_max=20"], "quality: Cons"),
        (["few_calls.every=null", "preview.every=1", "sampler=consistency_two", "sde.sigma_max=20"], "preview: Cons"),
        (
            ["few_calls.every=null", "preview.every=1", "sampler=ambient_langevin"],
            "preview: AmbientLangevin does not fit",
        ),
        (
            ["early_stopping.every=1", "loss=consistency", "data.validation=0.1"],
            "early_stopping: every must be null for ConsistencyTuning",
        ),
        (["early_stopping.every=1"], "early_stopping.every: needs a validation part, and toy2d has none"),
    ],
    ids=["levels", "quality", "preview", "chart", "early stopping", "validation"],
)
def test_a_monitor_that_cannot_work_is_refused_before_the_run(argv, text, tmp_path):
    overrides = [*TOY, "few_calls.every=1", "trainer.steps=1", "dry_run=true"]
    keys = {a.split("=")[0] for a in argv}
    with pytest.raises(UserError, match=text):
        train(tmp_path, *[a for a in overrides if a.split("=")[0] not in keys], *argv)


def test_a_loss_around_one_that_does_not_compare_does_not_either():
    with pytest.raises(ValueError, match="every must be null for StepwiseVariation"):
        EarlyStopping(halves_and_ones(), StepwiseVariation(ConsistencyTuning()), every=1)


def test_distances_of_one_and_two_calls_are_logged(tmp_path):
    r"""Those of the quality monitor with the same sampler and seeds."""
    options = [*DIGITS, "trainer.steps=2", "trainer.log_every=2", "trainer.checkpoint_every=2", "sampler=consistency"]
    few = ["few_calls.every=2", "few_calls.features={_target_:scoregen.metrics.Pixels}", "+few_calls.samples=20"]
    train(tmp_path, *options, *few, "quality.every=2", "quality.n=20", "+quality.reference=10000")
    logged = {name: value for line in numbers(tmp_path) for name, value in line.items()}
    assert logged["FD-pixels/calls_1"] == pytest.approx(logged["FD-pixels"], rel=1e-6)
    assert logged["FD-pixels/calls_2"] != logged["FD-pixels/calls_1"]


def test_vectors_are_measured_as_they_are_and_the_reference_is_not_the_first_ones(tmp_path):
    r"""Data far outside [0, 1], sorted: mean and covariance of all of it, had they been cut off, would be others."""
    real = torch.linspace(-5, 5, 400).reshape(100, 4)

    class Vectors(Source):
        range = None

    hook = Quality(Vectors(real, real), DDIM(1), Pixels(), every=1, n=8, reference=50)
    found = hook._real(torch.device("cpu"))
    assert found.min() < -4 and found.max() > 4
    assert len(found) == 50


def test_samples_that_are_no_numbers_are_not_the_best_and_end_nothing(tmp_path):
    real = torch.rand((40, 1, 2, 2), generator=generator(0))
    journal = Journal(tmp_path)
    Quality(Source(real, real), DDIM(1), Pixels(), every=1, n=8)(journal.moment(Constant(float("nan"))))
    assert journal.saved == []
