r"""What the jobs that use a trained network share: it is loaded, laid out for the device, and compiled if that pays."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scoregen.jobs.job import LoadingJob, Weights

_MANY = 5_000  # samples of an image, or draws of an input, from which on a compilation of a minute is paid back


@dataclass(frozen=True, kw_only=True)
class FastJob(LoadingJob):
    r"""Base class of the jobs that call networks many times; abstract.

    Args:
        compile: torch.compile of the network; None: on accelerators, for jobs of many samples or draws.
    """

    compile: bool | None = None

    def loaded(self, checkpoint: Path | str, weights: Weights, null_label: int | None = None) -> Any:
        from scoregen import parallel
        from scoregen.models.compiled import Compiler, check_compiler, compiles, lay_out

        model, device = super().loaded(checkpoint, weights, null_label), parallel.device()
        lay_out(model, None, device)
        many = getattr(self, "n", 0) >= _MANY
        wanted = many and compiles(device) if self.compile is None else self.compile
        if wanted:
            check_compiler(device, "compile")
            Compiler()(model)
        return model
