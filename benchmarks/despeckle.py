r"""Despeckling beside what a user would pick (PSNR, SSIM): python benchmarks/despeckle.py --data DATA --breast FILE.npz

`--part patches` writes the training data of the run despeckle_textures, `--part speckle` those of runs without clean
images. `--part table` needs the runs that the heads of conf/experiment/despeckle*.yaml and of despeckle_r2r.py list;
what is not there is left out. `--part picture` draws; `--part spread` compares samplers with a known posterior.
Parameters of the classical methods are the best on training images, of the same data and looks.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]
from despeckle_filters import OFFSET, Candidates, Images, classical, cut, score, tuned  # noqa: E402

import scoregen  # noqa: E402
from scoregen.data import CIFAR10, MNIST, FashionMNIST, Npz  # noqa: E402
from scoregen.rng import generator, generators  # noqa: E402
from scoregen.samplers import DaleLangevin, Despeckler, Karras, Tiled, log_moments, speckle  # noqa: E402

LOG_NORMAL = "ours, mean, 9 calls, were speckle log-normal"
Estimate = Callable[[Images], Images]

# all of these ship inside the wheel of scikit-image; brick and coins are kept for the test
PHOTOGRAPHS = ("camera", "grass", "gravel", "moon", "astronaut", "coffee", "chelsea", "rocket", "clock", "cell")


def grey(name: str) -> np.ndarray:
    r"""An image of scikit-image, grey in [0, 1], float32."""
    from skimage import color, data, util

    image = util.img_as_float32(getattr(data, name)())
    return color.rgb2gray(image[..., :3]) if image.ndim == 3 else image


def patches(out: Path, n: int = 12_000, side: int = 32) -> None:
    r"""Random patches of the photographs, at full and half resolution, mirrored at random."""
    from skimage.transform import downscale_local_mean

    draw = np.random.default_rng(0)
    pictures = [grey(name) for name in PHOTOGRAPHS]
    pictures += [downscale_local_mean(p, (2, 2)) for p in pictures]
    images = np.empty((n, side, side), dtype=np.uint8)
    for i in range(n):
        picture = pictures[draw.integers(len(pictures))]
        top, left = (draw.integers(length - side + 1) for length in picture.shape)
        patch = picture[top : top + side, left : left + side][:: draw.choice((-1, 1)), :: draw.choice((-1, 1))]
        images[i] = (patch.T if draw.random() < 0.5 else patch) * 255
    np.savez(out, train_images=images)
    print(f"{out}: {n} patches of {len(PHOTOGRAPHS)} photographs")


def speckled(clean: Images, looks: float, seed: int) -> Images:
    r"""Speckle of each image by its own number."""
    return [speckle(torch.from_numpy(x)[None], looks, generator(seed, k))[0].numpy() for k, x in enumerate(clean)]


def log_normal(clean: Images, looks: float, seed: int) -> Images:
    r"""Noise of the same log moments as speckle, but normal."""
    bias, variance = log_moments(looks)
    draws = [torch.randn(x.shape, generator=generator(seed, k), dtype=torch.float64) for k, x in enumerate(clean)]
    return [x * (bias + variance**0.5 * eps).exp().numpy() for x, eps in zip(clean, draws, strict=True)]


def in_batches(images: Images, function: Callable[[Tensor, int], Tensor]) -> Images:
    r"""A function of batches (B, 1, H, W) of images of one size, at most 100 or one large one at a time."""
    size = 100 if images[0].size < 2000 else 1
    parts = [images[k : k + size] for k in range(0, len(images), size)]
    done = [function(torch.from_numpy(np.stack(p))[:, None].float(), k * size) for k, p in enumerate(parts)]
    return [cut(x.double().numpy()) for part in done for x in part[:, 0]]


def additive(run: Path, looks: float, train: tuple[Images, Images]) -> Estimate:
    r"""One call of an additive denoiser at the root mean square noise of an image, times the best factor in training.

    E I^2 = X^2 (1 + 1/L), so the mean variance of the speckle is that of I^2 over L + 1; s is twice sigma.
    """
    denoiser = scoregen.load(run)

    def denoise(images: Images, factor: float) -> Images:
        @torch.no_grad()
        def call(intensity: Tensor, first: int) -> Tensor:
            s = 2 * factor * (intensity.square().mean((1, 2, 3)) / (looks + 1)).sqrt()
            return (denoiser(2 * (intensity - OFFSET) - 1, s) + 1) / 2 + OFFSET

        return in_batches(images, call)

    best = max((0.5, 0.7, 1.0, 1.4), key=lambda f: score(train[0], denoise(train[1], f))[0])
    return lambda images: denoise(images, best)


def ours(run: Path, looks: float, draws: int, steps: int, name: str = "ours") -> dict[str, Estimate]:
    r"""The estimates of `Despeckler`."""
    denoiser = scoregen.load(run)
    side = 32 if any(kind in run.name for kind in ("textures", "photographs")) else 28
    d = Despeckler(Tiled(denoiser, side, channels=1, batch=100), looks, DaleLangevin(steps, Karras(1.0)))
    estimates = {
        f"{name}, geometric mean, 1 call": lambda x, k: d.log_mean(x),
        f"{name}, mean, 9 calls": lambda x, k: d.mean(x, 4, generators(0, 1, 0, range(k, k + len(x))))[0],
    }
    if draws:
        estimates[f"{name}, {draws} draws of {steps} calls"] = lambda x, k: d.sample_mean(
            x, draws, generators(0, 2, 0, range(k, k + len(x)))
        )[0]
    return {name: lambda images, f=f: in_batches(images, f) for name, f in estimates.items()}


def without_clean(runs: Path, name: str, looks: float) -> dict[str, Estimate]:
    r"""What was trained on speckled images alone, of the same looks: ours, and deepinv's."""
    name = "textures" if name in ("brick", "coins") else name
    found: dict[str, Estimate] = {}
    if (run := runs / f"despeckle_speckled_{name}_{looks:g}").exists():
        found |= ours(run, looks, 0, 1, "ours, speckled images only")
    if (run := runs / f"r2r_{name}_{looks:g}").exists():
        from despeckle_r2r import restorer

        for calls in (1, 5):
            restore = restorer(run, looks, calls)
            found[f"deepinv R2R, speckled images only, {calls} calls"] = lambda images, f=restore: in_batches(
                images, lambda x, k: f(x)
            )
    return found


