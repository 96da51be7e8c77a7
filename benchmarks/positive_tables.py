r"""Strictly positive tables: multiplicative against additive diffusion with the same network and training.

    python benchmarks/positive_tables.py [--seeds 3] [--steps N] [--tables NAME...] [--plot FILE]

For each table and each seed (of the split, the training and the samples) `experiment=tables/multiplicative` and
`experiment=tables/additive` are trained, 2,000 rows sampled in 35 calls and the held-out tenth scored; beside them
stand a normal and a log-normal law of the moments of the training rows. All values in units of the columns' geometric
means.

    values <= 0     share of them among all sampled values
    W1              Wasserstein distance of a column to that of all rows, in its standard deviations; mean over columns
    correlation     root mean square error of the correlation matrix
    log p           mean log-density of the held-out rows, nats a row, by the probability-flow ODE
"""

import argparse
import contextlib
import io
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]
from tiny import compose, train  # noqa: E402

import scoregen  # noqa: E402
from scoregen.config import build  # noqa: E402
from scoregen.data import PositiveTable  # noqa: E402
from scoregen.rng import generator  # noqa: E402
from scoregen.samplers import RK4, ExponentialABM, log_likelihood  # noqa: E402

TABLES = {"breast_cancer": 2000, "wine": 500}  # training steps
ROWS = 2000
SHOWN = {"breast_cancer": ("area error", "mean area"), "wine": ("malic_acid", "flavanoids")}


@dataclass
class Result:
    r"""What is measured of one model."""

    samples: Tensor
    not_positive: float
    wasserstein: float
    correlation: float
    log_prob: float


def diffusion(kind: str, table: str, source: PositiveTable, seed: int, steps: int) -> tuple[Tensor, Tensor]:
    r"""Samples of a trained experiment and the log-densities of the held-out rows."""
    recipe = [f"+experiment=tables/{kind}", f"data={table}", f"trainer.steps={steps}"]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        train(Path(folder) / "run", *recipe, f"seed={seed}", f"data.seed={seed}")
        model = scoregen.load(Path(folder) / "run")
    samples = ExponentialABM(35)(model, (ROWS, *source.shape), generator=generator(seed, 1))
    return samples.double(), log_likelihood(model, source.test[:][0], solver=RK4(32)).log_prob.double()


def normal(source: PositiveTable, seed: int) -> tuple[Tensor, Tensor]:
    r"""The same of a normal law with the moments of the training rows."""
    law = fitted(source.train[:][0].double())
    return draw(law, seed), law.log_prob(source.test[:][0].double())


def log_normal(source: PositiveTable, seed: int) -> tuple[Tensor, Tensor]:
    r"""The same of a normal law of the logarithms."""
    law, log_test = fitted(source.train[:][0].double().log()), source.test[:][0].double().log()
    return draw(law, seed).exp(), law.log_prob(log_test) - log_test.sum(1)


def fitted(rows: Tensor) -> torch.distributions.MultivariateNormal:
    return torch.distributions.MultivariateNormal(rows.mean(0), torch.cov(rows.T))


def draw(law: torch.distributions.MultivariateNormal, seed: int) -> Tensor:
    z = torch.randn(ROWS, *law.loc.shape, generator=generator(seed, 2), dtype=torch.float64)
    return law.loc + z @ law.scale_tril.T


def measure(samples: Tensor, log_prob: Tensor, rows: Tensor) -> Result:
    r"""The four numbers."""
    levels = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    quantiles = (samples.quantile(levels, 0) - rows.quantile(levels, 0)).abs().mean(0)
    correlation = (torch.corrcoef(samples.T) - torch.corrcoef(rows.T)).square().mean().sqrt()
    wasserstein = (quantiles / rows.std(0)).mean()
    not_positive = (samples <= 0).double().mean()
    return Result(samples, *(v.item() for v in (not_positive, wasserstein, correlation, log_prob.mean())))


def models(table: str, steps: int) -> dict[str, Callable[[PositiveTable, int], tuple[Tensor, Tensor]]]:
    return {
        "multiplicative diffusion": lambda source, seed: diffusion("multiplicative", table, source, seed, steps),
        "additive diffusion": lambda source, seed: diffusion("additive", table, source, seed, steps),
        "log-normal law": log_normal,
        "normal law": normal,
    }


def show(table: str, name: str, results: list[Result]) -> str:
    r"""A row of the table: mean (standard deviation) over the seeds."""
    columns = np.array([(100 * r.not_positive, r.wasserstein, r.correlation, r.log_prob) for r in results])
    mean, std = columns.mean(0), columns.std(0, ddof=1) if len(results) > 1 else np.zeros(4)
    cells = [f"{m:.{d}f} ({s:.{d}f})" for m, s, d in zip(mean, std, (2, 3, 3, 1), strict=True)]
    return f"| {table} | {name} | {cells[0]} % | {' | '.join(cells[1:])} |"


def plot(file: Path, panels: list[tuple[str, PositiveTable, dict[str, Result]]]) -> None:
    r"""Two columns of each table against each other: the rows, and the samples of both diffusions."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(panels), 3, figsize=(9, 3 * len(panels)), squeeze=False, layout="constrained")
    for line, (table, source, results) in zip(axes, panels, strict=True):
        i, j = (source.columns.index(c) for c in SHOWN[table])
        rows = torch.cat([source.train.x, source.test.x]).double()
        shown = {"data": rows} | {k: v.samples[: len(rows)] for k, v in results.items() if "diffusion" in k}
        low, high = rows.quantile(0.001, 0), rows.quantile(0.999, 0)
        for axis, (name, x) in zip(line, shown.items(), strict=True):
            inside = (x > 0).all(1)
            axis.axhline(0, color="0.8", lw=0.8, zorder=0)
            axis.axvline(0, color="0.8", lw=0.8, zorder=0)
            axis.scatter(x[inside, i], x[inside, j], s=4, color="tab:blue", lw=0)
            axis.scatter(x[~inside, i], x[~inside, j], s=4, color="tab:red", lw=0)
            axis.set(
                title=f"{table.replace('_', ' ')}: {name}",
                xlim=(-0.4 * low[i] - 0.15 * high[i], 1.1 * high[i]),
                ylim=(-0.4 * low[j] - 0.15 * high[j], 1.1 * high[j]),
                xlabel=SHOWN[table][0],
                ylabel=SHOWN[table][1],
            )
            axis.title.set_fontsize(9)
    figure.savefig(file, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="training steps; 2,000 and 500 unless given")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--plot", type=Path, help="picture of the first seed")
    arguments = parser.parse_args()
    panels = []
    print("| table | model | values <= 0 | W1 | correlation | log p, held out |\n|---|---|---|---|---|---|")
    for table in arguments.tables:
        sources = [build(compose(f"data={table}", f"data.seed={k}")["data"]) for k in range(arguments.seeds)]
        first = {}
        for name, model in models(table, arguments.steps or TABLES[table]).items():
            results = []
            for seed, source in enumerate(sources):
                rows = torch.cat([source.train.x, source.test.x]).double()
                results.append(measure(*model(source, seed), rows))
            first[name] = results[0]
            print(show(table, name, results), flush=True)
        panels.append((table, sources[0], first))
    if arguments.plot:
        plot(arguments.plot, panels)


if __name__ == "__main__":
    main()
