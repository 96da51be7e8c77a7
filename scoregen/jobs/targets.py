r"""Training data of a selector: images, each with the place of the expert that should answer for it."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from scoregen.data import Source
from scoregen.errors import UserError
from scoregen.jobs.certifying import On, user_errors
from scoregen.jobs.job import Job, Plan
from scoregen.smoothing.selector_targets import Rule

if TYPE_CHECKING:
    import numpy as np

FILE = "targets.npz"


@dataclass(frozen=True, kw_only=True)
class Targets(Job):
    r"""Makes the training data of the selector of dual smoothing; keys as in conf/targets.yaml.

    Args:
        runs: folders of the job certify, one for each expert by increasing noise, of images held out of their training.
        data: whose test part they certified.
        rule: "right" or "radius", as of `best_sigma`.
    """

    known: ClassVar = (FILE,)
    runs: list[str]
    data: Source
    rule: Rule = "right"

    def plan(self, out: Path) -> Plan:
        from scoregen.smoothing.selector_targets import best_sigma

        with user_errors():
            targets = best_sigma(self.runs, self.rule)
        self._check_certified()
        shares = Counter(targets.values())
        unused = [run for place, run in enumerate(self.runs) if not shares[place]]
        if unused:
            raise UserError(f"runs: '{unused[0]}' is the best for no image, so no selector can learn it. Leave it out.")
        told = [
            f"{run}: the best for {shares[place]:,} of {len(targets):,} images" for place, run in enumerate(self.runs)
        ]
        units = self.data.range
        if len(self.data.shape) == 3 and units not in (None, (0.0, 1.0)):  # which an archive does not say
            told.append(f"train the selector with data.range={list(units)}, the units of {self.data.name}")
        return Plan(lambda: self._write(targets, out), told, {"targets": _digest(targets)})

    def _check_certified(self) -> None:
        r"""Refuses data that are not those of the runs."""
        from scoregen.smoothing.dataset import inputs_hash, known_inputs, labels_hash
        from scoregen.smoothing.results import load

        header, test = load(self.runs[0]).header, self.data.test
        indices = header["indices"]
        fits = max(indices) < len(test) and header["labels"] == labels_hash(test, indices)
        if not fits or header["inputs"] != inputs_hash(known_inputs(On(test, "cpu"), indices)):
            raise UserError(
                f"data: {self.data.told('test')} of {self.data.name} are not those that '{self.runs[0]}' certified. "
                "Give data= and data.test= of its command."
            )

    def _write(self, targets: dict[int, int], out: Path) -> None:
        import numpy as np

        from scoregen.parallel import rank
        from scoregen.storage import write_atomically

        if rank() == 0:
            x = _rows(self.data.test[list(targets)][0].numpy())
            names = ("train_images", "train_labels") if x.ndim > 2 else ("x", "y")
            labels = np.array(list(targets.values()), dtype=np.int64)
            arrays: dict[str, Any] = dict(zip(names, (x, labels), strict=True))
            write_atomically(out / FILE, lambda file: np.savez(file, **arrays))
            print(out / FILE)


def _rows(x: "np.ndarray") -> "np.ndarray":
    r"""Samples (N, C, H, W) as an archive has them, (N, H, W[, C]); others as they are."""
    if x.ndim != 4:
        return x
    return x[:, 0] if x.shape[1] == 1 else x.transpose(0, 2, 3, 1)


def _digest(targets: dict[int, int]) -> str:
    from scoregen.smoothing.results import hashed

    return hashed(str(sorted(targets.items())).encode())