def scenes(name: str, args: argparse.Namespace) -> tuple[Tensor, Tensor]:
    r"""Clean training and test images (N, H, W) in [0, 1] of a data set; photographs are grey."""
    kinds = {"mnist": MNIST, "fashion_mnist": FashionMNIST, "photographs": CIFAR10}
    source = Npz(args.breast) if name == "breast" else kinds[name](args.data, download=False)
    train, test = (
        part.in_units(slice(0, n))[0].mean(1) for part, n in ((source.train, args.train), (source.test, args.n))
    )
    return train, test


def data_sets(args: argparse.Namespace) -> Iterator[tuple[str, Path, Path | None, Images, Images]]:
    r"""Name, our run, an additive run, training images to tune on, test images; clean intensities in float64."""

    def clean(part: Tensor) -> Images:
        return [x.double().numpy() + OFFSET for x in part]

    for name in ("mnist", "fashion_mnist", "photographs", "breast"):
        run, other = args.runs / f"despeckle_{name}", args.runs / f"edm_{name}"
        if name in args.only and (args.breast if name == "breast" else args.data) and run.exists():
            train, test = scenes(name, args)
            yield (
                name,
                run,
                other if (other / "checkpoints" / "last").exists() else None,
                clean(train[:16]),
                clean(test),
            )
    if "textures" in args.only and (args.runs / "despeckle_textures").exists():
        train = [grey(name)[100:196, 100:196].astype(float) + OFFSET for name in ("camera", "grass", "gravel", "moon")]
        for name in ("brick", "coins"):
            yield name, args.runs / "despeckle_textures", None, train, [grey(name).astype(float) + OFFSET]


