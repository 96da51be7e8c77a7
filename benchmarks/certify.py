r"""Certification beside its peers, on one classifier and in one run.

    python benchmarks/certify.py --data data                 speed at a fixed n, against ART and Cohen's loop
    python benchmarks/certify.py --data data --part overhead                    what the engine adds to its passes
    python benchmarks/certify.py --data data --part ladder   forward passes and accuracy, ladder against fixed n
    python benchmarks/certify.py --data data --part attack   attacks inside and outside the certified radii
    python benchmarks/certify.py --part futility             what giving up a rung earlier saves and loses; no network

The classifier is a convolutional network trained here on MNIST with Gaussian noise (--steps), or a checkpoint of
train.py (--checkpoint). The first part needs `pip install adversarial-robustness-toolbox statsmodels`.
"""

import argparse
import contextlib
import copy
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from scoregen.allocator import keep_freed_memory
from scoregen.data import MNIST
from scoregen.smoothing import Gaussian, SmoothedClassifier
from scoregen.smoothing.attack import attack
from scoregen.smoothing.choice import make_method
from scoregen.smoothing.methods import Tally
from scoregen.smoothing.sequential import Ladder
from scoregen.training.precision import bf16_is_native

SIGMA, ALPHA, N0 = 0.5, 0.001, 100
BF16 = torch.bfloat16


def network() -> nn.Module:
    r"""Four convolutions and two linear layers, half a million parameters."""
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 4, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 4, stride=2, padding=1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(64 * 49, 128), nn.ReLU(), nn.Linear(128, 10)),
    )


