r"""Building blocks that are not in the package, beside those that are, on digits; the table of docs/results.md.

    OMP_NUM_THREADS=1 python benchmarks/building_blocks.py                    # all three parts
    OMP_NUM_THREADS=1 python benchmarks/building_blocks.py --part certified

| part | network | number |
|---|---|---|
| vectors | denoiser, residual perceptron 128 x 2, 400 steps | held-out loss |
| certified | classifier, convolutions 16-32-32, noise .5, 250 steps | mean certified radius of 100 images |
| images | denoiser, 24 channels, 3 residual blocks, 250 steps | held-out loss |

Scikit-learn's digits, 1,437 for training and 360 held out, batches of 128. The denoisers have EDM's loss, and frozen
noise when they are compared. Certificates are of n = 300 draws, n0 = 100, alpha = 1e-3. All variants of a part take
their steps in turn, so that the ratios of their times are of one run; a time is the median CPU time of a step. One
learning rate serves a part unless its row says otherwise: small differences mean nothing.
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.blocks import Block, Images, Perceptron, classifier, lecun_normal
from scoregen.config import build
from scoregen.losses import CrossEntropy, DenoisingScoreMatching, Loss
from scoregen.models import Denoiser
from scoregen.rng import generator
from scoregen.sde import EDM, Affine
from scoregen.smoothing import Gaussian, SmoothedClassifier

BATCH, SIGMA = 128, 0.5


def named(target: str, *, channels: bool = False) -> Block:
    r"""A block by its name in a configuration, told the number of channels or not."""
    known = target if "." in target else f"torch.nn.{target}"
    return lambda count: build({"_target_": known}, **({"channels": count} if channels else {}))


def normalised(norm: Callable[[int], nn.Module], activation: Block) -> Block:
    return lambda count: nn.Sequential(norm(count), activation(count))


def group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(8, channels)


RELU, SILU, SELU = named("ReLU"), named("SiLU"), named("SELU")
CRRELU, POLY = named("benchmarks.blocks.CRReLU"), named("benchmarks.blocks.PolyNorm")
EVO_S, EVO_B = (named(f"benchmarks.blocks.EvoNorm{kind}", channels=True) for kind in ("S0", "B0"))
SIGN = named("benchmarks.blocks.Sign")


@dataclass(frozen=True)
class Variant:
    r"""A row of a table.

    Args:
        block: activation, or normalisation with activation. lr: learning rate; None: that of the part.
        lecun: weights of variance 1/fan_in. optimizer: "adamw", "muon" or "drop_muon".
    """

    block: Block
    lr: float | None = None
    lecun: bool = False
    optimizer: str = "adamw"


@dataclass
class Part:
    r"""A table: what all of its variants share.

    Args:
        network: of a block. loss: of the training. measure: of a trained model, by name. lr, steps: of the training.
        flat: whether digits are vectors. variants: by name, the package's own first.
    """

    network: Callable[[Block], nn.Module]
    loss: Loss
    measure: Callable[[nn.Module, Tensor, Tensor], dict[str, float]]
    lr: float
    steps: int
    flat: bool
    variants: Mapping[str, Variant] = field(default_factory=dict)


@torch.no_grad()
def held_out(model: nn.Module, x: Tensor, label: Tensor) -> dict[str, float]:
    r"""EDM's loss with frozen noise, four levels for each image."""
    x = x.repeat(4, *[1] * (x.ndim - 1))
    quantile = (torch.arange(len(x)) + 0.5) / len(x)
    order = torch.randperm(len(x), generator=generator(0, 1))
    return {"held-out loss": float(DenoisingScoreMatching()(model, x[order], None, generator(0, 2), quantile).mean())}


@torch.no_grad()
def certified(model: nn.Module, x: Tensor, label: Tensor) -> dict[str, float]:
    smoothed = SmoothedClassifier(model, Gaussian(SIGMA), 10)
    found = smoothed.certify(x[:100], n=300, alpha=1e-3, method="fixed", generator=generator(0, 3))
    radii = [c.radius if c.label == int(y) else -1.0 for c, y in zip(found, label, strict=False)]
    share = {f"certified at {r}": sum(radius > r for radius in radii) / len(radii) for r in (0, 0.5)}
    return {"mean certified radius": sum(max(r, 0.0) for r in radii) / len(radii), **share}