def write_speckled(args: argparse.Namespace) -> None:
    r"""OUT/NAME_clean.npz, training images, and OUT/NAME_LOOKS.npz, one speckled version of each."""
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.only:
        if name == "textures":
            patches(args.out / "patches.npz", args.train)
            clean = np.load(args.out / "patches.npz")["train_images"].astype(np.float32) / 255
        else:
            clean = scenes(name, args)[0].numpy()
        np.savez(args.out / f"{name}_clean.npz", train_images=clean)
        for looks in args.looks:
            images = speckled([x.astype(float) + OFFSET for x in clean], looks, 7)
            np.savez(args.out / f"{name}_{looks:g}.npz", train_images=np.stack(images).astype(np.float32))
        print(f"{args.out}/{name}_*.npz: {len(clean)} images")


def table(args: argparse.Namespace) -> None:
    r"""One block a data set, one column a number of looks: PSNR in dB / SSIM."""
    for name, run, other, train, test in data_sets(args):
        begin = time.process_time()
        rows: dict[str, dict[float, str]] = {}
        for looks in args.looks:
            noisy_train, noisy = speckled(train, looks, 1), speckled(test, looks, 2)
            results: dict[str, Estimate] = {"speckled": lambda images: images}
            for method, candidates in classical().items():
                best = tuned(candidates, train, noisy_train, looks)
                results[method] = lambda images, best=best: [best(i) for i in images]
            if other is not None:
                results["additive EDM, 1 call"] = additive(other, looks, (train, noisy_train))
            results |= without_clean(args.runs, name, looks)
            estimates = ours(run, looks, args.draws, args.steps)
            inputs = dict.fromkeys([*results, *estimates], noisy) | {LOG_NORMAL: log_normal(test, looks, 2)}
            results |= estimates | {LOG_NORMAL: estimates["ours, mean, 9 calls"]}
            for method, images in inputs.items():
                quality, similarity = score(test, results[method](images))
                rows.setdefault(method, {})[looks] = f"{quality:.2f} / {similarity:.3f}"
        print(f"\n| {name}, {len(test)} | " + " | ".join(f"{looks:g} looks" for looks in args.looks) + " |")
        print("|---" * (1 + len(args.looks)) + "|")
        for method, cells in rows.items():
            print(f"| {method} | " + " | ".join(cells.get(looks, "") for looks in args.looks) + " |")
        print(f"\n{time.process_time() - begin:.0f} s of CPU", flush=True)


def own(args: argparse.Namespace) -> None:
    r"""What speckle the ultrasound images have of their own: looks, and correlations at distances of 1, 2 and 3."""
    from scoregen.losses.speckle_correlation import block_correlations
    from scoregen.metrics import equivalent_looks

    x = Npz(args.breast).train.in_units(slice(None))[0].clamp_min(0.002)
    for step in (1, 2, 3):
        part = x[..., ::step, ::step]
        looks = equivalent_looks(part, window=8 if step == 1 else 4)
        right, below, square, _ = block_correlations(part, log_moments(4)[1]).tolist()
        print(
            f"every pixel of {step}: {looks.value:.0f} +- {looks.spread:.0f} looks, correlation of neighbours "
            f"{right / square:.2f} across, {below / square:.2f} down"
        )