def trained(data: MNIST, steps: int) -> nn.Module:
    r"""The network after cross entropy under noise SIGMA."""
    torch.manual_seed(0)
    model = network().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(steps):
        x, label = data.train.in_units(torch.randint(len(data.train), (128,)))
        with torch.autocast("cpu", BF16, enabled=bf16_is_native()):
            loss = nn.functional.cross_entropy(model(x + SIGMA * torch.randn_like(x)), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval().requires_grad_(False)


@torch.no_grad()
def cohen_loop(model: nn.Module, x: Tensor, n: int, batch: int) -> np.ndarray:
    r"""Counts for one input as the published script makes them: float32 noise, a Python loop over the labels."""
    counts = np.zeros(10, dtype=int)
    while n > 0:
        size = min(batch, n)
        n -= size
        repeated = x.repeat((size, 1, 1, 1))
        for label in model(repeated + torch.randn_like(repeated) * SIGMA).argmax(1).cpu().numpy():
            counts[label] += 1
    return counts


def cohen(model: nn.Module, x: Tensor, n: int, batch: int) -> list[float]:
    r"""CERTIFY, radii only."""
    from scipy.stats import beta, norm

    radii = []
    for one in x:
        top = cohen_loop(model, one, N0, batch).argmax()
        count = cohen_loop(model, one, n, batch)[top]
        radii.append(max(0.0, SIGMA * norm.ppf(beta.ppf(ALPHA, count, n - count + 1))))
    return radii


def art(model: nn.Module, x: Tensor, n: int, batch: int) -> np.ndarray:
    from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing

    smoothed = PyTorchRandomizedSmoothing(
        *(model, nn.CrossEntropyLoss(), tuple(x.shape[1:]), 10),
        device_type="cpu",
        sample_size=N0,
        scale=SIGMA,
        alpha=ALPHA,
    )
    return smoothed.certify(x.numpy(), n=n, batch_size=batch)[1]


@torch.no_grad()
def bare(model: nn.Module, x: Tensor, n: int, batch: int, precision: torch.dtype | None) -> None:
    r"""As many forward passes, on inputs that are there already."""
    noisy = x[:1].repeat(batch, 1, 1, 1)
    context = torch.autocast("cpu", precision) if precision else contextlib.nullcontext()
    with context:
        for done in range(0, len(x) * (n + N0), batch):
            model(noisy[: len(x) * (n + N0) - done])


def engine(model: nn.Module, x: Tensor, n: int, batch: int, precision: torch.dtype | None) -> list[float]:
    g = SmoothedClassifier(model, Gaussian(SIGMA), 10, batch_size=batch, precision=precision)
    return [c.radius for c in g.certify(x, n=n, n0=N0, alpha=ALPHA, method="fixed", generator=torch.Generator())]


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


class Timed(nn.Module):
    r"""A network that knows how many images it saw and for how many seconds it worked."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.images, self.seconds = inner, 0, 0.0

    def forward(self, x: Tensor) -> Tensor:
        start = time.perf_counter()
        found = self.inner(x)
        self.images, self.seconds = self.images + len(x), self.seconds + time.perf_counter() - start
        return found


def overhead(model: nn.Module, x: Tensor, n: int, rounds: int) -> Iterator[str]:
    r"""What the engine adds to its passes, in every round: images for the guard, and time outside of the network.

    Both shares come from one call of `certify`, so that they do not depend on what else the machine does between two
    calls, as the difference of the times of two calls would.
    """
    yield f"{len(x)} inputs, n = {n}, {torch.get_num_threads()} thread(s)\n"
    yield "| precision | images | time outside of the network | both | range of both |\n|---|---|---|---|---|"
    kinds = {"float32": None} | ({"bfloat16": BF16} if bf16_is_native() else {})
    for name, precision in kinds.items():
        found = []
        for _ in range(rounds):
            timed = Timed(model).eval()
            whole = seconds(lambda p=precision, m=timed: engine(m, x, n, 128, p))
            images, outside = timed.images / (len(x) * (n + N0)), whole / timed.seconds
            found.append([100 * (images - 1), 100 * (outside - 1), 100 * (images * outside - 1)])
        (images, outside, both), least, most = np.median(found, 0), *np.sort([f[2] for f in found])[[0, -1]]
        yield f"| {name} | {images:+.1f} % | {outside:+.1f} % | {both:+.1f} % | {least:+.1f} to {most:+.1f} % |"


def speed(model: nn.Module, x: Tensor, n: int, rounds: int) -> Iterator[str]:
    r"""Least time of several rounds, in which all take turns; bfloat16 where the processor computes in it."""
    wide = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    others = {
        "ART, batch 1000": lambda: art(wide, x, n, 1000),
        "ART, batch 128": lambda: art(wide, x, n, 128),
        "Cohen's loop, batch 1000": lambda: cohen(wide, x, n, 1000),
        "Cohen's loop, batch 128": lambda: cohen(wide, x, n, 128),
    }
    works, kinds = others, {"float32": None} | ({"bfloat16": BF16} if bf16_is_native() else {})
    for name, precision in kinds.items():
        works |= {
            f"bare forward passes, batch 128, {name}": lambda p=precision: bare(model, x, n, 128, p),
            f"scoregen, batch 128, {name}": lambda p=precision: engine(model, x, n, 128, p),
        }
    best = dict.fromkeys(works, float("inf"))
    for _ in range(rounds):
        for name, work in works.items():
            best[name] = min(best[name], seconds(work))
    draws = len(x) * (n + N0) / 1000
    yield f"{len(x)} inputs, n = {n}, {torch.get_num_threads()} thread(s), least of {rounds} rounds\n"
    yield "| | ms for 1000 draws | over bare passes | against ART 1000 | against Cohen 1000 |\n|---|---|---|---|---|"
    for name, time_ in best.items():
        kind = name.rpartition(", ")[2]
        base = best.get(f"bare forward passes, batch 128, {kind}")
        over = f"{100 * (time_ / base - 1):+.1f} %" if name.startswith("scoregen") else ""
        ratios = [f"{best[p] / time_:.1f}x" for p in ("ART, batch 1000", "Cohen's loop, batch 1000")]
        yield f"| {name} | {1000 * time_ / draws:.1f} | {over} | {ratios[0]} | {ratios[1]} |"


def ladder(model: nn.Module, x: Tensor, label: Tensor, n: int) -> Iterator[str]:
    r"""Certified accuracy up to 2 sigma and the draws that it took."""
    g = SmoothedClassifier(model, Gaussian(SIGMA), 10, precision=BF16)
    yield f"{len(x)} inputs, n = {n}\n\n| radius | fixed, % | ladder, % |\n|---|---|---|"
    found = {m: g.certify(x, n=n, method=m, generator=torch.Generator()) for m in ("fixed", "ladder")}
    for rung in range(5):
        radius = rung * SIGMA / 2
        rates = [
            np.mean([c.label == y and c.radius > radius for c, y in zip(f, label, strict=True)]) for f in found.values()
        ]
        yield f"| {radius:g} | {100 * rates[0]:.1f} | {100 * rates[1]:.1f} |"
    draws = [np.mean([c.draws for c in f]) for f in found.values()]
    yield f"| mean forward passes | {draws[0]:,.0f} | {draws[1]:,.0f} ({draws[0] / draws[1]:.1f} times fewer) |"


def attacks(model: nn.Module, x: Tensor, label: Tensor, n: int) -> Iterator[str]:
    r"""Labels lost to an attack at .99 and 2 certified radii, judged by the vote test."""
    g = SmoothedClassifier(model, Gaussian(SIGMA), 10)
    generator = torch.Generator().manual_seed(0)
    certificates = g.certify(x, n=n, method="fixed", generator=generator)
    chosen = [i for i, c in enumerate(certificates) if c.label == label[i] and c.radius > 0.1]
    yield f"{len(chosen)} certified inputs, n = {n}\n\n| attack at | labels lost |\n|---|---|"
    for factor in (0.99, 2.0):
        moved = [attack(g, x[i], certificates[i].label, factor * certificates[i].radius, generator) for i in chosen]
        voted = g.predict(torch.stack(moved), n=n, generator=generator)
        lost = int(((voted != label[chosen]) & (voted != -1)).sum())
        yield f"| {factor} R | {lost} of {len(chosen)} |"


RADII = {  # in sigma, and certified accuracy there in percent: published runs on MNIST, from their logs
    "MNIST sigma .5": ([0, 1, 2, 3, 3.5, 4.2], [99.2, 96.9, 89.8, 67.8, 44.9, 10.0]),
    "MNIST sigma 1": ([0, 0.5, 1, 1.5, 1.75, 2.0, 3.0], [96.3, 91.4, 79.9, 59.5, 46.1, 32.5, 3.0]),
}


def probabilities(radii: list[float], accuracy: list[float], m: int) -> np.ndarray:
    r"""p of the right class for m inputs, by interpolation of certified accuracy; below 1/2 where it is wrong."""
    from scipy.special import ndtr

    share = 100 * (np.arange(m) + 0.5) / m
    found = np.interp(share, accuracy[::-1], radii[::-1])
    return np.asarray(ndtr(np.where(share > accuracy[0], -np.linspace(0.05, 2, m), found)))


def climbed(method: Ladder, p: np.ndarray, rounds: int) -> tuple[np.ndarray, float]:
    r"""p_lower of each input and round, and the mean draws; the counts are the same for every method."""
    lower, draws = [], []
    for number, q in itertools.product(range(rounds), p):
        rng, tally = np.random.default_rng([number, int(1e9 * q)]), Tally(np.array([method.n0, 0]))
        while (request := method.request(tally)) is not None:
            count = rng.binomial(request[1], q)
            tally.add(request[0], np.array([count, request[1] - count]))
        lower.append(method.bounds(tally).lower)
        draws.append(tally.drawn + method.n0)
    return np.array(lower), float(np.mean(draws))


def futility(inputs: int, n: int, rounds: int) -> Iterator[str]:
    r"""Draws and certified accuracy of ladders that give up at level .01 and at .05."""
    yield f"{inputs} inputs, {rounds} rounds, n = {n}\n"
    yield "| p, rungs up to | draws at .01 | at .05 | saved, % | largest loss, points |\n|---|---|---|---|---|"
    for (name, (radii, accuracy)), top in itertools.product(RADII.items(), (2.0, 3.0)):
        p, rungs = probabilities(radii, accuracy, inputs), make_method("ladder", Gaussian(1.0), n, max_radius=top)
        assert isinstance(rungs, Ladder)
        found = [climbed(Ladder(n, N0, ALPHA, rungs.targets, level), p, rounds) for level in (0.01, 0.05)]
        loss = max(100 * float(np.mean(found[0][0] > t) - np.mean(found[1][0] > t)) for t in rungs.targets)
        before, after = (draws for _, draws in found)
        yield f"| {name}, {top:g} | {before:,.0f} | {after:,.0f} | {100 * (1 - after / before):.1f} | {loss:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="data", help="folder of MNIST")
    parser.add_argument("--part", choices=("speed", "overhead", "ladder", "attack", "futility"), default="speed")
    parser.add_argument("--checkpoint", help="a classifier of train.py instead of the network trained here")
    parser.add_argument("--steps", type=int, default=1000, help="training steps of the network")
    parser.add_argument("--inputs", type=int, help="test images, evenly spread")
    parser.add_argument("--n", type=int, help="draws for an input")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    keep_freed_memory()  # as the commands do
    if options.part == "futility":
        for line in futility(options.inputs or 1000, options.n or 100_000, options.rounds):
            print(line, flush=True)
        return
    data = MNIST(options.data, download=False)
    if options.checkpoint:
        from scoregen.checkpoint import load

        model = load(options.checkpoint).to(memory_format=torch.channels_last).requires_grad_(False)
    else:
        model = trained(data, options.steps)
    defaults = {"speed": (2, 5000), "overhead": (8, 10_000), "ladder": (50, 100_000), "attack": (20, 2000)}[
        options.part
    ]
    count, n = options.inputs or defaults[0], options.n or defaults[1]
    x, label = data.test.in_units([i * len(data.test) // count for i in range(count)])
    lines = {
        "speed": lambda: speed(model, x, n, options.rounds),
        "overhead": lambda: overhead(model, x, n, options.rounds),
        "ladder": lambda: ladder(model, x, label, n),
        "attack": lambda: attacks(model, x, label, n),
    }[options.part]()
    for line in lines:
        print(line, flush=True)


if __name__ == "__main__":
    main()
