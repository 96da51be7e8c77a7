r"""Metrics of tables against SciPy, scikit-learn and closed forms."""

import math
import re

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
from scipy import stats  # noqa: E402

from scoregen.metrics.associations import (  # noqa: E402
    association_error,
    associations,
    correlation_error,
    correlations,
)
from scoregen.metrics.marginals import missing, shares, total_variation, wasserstein, zeros  # noqa: E402
from scoregen.metrics.measurement import Settings  # noqa: E402
from scoregen.metrics.records import closest_records, exact_copies, record_vectors  # noqa: E402
from scoregen.metrics.table_columns import read_columns  # noqa: E402
from scoregen.metrics.tables import evaluate_table  # noqa: E402
from scoregen.metrics.usefulness import choose_target, usefulness  # noqa: E402

KINDS = {"x": "real", "y": "positive", "debt": "zero_positive", "town": "category", "size": "category", "day": "date"}


@pytest.fixture(autouse=True)
def small_forests(monkeypatch):
    monkeypatch.setattr("scoregen.metrics.usefulness.TREES", 15)


def frame(n=200, seed=0, **changes):
    r"""Mixed columns that depend on each other."""
    draws = np.random.default_rng(seed)
    x = draws.standard_normal(n)
    town = np.where(x + draws.standard_normal(n) > 0, "Bern", np.where(draws.random(n) < 0.5, "Rom", "Ulm"))
    size = np.where((town == "Bern") ^ (draws.random(n) < 0.3), 1, 0)
    columns = {"x": x, "y": np.exp(x + 0.3 * draws.standard_normal(n)), "debt": np.maximum(x, 0), "town": town}
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(draws.integers(0, 300, n), "D")
    return pd.DataFrame(columns | {"size": size, "day": days, "unit": "kg"} | changes)


def read(table, **kinds):
    return read_columns(table, KINDS | {"unit": "constant"} | kinds)


def test_columns_are_read_by_their_kind():
    columns = read(frame(3, day=pd.to_datetime(["1970-01-01 00:00", "1970-01-02 12:00", None])))
    assert list(columns) == list(KINDS)
    assert columns["day"].values[:2].tolist() == [0, 1.5]
    assert columns["day"].present.tolist() == [True, True, False]
    assert math.isnan(columns["day"].values[2])


def test_a_category_is_the_same_as_number_and_as_text():
    r"""A column of whole numbers with an empty cell is one of floats in a frame, and of texts in another file."""
    whole, texts = ([1.0, 0.0, None], ["1", "0", None])
    first, second = (read_columns(pd.DataFrame({"c": c}), {"c": "category"})["c"] for c in (whole, texts))
    assert first.values.tolist() == second.values.tolist() == ["1", "0", ""]
    assert first.present.tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("values", "kind", "text"),
    [
        ([1.0, math.inf], "real", "table: column 'c' must be finite, got 1 infinite values"),
        (["a", "b"], "real", "must hold numbers, got 'a'"),
        ([None, None], "real", "must have values, got 2 empty cells"),
        (["a", "b"], "date", "must hold dates"),
        ([1.0, 2.0], "colour", "unknown kind 'colour'"),
    ],
    ids=["infinite", "texts", "empty", "no-date", "kind"],
)
def test_columns_that_cannot_be_measured_are_refused(values, kind, text):
    with pytest.raises(ValueError, match=text):
        read_columns(pd.DataFrame({"c": values}), {"c": kind})
    with pytest.raises(ValueError, match="must have the column 'd'"):
        read_columns(pd.DataFrame({"c": values}), {"d": kind})


def test_wasserstein_of_a_shift_is_the_shift_in_standard_deviations():
    table = frame()
    moved = table.assign(x=table.x + 0.7, y=3 * table.y)
    found = wasserstein(read(moved), read(table))
    assert found["x"] == pytest.approx(0.7 / table.x.std(ddof=0), rel=1e-12)
    assert found["y"] == pytest.approx(2 * table.y.mean() / table.y.std(ddof=0), rel=1e-12)
    assert found["day"] == 0 and set(found) == {"x", "y", "debt", "day"}


def test_wasserstein_of_different_counts_agrees_with_its_integral():
    r"""a = {0, 1, 2, NaN}, b = {0, 10}: int |F_a - F_b| is 1/6 on [0, 1], 1/6 on [1, 2], 1/2 on [2, 10]."""
    a, b = (read_columns(pd.DataFrame({"x": x}), {"x": "real"}) for x in ([0, 1, 2, None], [0, 10]))
    assert wasserstein(a, b)["x"] * 5 == pytest.approx(1 / 6 + 1 / 6 + 8 / 2, rel=1e-12)  # standard deviation of b: 5


def test_total_variation_and_shares():
    a = read_columns(pd.DataFrame({"c": ["p", "p", "q", None]}), {"c": "category"})
    b = read_columns(pd.DataFrame({"c": ["p", "q", "r", "r"]}), {"c": "category"})
    assert shares(a["c"]) == pytest.approx({"p": 2 / 3, "q": 1 / 3})
    assert total_variation(a, b)["c"] == pytest.approx((5 / 12 + 1 / 12 + 1 / 2) / 2, rel=1e-12)
    assert total_variation(a, a)["c"] == 0


