r"""Positive tables: what is kept of scikit-learn's tables, their units, and their configurations."""

import math

import pytest
import torch
from sklearn import datasets
from tiny import COMMON, compose, sample, train

from scoregen import load
from scoregen.config import Node, build
from scoregen.data import BreastCancer, Wine
from scoregen.data.base import part_of
from scoregen.jobs.picks import chosen_chart
from scoregen.samplers import RK4, log_likelihood
from scoregen.sde import EDM, Multiplicative

TABLES = {"breast_cancer": (BreastCancer, datasets.load_breast_cancer), "wine": (Wine, datasets.load_wine)}
SMALL = ["model.network.width=8", "model.network.depth=1", "trainer.steps=2", "trainer.checkpoint_every=2", *COMMON]


@pytest.mark.parametrize(("kind", "read"), TABLES.values(), ids=TABLES.keys())
def test_the_positive_columns_in_units_of_their_geometric_means(kind, read):
    source, table = kind(), read()
    kept = [i for i, column in enumerate(table.data.T) if column.min() > 0]
    assert source.columns == [table.feature_names[i] for i in kept] and source.shape == (len(kept),)
    rows = torch.cat([source.train.x, source.test.x])
    assert bool((rows > 0).all()) and rows.double().log().mean(0).abs().max() < 1e-7  # float32
    order = torch.cat([part_of(len(table.data), train) for train in (True, False)])
    torch.testing.assert_close(rows * source.units, torch.from_numpy(table.data[:, kept])[order], rtol=1e-6, atol=0)
    assert len(source.test) == round(0.1 * len(table.data)) and source.num_classes == table.target.max() + 1


def test_breast_cancer_has_the_published_columns_and_skewness():
    # 24 of 30; the logarithm takes the median absolute skewness from 1.45 to 0.36
    source = BreastCancer()
    rows = torch.cat([source.train.x, source.test.x])

    def skewness(x):
        centred = x - x.mean(0)
        return (centred.pow(3).mean(0) / centred.square().mean(0).pow(1.5)).abs().quantile(0.5).item()

    assert source.shape == (24,)
    assert skewness(rows) == pytest.approx(1.45, abs=5e-3) and skewness(rows.log()) == pytest.approx(0.36, abs=5e-3)


def test_the_seed_chooses_the_split_and_labels_stay_with_their_rows():
    first, second = Wine(seed=0), Wine(seed=1)
    assert not torch.equal(first.test.x, second.test.x)

    def pairs(source):
        parts = (source.train, source.test)
        return {(tuple(x.tolist()), int(k)) for part in parts for x, k in zip(part.x, part.label, strict=True)}

    assert pairs(first) == pairs(second)


@pytest.mark.parametrize("name", TABLES)
def test_the_experiments_differ_in_the_process_alone(name):
    positive, gaussian = (
        compose(f"+experiment=tables/{kind}", f"data={name}") for kind in ("multiplicative", "additive")
    )
    assert {k for k in positive if positive[k] != gaussian[k]} == {"sde"}
    source = TABLES[name][0]()
    sdes = [build(chosen_chart(Node(c["sde"]), Node(c["chart"]), source)[0]) for c in (positive, gaussian)]
    assert [type(s) for s in sdes] == [Multiplicative, EDM]
    x = torch.tensor([1.0, math.e])
    assert sdes[0].to_chart(x).tolist() == pytest.approx([0, 1], abs=1e-6)  # log x as it is
    assert sdes[1].to_chart(x).tolist() == pytest.approx([0, math.e - 1], abs=1e-6)


def test_samples_of_a_table_are_positive_and_densities_are_of_the_data(tmp_path):
    run = train(tmp_path / "run", "+experiment=tables/multiplicative", "data=wine", *SMALL)
    model = load(run)
    out = sample(run, tmp_path / "out", "n=20", "format=npz", "sampler=heun", "sampler.steps=4")
    import numpy as np

    with np.load(next(out.glob("*.npz"))) as archive:
        assert archive[archive.files[0]].min() > 0
    x = Wine().test[:4][0]
    found = log_likelihood(model, x, solver=RK4(3)).log_prob
    # the same density of log x, less the log-derivative sum log x
    plain = EDM(0.002, 80.0).with_moments(model.sde.data_mean, model.sde.data_var)

    def logs(u, s, label=None):
        return model(u, s, label)

    logs.sde = plain
    expected = log_likelihood(logs, x.log(), solver=RK4(3)).log_prob - x.log().sum(1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
