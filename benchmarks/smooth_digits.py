r"""What smoothness penalties buy and cost on digits: python benchmarks/smooth_digits.py [--out FOLDER] [--steps 4000]

Trains the variants of conf/experiment/smooth/digits.yaml, and others, on three seeds, measures it and prints a table.
Finished runs are kept in the folder, so the command goes on where it stopped.
"""

import argparse
import copy
import json
import math
import statistics
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scoregen.checkpoint import build_model, read_tensors
from scoregen.config import build, conf_dir
from scoregen.data import Digits
from scoregen.jobs.picks import fill_model
from scoregen.metrics.features import FeatureExtractor
from scoregen.training.schedule import Cosine

EDM_LOSS = {"noise_levels._target_": "scoregen.losses.LogNormal", "weighting._target_": "scoregen.losses.EDMWeighting"}
EDM = ["sde=edm", *(f"loss.base_loss.{key}={value}" for key, value in EDM_LOSS.items())]
WEIGHTING = "weighting._target_=scoregen.losses.EDMWeighting"
OU = ["sde=geometric_ou", "~sde.chart", "model.sigma_data=0.78"]
LOSSES = {  # as in the head of conf/experiment/smooth/digits.yaml
    "none": [],
    "paper": ["loss=smooth_paper", "loss.strength=0.1"],
    "eq8": ["loss=smooth_eq8"],
    "latent": ["loss=smooth_eq8", "loss.weight=latent", "loss.target=per_level", "loss.strength=3"],
    "penalty": ["loss=jacobian_penalty"],
    "ot": ["loss=ot_pairing"],
}
# name: (loss, overrides)
VARIANTS: dict[str, tuple[str, list[str]]] = {
    "VP none": ("none", []),
    "VP paper .1": ("paper", []),
    "VP eq8 1": ("eq8", []),
    "VP eq8 2": ("eq8", ["loss.strength=2.0"]),
    "VP eq8 3": ("eq8", ["loss.strength=3.0"]),
    "VP latent per level 3": ("latent", []),
    "VP penalty .001": ("penalty", []),
    "VP OT pairing": ("ot", []),
    "EDM none": ("none", ["sde=edm", *(f"loss.{key}={value}" for key, value in EDM_LOSS.items())]),
    "EDM paper .1": ("paper", EDM),
    "EDM eq8 1": ("eq8", EDM),
    "EDM latent per level 3": ("latent", EDM),
    "EDM penalty .001": ("penalty", EDM),
    "EDM OT pairing": ("ot", EDM),
    "VP, EDM weighting, none": ("none", [f"loss.{WEIGHTING}"]),
    "VP, EDM weighting, paper .1": ("paper", [f"loss.base_loss.{WEIGHTING}"]),
    "VP, EDM weighting, eq8 1": ("eq8", [f"loss.base_loss.{WEIGHTING}"]),
    "geometric OU none": ("none", OU),
    "geometric OU paper .1": ("paper", OU),
    "geometric OU eq8 1": ("eq8", OU),
    "geometric OU latent per level 3": ("latent", OU),
    "geometric OU penalty .001": ("penalty", OU),
    "geometric OU OT pairing": ("ot", OU),
}


def composed(name: str, seed: int, source: Digits) -> dict[str, Any]:
    r"""The configuration of a variant, as train.py would have it."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    loss, overrides = VARIANTS[name]
    command = ["+experiment=smooth/digits", f"seed={seed}", *LOSSES[loss], *overrides]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        found = compose("train", overrides=command)
    config: dict[str, Any] = OmegaConf.to_container(found, resolve=True)
    config["model"] = dict(fill_model(config["model"], source, config["conditional"]))
    return config


def train(name: str, seed: int, steps: int, source: Digits, file: Path) -> nn.Module:
    r"""The averaged model of a variant: the trainer's recipe without its checkpoints, or what the file holds."""
    config = composed(name, seed, source)
    torch.manual_seed(seed)
    model, loss = build_model(config), build(config["loss"])
    if file.exists():
        model.load_state_dict(read_tensors(file))
        return model.eval()
    from safetensors.torch import save_file

    optimizer = build(config["trainer"]["optimizer"])(model.parameters())
    average, schedule, g = copy.deepcopy(model), Cosine(warmup=0), torch.Generator().manual_seed(seed)
    x, batch, rate = source.train[:][0], config["trainer"]["batch_size"], optimizer.param_groups[0]["lr"]
    keep = 0.5 ** (batch / config["trainer"]["ema_halflife"])
    for step in range(steps):
        loss.at(step, steps)
        optimizer.param_groups[0]["lr"] = rate * schedule(step, steps)
        loss(model, x[torch.randint(len(x), (batch,), generator=g)], None, g).mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), config["trainer"]["clip"])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - keep)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in average.state_dict().items()}, file.with_suffix(".partial"))
    file.with_suffix(".partial").rename(file)
    return average.eval()