def test_zeros_and_missing_cells_are_counted():
    columns = read(frame(4, debt=[0.0, 0.0, 2.0, None], x=[1.0, None, None, 2.0]))
    assert zeros(columns) == {"debt": pytest.approx(2 / 3)}
    assert missing(columns) == {"x": 0.5, "debt": 0.25} | dict.fromkeys(("y", "town", "size", "day"), 0)


def test_associations_agree_with_scipy():
    table = frame()
    found = associations(read(table))
    at = {pair: found.values[found.names.index(pair[0]), found.names.index(pair[1])] for pair in
          [("x", "y"), ("x", "debt"), ("town", "size"), ("size", "town"), ("y", "town"), ("town", "y")]}  # fmt: skip
    assert at["x", "y"] == pytest.approx(stats.spearmanr(table.x, table.y).statistic, abs=1e-12)
    assert at["x", "debt"] == pytest.approx(stats.spearmanr(table.x, table.debt).statistic, abs=1e-12)  # ties
    counts = pd.crosstab(table.town, table["size"]).to_numpy()
    assert at["town", "size"] == pytest.approx(stats.contingency.association(counts, "cramer"), abs=1e-12)
    groups = [table.y[table.town == name] for name in ("Bern", "Rom", "Ulm")]
    kruskal = stats.kruskal(*groups).statistic  # H = (n - 1) eta^2 of the ranks
    assert at["y", "town"] == pytest.approx(math.sqrt(kruskal / (len(table) - 1)), abs=1e-12)
    assert at["town", "size"] == at["size", "town"] and at["y", "town"] == at["town", "y"]
    assert np.allclose(np.diag(found.values), 1, atol=0)


def test_correlations_agree_with_pandas_where_cells_are_missing():
    table = frame(60)
    table.loc[::7, "x"], table.loc[::5, "y"] = None, None
    found = correlations(read(table))
    assert found.names == ["x", "y", "debt", "day"]
    expected = table[["x", "y", "debt"]].corr().to_numpy()
    assert np.abs(found.values[:3, :3] - expected).max() < 1e-12


def test_associations_are_those_of_any_increasing_map():
    table = frame()
    first, second = associations(read(table)), associations(read(table.assign(y=np.log(table.y), x=table.x**3)))
    assert np.abs(first.values - second.values).max() < 1e-12


def test_what_does_not_vary_has_no_association():
    table = frame(x=1.7, town="Bern", y=1e200)
    found = associations(read(table)).values
    assert np.abs(found[[0, 1, 3]] - np.eye(6)[[0, 1, 3]]).max() == 0
    assert np.abs(correlations(read(table)).values[:2] - np.eye(4)[:2]).max() == 0


def test_errors_of_matrices_leave_the_diagonal_out():
    kinds = dict.fromkeys("abc", "real")
    draws = np.random.default_rng(0)
    a, b = (correlations(read_columns(pd.DataFrame(draws.random((9, 3)), columns=list("abc")), kinds)) for _ in "ab")
    difference = (a.values - b.values)[np.triu_indices(3, 1)]
    assert correlation_error(a, b) == pytest.approx(math.sqrt((difference**2).mean()), rel=1e-12)
    assert association_error(a, b) == pytest.approx(np.abs(difference).mean(), rel=1e-12)


def test_distances_of_records_are_in_units_of_the_training_table():
    table = frame(50)
    training = read(table, x="real", y="positive")
    vectors = record_vectors(read(table.assign(y=2 * table.y)), training) - record_vectors(training, training)
    assert vectors.norm(dim=1).numpy() == pytest.approx(math.log(2) / np.log(table.y).std(ddof=0), rel=1e-9)
    other = record_vectors(read(table.assign(town=np.where(table.town == "Bern", "Rom", "Bern"))), training)
    changed = (other - record_vectors(training, training)).norm(dim=1)
    assert changed.numpy() == pytest.approx(1.0, rel=1e-12)  # two categories that differ are 1 apart


def test_missing_cells_are_told_from_the_mean():
    table = frame(50)
    training = read(table)
    gap = record_vectors(read(table.assign(x=[None] * 49 + [0.0], town=[None] * 49 + ["Rom"])), training)
    assert gap.isfinite().all()
    assert not (gap[0] == record_vectors(training, training)[0]).all()


def test_planted_copies_are_counted():
    training, made = frame(100), frame(100, seed=1)
    made.iloc[:7] = training.iloc[20:27]
    training.loc[22, "x"] = made.loc[2, "x"] = None  # a copy with an empty cell
    made.loc[3, "x"] += 1e-9
    found = exact_copies(read(made), read(training))
    assert found.nonzero()[0].tolist() == [0, 1, 2, 4, 5, 6]
    records = closest_records(read(made), read(training))
    assert (records.copies, records.rows) == (6, 100) and records.fifth < 1e-6 < records.distance