def spread(args: argparse.Namespace) -> None:
    r"""Standard deviation of draws of log X over the exact one, for log X ~ N(-1.2, tau^2)."""
    from oracles import Independent

    from scoregen.samplers import Ancestral
    from scoregen.sde import EDM, Multiplicative

    sde = Multiplicative(EDM(0.002, 3.0), offset=OFFSET, data_range=(0.0, 1.0))
    chart, taus = sde.chart.as_log(), (0.3, 1.0, 2.0)
    samplers = {f"DaleLangevin({n}), equal steps of s": DaleLangevin(n, Karras(1.0)) for n in (8, 16, 32)}
    samplers |= {f"Ancestral({n})": Ancestral(n) for n in (16, 32)}
    samplers |= {f"Ancestral({n}), equal steps of s": Ancestral(n, Karras(1.0)) for n in (16, 32)}
    print("| sampler | " + " | ".join(f"{looks:g} looks" for looks in args.looks) + " |")
    print("|---" * (1 + len(args.looks)) + "|")
    for name, sampler in samplers.items():
        cells = []
        for looks in args.looks:
            variance = log_moments(looks)[1]
            ratios = []
            for tau in taus:
                oracle = Independent(chart.rate * -1.2 + chart.shift, (chart.rate * tau) ** 2, sde)
                intensity = torch.full((1, 50_000), 0.2, dtype=torch.float64)
                draws = Despeckler(oracle, looks, sampler).sample(intensity, generator(0)).log()
                ratios.append(draws.std().item() / (tau**2 * variance / (tau**2 + variance)) ** 0.5)
            cells.append(" ".join(f"{ratio:.2f}" for ratio in ratios))
        print(f"| {name} | " + " | ".join(cells) + " |")


def picture(args: argparse.Namespace) -> None:
    r"""Clean, speckled, the best classical method, ours, and the deviation: rows of Fashion-MNIST, MNIST and coins."""
    from skimage.transform import rescale

    from scoregen.pictures import save_image

    looks, rows = 4, []
    for name, run, _, train, test in data_sets(args):
        if name in ("breast", "brick", "photographs"):
            continue
        count = 1 if name == "coins" else 3
        clean = [x[20:140, 60:180] for x in test] if name == "coins" else test[:count]
        noisy_train, noisy = speckled(train, looks, 1), speckled(clean, looks, 2)
        filters = [f for method in classical().values() for f in method.filters if method.images == 16]
        best = tuned(Candidates(filters), train, noisy_train, looks)
        d = Despeckler(Tiled(scoregen.load(run), 32 if name == "coins" else 28, channels=1), looks)
        for x, i in zip(clean, noisy, strict=True):
            mean, deviation = d.sample_mean(
                torch.from_numpy(i)[None, None].float(), args.draws, generators(0, 2, 0, [0])
            )
            panels = (x, i, best(i), mean[0, 0].numpy(), 4 * deviation[0, 0].numpy())
            rows.append(np.concatenate([_panel(rescale(p, 120 / len(p), order=0)) for p in panels], axis=1))
    save_image(torch.from_numpy(np.concatenate(rows))[None], args.out)
    print(args.out)


def _panel(x: np.ndarray) -> np.ndarray:
    return np.pad(x.clip(0, 1), 2, constant_values=1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("table", "patches", "speckle", "own", "picture", "spread"), default="table")
    parser.add_argument("--data", help="folder of MNIST, Fashion-MNIST and CIFAR-10")
    parser.add_argument("--breast", help="breastmnist.npz")
    parser.add_argument("--runs", type=Path, default=Path("outputs"))
    parser.add_argument("--only", nargs="+", default=["mnist", "fashion_mnist", "photographs", "breast", "textures"])
    parser.add_argument("--looks", nargs="+", type=float, default=[1, 4, 16])
    parser.add_argument("--n", type=int, default=200, help="test images")
    parser.add_argument("--train", type=int, default=6000, help="training images of --part speckle")
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--steps", type=int, default=8, help="calls a draw")
    parser.add_argument("--out", type=Path, help="of patches or picture")
    args = parser.parse_args()
    parts = {"table": table, "speckle": write_speckled, "own": own, "picture": picture, "spread": spread}
    (parts | {"patches": lambda a: patches(a.out)})[args.part](args)


if __name__ == "__main__":
    main()
