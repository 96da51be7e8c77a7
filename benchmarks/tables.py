r"""Synthetic tables: ours beside ForestDiffusion, CTGAN and a Gaussian copula, each at its defaults.

    pip install --target PEERS --no-deps ForestDiffusion xgboost-cpu lightgbm catboost graphviz six \
        ctgan rdt Faker copulas plotly narwhals pandas==2.3.3 pytz tzdata
    PYTHONPATH=PEERS python benchmarks/tables.py --models ForestDiffusion CTGAN "Gaussian copula" --cache CACHE
    python benchmarks/tables.py --cache CACHE

What a model makes of a table and a seed is kept in the cache, so that a run that was cut goes on where it was, and
`--cached` shows what is there. One thread: OMP_NUM_THREADS=1. A fifth of the rows is held out;
a model makes as many rows as it was trained on. All numbers compare with the held-out rows, which no model has seen:

    W1              Wasserstein distance of a column of numbers, in its standard deviations; mean over columns
    TV              total variation distance of a category; mean over columns
    association     mean absolute error of the association matrix (scoregen/metrics/associations.py)
    score           of a random forest trained on the made rows: accuracy of a category, R^2 of a number
    copies          rows that equal a training row, per cent
    log p           mean log-density of the held-out rows, nats a row, where all columns are numbers
    CPU s           of training and making, one thread

"training rows" is what a perfect model would get, as it is another draw of the same law.
"""

import argparse
import contextlib
import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
from table_laws import TABLES, Table, load  # noqa: E402
from table_peers import MODELS  # noqa: E402

from scoregen.metrics.associations import association_error, associations  # noqa: E402
from scoregen.metrics.marginals import total_variation, wasserstein  # noqa: E402
from scoregen.metrics.records import exact_copies  # noqa: E402
from scoregen.metrics.table_columns import read_columns  # noqa: E402
from scoregen.metrics.usefulness import usefulness  # noqa: E402

NUMBERS = ("W1", "TV", "association", "score", "copies", "log p", "CPU s")
DIGITS = (3, 3, 3, 3, 1, 2, 0)


def made(name: str, table: Table, seed: int, file: Path) -> tuple[pd.DataFrame, float, float]:
    r"""Rows of a model, the log-density of the held-out rows (NaN where it has none) and seconds; from the cache."""
    facts = file.with_suffix(".json")
    if not facts.exists():
        begin = time.process_time()
        with contextlib.redirect_stdout(sys.stderr):  # only the table is printed
            found = MODELS[name](table, seed)
        seconds = time.process_time() - begin
        file.parent.mkdir(parents=True, exist_ok=True)
        found.rows.to_csv(file, index=False)
        log_prob = np.nan if found.log_prob is None else found.log_prob
        partial = facts.with_suffix(".partial")  # a run that is cut leaves no half of it
        partial.write_text(json.dumps({"log_prob": log_prob, "seconds": seconds}))
        partial.replace(facts)
        print(f"{file.stem}: {seconds:.0f} s", file=sys.stderr, flush=True)
    kept = json.loads(facts.read_text())
    return pd.read_csv(file, keep_default_na=False, na_values=[""]), kept["log_prob"], kept["seconds"]


def measured(rows: pd.DataFrame, table: Table, seed: int) -> list[float]:
    r"""W1, TV, association, score and copies of a table of rows."""
    kinds = {c: "category" if c in table.categories else "real" for c in table.train}
    columns, train, test = (read_columns(frame, kinds) for frame in (rows, table.train, table.test))
    variation = list(total_variation(columns, test).values())
    return [
        float(np.mean(list(wasserstein(columns, test).values()))),
        float(np.mean(variation)) if variation else np.nan,
        association_error(associations(columns), associations(test)),
        usefulness(columns, train, test, table.target, seed).synthetic,
        100 * float(exact_copies(columns, train).mean()),
    ]


def line(table: str, name: str, results: list[list[float]]) -> str:
    r"""A row of the table: means over the seeds, in parentheses the standard deviation of one seed."""
    mean = np.mean(results, 0)
    spread = np.std(results, 0, ddof=1) if len(results) > 1 else np.zeros(len(mean))
    cells = [
        "-" if np.isnan(m) else f"{m:.{d}f}" + (f" ({s:.{d}f})" if len(results) > 1 and d > 1 else "")
        for m, s, d in zip(mean, spread, DIGITS, strict=True)
    ]
    return f"| {table} | {name} | {' | '.join(cells)} | {len(results)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=Path("outputs/tables"))
    parser.add_argument("--cached", action="store_true", help="only what is in the cache")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = []
    for name in arguments.tables:
        tables = [load(name, seed) for seed in range(arguments.seeds)]
        for model in arguments.models:
            files = [arguments.cache / f"{name}-{model.replace(' ', '_')}-{seed}.csv" for seed in range(len(tables))]
            results = []
            for seed, (table, file) in enumerate(zip(tables, files, strict=True)):
                if arguments.cached and not file.with_suffix(".json").exists():
                    continue
                frame, log_prob, seconds = made(model, table, seed, file)
                results.append([*measured(frame, table, seed), log_prob, seconds])
            if results:
                rows.append(line(name, model, results))
        own = [[*measured(t.train, t, seed)[:4], np.nan, np.nan, np.nan] for seed, t in enumerate(tables)]
        rows.append(line(name, "training rows", own))
    print(f"| table | model | {' | '.join(NUMBERS)} | seeds |\n{'|---' * (len(NUMBERS) + 3)}|")
    print(*rows, sep="\n")


if __name__ == "__main__":
    main()
