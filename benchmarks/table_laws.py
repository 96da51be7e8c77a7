r"""Tables for tables.py: three of scikit-learn, and one of mixed columns whose law is known.

The law of `homes`, with independent standard normals e1, ..., e4 and draws u:

    region      one of 4 texts, probabilities .4, .3, .2, .1
    income      exp(m[region] + .5 e1)                                positive
    rooms       1 + Poisson(2 + income / 2)                           integer
    debt        0 with probability 1 / (1 + exp(income - 3)), else exp(.5 log income + .8 e2)      zero-inflated
    age         60 u                                                  real
    price       exp(.3 + .8 log income + .1 rooms - .01 age + .2 b[region] + .2 e3)      positive
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

ROWS = 1000  # of homes
REGIONS = np.array(["coast", "valley", "desert", "hills"])


class Table(NamedTuple):
    r"""A table, its split and what is predicted."""

    train: pd.DataFrame
    test: pd.DataFrame
    target: str
    categories: list[str]
    integers: list[str]


def homes(rows: int, seed: int) -> pd.DataFrame:
    r"""Draws of the law at the head of this file."""
    draws = np.random.default_rng(seed)
    region = draws.choice(4, rows, p=[0.4, 0.3, 0.2, 0.1])
    income = np.exp(np.array([1.4, 1.0, 0.6, 1.8])[region] + 0.5 * draws.standard_normal(rows))
    room = 1 + draws.poisson(2 + income / 2)
    free = draws.random(rows) < 1 / (1 + np.exp(income - 3))
    debt = np.where(free, 0.0, np.exp(0.5 * np.log(income) + 0.8 * draws.standard_normal(rows)))
    age = 60 * draws.random(rows)
    shift = 0.2 * np.array([1.0, 0.0, -1.0, 0.5])[region]
    price = np.exp(0.3 + 0.8 * np.log(income) + 0.1 * room - 0.01 * age + shift + 0.2 * draws.standard_normal(rows))
    columns = {"region": REGIONS[region], "income": income, "rooms": room, "debt": debt, "age": age, "price": price}
    return pd.DataFrame(columns).round({"income": 4, "debt": 4, "age": 2, "price": 4})


def _sklearn(name: str) -> pd.DataFrame:
    from sklearn import datasets

    if name == "diabetes":  # without the category sex, so that rows have a density
        found = datasets.load_diabetes(as_frame=True, scaled=False).frame.drop(columns="sex")
        return found.astype({column: "int64" for column in ("age", "s1", "s5", "s6", "target") if column != "s5"})
    bunch = getattr(datasets, f"load_{name}")(as_frame=True)
    names = [str(text) for text in bunch.target_names]
    return bunch.data.assign(label=[names[k] for k in bunch.target])


def load(name: str, seed: int) -> Table:
    r"""A table with a fifth of its rows held out, drawn by the seed."""
    frame = homes(ROWS, seed) if name == "homes" else _sklearn(name)
    order = np.random.default_rng(seed).permutation(len(frame))
    held = len(frame) // 5
    parts = [frame.iloc[order[held:]].reset_index(drop=True), frame.iloc[order[:held]].reset_index(drop=True)]
    target = {"homes": "price", "diabetes": "target"}.get(name, "label")
    categories = [c for c in frame if not pd.api.types.is_numeric_dtype(frame[c])]
    integers = [c for c in frame if pd.api.types.is_integer_dtype(frame[c])]
    return Table(*parts, target, categories, integers)


TABLES = ("breast_cancer", "wine", "diabetes", "homes")
