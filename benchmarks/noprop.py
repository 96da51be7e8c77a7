r"""Label denoising on digits: the variants of NoProp and back-propagation, by rule of inference (docs/noprop.md).

    OMP_NUM_THREADS=1 python benchmarks/noprop.py                                # digits
    OMP_NUM_THREADS=1 python benchmarks/noprop.py --part images --data PATH      # MNIST, Fashion-MNIST, certificates

One multilayer perceptron (64-128-10) on scikit-learn's digits, 1,437 for training and 360 for the test, batch 128,
AdamW with a learning rate of 2e-3 that falls as a cosine. DT has ten blocks of 250 steps each, all others 800 steps.
Accuracy in percent is the mean over the seeds, and seconds are CPU time of the training.

Images: the network of conf/model/classifier_fast.yaml, 1,000 steps (`--steps`), alone by back-propagation and told the
noisy label by NoProp's cross entropy; accuracy on 2,000 test images, evenly spread. Under noise .5 the first `--inputs`
of them, evenly spread, are certified with n = 1,000, n0 = 100, alpha = 1e-3, both classifiers on the same draws.
"""

import argparse
import math
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from scoregen.data import MNIST, FashionMNIST, Source
from scoregen.losses import CrossEntropy, FlowTime, FlowWeighting, Loss, NoProp
from scoregen.models import Classifier, LabelNetwork, NoPropClassifier
from scoregen.rng import generator
from scoregen.samplers import DDIM, Ancestral, UniformTime
from scoregen.sde import VE, Affine
from scoregen.smoothing import Gaussian, SampledLabels, SmoothedClassifier

STEPS, CALLS, BATCH, NOISE = 800, 10, 128, 0.5
Split = tuple[Tensor, Tensor, Tensor, Tensor]


class Perceptron(nn.Module):
    r"""A classifier of vectors with one hidden layer, and the parts that `LabelNetwork` asks for."""

    num_features, num_classes = 128, 10

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(64, self.num_features), nn.Linear(self.num_features, self.num_classes)

    def features(self, x: Tensor) -> Tensor:
        return functional.silu(self.first(x))

    def classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(features)
        return logits

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.features(x))


class Variant(NamedTuple):
    r"""A loss, the blocks of the network (0: back-propagation), the steps, and the noise on the inputs."""

    loss: Callable[[], Loss]
    blocks: int = 1
    steps: int = STEPS
    noise: float = 0.0


VARIANTS = {
    "DT, 10 blocks, squared error": Variant(lambda: NoProp(error="squared"), CALLS, 250 * CALLS),
    "CT, squared error, 1/s^2": Variant(lambda: NoProp(error="squared")),
    "CT, cross entropy": Variant(NoProp),
    "FM, squared error": Variant(lambda: NoProp(FlowTime(), FlowWeighting(), "squared")),
    "back-propagation": Variant(CrossEntropy, 0),
    "noise .5: CT, squared error": Variant(lambda: NoProp(error="squared", noise_sigma=NOISE), noise=NOISE),
    "noise .5: CT, cross entropy": Variant(lambda: NoProp(noise_sigma=NOISE), noise=NOISE),
    "noise .5: back-propagation": Variant(lambda: CrossEntropy(NOISE), 0, noise=NOISE),
}


def split(seed: int) -> Split:
    r"""Training images and labels, test images and labels."""
    digits = load_digits()
    x, label = torch.tensor(digits.data).float() / 16, torch.tensor(digits.target)
    order = torch.randperm(len(x), generator=generator(seed, 1))
    return x[order[360:]], label[order[360:]], x[order[:360]], label[order[:360]]


def trained(variant: Variant, data: Split, seed: int, make: Callable[[], nn.Module]) -> tuple[nn.Module, float]:
    r"""The classifier, and the CPU seconds of its training."""
    torch.manual_seed(seed)
    network = make()
    if variant.blocks:
        path = VE(0.05, 20.0, chart=Affine(2.0, -1.0))
        network = NoPropClassifier(LabelNetwork(network, 128, variant.blocks), path)
    loss, optimizer = variant.loss(), torch.optim.AdamW(network.parameters())
    x, label, _, _ = data
    start = time.process_time()
    for step in range(variant.steps):
        loss.at(step, variant.steps)
        optimizer.param_groups[0]["lr"] = 1e-3 * (1 + math.cos(math.pi * step / variant.steps))
        draws = generator(seed, 2, step)
        rows = torch.randint(len(x), (BATCH,), generator=draws)
        optimizer.zero_grad()
        loss(network, x[rows], label[rows], draws).mean().backward()
        optimizer.step()
    return network.eval(), time.process_time() - start


