r"""The peers of tables.py: each makes a synthetic table from a training table; some give densities of rows."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from table_laws import Table


class Made(NamedTuple):
    r"""What a model gives."""

    rows: pd.DataFrame
    log_prob: float | None = None  # mean log-density of the held-out rows, nats a row


def scoregen_model(table: Table, seed: int) -> Made:
    r"""Ours, at its defaults."""
    from scoregen import TableModel

    model = TableModel(seed=seed).fit(table.train)
    rows = model.sample(len(table.train))
    log_prob = None if table.categories else float(model.log_prob(table.test).mean())
    return Made(rows, log_prob)


def ctgan(table: Table, seed: int) -> Made:
    r"""CTGAN of the package ctgan, at its defaults.

    Reference: Xu, Skoularidou, Cuesta-Infante, Veeramachaneni (2019), arXiv 1907.00503.
    """
    import torch
    from ctgan import CTGAN

    np.random.seed(seed)
    torch.manual_seed(seed)
    model = CTGAN(enable_gpu=False)
    model.fit(table.train, table.categories)
    return Made(model.sample(len(table.train)))


def forest(table: Table, seed: int, duplicates: int = 100) -> Made:
    r"""ForestDiffusion (flow, XGBoost), at its defaults but for `duplicates` noise draws a row (its default: 100).

    Reference: Jolicoeur-Martineau, Fatras, Kachman (2024), arXiv 2309.09968.
    """
    from ForestDiffusion import ForestDiffusionModel

    train, label = table.train, None
    if table.target in table.categories:  # as its authors do for classes
        label, names = pd.factorize(train[table.target], sort=True)
        train = train.drop(columns=table.target)
    columns = list(train)
    codes = {c: pd.factorize(train[c], sort=True) for c in columns if c in table.categories}
    x = train.assign(**{c: code for c, (code, _) in codes.items()}).to_numpy(np.float64)
    categories = [columns.index(c) for c in codes]
    integers = [columns.index(c) for c in columns if c in table.integers]
    model = ForestDiffusionModel(
        x, label_y=label, cat_indexes=categories, int_indexes=integers, duplicate_K=duplicates, n_jobs=1, seed=seed
    )
    made = model.generate(batch_size=len(train))
    rows = pd.DataFrame(made[:, : len(columns)], columns=columns)
    for c, (_, texts) in codes.items():
        rows[c] = np.asarray(texts)[rows[c].round().astype(int)]
    if label is not None:
        rows[table.target] = np.asarray(names)[made[:, -1].round().astype(int)]
    return Made(rows[list(table.train)])


def copula(table: Table, seed: int) -> Made:
    r"""A Gaussian copula with the marginals that the package copulas chooses; categories as intervals of [0, 1].

    Reference: Patki, Wedge, Veeramachaneni (2016), The Synthetic Data Vault, section III.
    """
    from copulas.multivariate import GaussianMultivariate

    np.random.seed(seed)
    encoded, ends = table.train.astype({c: "float64" for c in table.integers}), {}
    for c in table.categories:
        share = table.train[c].value_counts(normalize=True)
        ends[c] = share.cumsum()
        low = (ends[c] - share).reindex(table.train[c]).to_numpy()
        encoded[c] = low + share.reindex(table.train[c]).to_numpy() * np.random.random(len(table.train))
    model = GaussianMultivariate(random_state=seed)
    model.fit(encoded)
    rows = model.sample(len(table.train))
    for c, end in ends.items():
        place = np.searchsorted(end.to_numpy(), rows[c].clip(0, 1 - 1e-9)).clip(max=len(end) - 1)
        rows[c] = end.index.to_numpy()[place]
    for c in table.integers:
        rows[c] = rows[c].round()
    return Made(rows[list(table.train)], None if table.categories else copula_log_prob(model, table.test))


def copula_log_prob(model: Any, test: pd.DataFrame) -> float:
    r"""The mean log-density of rows. (The package's own `probability_density` leaves out the marginals.)"""
    from scipy.stats import multivariate_normal, norm

    columns = [test[c].to_numpy(np.float64) for c in model.columns]
    places = [one.cdf(x).clip(1e-12, 1 - 1e-12) for one, x in zip(model.univariates, columns, strict=True)]
    z = norm.ppf(np.stack(places, 1))
    joint = multivariate_normal(cov=np.asarray(model.correlation), allow_singular=True).logpdf(z)
    marginals = sum(np.log(one.pdf(x)) for one, x in zip(model.univariates, columns, strict=True))
    return float(np.mean(joint - norm.logpdf(z).sum(1) + marginals))


MODELS = {"scoregen": scoregen_model, "ForestDiffusion": forest, "CTGAN": ctgan, "Gaussian copula": copula}
