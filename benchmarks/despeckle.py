r"""Despeckling beside what a user would pick (PSNR, SSIM): python benchmarks/despeckle.py --data DATA --breast FILE.npz

`--part patches` writes the training data of the run despeckle_textures; `--part table` needs the runs that the head of
conf/experiment/despeckle.yaml lists and leaves out those that are not there; `--part picture` draws; `--part spread`
compares samplers with a known posterior. Parameters of the classical methods are the best on training images, of the
same data and looks.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]
import scoregen  # noqa: E402
from scoregen.data import MNIST, FashionMNIST, Npz  # noqa: E402
from scoregen.rng import generator, generators  # noqa: E402
from scoregen.samplers import DaleLangevin, Despeckler, Karras, Tiled, log_moments, speckle  # noqa: E402

OFFSET = 0.02  # of the experiments: the intensity of a scene x is x + 0.02
LOG_NORMAL = "ours, mean, 9 calls, were speckle log-normal"
Images = list[np.ndarray]
Method = Callable[[np.ndarray, float], np.ndarray]

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


def wavelet(name: str, method: str, factor: float) -> Method:
    r"""Wavelet shrinkage of the logarithm, averaged over shifts."""
    from skimage.restoration import cycle_spin, denoise_wavelet

    def denoise(z: np.ndarray, sigma: float) -> np.ndarray:
        options = {"sigma": factor * sigma, "wavelet": name, "method": method, "rescale_sigma": False}
        levels = max(1, int(np.log2(min(z.shape))) - 2)
        return cycle_spin(
            z, func=denoise_wavelet, max_shifts=3, func_kw={**options, "wavelet_levels": levels}, workers=1
        )

    return denoise


def non_local_means(patch: int, distance: int, factor: float) -> Method:
    r"""Non-local means of the logarithm."""
    from skimage.restoration import denoise_nl_means

    def denoise(z: np.ndarray, sigma: float) -> np.ndarray:
        return denoise_nl_means(z, patch, distance, h=factor * sigma, sigma=sigma, fast_mode=True)

    return denoise


def total_variation(factor: float) -> Method:
    r"""Total variation of the logarithm."""
    from skimage.restoration import denoise_tv_chambolle

    return lambda z, sigma: denoise_tv_chambolle(z, weight=factor * sigma, max_num_iter=100)


def classical() -> dict[str, list[Method]]:
    r"""The candidates of each method."""
    names, rules = ("db1", "sym4"), ("BayesShrink", "VisuShrink")
    return {
        "wavelet": [wavelet(*c) for c in itertools.product(names, rules, (0.3, 0.6, 1.0))],
        "non-local means": [non_local_means(*c) for c in itertools.product((3, 5), (5, 9), (0.4, 0.6, 0.8, 1.1))],
        "total variation": [total_variation(f) for f in (0.3, 0.5, 0.7, 1.0, 1.4, 2.0)],
    }


def restored(method: Method, intensity: np.ndarray, looks: float, match: bool) -> np.ndarray:
    r"""A method on log I without its bias, and back; `match` gives the result the mean of I, as exp of a mean lacks."""
    bias, variance = log_moments(looks)
    found = np.exp(method(np.log(intensity) - bias, variance**0.5))
    return cut(found * intensity.mean() / found.mean() if match else found)


def cut(x: np.ndarray) -> np.ndarray:
    r"""The range of clean intensities, which every method is told."""
    return x.clip(OFFSET, 1 + OFFSET)


def psnr(clean: np.ndarray, found: np.ndarray) -> float:
    return -10 * np.log10(((clean - found) ** 2).mean())


def score(clean: Images, found: Iterable[np.ndarray]) -> tuple[float, float]:
    r"""Mean PSNR and SSIM over images, peak 1."""
    from skimage.metrics import structural_similarity

    pairs = list(zip(clean, found, strict=True))
    similar = [structural_similarity(a, b, data_range=1.0) for a, b in pairs]
    return float(np.mean([psnr(a, b) for a, b in pairs])), float(np.mean(similar))


def tuned(methods: list[Method], clean: Images, noisy: Images, looks: float) -> Callable[[np.ndarray], np.ndarray]:
    r"""The candidate, with or without the matched mean, of the best PSNR on training images."""
    options = list(itertools.product(methods, (False, True)))
    best = max(options, key=lambda o: score(clean, [restored(o[0], i, looks, o[1]) for i in noisy])[0])
    return lambda intensity: restored(best[0], intensity, looks, best[1])


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


def additive(run: Path, looks: float, train: tuple[Images, Images]) -> Callable[[Images], Images]:
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


def ours(run: Path, looks: float, draws: int, steps: int) -> dict[str, Callable[[Images], Images]]:
    r"""The estimates of `Despeckler`."""
    denoiser = scoregen.load(run)
    side = 28 if "textures" not in run.name else 32
    d = Despeckler(Tiled(denoiser, side, channels=1, batch=100), looks, DaleLangevin(steps, Karras(1.0)))
    estimates = {
        "ours, geometric mean, 1 call": lambda x, k: d.log_mean(x),
        "ours, mean, 9 calls": lambda x, k: d.mean(x, 4, generators(0, 1, 0, range(k, k + len(x))))[0],
        f"ours, {draws} draws of {steps} calls": lambda x, k: d.sample_mean(
            x, draws, generators(0, 2, 0, range(k, k + len(x)))
        )[0],
    }
    return {name: lambda images, f=f: in_batches(images, f) for name, f in estimates.items()}


def data_sets(args: argparse.Namespace) -> Iterator[tuple[str, Path, Path | None, Images, Images]]:
    r"""Name, our run, an additive run, training images to tune on, test images; clean intensities in float64."""

    def clean(part, n: int) -> Images:
        return [x.double().numpy() + OFFSET for x in part[:n][0][:, 0]]

    for name, source in (("mnist", MNIST), ("fashion_mnist", FashionMNIST)):
        if name in args.only and args.data and (args.runs / f"despeckle_{name}").exists():
            images = source(args.data, download=False)
            run = args.runs / f"edm_{name}"
            known = run if (run / "checkpoints" / "last").exists() else None
            yield name, args.runs / f"despeckle_{name}", known, clean(images.train, 16), clean(images.test, args.n)
    if "breast" in args.only and args.breast and (args.runs / "despeckle_breast").exists():
        images = Npz(args.breast)
        yield "breast", args.runs / "despeckle_breast", None, clean(images.train, 16), clean(images.test, args.n)
    if "textures" in args.only and (args.runs / "despeckle_textures").exists():
        train = [grey(name)[100:196, 100:196].astype(float) + OFFSET for name in ("camera", "grass", "gravel", "moon")]
        for name in ("brick", "coins"):
            yield name, args.runs / "despeckle_textures", None, train, [grey(name).astype(float) + OFFSET]


def table(args: argparse.Namespace) -> None:
    r"""One block a data set, one column a number of looks: PSNR in dB / SSIM."""
    for name, run, other, train, test in data_sets(args):
        begin = time.perf_counter()
        rows: dict[str, list[str]] = {}
        for looks in args.looks:
            noisy_train, noisy = speckled(train, looks, 1), speckled(test, looks, 2)
            results = {"speckled": lambda images: images}
            for method, candidates in classical().items():
                best = tuned(candidates, train, noisy_train, looks)
                results[method] = lambda images, best=best: [best(i) for i in images]
            if other is not None:
                results["additive EDM, 1 call"] = additive(other, looks, (train, noisy_train))
            estimates = ours(run, looks, args.draws, args.steps)
            inputs = dict.fromkeys([*results, *estimates], noisy) | {LOG_NORMAL: log_normal(test, looks, 2)}
            results |= estimates | {LOG_NORMAL: estimates["ours, mean, 9 calls"]}
            for method, images in inputs.items():
                quality, similarity = score(test, results[method](images))
                rows.setdefault(method, []).append(f"{quality:.2f} / {similarity:.3f}")
        print(f"\n| {name}, {len(test)} | " + " | ".join(f"{looks:g} looks" for looks in args.looks) + " |")
        print("|---" * (1 + len(args.looks)) + "|")
        for method, cells in rows.items():
            print(f"| {method} | " + " | ".join(cells) + " |")
        print(f"\n{time.perf_counter() - begin:.0f} s", flush=True)


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
        if name in ("breast", "brick"):
            continue
        count = 1 if name == "coins" else 3
        clean = [x[20:140, 60:180] for x in test] if name == "coins" else test[:count]
        noisy_train, noisy = speckled(train, looks, 1), speckled(clean, looks, 2)
        candidates = [c for methods in classical().values() for c in methods]
        best = tuned(candidates, train, noisy_train, looks)
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
    parser.add_argument("--part", choices=("table", "patches", "picture", "spread"), default="table")
    parser.add_argument("--data", help="folder of MNIST and Fashion-MNIST")
    parser.add_argument("--breast", help="breastmnist.npz")
    parser.add_argument("--runs", type=Path, default=Path("outputs"))
    parser.add_argument("--only", nargs="+", default=["mnist", "fashion_mnist", "textures", "breast"])
    parser.add_argument("--looks", nargs="+", type=float, default=[1, 4, 16])
    parser.add_argument("--n", type=int, default=200, help="test images")
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--steps", type=int, default=8, help="calls a draw")
    parser.add_argument("--out", type=Path, help="of patches or picture")
    args = parser.parse_args()
    {"table": table, "patches": lambda a: patches(a.out), "picture": picture, "spread": spread}[args.part](args)


if __name__ == "__main__":
    main()
