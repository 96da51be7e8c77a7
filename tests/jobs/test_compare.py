r"""Names in words for the columns and curves of a comparison."""

import sys

import pytest
from tiny import job

from scoregen.errors import UserError
from scoregen.jobs import Compare


def darkest():
    r"""The class is the darkest of ten pixels; a function of one image."""
    return lambda x: -x.flatten(1)[:, :10]


def test_columns_and_curves_have_the_given_names(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "darkest", sys.modules[__name__])
    run = tmp_path / "certify_7"
    job("certify", "data=digits", "n=128", "max_inputs=2", "classifier=darkest:darkest").run(run)
    labels: list[str] = []
    monkeypatch.setattr("matplotlib.axes.Axes.plot", recording(labels, __import__("matplotlib.axes").axes.Axes.plot))
    capsys.readouterr()
    job("compare", f"runs=[{run}]", "names=[Gaussian augmentation]").run(tmp_path / "both")
    assert capsys.readouterr().out.splitlines()[0] == "| radius (l2) | Gaussian augmentation |"
    assert labels[0] == "Gaussian augmentation"


def recording(labels, plot):
    def record(*args, **options):
        labels.append(options.get("label"))
        return plot(*args, **options)

    return record


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["one"], "names: must be one for each of the 2 runs, got 1"),
        (["a|b", "c"], "without '|' that do not begin with '_', got 'a|b'"),
        (["_hidden", "c"], "got '_hidden'"),
        (["", "c"], "got ''"),
        (["same", "same"], "names: must be different, got same, same"),
    ],
    ids=["one too few", "bar", "hidden in the legend", "empty", "twice"],
)
def test_names_that_cannot_head_a_column_are_refused(names, message):
    with pytest.raises(UserError) as error:
        Compare(runs=["a", "b"], names=names)
    assert message in str(error.value)
