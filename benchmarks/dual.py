r"""Dual smoothing beside the smoothing of each sigma, from training to the table of docs/results.md.

python benchmarks/dual.py --data mnist --root PATH --out outputs/dual_mnist

Every step is a command of scoregen, printed before it runs. Commands whose folder is finished do nothing, so that the
script goes on where it stopped. 1. An expert for each sigma, without the held-out training images. 2. Certificates of
these images with each expert. 3. For each rule, targets and a selector. 4. Certificates of test images: each expert
alone, and dual smoothing. 5. The table and the figure.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from scoregen.pictures import figure
from scoregen.smoothing import Gaussian
from scoregen.smoothing.choice import make_method
from scoregen.smoothing.report import certified_accuracy, correct_radii, summary
from scoregen.smoothing.results import Run, load

SIGMAS, STEP, LAST = (0.25, 0.5, 1.0), 0.25, 2.0


def run(job: str, *overrides: str) -> None:
    command = [sys.executable, "-m", "scoregen", job, *overrides]
    print(shlex.join(["scoregen", job, *overrides]), flush=True)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def train(folder: Path, *overrides: str) -> None:
    if not (folder / "checkpoints" / "last").exists():
        run("train", *overrides, f"hydra.run.dir={folder}")


def reach(sigma: float, n: int) -> float:
    r"""The largest radius of the grid that n draws can certify."""
    p = make_method("ladder", Gaussian(sigma), n).ceiling()
    return min(LAST, STEP * int(0.999 * Gaussian(sigma).radius(p, 1 - p) / STEP))


def balance(targets: Path, out: Path) -> None:
    r"""The images of an archive of targets, those of each place repeated until all places have as many."""
    arrays = np.load(targets)
    x, label = arrays["train_images"], arrays["train_labels"]
    draw, most = np.random.default_rng(0), np.bincount(label).max()
    chosen = [np.resize(draw.permutation(np.flatnonzero(label == k)), most) for k in range(len(SIGMAS))]
    order = np.concatenate(chosen)
    draw.shuffle(order)
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez(out, train_images=x[order], train_labels=label[order])


def prepare(args: argparse.Namespace) -> None:
    r"""Steps 1 to 4."""
    out, data = args.out, [f"data={args.data}", *([] if args.data == "digits" else [f"data.root={args.root}"])]
    held = [*data, f"data.test={args.held}"]
    steps = [f"trainer.steps={args.steps}", f"accuracy.every={args.steps}"]
    test = [f"n={args.n}", f"step={STEP}", f"max_inputs={args.inputs}", f"precision={args.precision}"]
    experts = [out / f"expert_{sigma}" for sigma in SIGMAS]
    for sigma, expert in zip(SIGMAS, experts, strict=True):
        train(expert, "+experiment=classifier/base", *held, f"loss.noise_sigma={sigma}", *steps)
        certify = [f"checkpoint={expert}", f"noise.sigma={sigma}"]
        run("certify", *certify, *held, "n=500", f"precision={args.precision}", f"out={out / f'held_{sigma}'}")
        run("certify", *certify, *data, *test, f"max_radius={reach(sigma, args.n)}", f"out={out / f'single_{sigma}'}")
    runs = ",".join(str(out / f"held_{sigma}") for sigma in SIGMAS)
    for rule in args.rules.split(","):
        made, file = "right" if rule == "balanced" else rule, out / f"targets_{rule}" / "targets.npz"
        run("targets", f"runs=[{runs}]", *held, f"rule={made}", f"out={out / f'targets_{made}'}")
        if rule == "balanced":
            balance(out / "targets_right" / "targets.npz", file)
        train(out / f"selector_{rule}", "+experiment=classifier/selector", f"data.path={file}", *steps)
        parts = [f"selector={out / f'selector_{rule}'}", f"experts=[{','.join(map(str, experts))}]"]
        sigmas = f"sigmas={list(SIGMAS)}".replace(" ", "")
        run("dual", *parts, sigmas, *data, *test, f"max_radius={LAST}", f"out={out / f'dual_{rule}'}")


def lines(runs: dict[str, Run]) -> Iterator[str]:
    r"""The table: certified accuracy in percent, the envelope of the single runs, draws."""
    radii = np.arange(0.0, LAST + STEP / 2, STEP)
    accuracy = {name: 100 * certified_accuracy(found, radii) for name, found in runs.items()}
    single = [name for name in runs if name.startswith("single")]
    envelope = np.max([accuracy[name] for name in single], axis=0)
    rows = {**accuracy, "envelope of the single runs": envelope}
    rows |= {f"{name} - envelope": accuracy[name] - envelope for name in runs if name not in single}
    yield f"| radius | {' | '.join(f'{radius:g}' for radius in radii)} | mean draws | average radius |"
    yield "|" + "---|" * (len(radii) + 3)
    most = max(summary(runs[name]).draws for name in single)
    for name, row in rows.items():
        found = summary(runs[name]) if name in runs else None
        draws = f"{found.draws:,.0f} ({found.draws / most:.2f}x)" if found else ""
        mean = f"{found.average_radius:.3f}" if found else ""
        yield f"| {name} | {' | '.join(f'{value:.1f}' for value in row)} | {draws} | {mean} |"
    best = np.max([correct_radii(runs[name]) for name in single], axis=0)
    ideal = 100 * (best[None, :] > radii[:, None]).mean(1)
    yield f"| a perfect choice | {' | '.join(f'{value:.1f}' for value in ideal)} | | |"


def draw(runs: dict[str, Run], path: Path) -> None:
    grid = np.linspace(0, LAST, 400)

    def curves(axes) -> None:
        for name, found in runs.items():
            axes.plot(grid, 100 * certified_accuracy(found, grid), label=name, linewidth=1 if "single" in name else 2)
        axes.set(xlabel="radius (l2)", ylabel="certified accuracy, %", ylim=(0, 101), xlim=(0, LAST))
        axes.grid(alpha=0.3)
        axes.legend()

    figure(path, curves)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist", choices=["mnist", "fashion_mnist", "digits"])
    parser.add_argument("--root", default="data")
    parser.add_argument("--out", type=Path, default=Path("outputs/dual"))
    parser.add_argument(
        "--rules",
        default="right,radius",
        help="of the targets: right, radius, balanced (right, each place as often); one selector each",
    )
    parser.add_argument("--steps", type=int, default=4000, help="of each training, 128 images a step")
    parser.add_argument("--held", type=int, default=5000, help="training images for the targets")
    parser.add_argument("--inputs", type=int, default=500, help="test images")
    parser.add_argument("--n", type=int, default=2000, help="draws of a part for an input, at most")
    parser.add_argument("--precision", default="no", help="of the certified classifiers: no, bf16 or fp16")
    args = parser.parse_args()
    prepare(args)
    runs = {f"single sigma, {sigma:g}": load(args.out / f"single_{sigma}") for sigma in SIGMAS}
    runs |= {f"dual, targets {rule}": load(args.out / f"dual_{rule}") for rule in args.rules.split(",")}
    table = "\n".join(lines(runs))
    (args.out / "table.md").write_text(table + "\n")
    draw(runs, args.out / "curve.png")
    draw({f"sigma = {s:g}": runs[f"single sigma, {s:g}"] for s in SIGMAS}, args.out / "single.png")
    print(table)


if __name__ == "__main__":
    main()
