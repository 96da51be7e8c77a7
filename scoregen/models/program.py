r"""A denoiser as a `torch.export` program, D(u, s, label), of a flow map D(u, s, next_s, label).

For programs that have torch alone.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scoregen.errors import UserError
from scoregen.models.protocol import takes_next

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


class FlowMapCall(Call):
    r"""A flow map whose arguments are tensors: also next_s (B,), the level that a jump goes to."""

    def forward(self, u: Tensor, s: Tensor, next_s: Tensor, label: Tensor | None = None) -> Tensor:  # type: ignore[override]  # the order of a program's arguments
        denoised: Tensor = self.denoiser(u, s, label, next_s=next_s)
        return denoised


def save_program(denoiser: Any, path: Path) -> str:
    r"""Writes D(u, s, label), of a flow map D(u, s, next_s, label), with a free batch size.

    Returns:
        Lines of Python that load it.

    Raises:
        UserError: a denoiser that cannot be exported, or states no shape.
    """
    shape = denoiser.shape
    if shape is None:
        raise UserError("program: the network does not state the shape of a sample. Leave program out.")
    jumps, labels = takes_next(denoiser), denoiser.num_classes is not None
    levels = [torch.ones(3, dtype=torch.float64) for _ in range(2 if jumps else 1)]  # export merges what is one tensor
    example = (torch.zeros(3, *shape), *levels, *([torch.zeros(3, dtype=torch.int64)] if labels else []))
    for least, most in _SIZES:
        try:
            torch.export.save(_exported(denoiser, example, least, most), path)
        except (RuntimeError, ValueError, TypeError, AssertionError, torch._dynamo.exc.TorchDynamoException) as error:
            reason: Exception = error
        else:
            arguments = f"u, s{', next_s' if jumps else ''}{', label' if labels else ''}"
            found = "D, u = y_0 + s eps, u_next = D + (next_s/s)(u - D)" if jumps else "E[y_0 | u], u = y_0 + s eps"
            return (
                f"import torch\n\n# ({arguments}) -> {found}, in batches of {least} to {most}\n"
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
        call = (FlowMapCall if takes_next(denoiser) else Call)(denoiser).eval()
        return torch.export.export(call, example, dynamic_shapes=({0: batch},) * len(example))
