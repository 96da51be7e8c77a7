r"""Error against network calls, beside diffusers and azula.

    python benchmarks/solvers.py [--plot FILE] [--fitted] [--checkpoint PATH] [--overhead]

The data are a two-dimensional mixture with an exact denoiser, so that solvers alone are compared: same grid (Karras,
80 to 0.002, rho 7, then 0), same start (2000 draws of the exact law at 80), one process, float64. Error: root mean
square distance to the exact end of each trajectory. Exit status 1 if another package is ahead of the best of ours at
any number of calls; with --fitted, where the levels of every sampler are fitted to 256 other starts in the same way, if
the best of ours has more than .95 of the error of the best of the others fitted, or .5 of theirs on Karras.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]
from oracles import energy_distance, standard_mixture  # noqa: E402

from scoregen.samplers import (  # noqa: E402
    DDIM,
    DiffusersSampler,
    ExponentialAB,
    ExponentialABM,
    Heun,
    Karras,
    Sampler,
    VelocityABM,
)

CALLS = (4, 6, 8, 12, 18, 24, 32, 64)
PLOTTED = ("diffusers DPM-Solver++ 3M", "diffusers UniPC(2)", "diffusers UniPC(3)", "azula vAB(3)", "azula zEAB(4)")
MIXTURE = standard_mixture()
Solver = Callable[..., Tensor]  # of the starts, the number of calls and, for others than those of Karras, the levels


def ours() -> dict[str, Solver]:
    r"""Our samplers, by name; a two-call step gets half the steps."""
    samplers = {
        "DDIM": DDIM,
        "Heun": lambda k: Heun((k + 1) // 2),
        "ExponentialAB(2)": lambda k: ExponentialAB(k, order=2),
        "ExponentialAB(2, damped)": lambda k: ExponentialAB(k, order=2, damped=True),
        "ExponentialAB(3)": lambda k: ExponentialAB(k, order=3),
    }
    samplers |= {f"ExponentialABM({o})": lambda k, o=o: ExponentialABM(k, order=o) for o in (1, 2, 3)}
    samplers |= {f"VelocityABM({o})": lambda k, o=o: VelocityABM(k, order=o) for o in (1, 2, 3, 4)}
    samplers["VelocityABM(4, limit=20)"] = lambda k: VelocityABM(k, limit=20.0)
    samplers["VelocityABM(4, scale=1)"] = lambda k: VelocityABM(k, scale=1.0)
    return {name: runner(build) for name, build in samplers.items()}


def runner(build: Callable[[int], Sampler]) -> Solver:
    def run(u: Tensor, calls: int, levels: Tensor | None = None) -> Tensor:
        sampler = build(calls)
        grid = Karras()(MIXTURE.sde, sampler.steps) if levels is None else levels
        return sampler.integrate(MIXTURE, u, grid, torch.zeros_like)

    return run


def theirs() -> dict[str, Solver]:
    r"""diffusers' schedulers on our levels in float64, and azula's samplers."""
    from scoregen.compat import repair_torchvision

    repair_torchvision()
    import diffusers

    def multistep(name: str, order: int) -> Solver:
        return runner(lambda k: DiffusersSampler(getattr(diffusers, name)(solver_order=order), k))

    solvers = {
        "diffusers Euler": runner(lambda k: DiffusersSampler(diffusers.EulerDiscreteScheduler, k)),
        "diffusers Heun": runner(lambda k: DiffusersSampler(diffusers.HeunDiscreteScheduler, (k + 1) // 2)),
        "diffusers DPM-Solver++ 2M": multistep("DPMSolverMultistepScheduler", 2),
        "diffusers DPM-Solver++ 3M": multistep("DPMSolverMultistepScheduler", 3),
        "diffusers UniPC(2)": multistep("UniPCMultistepScheduler", 2),
        "diffusers UniPC(3)": multistep("UniPCMultistepScheduler", 3),
    }
    return solvers | azula_solvers()


def azula_solvers() -> dict[str, Solver]:
    r"""azula's samplers with alpha = 1, sigma = s; they need a last level above 0: the better of two ways is taken."""
    from azula import denoise, sample

    class Schedule:
        def __init__(self, levels: Tensor) -> None:
            self.levels = levels

        def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
            sigma = self.levels[((1 - t) * (len(self.levels) - 1)).round().long()]
            return torch.ones_like(sigma), sigma

    class Oracle(denoise.Denoiser):
        def __init__(self, levels: Tensor) -> None:
            super().__init__()
            self.schedule = Schedule(levels)

        def forward(self, x_t: Tensor, t: Tensor, **_: object) -> denoise.DiracPosterior:
            return denoise.DiracPosterior(MIXTURE(x_t, self.schedule(t)[1]))

    def solver(name: str, half: bool = False, **options: int) -> Solver:
        def walk(u: Tensor, levels: Tensor) -> Tensor:
            kind = getattr(sample, name)
            return kind(Oracle(levels), steps=len(levels) - 1, silent=True, dtype=torch.float64, **options)(u)

        def run(u: Tensor, calls: int, levels: Tensor | None = None) -> Iterator[Tensor]:
            grid = Karras()(MIXTURE.sde, calls // 2 if half else calls) if levels is None else levels
            yield walk(u, torch.cat([grid[:-1], grid.new_tensor([1e-9])]))
            yield MIXTURE(walk(u, grid[:-1]), grid[-2])

        return run

    solvers = {
        f"azula {n}({o})": solver(f"{n}Sampler", order=o) for n in ("zAB", "vAB", "xEAB", "zEAB") for o in (2, 3, 4)
    }
    return solvers | {"azula REAB(2)": solver("REABSampler", order=2), "azula Heun": solver("HeunSampler", half=True)}


def measure(solvers: dict[str, Solver], u: Tensor, end: Tensor, data: Tensor) -> dict[str, list[tuple[float, float]]]:
    r"""(RMSE, energy distance to the data) of each solver at each number of calls."""
    table: dict[str, list[tuple[float, float]]] = {}
    for name, solver in solvers.items():
        for calls in CALLS:
            results = solver(u, calls)
            results = [results] if isinstance(results, Tensor) else list(results)
            rows = [((x - end).square().mean().sqrt().item(), energy_distance(x, data)) for x in results]
            table.setdefault(name, []).append(min(rows))
    return table


def show(table: dict[str, list[tuple[float, float]]]) -> None:
    print("| sampler, RMSE at calls: | " + " | ".join(map(str, CALLS)) + " | energy distance at 8 | 18 |")
    print("|---" * (len(CALLS) + 3) + "|")
    for name, row in table.items():
        cells = [f"{error:.2e}" for error, _ in row] + [f"{row[CALLS.index(k)][1]:.1e}" for k in (8, 18)]
        print(f"| {name} | " + " | ".join(cells) + " |")


def verdict(mine: dict, other: dict) -> bool:
    r"""Prints the best of each side at every number of calls; whether ours are ahead or level everywhere."""
    print("\n| calls | best of ours | RMSE | best of the others | RMSE |\n|---|---|---|---|---|")
    ahead = True
    for i, calls in enumerate(CALLS):
        a, b = (min((row[i][0], name) for name, row in table.items()) for table in (mine, other))
        print(f"| {calls} | {a[1]} | {a[0]:.2e} | {b[1]} | {b[0]:.2e} |")
        ahead &= a[0] <= b[0]
    return ahead


def plot(mine: dict, other: dict, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 5))
    for names, style in (
        (
            (
                "VelocityABM(4, limit=20)",
                "VelocityABM(4)",
                "ExponentialABM(1)",
                "ExponentialAB(2, damped)",
                "Heun",
                "DDIM",
            ),
            "o-",
        ),
        ([n for n in other if n in PLOTTED], "s--"),
    ):
        for name in names:
            axes.loglog(CALLS, [error for error, _ in (mine | other)[name]], style, label=name, markersize=4)
    axes.set(xlabel="network calls", ylabel="RMSE to the exact end of the trajectory", xticks=CALLS, xticklabels=CALLS)
    axes.set_ylim(1e-4, 1)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="lower left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight")


