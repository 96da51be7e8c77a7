r"""A denoiser as a `torch.export` program, D(u, s, label): for programs that have torch alone."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scoregen.errors import UserError

# sizes of a batch: any; and what diffusers' upsampling, which asks for 64 images, leaves of them
_SIZES = ((1, 2**16), (2, 63))


class Call(nn.Module):
    r"""A denoiser whose arguments are tensors: u (B, *S), s (B,), label (B,) where it has classes, -1 for none."""

    def __init__(self, denoiser: nn.Module) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, u: Tensor, s: Tensor, label: Tensor | None = None) -> Tensor:
        denoised: Tensor = self.denoiser(u, s, label)
        return denoised


def save_program(denoiser: Any, path: Path) -> str:
    r"""Writes D(u, s, label) with a free batch size.

    Returns:
        Lines of Python that load it.

    Raises:
        UserError: a denoiser that cannot be exported, or states no shape.
    """
    shape = denoiser.shape
    if shape is None:
        raise UserError("program: the network does not state the shape of a sample. Leave program out.")
    labels = () if denoiser.num_classes is None else (torch.zeros(3, dtype=torch.int64),)
    example = (torch.zeros(3, *shape), torch.ones(3, dtype=torch.float64), *labels)
    for least, most in _SIZES:
        try:
            torch.export.save(_exported(denoiser, example, least, most), path)
        except (RuntimeError, ValueError, TypeError, AssertionError, torch._dynamo.exc.TorchDynamoException) as error:
            reason: Exception = error
        else:
            arguments = "u, s, label" if labels else "u, s"
            return (
                f"import torch\n\n# ({arguments}) -> E[y_0 | u], u = y_0 + s eps, in batches of {least} to {most}\n"
                'denoise = torch.export.load(FOLDER + "/program.pt2").module()\n'
            )
    told = str(reason).strip().splitlines()[0]
    raise UserError(
        f"program: torch.export refuses this {type(denoiser).__name__} ({told}). A network must not look at values, "
        "and must take the size of a batch from z.shape[0], not from len(z)."
    ) from reason


def _exported(denoiser: nn.Module, example: tuple[Tensor, ...], least: int, most: int) -> Any:
    batch = torch.export.Dim("batch", min=least, max=most)
    with torch.no_grad():
        return torch.export.export(Call(denoiser).eval(), example, dynamic_shapes=({0: batch},) * len(example))