def rules(network: nn.Module) -> dict[str, Callable[[Tensor], Tensor]]:
    r"""Logits by rule of inference."""
    if not isinstance(network, NoPropClassifier):
        return {"one call": network}
    grid = UniformTime()
    many, one = (NoPropClassifier(network.network, network.process, calls) for calls in (CALLS, 1))
    return {
        "Ancestral": SampledLabels(network, Ancestral(CALLS, grid)),
        "DDIM, noise": SampledLabels(network, DDIM(CALLS, grid)),
        "DDIM, u = 0": many.eval(),
        "one call": one.eval(),
        "8 votes": SampledLabels(network, DDIM(CALLS, grid), votes=8),
    }


@torch.no_grad()
def accuracy(rule: Callable[[Tensor], Tensor], data: Split, noise: float, seed: int) -> float:
    r"""In percent, under noise on the inputs."""
    _, _, x, label = data
    x = x + noise * torch.randn(x.shape, generator=generator(seed, 3))
    return 100 * float((rule(x).argmax(1) == label).double().mean())


def fast() -> nn.Module:
    return Classifier((1, 28, 28), 10, (16, 32), (0, 0), hidden=128, dropout=0.0)


def pictures(source: Source) -> Split:
    test = torch.linspace(0, len(source.test) - 1, 2000).long().tolist()
    parts = source.train.in_units(slice(0, len(source.train))), source.test.in_units(test)
    return tuple(tensor for part in parts for tensor in part)  # type: ignore[return-value]  # both have labels


def radii(network: nn.Module, data: Split, count: int) -> Tensor:
    r"""Certified radii at sigma = .5 of right labels, (count,); -1 where the label is wrong or none."""
    places = torch.linspace(0, len(data[2]) - 1, count).long()
    smoothed = SmoothedClassifier(network, Gaussian(NOISE), 10)
    found = smoothed.certify(data[2][places], n=1000, alpha=1e-3, method="fixed", generator=generator(0, 4))
    right = [c.radius if c.label == int(y) else -1.0 for c, y in zip(found, data[3][places], strict=True)]
    return torch.tensor(right)


def images(options: argparse.Namespace) -> None:
    print("| data | training | seed | accuracy | CPU s |\n|---|---|---|---|---|")
    for kind, noise in ((MNIST, NOISE), (MNIST, 0.0), (FashionMNIST, 0.0)):
        data, certified = pictures(kind(options.data)), {}
        for name, loss, blocks in (("NoProp", NoProp, 1), ("back-propagation", CrossEntropy, 0)):
            variant = Variant(partial(loss, noise_sigma=noise), blocks, options.steps, noise)
            for seed in options.seeds:
                network, spent = trained(variant, data, seed, fast)
                right = accuracy(network, data, noise, seed)
                about = f"{kind.__name__}{', noise .5' if noise else ''}"
                print(f"| {about} | {name} | {seed} | {right:.1f} | {spent:.1f} |", flush=True)
                if noise and seed == options.seeds[0]:
                    certified[name] = radii(network, data, options.inputs)
        for name, found in certified.items():
            shares = ", ".join(
                f"{100 * float((found > r).double().mean()):.1f} at {r}" for r in (0, 0.25, 0.5, 0.75, 1)
            )
            gain = found.clamp(min=0) - certified["back-propagation"].clamp(min=0)
            error = float(gain.std()) / len(gain) ** 0.5
            against = f"; against back-propagation {float(gain.mean()):+.3f} +- {error:.3f}" if name == "NoProp" else ""
            print(
                f"certified, {name}: mean radius {float(found.clamp(min=0).mean()):.3f}; {shares}{against}", flush=True
            )


def digits(options: argparse.Namespace) -> None:
    names = ("Ancestral", "DDIM, noise", "DDIM, u = 0", "one call", "8 votes")
    print(f"| digits, test accuracy | {' | '.join(names)} | CPU s |\n|{'---|' * (len(names) + 2)}")
    for name, variant in VARIANTS.items():
        found, seconds = [], []
        for seed in options.seeds:
            data = split(seed)
            network, spent = trained(variant, data, seed, Perceptron)
            found.append({k: accuracy(rule, data, variant.noise, seed) for k, rule in rules(network).items()})
            seconds.append(spent)
        mean = {rule: sum(row[rule] for row in found) / len(found) for rule in found[0]}
        cells = " | ".join(f"{mean[rule]:.1f}" if rule in mean else "" for rule in names)
        print(f"| {name} | {cells} | {sum(seconds) / len(seconds):.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["digits", "images"], default="digits")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", default="data", help="folder with MNIST and FashionMNIST")
    parser.add_argument("--steps", type=int, default=1000, help="of the trainings on images")
    parser.add_argument("--inputs", type=int, default=200, help="test images that are certified")
    options = parser.parse_args()
    (digits if options.part == "digits" else images)(options)


if __name__ == "__main__":
    main()