BN = nn.BatchNorm2d
PARTS = {
    "vectors": Part(
        lambda block: Denoiser(Perceptron(block), EDM(chart=Affine(2.0, -1.0))),
        DenoisingScoreMatching(),
        held_out,
        8e-3,
        400,
        True,
        {
            "SiLU, AdamW (the package)": Variant(SILU),
            "ReLU": Variant(RELU),
            "GELU": Variant(named("GELU")),
            "CRReLU": Variant(CRRELU),
            "PolyNorm": Variant(POLY),
            "SELU, LeCun normal": Variant(SELU, lecun=True),
            "SiLU, LeCun normal": Variant(SILU, lecun=True),
            "SiLU, AdamW, lr .016": Variant(SILU, lr=1.6e-2),
            "SiLU, Muon .04, AdamW .002": Variant(SILU, optimizer="muon"),
            "SiLU, Drop-Muon": Variant(SILU, optimizer="drop_muon"),
        },
    ),
    "certified": Part(
        classifier,
        CrossEntropy(SIGMA),
        certified,
        8e-3,
        250,
        False,
        {
            "BatchNorm, ReLU (the package)": Variant(normalised(BN, RELU)),
            "GroupNorm, SiLU": Variant(normalised(group_norm, SILU)),
            "EvoNorm-B0": Variant(EVO_B),
            "EvoNorm-S0": Variant(EVO_S),
            "BatchNorm, CRReLU": Variant(normalised(BN, CRRELU)),
            "SELU, LeCun normal, lr .002": Variant(SELU, lr=2e-3, lecun=True),
            "BatchNorm, sign (straight-through)": Variant(normalised(BN, SIGN)),
        },
    ),
    "images": Part(
        lambda block: Denoiser(Images(block), EDM(chart=Affine(2.0, -1.0))),
        DenoisingScoreMatching(),
        held_out,
        4e-3,
        250,
        False,
        {
            "GroupNorm, SiLU (the package)": Variant(normalised(group_norm, SILU)),
            "EvoNorm-S0": Variant(EVO_S),
        },
    ),
}


class Run:
    r"""The training of a variant, step by step."""

    def __init__(self, part: Part, variant: Variant, seed: int) -> None:
        torch.manual_seed(seed)
        self.part, self.variant, self.seed, self.seconds = part, variant, seed, list[float]()
        self.model = part.network(variant.block)
        if variant.lecun:
            lecun_normal(self.model)
        self.layers = self.model.network.matrices() if variant.optimizer != "adamw" else []
        self.optimizers = self._optimizers(part.lr if variant.lr is None else variant.lr)
        self.rates = [group["lr"] for optimizer in self.optimizers for group in optimizer.param_groups]

    def _optimizers(self, lr: float) -> list[torch.optim.Optimizer]:
        if not self.layers:
            return [torch.optim.AdamW(self.model.parameters(), lr=lr, weight_decay=0.0)]
        hidden = {id(weight) for weight in self.layers}
        rest = [parameter for parameter in self.model.parameters() if id(parameter) not in hidden]
        muon = torch.optim.Muon(self.layers, lr=4e-2, weight_decay=0.0)
        return [muon, torch.optim.AdamW(rest, lr=2e-3, weight_decay=0.0)]

    def step(self, number: int, x: Tensor, label: Tensor) -> None:
        start = time.process_time()
        draws = generator(self.seed, 4, number)
        rows = torch.randint(len(x), (BATCH,), generator=draws)
        self.part.loss(self.model, x[rows], label[rows], draws).mean().backward()
        if self.variant.optimizer == "drop_muon":  # the layers below a random one keep weights and momentum
            for weight in self.layers[: int(torch.randint(len(self.layers), (), generator=draws))]:
                weight.grad = None
        fall = (1 + math.cos(math.pi * number / self.part.steps)) / 2
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        for group, rate in zip(groups, self.rates, strict=True):
            group["lr"] = rate * fall
        for optimizer in self.optimizers:
            optimizer.step()
        self.model.zero_grad()
        self.seconds.append(time.process_time() - start)


def split(seed: int, flat: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""Training images and labels, held-out images and labels."""
    digits = load_digits()
    x, label = torch.tensor(digits.images).float()[:, None] / 16, torch.tensor(digits.target)
    x, order = x.flatten(1) if flat else x, torch.randperm(len(x), generator=generator(seed, 5))
    return x[order[360:]], label[order[360:]], x[order[:360]], label[order[:360]]


def table(name: str, part: Part, seeds: Sequence[int]) -> str:
    found: dict[str, list[dict[str, float]]] = {variant: [] for variant in part.variants}
    times: dict[str, list[float]] = {variant: [] for variant in part.variants}
    for seed in seeds:
        x, label, others, truth = split(seed, part.flat)
        runs = {variant: Run(part, settings, seed) for variant, settings in part.variants.items()}
        for number in range(part.steps):
            for run in runs.values():
                run.step(number, x, label)
        for variant, run in runs.items():
            found[variant].append(part.measure(run.model.eval(), others, truth))
            times[variant] += run.seconds[5:]
    milliseconds = {variant: 1e3 * statistics.median(spent) for variant, spent in times.items()}
    first = next(iter(part.variants))
    names = list(found[first][0])
    lines = [f"| {name} | {' | '.join(names)} | ms a step | ratio |", "|---" * (len(names) + 3) + "|"]
    for variant, rows in found.items():
        cells = [cell([row[key] for row in rows]) for key in names]
        ratio = milliseconds[variant] / milliseconds[first]
        lines.append(f"| {variant} | {' | '.join(cells)} | {milliseconds[variant]:.1f} | {ratio:.2f} |")
    return "\n".join(lines)


def cell(values: Sequence[float]) -> str:
    spread = f" ({statistics.stdev(values):.4f})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=[*PARTS, "all"], default="all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    for name, part in PARTS.items():
        if options.part in (name, "all"):
            print(f"\n{name}, mean and standard deviation over seeds {options.seeds}\n")
            print(table(name, part, options.seeds))


if __name__ == "__main__":
    main()
