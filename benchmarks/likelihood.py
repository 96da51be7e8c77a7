r"""Errors of log-densities and of encode-decode round trips on the standard mixture: python benchmarks/likelihood.py"""

import sys
import time
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]
from oracles import standard_mixture  # noqa: E402

from scoregen.samplers import RK2, RK4, RK45, decode, encode, log_likelihood  # noqa: E402


def main() -> None:
    mixture = standard_mixture()
    x = mixture.sample(256, torch.Generator().manual_seed(0))
    many = mixture.sample(1_000_000, torch.Generator().manual_seed(1))
    mixture.sde.with_moments(many.mean(0), many.var(0))
    exact = mixture.log_prob(x, mixture.sde.s_min)
    solvers = {f"RK2({n})": RK2(n) for n in (32, 64, 128)} | {f"RK4({n})": RK4(n) for n in (16, 32, 64, 128)}
    solvers |= {f"RK45({tolerance:g})": RK45(tolerance) for tolerance in (1e-3, 1e-4, 1e-5, 1e-6)}
    print("| solver | calls | mean error, nats | largest | round trip encode-decode, RMSE |\n|---|---|---|---|---|")
    for name, solver in solvers.items():
        result = log_likelihood(mixture, x, solver=solver)
        error = (result.log_prob - exact).abs()
        trip = (decode(mixture, encode(mixture, x, solver=solver), solver=solver) - x).square().mean().sqrt()
        print(f"| {name} | {result.calls} | {error.mean():.1e} | {error.max():.1e} | {trip:.1e} |")
    print("\n| probes | error, RMS nats | reported standard error, RMS | seconds |\n|---|---|---|---|")
    reference = log_likelihood(mixture, x, solver=RK4(64)).log_prob
    for probes in (2, 8, 32):
        start = time.perf_counter()
        result = log_likelihood(mixture, x, solver=RK4(64), probes=probes, generator=torch.Generator().manual_seed(2))
        seconds = time.perf_counter() - start
        error, reported = (v.square().mean().sqrt() for v in (result.log_prob - reference, result.standard_error))
        print(f"| {probes} | {error:.2f} | {reported:.2f} | {seconds:.1f} |")
    mixture.sde.with_moments(0.0, 0.0)
    plain = (log_likelihood(mixture, x, solver=RK4(64)).log_prob - exact).abs().mean()
    below = (mixture.log_prob(x) - exact).abs().mean()
    print(f"\nprior without moments: mean error {plain:.1e}; noise s_min left in the data: {below:.1e}")


if __name__ == "__main__":
    main()
