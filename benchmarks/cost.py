r"""What training and certifying cost: FLOP, memory and bytes of real networks, and what follows for 1 to 64 GPUs.

    python benchmarks/cost.py                                    # the tables of docs/scale.md and docs/certification.md
    python benchmarks/cost.py --peak 312 --utilisation 0.4       # of an A100, with a utilisation that you have measured

Counted: floating-point operations (`torch.utils.flop_counter`), parameters, and the bytes that the backward pass keeps
for an image, in bfloat16, by the networks themselves on torch's `meta` device. Assumed: the peak of the GPU, the share
of it that a network reaches, and the bandwidth between GPUs. The rest is arithmetic.
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from scoregen.models import UNet
from scoregen.models.recompute import recompute_blocks

BYTES = 20  # a parameter: weight, gradient, two moments, average; 4 each
WEIGHTS = 4
GPUS = (1, 8, 64)


@dataclass(frozen=True)
class Task:
    r"""A training.

    Args:
        name: of data and network. network, arguments: on the meta device. images: the budget. batch: global.
        source: of the budget.
    """

    name: str
    network: Callable[[], nn.Module]
    arguments: Callable[[int], tuple[Tensor, ...]]
    images: float
    batch: int
    source: str


def unet(shape: tuple[int, ...], channels: tuple[int, ...], layers: int, attention: tuple[bool, ...], classes: int):
    return lambda: UNet(shape, channels, layers, attention, classes)


def noisy(*shape: int) -> Callable[[int], tuple[Tensor, ...]]:
    return lambda n: (torch.randn(n, *shape), torch.randn(n), torch.zeros(n, dtype=torch.long))


def dit() -> nn.Module:
    from diffusers import DiTTransformer2DModel

    return DiTTransformer2DModel(
        num_attention_heads=16, attention_head_dim=72, in_channels=4, num_layers=28, sample_size=32, patch_size=2
    )


def resnet() -> nn.Module:
    from scoregen.compat import repair_torchvision

    repair_torchvision()
    from torchvision.models import resnet50

    return resnet50(weights=None)


TASKS = (
    Task(
        "CIFAR-10, U-Net",
        unet((3, 32, 32), (128, 256, 256, 256), 2, (False, True, False, False), 10),
        noisy(3, 32, 32),
        200e6,
        512,
        "EDM",
    ),
    Task(
        "ImageNet-64, U-Net",
        unet((3, 64, 64), (192, 384, 576, 768), 3, (False, True, True, True), 1000),
        noisy(3, 64, 64),
        2.5e9,
        4096,
        "EDM",
    ),
    Task("latent ImageNet-256, DiT-XL/2", dit, noisy(4, 32, 32), 1.8e9, 256, "DiT"),
)


def ddpm() -> nn.Module:
    r"""The network of google/ddpm-cifar10-32."""
    from diffusers import UNet2DModel

    blocks = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D")}
    blocks |= {"up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D")}
    return UNet2DModel(32, attention_head_dim=None, block_out_channels=(128, 256, 256, 256), **blocks)


def adm() -> nn.Module:
    r"""The unconditional network of guided-diffusion for ImageNet at 256 pixels, in blocks of diffusers."""
    from diffusers import UNet2DModel

    blocks = {"down_block_types": ("ResnetDownsampleBlock2D",) * 3 + ("AttnDownBlock2D",) * 3}
    blocks |= {"up_block_types": ("AttnUpBlock2D",) * 3 + ("ResnetUpsampleBlock2D",) * 3}
    blocks |= {"downsample_type": "resnet", "upsample_type": "resnet", "resnet_time_scale_shift": "scale_shift"}
    channels = (256, 256, 512, 512, 1024, 1024)
    return UNet2DModel(256, 3, 6, attention_head_dim=64, block_out_channels=channels, **blocks)


def of_timm(name: str, classes: int = 1000) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        from scoregen.compat import repair_torchvision

        repair_torchvision()
        import timm

        return timm.create_model(name, num_classes=classes).eval()

    return build


def image(side: int) -> Callable[[], tuple[Tensor, ...]]:
    return lambda: (torch.randn(1, 3, side, side),)


def image_and_time(side: int) -> Callable[[], tuple[Tensor, ...]]:
    return lambda: (torch.randn(1, 3, side, side), torch.zeros(1))


@dataclass(frozen=True)
class Recipe:
    r"""A certification by a denoiser and a classifier that were not trained here, one call of each a draw.

    Args:
        name: of data and networks. denoiser, classifier: with the arguments of a call. draws: n of an input.
        inputs: of the test set.
    """

    name: str
    denoiser: tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, ...]]]
    classifier: tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, ...]]]
    draws: int
    inputs: int


DDPM, ADM = (ddpm, image_and_time(32)), (adm, image_and_time(256))
RECIPES = (
    Recipe("CIFAR-10, DDPM, ViT-B/16 at 224", DDPM, (of_timm("vit_base_patch16_224", 10), image(224)), 100_000, 500),
    Recipe("ImageNet, ADM, BEiT-L/16 at 512", ADM, (of_timm("beit_large_patch16_512"), image(512)), 10_000, 1000),
    Recipe("ImageNet, ADM, ResNet-50 at 224", ADM, (of_timm("resnet50"), image(224)), 10_000, 1000),
)


@dataclass(frozen=True)
class Counted:
    r"""Of a network: parameters, FLOP of a forward pass and bytes kept for the backward pass, for an image."""

    parameters: int
    flop: float
    kept: float
    kept_less: float


def counted(build: Callable[[], nn.Module], arguments: Callable[[int], tuple[Tensor, ...]]) -> Counted:
    with torch.device("meta"):
        network, inputs = build().to(torch.bfloat16), arguments(2)
    inputs = tuple(x.to(torch.bfloat16) if x.is_floating_point() else x for x in inputs)
    with FlopCounterMode(display=False) as counter:
        network(*inputs)
    kept = kept_bytes(network, inputs)
    recompute_blocks(network)
    parameters = sum(p.numel() for p in network.parameters())
    return Counted(parameters, counter.get_total_flops() / 2, kept / 2, kept_bytes(network, inputs) / 2)


@cache
def forward_flop(build: Callable[[], nn.Module], arguments: Callable[[], tuple[Tensor, ...]]) -> tuple[float, float]:
    r"""Parameters and FLOP of a forward pass of one image."""
    with torch.device("meta"):
        network, inputs = build().eval(), arguments()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*inputs)
    return sum(p.numel() for p in network.parameters()), counter.get_total_flops()


def certified(recipe: Recipe, options: argparse.Namespace) -> str:
    r"""The row of a recipe: networks, calls and FLOP of an input, seconds of an input, and the whole test set."""
    (size, denoise), (other, classify) = forward_flop(*recipe.denoiser), forward_flop(*recipe.classifier)
    calls = recipe.draws + options.n0
    flop = calls * (denoise + classify)
    seconds = flop / (options.peak * 1e12 * options.utilisation)
    return (
        f"{recipe.name} | {size / 1e6:.1f} + {other / 1e6:.1f} | {denoise / 1e9:.1f} + {classify / 1e9:.1f} | "
        f"{calls} | {flop / 1e15:.1f} | {seconds:.1f} | {recipe.inputs} | {time_of(seconds * recipe.inputs)} | "
        f"{time_of(seconds * recipe.inputs / 8)}"
    )


def kept_bytes(network: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    r"""Bytes that autograd keeps, each storage once, without parameters; with recomputed blocks, between them."""
    own = {p.untyped_storage()._cdata for p in (*network.parameters(), *network.buffers())}
    found: dict[int, int] = {}
    held = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            found[storage._cdata] = storage.nbytes()
            held.append(tensor)  # else another one could get its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(*inputs)
    return sum(found.values())


def table(head: str, rows: list[str]) -> None:
    print(f"\n| {head} |\n|{'---|' * (head.count('|') + 1)}")
    for row in rows:
        print(f"| {row} |")


def time_of(seconds: float) -> str:
    hours = seconds / 3600
    if hours < 1:
        return f"{60 * hours:.1f} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.0f} d"


def scaled(task: Task, cost: Counted, options: argparse.Namespace) -> list[str]:
    r"""Rows of one training on several numbers of GPUs."""
    rows, steps = [], task.images / task.batch
    for gpus in GPUS:
        share = task.batch / gpus
        compute = 3 * cost.flop * share / (options.peak * 1e12 * options.utilisation)
        moved = 2 * WEIGHTS * cost.parameters * (gpus - 1) / gpus  # a ring: each gradient out and in
        talk = moved / ((options.link if gpus <= 8 else options.bandwidth) * 1e9)
        state = BYTES * cost.parameters
        micro = math.ceil(share / max(1.0, (options.memory * 1e9 - state) / cost.kept))
        kept = math.ceil(share / micro) * cost.kept
        rows.append(
            f"{task.name} | {gpus} | {share:.0f} | {micro} | {(state + kept) / 1e9:.1f} | "
            f"{(state / gpus + kept) / 1e9:.1f} | {compute * 1e3:.0f} | {moved / 1e9:.2f} | {talk * 1e3:.0f} | "
            f"{time_of(steps * max(compute, talk))}"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peak", type=float, default=989, help="TFLOP/s in bfloat16; 989: H100, by its maker")
    parser.add_argument("--utilisation", type=float, default=0.35, help="share of the peak that is reached; assumed")
    parser.add_argument("--link", type=float, default=300, help="GB/s of a GPU to those of its node, up to 8; assumed")
    parser.add_argument("--bandwidth", type=float, default=50, help="GB/s of a GPU to other nodes; 50: a 400 Gb/s link")
    parser.add_argument("--memory", type=float, default=72, help="GB of a GPU that may be used")
    parser.add_argument("--draws", type=float, default=100_000, help="of an input of a certification")
    parser.add_argument("--inputs", type=float, default=500)
    parser.add_argument("--n0", type=int, default=100, help="draws that choose the class, of the recipes")
    options = parser.parse_args()
    found = {task.name: counted(task.network, task.arguments) for task in TASKS}
    head = "network | parameters, M | GFLOP forward | kept, MB | kept, recomputed, MB | state, GB | checkpoint, GB"
    rows = [
        f"{name} | {c.parameters / 1e6:.1f} | {c.flop / 1e9:.1f} | {c.kept / 1e6:.0f} | {c.kept_less / 1e6:.0f} | "
        f"{BYTES * c.parameters / 1e9:.1f} | {4 * WEIGHTS * c.parameters / 1e9:.1f}"
        for name, c in found.items()
    ]
    table(head, rows)
    head = "training | GPUs | images a GPU | micro-batches | GB a GPU | GB, sharded | compute, ms | moved, GB | "
    head += "moving, ms | whole"
    table(head, [row for task in TASKS for row in scaled(task, found[task.name], options)])
    classifier = counted(resnet, lambda n: (torch.randn(n, 3, 224, 224),))
    purified = found[TASKS[1].name]
    rows = []
    for name, flop in (("ResNet-50, 224 pixels", classifier.flop), ("U-Net of 64 pixels, one call", purified.flop)):
        seconds = flop * options.draws * options.inputs / (options.peak * 1e12 * options.utilisation)
        rows.append(f"{name} | {flop / 1e9:.1f} | {' | '.join(time_of(seconds / gpus) for gpus in GPUS)}")
    table(f"network | GFLOP | {' | '.join(f'{gpus} GPU' for gpus in GPUS)}", rows)
    head = "recipe | parameters, M | GFLOP a call | calls of each an input | PFLOP an input | s an input | inputs | "
    table(head + "1 GPU | 8 GPUs", [certified(recipe, options) for recipe in RECIPES])


if __name__ == "__main__":
    main()