class DigitFeatures(FeatureExtractor):
    r"""32 features of a small digit classifier, trained in a few seconds."""

    def __init__(self, source: Digits) -> None:
        super().__init__("digits-32")
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 32), nn.ReLU())
        self.head = nn.Linear(32, 10)
        x, label = source.train[:]
        optimizer = torch.optim.Adam(self.parameters(), 2e-3)
        for step in range(600):
            part = torch.randint(len(x), (256,), generator=torch.Generator().manual_seed(step))
            loss = nn.functional.cross_entropy(self.head(self.body(x[part].flatten(1))), label[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        test, label = source.test[:]
        right = self.head(self.body(test.flatten(1))).argmax(1) == label
        print(f"features: test accuracy {right.float().mean():.3f}")

    def extract(self, images: Tensor) -> Tensor:
        return self.body(images.flatten(1))


def measure(model: nn.Module, source: Digits, features: FeatureExtractor, pairs: int, samples: int) -> dict[str, float]:
    r"""The numbers of a row."""
    from scoregen.metrics import extract_features, frechet_distance, istd, reconstruction_error
    from scoregen.metrics.extraction import uint8_round_trip
    from scoregen.rng import generators
    from scoregen.samplers import DDIM
    from scoregen.samplers.from_noise import FromNoise

    generate = FromNoise(model, DDIM(50))
    found = istd(generate, source.train, pairs=pairs, extractor=features, batch_size=100)
    images = DDIM(50)(model, (samples, 1, 8, 8), generator=generators(0, 11, 0, range(samples)))
    real = extract_features(features, uint8_round_trip(source.train.x))
    quality = frechet_distance(extract_features(features, uint8_round_trip(images)), real)
    inversion = reconstruction_error(model, source.test[:][0], steps=50)
    return {
        "ISTD": found.istd,
        "CV": found.cv,
        "largest/mean": found.largest,
        "step": found.step,
        "ends": found.distance,
        "FD": quality,
        "FD mid": found.frechet,
        "inversion": inversion.mse,
    }


def table(rows: dict[str, list[dict[str, float]]]) -> str:
    r"""Means over seeds, with the standard deviation of ISTD and FD where there are several."""
    columns = list(next(iter(rows.values()))[0])
    lines = ["| variant | seeds | " + " | ".join(columns) + " |", "|---" * (len(columns) + 2) + "|"]
    for name, found in rows.items():
        cells = [name, str(len(found))]
        for column in columns:
            values = [row[column] for row in found]
            cell = f"{statistics.mean(values):.3g}" if column != "ISTD" else f"{statistics.mean(values):.4f}"
            if len(values) > 1 and column in ("ISTD", "FD"):
                cell += f" ± {statistics.stdev(values):.2g}"
            cells.append(cell)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def strips(models: dict[str, nn.Module], path: Path) -> Path:
    r"""One interpolation of each model, the same noises, as rows."""
    from scoregen.metrics.smoothness import noise_pairs, path_images
    from scoregen.pictures import save_grid
    from scoregen.samplers import DDIM
    from scoregen.samplers.from_noise import FromNoise

    a, b = noise_pairs(3, (1, 8, 8), seed=1)
    rows = []
    for pair in range(3):
        for model in models.values():
            rows.append(path_images(FromNoise(model, DDIM(50)), a[pair : pair + 1], b[pair : pair + 1], 11)[:, 0])
    return save_grid(torch.cat(rows), path, columns=11)


def respaced(model: nn.Module, pairs: int) -> str:
    r"""What re-spacing the weights does to ISTD, without any training."""
    from scoregen.metrics import constant_speed_path
    from scoregen.metrics.smoothness import noise_pairs, path_images, path_numbers, steps_of
    from scoregen.samplers import DDIM
    from scoregen.samplers.from_noise import FromNoise

    generate, (a, b) = FromNoise(model, DDIM(50)), noise_pairs(pairs, (1, 8, 8))
    values = [path_numbers(steps_of(path_images(generate, a, b, 11)))["istd"]]
    values += [path_numbers(steps_of(constant_speed_path(generate, a, b, probes=k)[1]))["istd"] for k in (11, 41)]
    return "ISTD {:.4f}; at constant speed from 11 probes {:.4f}, from 41 {:.4f}".format(*values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/smooth_digits_table"))
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--samples", type=int, default=3000)
    parser.add_argument("--only", default="", help="names that contain this")
    parser.add_argument("--seeds", type=int, default=3, help="of each variant")
    parser.add_argument("--train", action="store_true", help="only train")
    options = parser.parse_args()
    torch.set_num_threads(1)
    source = Digits()
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS if options.only in name}

    def place(name: str, seed: int) -> Path:
        return options.out / str(options.steps) / f"{name.replace(' ', '_')}_{seed}.safetensors"

    features = None if options.train else DigitFeatures(source)
    for seed, name in product(range(options.seeds), rows):
        file = place(name, seed)
        model = train(name, seed, options.steps, source, file)
        if features is None:
            continue
        record = file.with_suffix(".json")
        if not record.exists():
            found = measure(model, source, features, options.pairs, options.samples)
            if not all(map(math.isfinite, found.values())):
                raise SystemExit(f"{name}, seed {seed}: numbers that are not finite: {found}")
            record.write_text(json.dumps(found))
        rows[name].append(json.loads(record.read_text()))
        print(f"{name}, seed {seed}: {rows[name][-1]}", flush=True)
    if features is not None:
        print(table(rows))
        first = {n: train(n, 0, options.steps, source, place(n, 0)) for n in rows if n.startswith("VP ")}
        print(strips(first, options.out / "smooth_strips.png") if first else "")
        print("\n".join(f"{n}, seed 0: {respaced(model, options.pairs)}" for n, model in list(first.items())[:1]))


if __name__ == "__main__":
    main()