def test_useful_rows_score_as_real_ones_and_noise_as_a_guess():
    training, held_out = frame(200), frame(200, seed=1)
    noise = frame(seed=2).assign(y=np.random.default_rng(3).permutation(frame().y))
    number = usefulness(read(frame(seed=2)), read(training), read(held_out), "y")
    assert number.measure == "R^2" and abs(number.synthetic - number.real) < 0.2 and number.real > 0.5
    assert usefulness(read(noise), read(training), read(held_out), "y").synthetic < 0.2
    category = usefulness(read(training), read(training), read(held_out), "town")
    assert category.measure == "accuracy" and category.synthetic == category.real > category.guess
    assert category.guess == (held_out.town == "Bern").mean()  # the most frequent one of training


def test_the_guess_of_a_number_is_the_mean_of_training():
    training, held_out = frame(30), frame(30, seed=1)
    found = usefulness(read(training), read(training), read(held_out), "x").guess
    spread = ((held_out.x - held_out.x.mean()) ** 2).sum()
    assert found == pytest.approx(1 - ((held_out.x - training.x.mean()) ** 2).sum() / spread, rel=1e-12)


def test_the_target_is_the_last_column_unless_it_is_given():
    columns = read(frame(9))
    assert choose_target(columns) == "size"
    assert choose_target(columns, "y") == "y"
    with pytest.raises(ValueError, match=r"got 'twon'. Did you mean 'town'"):
        choose_target(columns, "twon")
    with pytest.raises(ValueError, match="no row has a value of the target 'x'"):
        table = read_columns(frame(9, x=[1.0] * 8 + [None]).iloc[::-1], KINDS)
        usefulness(
            read(frame(9)), table, {k: type(v)(v.kind, v.values[:1], v.present[:1]) for k, v in table.items()}, "x"
        )


def report_of(synthetic, training, held_out, **settings):
    kinds = KINDS | {"unit": "constant"}
    return evaluate_table(synthetic, training, held_out, kinds, Settings(**settings))


def test_held_out_rows_as_samples_have_the_numbers_of_the_floor():
    training, held_out = frame(), frame(150, seed=1)
    report = report_of(held_out, training, held_out)
    for name in ("W1", "total variation", "zeros", "correlation", "association", "copies", "distance to training"):
        assert report[name].value == report[name].floor
    assert report["W1"].value == pytest.approx(np.mean(list(wasserstein(read(held_out), read(training)).values())))
    assert report.protocol["generated_rows"] == report.protocol["floor_rows"] == 150


def test_a_table_of_copies_is_told():
    training, held_out = frame(), frame(seed=1)
    report = report_of(training, training, held_out)
    assert report["copies"].value == report["memorised"].value == 1
    assert (report["W1"].value, report["association"].value, report["distance to training"].value) == (0, 0, 0)
    suspicious = report.details["nearest_training_rows"][0]
    assert (suspicious["generated"], suspicious["distance"]) == (suspicious["training"], 0)


def test_without_held_out_rows_there_is_no_floor_and_no_prediction():
    report = report_of(frame(seed=1), frame(), None)
    assert report["W1"].floor is None
    assert not [n for n in report.numbers if n.name.startswith(("accuracy", "R^2", "memorised"))]
    assert any("have one part alone" in text for text in report.warnings)


def test_values_that_training_has_not_are_told():
    report = report_of(frame(town="Oslo"), frame(), frame(seed=1))
    assert "column 'town' has values that the training rows have not: Oslo." in report.warnings
    assert report["total variation"].value > 0.4


def test_few_rows_are_told():
    report = report_of(frame(20), frame(), frame(50, seed=1))
    assert any(text.startswith("20 rows are few") for text in report.warnings)
    assert any("50 held-out rows are too few for memorisation at alpha=0.01" in text for text in report.warnings)


def test_one_column_alone_is_measured():
    kinds = {"x": "real"}
    report = evaluate_table(frame(seed=1)[["x"]], frame()[["x"]], frame(seed=2)[["x"]], kinds)
    assert [n.name for n in report.numbers] == ["W1", "copies", "distance to training", "memorised"]


def test_the_page_shows_each_column_and_escapes_its_name(tmp_path):
    r"""The bars of a histogram are shares: the tallest is 84 high, the others in proportion."""
    kinds = {"<b>": "category", "n": "integer"}
    training = pd.DataFrame({"<b>": ["p"] * 6 + ["q"] * 4, "n": [0] * 6 + [1] * 3 + [2]})
    synthetic = pd.DataFrame({"<b>": ["p"] * 5 + ["q"] * 5, "n": [0] * 5 + [1] * 5})
    report = evaluate_table(synthetic, training, None, kinds, page=tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "<b>&lt;b&gt;</b>" in text and "<b><b>" not in text
    assert "60, 50 %" in text and "40, 50 %" in text
    bars = re.findall(r'<rect class="real" x="[\d.]+" y="[\d.]+" width="80.0" height="([\d.]+)"', text)
    assert [float(height) for height in bars] == [84, 42, 14]
    assert 'd="M0 90V20.0H80.0V20.0H160.0V90.0H240.0V90.0"' in text
    assert "http" not in text.replace("http-equiv", "")
    assert all(name in text for name in ("W1", "association", *(n.name for n in report.numbers)))
