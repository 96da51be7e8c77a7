r"""The job evaluate on tables: rows from a file or a checkpoint against the parts of the data."""

import json
from functools import partial

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
from tiny import job, train  # noqa: E402

from scoregen.data import TableFile  # noqa: E402
from scoregen.errors import UserError  # noqa: E402
from scoregen.jobs.table_evaluation import part_of  # noqa: E402
from scoregen.samplers import RK4, log_likelihood  # noqa: E402


@pytest.fixture(autouse=True)
def small_forests(monkeypatch):
    monkeypatch.setattr("scoregen.metrics.usefulness.TREES", 5)


def pets(n, seed=0):
    draws = np.random.default_rng(seed)
    kind = draws.choice(["cat", "dog"], n)
    weight = np.exp(np.where(kind == "cat", 1.4, 2.6) + 0.3 * draws.standard_normal(n)).round(2)
    return pd.DataFrame({"species": kind, "weight": weight, "age": draws.integers(0, 20, n)})


@pytest.fixture
def table(tmp_path):
    r"""data=table of 60 pets, missing one weight."""
    frame = pets(60)
    frame.loc[3, "weight"] = None
    frame.to_csv(tmp_path / "pets.csv", index=False)
    return {"_target_": "scoregen.data.TableFile", "path": str(tmp_path / "pets.csv")}


def evaluated(out, data, **changes):
    return job("evaluate", "data=table", data=data, **changes).run(out)


def test_the_parts_are_the_rows_of_the_file(table, tmp_path):
    source = TableFile(table["path"])
    training, held_out = (part_of(source, name) for name in ("train", "test"))
    both = pd.concat([training, held_out])
    assert (len(training), len(held_out)) == (54, 6)
    assert sorted(map(repr, both.itertuples(index=False))) == sorted(map(repr, source.frame.itertuples(index=False)))
    weights = source.schema.decode(source.test.in_units(slice(None))[0]).weight
    assert weights.tolist() == pytest.approx(held_out.weight.tolist(), nan_ok=True)
    pets(9, 4).to_csv(tmp_path / "more.csv", index=False)
    elsewhere = TableFile(table["path"], test=str(tmp_path / "more.csv"))
    assert len(part_of(elsewhere, "train")) == 60
    assert part_of(elsewhere, "test").equals(pets(9, 4))
    assert part_of(TableFile(table["path"], test="none"), "test") is None
    assert len(part_of(TableFile(table["path"], test="all"), "test")) == 60


def test_a_part_of_another_file_has_the_columns_of_the_first(tmp_path):
    r"""Guessed anew, its whole numbers would begin elsewhere and its categories would be numbered otherwise."""
    rows = pd.DataFrame({"kind": list("abc") * 20, "count": range(100, 160)})
    rows.to_csv(tmp_path / "first.csv", index=False)
    rows[rows.kind != "a"].assign(count=lambda frame: frame["count"] + 7).to_csv(tmp_path / "other.csv", index=False)
    source = TableFile(str(tmp_path / "first.csv"), test=str(tmp_path / "other.csv"))
    found = source.schema.decode(source.test.in_units(slice(None))[0])
    assert found["kind"].tolist() == list("bc") * 20
    assert found["count"].tolist() == [107 + k for k in range(60) if k % 3]
    rows.assign(kind="z").to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(UserError, match=r"data\.test: '.*other\.csv': kind: 60 values are none of its 3 categories"):
        _ = TableFile(str(tmp_path / "first.csv"), test=str(tmp_path / "other.csv")).test


