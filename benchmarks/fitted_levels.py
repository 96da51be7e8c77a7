r"""What `python benchmarks/solvers.py --fitted` compares: the levels of every sampler fitted in the same way."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from scoregen.samplers import Karras
from scoregen.samplers.fitting import minimise
from scoregen.sde import SDE

CALLS = (4, 6, 8)
Solvers = dict[str, Callable[..., Tensor]]
Pair = tuple[Tensor, Tensor]  # starts, and the ends of the exact flow


def rmse(solver: Callable[..., Tensor], calls: int, levels: Sequence[float], starts: Tensor, ends: Tensor) -> float:
    r"""Root mean square distance to the ends; of a solver with two ways to end, the better one."""
    found = solver(starts, calls, torch.tensor([*levels, 0.0], dtype=torch.float64))
    results = [found] if isinstance(found, Tensor) else found
    return min((x - ends).square().mean().sqrt().nan_to_num(nan=1e9, posinf=1e9).item() for x in results)


def fitted(sde: SDE, solvers: Solvers, test: Pair, fit: Pair) -> dict[str, list[float]]:
    r"""RMSE on the test of each solver at each of CALLS, on levels fitted to the other starts; prints a row each."""
    table: dict[str, list[float]] = {}
    for name, solver in solvers.items():
        for calls in CALLS:
            steps = calls if "Heun" not in name else max(calls // 2 if "azula" in name else (calls + 1) // 2, 2)
            first = Karras()(sde, steps)[:-1].tolist()
            levels = minimise(lambda some, s=solver, c=calls: rmse(s, c, some, *fit), first, 2 * sde.s_min)
            table.setdefault(name, []).append(rmse(solver, calls, levels, *test))
        print(f"| {name} | " + " | ".join(f"{error:.2e}" for error in table[name]) + " |", flush=True)
    return table


def compare(sde: SDE, sides: tuple[Solvers, Solvers], pairs: tuple[Pair, Pair], karras: dict) -> bool:
    r"""Fits both sides and prints the best of each; whether ours are ahead by the stated factors.

    Args:
        sde: of the data. sides: our solvers and the others. pairs: of the test and of the fit.
        karras: errors of the others on Karras by name and calls.
    """
    print("\n| sampler, levels fitted, RMSE at calls: | " + " | ".join(map(str, CALLS)) + " |")
    print("|---" * (len(CALLS) + 1) + "|")
    mine, other = (fitted(sde, solvers, *pairs) for solvers in sides)
    print("\n| calls | ours, fitted | RMSE | others, fitted | RMSE | ratio | others, Karras | RMSE | ratio |")
    print("|---" * 9 + "|")
    ahead = True
    for i, calls in enumerate(CALLS):
        a, b = (min((row[i], name) for name, row in table.items()) for table in (mine, other))
        c = min((row[calls], name) for name, row in karras.items())
        cells = [a[1], f"{a[0]:.2e}", b[1], f"{b[0]:.2e}", f"{a[0] / b[0]:.2f}", c[1], f"{c[0]:.2e}"]
        print(f"| {calls} | " + " | ".join([*cells, f"{a[0] / c[0]:.2f}"]) + " |")
        ahead &= a[0] <= 0.95 * b[0] and a[0] <= 0.5 * c[0]
    return ahead
