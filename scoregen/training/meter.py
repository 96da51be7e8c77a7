r"""Means between two log steps, kept on the device, and the speed."""

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from scoregen.parallel import world_size


class Meter:
    r"""Sums of loss and gradient norm, and the time spent on steps (pauses for hooks and checkpoints do not count).

    Args:
        steps: in all, for the time left. batch_size: global. device: of the loss.
        window: what `window` gave when the run was stopped, so that the next mean is over the same steps.
    """

    def __init__(
        self, steps: int, batch_size: int, device: torch.device, window: Sequence[float] = (0.0, 0.0, 0)
    ) -> None:
        self.steps, self.batch_size, self.device = steps, batch_size, device
        self.clock = time.perf_counter()
        self._clear()
        self.sums, self.count = torch.tensor(window[:2], device=device), int(window[2])

    def _clear(self) -> None:
        self.sums, self.count = torch.zeros(2, device=self.device), 0
        self.timed, self.spent = 0, 0.0

    def add(self, value: Tensor, norm: Tensor, skipped: bool = False) -> None:
        r"""One step; a skipped one costs time and does not count in the means."""
        self.timed += 1
        if not skipped:
            self.sums += torch.stack([value, norm.to(value)])
            self.count += 1

    def pause(self) -> None:
        self.spent += time.perf_counter() - self.clock

    def resume(self) -> None:
        self.clock = time.perf_counter()

    def window(self) -> tuple[float, float, int]:
        r"""The sums over all processes' means since the last log step, and their number; called on every process."""
        self._agree()
        loss, norm = self.sums.tolist()
        return loss, norm, self.count

    def _agree(self) -> None:
        if world_size() > 1:
            torch.distributed.all_reduce(self.sums)
            self.sums /= world_size()

    def read(self, step: int) -> dict[str, float]:
        r"""The means (NaN after nothing but skipped steps), images a second and seconds left; starts anew."""
        self._agree()
        loss, norm = (self.sums / self.count).tolist()
        self.pause()
        speed = self.timed * self.batch_size / max(self.spent, 1e-9)
        left = (self.steps - step) * self.batch_size / speed
        self._clear()
        self.resume()
        return {"loss": loss, "grad_norm": norm, "images_per_second": speed, "eta_seconds": left}