def trained(path: str, batch: int = 32) -> None:
    r"""RMSE on a trained network, to 200 steps from the same start."""
    import scoregen
    from scoregen.checkpoint import read_config
    from scoregen.rng import generators

    denoiser = scoregen.load(path, weights="ema")
    shape = (batch, *read_config(Path(path))["model"]["network"]["shape"])
    classes = denoiser.num_classes
    label = torch.arange(batch) % classes if classes else None

    def sample(sampler: Sampler) -> Tensor:
        return sampler(denoiser, shape, label=label, generator=generators(0, 0, 0, range(batch)))

    end = sample(VelocityABM(200))
    builds = {"DDIM": DDIM, "Heun": lambda k: Heun((k + 1) // 2)}
    builds |= {"ExponentialAB(2, damped)": lambda k: ExponentialAB(k, damped=True), "ExponentialABM(1)": ExponentialABM}
    builds |= {f"VelocityABM({o})": lambda k, o=o: VelocityABM(k, order=o) for o in (1, 2, 3, 4)}
    builds["VelocityABM(4, limit=20)"] = lambda k: VelocityABM(k, limit=20.0)
    print(
        f"\n| {batch} images of shape {shape[1:]}, RMSE at calls: | 4 | 8 | 12 | 18 | 32 |\n|---|---|---|---|---|---|"
    )
    for name, build in builds.items():
        errors = [(sample(build(k)) - end).square().mean().sqrt().item() for k in (4, 8, 12, 18, 32)]
        print(f"| {name} | " + " | ".join(f"{e:.1e}" for e in errors) + " |")


def overhead(repeats: int = 5) -> None:
    r"""Processor time of sampling a U-Net, of its bare calls, and of the same sampling with an idle network."""
    from scoregen.models import Denoiser, UNet
    from scoregen.sde import EDM

    network = UNet((1, 28, 28), channels=(32, 64, 64)).eval()
    sampler, shape = VelocityABM(18), (16, 1, 28, 28)
    z, c_noise = torch.randn(shape), torch.zeros(shape[0])

    class Idle(torch.nn.Module):
        def forward(self, z: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
            return z

    @torch.no_grad()
    def bare() -> None:
        for _ in range(sampler.steps):
            network(z, c_noise, None)

    def timed(function: Callable[[], object]) -> float:
        start = time.process_time()
        function()
        return time.process_time() - start

    whole, idle = Denoiser(network, EDM()), Denoiser(Idle(), EDM())
    rows = [
        (timed(lambda: sampler(whole, shape)), timed(bare), timed(lambda: sampler(idle, shape))) for _ in range(repeats)
    ]
    sampling, calls, own = (min(column) for column in zip(*rows, strict=True))
    size = sum(p.numel() for p in network.parameters()) / 1e6
    print(
        f"\nU-Net of {size:.1f} M parameters, 16 images of 28x28, 18 calls, processor seconds: bare calls {calls:.3f}, "
        f"sampling {sampling:.3f} ({100 * (sampling / calls - 1):+.1f} %), sampling an idle network {own:.4f} "
        f"({100 * own / calls:.2f} %)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plot", type=Path, help="where to write the figure")
    parser.add_argument("--fitted", action="store_true", help="also fit the levels of every sampler")
    parser.add_argument("--overhead", action="store_true", help="also measure the cost of sampling a U-Net")
    parser.add_argument("--checkpoint", help="also compare samplers on this trained denoiser")
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    u = MIXTURE.sample(2000, generator, 80.0)
    data = MIXTURE.sample(2000, generator)
    end = runner(lambda k: VelocityABM(k, limit=1e9))(u, 2000)
    check = runner(lambda k: ExponentialABM(k, order=3))(u, 2000)
    print(f"reference: two methods of 2000 steps differ by {(end - check).square().mean().sqrt():.1e} RMSE\n")
    mine, other = (measure(solvers, u, end, data) for solvers in (ours(), theirs()))
    show(mine | other)
    ahead = verdict(mine, other)
    if options.plot:
        plot(mine, other, options.plot)
    if options.fitted:
        from fitted_levels import compare

        starts = MIXTURE.sample(256, torch.Generator().manual_seed(1), 80.0)
        ends = (starts, runner(VelocityABM)(starts, 100))
        karras = {name: dict(zip(CALLS, (error for error, _ in row), strict=True)) for name, row in other.items()}
        ahead &= compare(MIXTURE.sde, (ours(), theirs()), ((u, end), ends), karras)
    if options.checkpoint:
        trained(options.checkpoint)
    if options.overhead:
        overhead()
    sys.exit(0 if ahead else 1)


if __name__ == "__main__":
    main()
