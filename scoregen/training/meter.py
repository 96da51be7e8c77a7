r"""Means between two log steps, kept on the device, and the speed."""

import time

import torch
from torch import Tensor

from scoregen.parallel import world_size


class Meter:
    r"""Sums of loss and gradient norm, and the time spent on steps (pauses for hooks and checkpoints do not count).

    Args:
        steps: in all, for the time left. batch_size: global. device: of the loss.
    """

    def __init__(self, steps: int, batch_size: int, device: torch.device) -> None:
        self.steps, self.batch_size, self.device = steps, batch_size, device
        self.clock = time.perf_counter()
        self._clear()

    def _clear(self) -> None:
        self.sums = torch.zeros(2, device=self.device)
        self.count = 0
        self.spent = 0.0

    def add(self, value: Tensor, norm: Tensor) -> None:
        self.sums += torch.stack([value, norm.to(value)])
        self.count += 1

    def pause(self) -> None:
        self.spent += time.perf_counter() - self.clock

    def resume(self) -> None:
        self.clock = time.perf_counter()

    def read(self, step: int) -> dict[str, float]:
        sums = self.sums / self.count
        if world_size() > 1:
            torch.distributed.all_reduce(sums)
            sums /= world_size()
        self.pause()
        speed = self.count * self.batch_size / max(self.spent, 1e-9)
        left = (self.steps - step) * self.batch_size / speed
        loss, norm = sums.tolist()
        self._clear()
        self.resume()
        return {"loss": loss, "grad_norm": norm, "images_per_second": speed, "eta_seconds": left}
