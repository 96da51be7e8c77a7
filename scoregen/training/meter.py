r"""Means between two log steps and the number of skipped steps, kept on the device, and the speed."""

import time

import torch
from torch import Tensor

from scoregen.parallel import world_size
from scoregen.training.parts import Progress


class Meter:
    r"""Sums of loss and gradient norm, and the time spent on steps (pauses for hooks and checkpoints do not count).

    Args:
        steps: in all, for the time left. batch_size: global. device: of the loss.
        progress: how far the run has come; its window and numbers of skipped steps are brought up to date by `store`
            and `read`, the only places where the host waits for the device.
    """

    def __init__(self, steps: int, batch_size: int, device: torch.device, progress: Progress) -> None:
        self.steps, self.batch_size, self.progress = steps, batch_size, progress
        self.clock = time.perf_counter()
        self.timed, self.spent = 0, 0.0
        self.sums = torch.tensor(progress.window, dtype=torch.float32, device=device)  # of loss, norm and good steps
        skips = (progress.skipped, progress.skipped_in_a_row)
        self.skips = torch.tensor(skips, dtype=torch.float32, device=device)

    def add(self, value: Tensor, norm: Tensor, skipped: Tensor) -> None:
        r"""One step; a skipped one (`skipped` is 1 on the device) costs time and does not count in the means."""
        self.timed += 1
        good = 1 - skipped
        self.sums += torch.stack([value.to(good), norm.to(good), good]).where(good > 0, 0.0)
        self.skips += skipped
        self.skips[1] *= skipped

    def pause(self) -> None:
        self.spent += time.perf_counter() - self.clock

    def resume(self) -> None:
        self.clock = time.perf_counter()

    def store(self) -> tuple[float, float, int]:
        r"""Brings the progress up to date, on every process: means over the processes, in one transfer.

        Returns:
            The window: sums of loss and norm over the good steps since the last log step, and their number.
        """
        if world_size() > 1:
            torch.distributed.all_reduce(self.sums)
            self.sums /= world_size()
        loss, norm, *counts = torch.cat([self.sums, self.skips]).tolist()
        good, skipped, in_a_row = map(round, counts)
        self.progress.window = loss, norm, good
        self.progress.skipped, self.progress.skipped_in_a_row = skipped, in_a_row
        return self.progress.window

    def read(self, step: int) -> dict[str, float]:
        r"""The means (NaN after nothing but skipped steps), images a second and seconds left; starts anew."""
        loss, norm, good = self.store()
        self.pause()
        speed = self.timed * self.batch_size / max(self.spent, 1e-9)
        left = (self.steps - step) * self.batch_size / speed
        self.sums.zero_()
        self.timed, self.spent = 0, 0.0
        self.resume()
        count = good or float("nan")
        return {"loss": loss / count, "grad_norm": norm / count, "images_per_second": speed, "eta_seconds": left}
