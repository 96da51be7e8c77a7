r"""Tables by their commands: trained, sampled, filled in; and TableModel in Python."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import command, job, train

import scoregen
from scoregen.config import Node
from scoregen.description import option
from scoregen.errors import UserError

pd = pytest.importorskip("pandas")
TINY = ["model.network.width=8", "model.network.depth=1", "trainer.precision=no", "trainer.log_every=1"]
TINY += ["preview.every=null", "trainer.batch_size=16", "trainer.steps=2", "data=table"]


def pets(folder: Path) -> Path:
    r"""600 rows, 5 % zeros, 3 % missing, a category of texts, columns of 1e-6 and 1e6."""
    draws, n = np.random.default_rng(0), 600
    kind = draws.integers(0, 3, n)
    frame = pd.DataFrame(
        {
            "species": np.array(["cat", "dog", "fish"])[kind],
            "price": draws.lognormal(kind, 0.5).round(2) + 0.01,
            "rain": np.where(draws.random(n) < 0.05, 0, draws.gamma(2, 1e-6 * (1 + kind))),
            "size": draws.normal(3e6 * kind, 1e6),
            "children": draws.poisson(12, n),
            "const": 7,
        }
    )
    for name in ("species", "size", "children"):
        frame.loc[draws.random(n) < 0.03, name] = None
    frame["children"] = frame["children"].astype("Int64")
    frame.to_csv(folder / "pets.csv", index=False)
    return folder / "pets.csv"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    path = pets(folder)
    assert command("train", *TINY, f"data.path={path}", f"hydra.run.dir={folder / 'run'}") == 0
    return folder


def test_a_table_picks_its_network_chart_and_loss(run, capsys):
    job("train", *TINY, f"data.path={run / 'pets.csv'}", "dry_run=true").run(run / "other")
    text = capsys.readouterr().out
    for line in (
        "model: table, picked",
        "loss: table, picked",
        "  rain: zero-positive",
        "  children: integer, ",
        "chart: of 4 columns of numbers, 2 of them by their logarithms",
    ):
        assert line in text


def test_a_table_picks_its_steps_and_other_data_have_the_usual_ones(run):
    from scoregen.data import Digits, TableFile
    from scoregen.jobs.picks import chosen_steps

    given = [*(option for option in TINY if "steps" not in option), f"data.path={run / 'pets.csv'}"]
    made = job("train", *given).plan(run / "none")
    assert made.config["trainer"]["steps"] == 1200  # 2.5 * 540 - 150, of the nine tenths that train
    assert "trainer.steps: 1200, picked by the 540 rows of the table" in made.lines
    assert not any("by heart" in line for line in made.lines)
    table, usual = TableFile(str(run / "pets.csv"), test=500), option("trainer", "default")
    small, told = chosen_steps(usual, table)
    assert small["steps"] == 200 and small["schedule"] == {**usual["schedule"], "warmup": 100} and len(told) == 2
    for steps in (7, 20_000):
        assert chosen_steps(Node({**usual, "steps": steps}), table) == ({**usual, "steps": steps}, [])
    assert chosen_steps(usual, Digits()) == ({**usual, "steps": 20_000}, [])


def test_kinds_are_given_by_the_name_of_their_column(run, capsys):
    given = [f"data.path={run / 'pets.csv'}", "data.columns.price=real", "dry_run=true"]
    assert command("train", *TINY, *given, f"hydra.run.dir={run / 'third'}") == 0
    assert "  price: real" in capsys.readouterr().out
    assert command("train", *TINY, f"data.path={run / 'pets.csv'}", "data.columns.prise=real") == 1
    assert "data.columns.prise: the table has no such column. Did you mean 'price'?" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_samples_have_the_columns_types_and_conditions(run, tmp_path, kind):
    given = [f"checkpoint={run / 'run'}", "n=20", f"format={kind}", "sampler.steps=3"]
    assert command("sample", *given, "condition={species: dog, rain: 0}", f"out={tmp_path}") == 0
    found = getattr(pd, f"read_{kind}")(tmp_path / f"samples.{kind}")
    assert list(found) == list(pd.read_csv(run / "pets.csv", nrows=1))
    assert (found["species"] == "dog").all() and (found["rain"] == 0).all() and (found["const"] == 7).all()
    assert (found["price"] > 0).all() and len(found) == 20 and (found["children"] % 1 == 0).all()


def test_rows_do_not_depend_on_the_batch(run, tmp_path):
    made = []
    for size in (3, 64):
        given = [f"checkpoint={run / 'run'}", "n=10", "format=csv", "sampler.steps=3", f"batch_size={size}"]
        made.append(job("sample", *given).run(tmp_path / str(size)) / "samples.csv")
    first, second = (pd.read_csv(path) for path in made)
    pd.testing.assert_frame_equal(first, second, rtol=1e-4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["format=csv", "condition={species: cow}"], "condition.species: the column has no category 'cow'"),
        (["format=csv", "condition={colour: red}"], "condition.colour: the table has no such column"),
        (["format=csv", "condition={price: -1}"], "condition.price: .*values > 0"),
        (["format=csv", "condition={size: 1e30}"], "condition: size=1e.30 lies far outside of the table, too far"),
        (["format=npz", "condition={species: cat}"], "condition: is for rows of a table"),
        (["format=csv", "guidance=2"], "guidance: is not for rows of a table"),
        ([], "format: png needs .* Give format=csv"),
    ],
)
def test_what_cannot_be_sampled_is_one_message(run, tmp_path, given, message):
    with pytest.raises(UserError, match=message):
        job("sample", f"checkpoint={run / 'run'}", *given).run(tmp_path)


def test_missing_cells_are_filled_in_and_the_others_stay(run, tmp_path):
    given = [f"checkpoint={run / 'run'}", f"table={run / 'pets.csv'}", "draws=2", "sampler.steps=3"]
    assert command("impute", *given, f"out={tmp_path}") == 0
    before, spread = pd.read_csv(run / "pets.csv"), pd.read_csv(tmp_path / "spread.csv", skip_blank_lines=False)
    for draw in range(2):
        found = pd.read_csv(tmp_path / "imputed" / f"{draw}.csv")
        assert (
            not found.isna().to_numpy().any()
            and (found.dtypes[["species", "price"]] == before.dtypes[["species", "price"]]).all()
        )
        pd.testing.assert_frame_equal(found[before.notna()], before, check_dtype=False)
    assert (spread.notna() == before.isna()).to_numpy().all() and spread["size"].max() > 0


def test_a_value_far_outside_of_the_table_is_told(run, tmp_path, capsys):
    given = [f"checkpoint={run / 'run'}", "n=2", "format=csv", "sampler.steps=3", "condition={size: 1e8}"]
    job("sample", *given).run(tmp_path)
    assert "condition: size=1e+08 lies far outside of the table, more than 8" in capsys.readouterr().err


def test_a_file_in_another_encoding_is_filled_in_byte_for_byte(tmp_path):
    rows = ["Köln;1,50", "Bonn;+2,5", ";0,75", "Köln;1,25"] * 6
    raw = "\r\n".join(["Stadt;x", *rows, ""]).encode("latin-1")
    (tmp_path / "a.csv").write_bytes(raw)
    form = ["data.encoding=latin-1", 'data.separator=";"', 'data.decimal=","']
    run = train(tmp_path / "run", *TINY, f"data.path={tmp_path / 'a.csv'}", *form)
    given = [f"checkpoint={run}", f"table={tmp_path / 'a.csv'}", "draws=1", "sampler.steps=2"]
    found = (job("impute", *given).run(tmp_path / "out") / "imputed" / "0.csv").read_bytes()
    assert found.replace(b"Bonn;0,75", b";0,75").replace("Köln;0,75".encode("latin-1"), b";0,75") == raw


def test_a_table_of_categories_alone_is_learnt_and_sampled():
    frame = pd.DataFrame({"k": ["a", "b", "c", "a"] * 10, "f": [True, False] * 20})
    model = scoregen.TableModel(steps=1, width=8, depth=1).fit(frame)
    rows = model.sample(5, condition={"k": "b"})
    assert (rows["k"] == "b").all() and rows.dtypes.equals(frame.dtypes)


def test_a_file_with_few_values_is_filled_in_by_the_kinds_of_the_training(tmp_path):
    r"""Whole numbers in a column of numbers, a column that is all empty, and 1 for the category '1'."""
    draws, n = np.random.default_rng(0), 40
    frame = pd.DataFrame({"x": draws.normal(size=n), "day": pd.date_range("2024-01-01", periods=n)})
    others = {"k": draws.choice(["1", "2", "x"], n), "y": draws.normal(size=n), "c": draws.integers(0, 99, n)}
    frame = frame.assign(**others)
    model = scoregen.TableModel(steps=1, width=8, depth=1, columns={"c": "integer"}).fit(frame)
    checkpoint = model.save(tmp_path / "model")
    (tmp_path / "gaps.csv").write_text("x,day,k,y,c\n2,,1,,3\n,,2,,\n1,,,,5\n")
    out = tmp_path / "out"
    given = [f"checkpoint={checkpoint}", f"table={tmp_path / 'gaps.csv'}", "draws=2", "sampler.steps=3"]
    assert command("impute", *given, f"out={out}") == 0
    found = pd.read_csv(out / "imputed" / "0.csv", dtype={"k": str}, parse_dates=["day"])
    assert not found.isna().to_numpy().any() and list(found) == list(frame)
    assert found["x"][[0, 2]].tolist() == [2, 1] and found["k"][:2].tolist() == ["1", "2"]
    assert found["c"][[0, 2]].tolist() == [3, 5] and found["k"].isin(["1", "2", "x"]).all()
    spread = pd.read_csv(out / "spread.csv", skip_blank_lines=False)
    assert spread.notna().to_numpy().tolist() == pd.read_csv(tmp_path / "gaps.csv").isna().to_numpy().tolist()


def test_a_resumed_training_has_the_same_weights(run, tmp_path):
    from runs import assert_same_run
    from tiny import Kill

    given = [*TINY, f"data.path={run / 'pets.csv'}", "trainer.checkpoint_every=1", "trainer.steps=3"]
    train(tmp_path / "whole", *given)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", *given, preview=Node({"_target_": "tiny.Kill", "every": 2}))
    assert Kill
    train(tmp_path / "killed", *given, "trainer.resume=auto")
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_rows_of_another_file_have_draws_of_their_own(run):
    r"""So that no held-out row is the training row with its draw; whole numbers and the numbers of zeros have them."""
    from scoregen.data import TableFile

    path = str(run / "pets.csv")
    others = [str(shutil.copy(path, run / f"again{k}.csv")) for k in range(2)]  # the same rows, and not the same file
    source = TableFile(path, test=others[0], validation=others[1])
    parts = [source.part(name).in_units(slice(None))[0] for name in ("train", "validation", "test")]
    column = source.schema.layout.places(source.schema.columns)["children"][0]
    for x, y in ((0, 1), (0, 2), (1, 2)):
        draws = [parts[k][:, column] for k in (x, y)]
        assert torch.equal(*(x.nan_to_num(0.0).round() for x in draws))
        same = (draws[0] == draws[1]) | draws[0].isnan()
        assert same.float().mean() < 0.1  # those that are missing


def test_a_model_in_python_is_saved_and_has_densities_in_units_of_the_table(tmp_path):
    draws = np.random.default_rng(0)
    frame = pd.DataFrame({"a": draws.lognormal(size=60), "b": draws.normal(size=60)})
    scales = {"a": 1e-6, "b": 1e6}
    models = [scoregen.TableModel(steps=2, width=8, depth=1).fit(frame * scale) for scale in (1, pd.Series(scales))]
    first, second = (m.log_prob(f.head(2)) for m, f in zip(models, (frame, frame * pd.Series(scales)), strict=True))
    np.testing.assert_allclose(first, second, atol=1e-3)  # the units cancel: 1e-6 times 1e6
    again = scoregen.TableModel.load(models[0].save(tmp_path / "saved"))
    pd.testing.assert_frame_equal(again.sample(4, seed=1), models[0].sample(4, seed=1))
    with pytest.raises(UserError, match="1 of 60 rows have missing values"):
        frame.loc[3, "b"] = None
        models[0].log_prob(frame)
    with pytest.raises(UserError, match="no weights yet"):
        scoregen.TableModel().sample(1)