def test_a_file_is_measured_and_shown(table, tmp_path, capsys):
    pets(80, seed=1).to_csv(tmp_path / "made.csv", index=False)
    out = evaluated(tmp_path / "out", table, samples=str(tmp_path / "made.csv"), target="species")
    found = {number["name"]: number for number in json.loads((out / "metrics.json").read_text())["metrics"]}
    assert {"W1", "total variation", "missing", "correlation", "association", "accuracy of species"} <= found.keys()
    assert found["missing"]["value"] == pytest.approx(1 / 54 / 3)
    protocol = found["W1"]["protocol"]
    assert (protocol["generated_rows"], protocol["reference_rows"], protocol["floor_rows"]) == (80, 54, 6)
    assert protocol["data"] == "pets" and protocol["sampler"] == "unknown"
    text = (out / "report.html").read_text()
    assert all(name in text for name in ("species", "weight", "age", "accuracy of species"))
    told = capsys.readouterr().out
    assert "data: pets; reference: 54 rows; floor: 6 rows" in told and "| W1" in told
    assert job("evaluate", "data=table", data=table, samples=str(tmp_path / "made.csv"), target="species").result(
        out
    ) == pytest.approx(found["W1"]["value"])


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"target": "specie"}, "target: .*got 'specie'. Did you mean 'species'"),
        ({"cache": "x"}, "cache: is of features"),
        ({"dimension": True}, "dimension: needs checkpoint"),
        ({"features": {"_target_": "scoregen.metrics.Pixels"}}, "features: is of images and vectors"),
        ({"samples": "nowhere.csv"}, "samples: .*does not exist"),
        ({"samples": "FOLDER"}, r"samples: .*must contain samples.csv or samples.parquet"),
        ({"samples": "FEW"}, "samples: must be at least 3 rows to be measured, got 2"),
        ({"samples": "OTHER"}, "must have the column 'weight' of pets. Did you mean 'weigth'"),
    ],
    ids=str,
)
def test_mistakes_stop_before_any_work(table, tmp_path, changes, text):
    made = pets(9, seed=1)
    made.to_csv(tmp_path / "made.csv", index=False)
    made[:2].to_csv(tmp_path / "few.csv", index=False)
    made.rename(columns={"weight": "weigth"}).to_csv(tmp_path / "other.csv", index=False)
    places = {"FOLDER": tmp_path, "FEW": tmp_path / "few.csv", "OTHER": tmp_path / "other.csv"}
    given = {"samples": str(tmp_path / "made.csv"), **changes}
    given["samples"] = str(places.get(given["samples"], given["samples"]))
    with pytest.raises(UserError, match=text):
        evaluated(tmp_path / "out", table, **given)
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_rows_that_are_measured_against_other_data_are_refused(table, tmp_path):
    r"""It was a message about features."""
    pets(9).to_csv(tmp_path / "made.csv", index=False)
    with pytest.raises(UserError, match=r"data: must be a table, as samples='.*made.csv' has rows .*data=table"):
        job("evaluate", "data=digits", f"samples={tmp_path / 'made.csv'}").run(tmp_path / "out")


def test_a_target_is_of_tables_only(tmp_path):
    with pytest.raises(UserError, match=r"target: is a column of a table \(data=table\), got target='x'. Leave it out"):
        job("evaluate", "data=digits", "features=pixels", "samples=a", "target=x").run(tmp_path / "out")


def test_a_checkpoint_of_numbers_is_measured_with_its_likelihood(tmp_path, monkeypatch):
    fast = partial(log_likelihood, solver=RK4(3))
    monkeypatch.setattr("scoregen.samplers.log_likelihood", fast)
    frame = pets(60)[["weight", "age"]]
    frame.to_csv(tmp_path / "numbers.csv", index=False)
    data = {"_target_": "scoregen.data.TableFile", "path": str(tmp_path / "numbers.csv")}
    data["columns"] = {"age": "integer"}
    small = ["model.network.width=8", "model.network.depth=1", "trainer.steps=2", "trainer.batch_size=8"]
    run = train(tmp_path / "run", "data=table", "model=table", *small, "preview.every=null", data=data)
    sampler = {"_target_": "scoregen.samplers.Heun", "steps": 3}
    out = evaluated(tmp_path / "out", data, checkpoint=str(run), n=20, sampler=sampler)
    found = {number["name"]: number for number in json.loads((out / "metrics.json").read_text())["metrics"]}
    assert found["log-likelihood"]["low"] < found["log-likelihood"]["value"] < found["log-likelihood"]["high"] < 0
    assert "6 rows" in found["log-likelihood"]["note"]
    assert found["W1"]["protocol"]["generated_rows"] == 20 and found["W1"]["protocol"]["network_calls"] == 5
    assert "log-likelihood" in (out / "report.html").read_text()
