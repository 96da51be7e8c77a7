r"""Encoding images to noise and back: a flow map in a few jumps, its teacher by DDIM with 35 steps.

    python benchmarks/encoding.py --map outputs/flow_map_mnist --teacher outputs/edm_mnist --data mnist --root PATH

`--picture FILE.png` draws paths between two test images of a class, encoded and decoded in 2 and 4 jumps and by DDIM.
Prints the mean squared error of pixels in [0, 1] and the deviation of the latents over that of the prior, which is 1
where they are those of the flow. Both encode the same test images with their labels.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from strip import column
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
import scoregen
from scoregen.data import MNIST, Digits, FashionMNIST
from scoregen.metrics import DDIMInversion
from scoregen.samplers import Jumps, decode, encode, interpolate

KINDS = {"mnist": MNIST, "fashion_mnist": FashionMNIST, "digits": Digits}


@torch.no_grad()
def trip(model: Any, x: Tensor, label: Tensor, solver: Any) -> str:
    r"""The error of a round trip, and the deviation of the latents over s_max."""
    u = encode(model, x, label=label, solver=solver)
    error = (decode(model, u, label=label, solver=solver) - x).square().mean().item()
    return f"{error:.4f} ({u.std().item() / model.sde.s_max:.2f})"


def strip(model: Any, teacher: Any, x: Tensor, label: Tensor, classes: tuple[int, ...] = (2, 4, 9)) -> Image.Image:
    r"""Paths between the first two images of some classes, a row a class, for three ways to encode."""
    pairs = torch.stack([(label == k).nonzero()[:2, 0] for k in classes])
    ways = [("2 jumps each way", model, Jumps(2)), ("4 jumps each way", model, Jumps(4))]
    ways.append(("teacher, DDIM with 35 steps each way", teacher, DDIMInversion(35)))
    parts = []
    for caption, denoiser, solver in ways:
        ends = x[pairs[:, 0]], x[pairs[:, 1]]
        path = interpolate(denoiser, *ends, label=torch.tensor(classes), solver=solver)  # (frames, classes, 1, H, W)
        rows = path[:, :, 0].permute(1, 2, 0, 3).flatten(2).flatten(0, 1)
        picture = Image.fromarray((rows.clamp(0, 1) * 255).round().byte().numpy()).convert("RGB")
        parts.append((picture.resize((picture.width * 2, picture.height * 2), Image.Resampling.NEAREST), caption))
    return column(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--map", required=True)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--data", choices=list(KINDS), default="mnist")
    parser.add_argument("--root")
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--rho", type=float, default=12.0)
    parser.add_argument("--corrections", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    source = Digits() if args.data == "digits" else KINDS[args.data](args.root, download=False)
    x, label = source.test.in_units(slice(0, args.n))
    model, teacher = scoregen.load(args.map), scoregen.load(args.teacher)
    if args.picture is not None:
        strip(model, teacher, x, label).save(args.picture, optimize=True)
    print("| jumps each way | 1 | 2 | 4 | 8 |\n|---|---|---|---|---|")
    for corrections in args.corrections:
        row = [trip(model, x, label, Jumps(k, args.rho, corrections)) for k in (1, 2, 4, 8)]
        print(f"| flow map, {corrections} corrections | {' | '.join(row)} |", flush=True)
    print(f"| teacher, DDIM with 35 steps | {trip(teacher, x, label, DDIMInversion(35))} | | | |")


if __name__ == "__main__":
    main()
