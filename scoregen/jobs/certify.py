r"""Certification: a classifier, data and a noise to certificates, a table, a curve and a page."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from scoregen.checks import whole
from scoregen.jobs.certifying import CertifyingJob, user_errors
from scoregen.jobs.one_classifier import OneClassifierJob


@dataclass(frozen=True, kw_only=True)
class Certify(CertifyingJob, OneClassifierJob):
    r"""Certifies inputs of a labelled data set; keys as in conf/certify.yaml.

    Args:
        explain: draws of the maps in report.html, for each input shown; 0: no maps. Gaussian noise only.
        attack: attacks every certified input below and above its radius; a label that breaks below is an error.
        **others: those of `OneClassifierJob` and `CertifyingJob`.
    """

    known: ClassVar = (*CertifyingJob.known, "attacks.jsonl")
    free: ClassVar = (*CertifyingJob.free, "explain", "attack")
    explain: int = 0
    attack: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.explain:
            from scoregen.smoothing.explanations import LEAST, check_gaussian

            with user_errors():
                whole(LEAST, explain=self.explain)
                check_gaussian(self.noise)
        if self.attack:
            from scoregen.smoothing.attack import check_attackable

            with user_errors():
                check_attackable(self.noise)

    def rule(self, g: Any) -> Any:
        from scoregen.smoothing.choice import make_method

        return make_method(self.method, self.noise, **self.asked())

    def further(self, g: Any, run: Any, out: Path) -> dict[str, Any]:
        from scoregen.smoothing.attacks import attack_dataset

        return {"attacks": attack_dataset(g, self.inputs(), run, out, seed=self.seed)} if self.attack else {}

    def tables(self, more: dict[str, Any]) -> list[str]:
        from scoregen.smoothing.attacks import attack_table

        return [attack_table(attacks) for attacks in more.values()]

    def conclude(self, run: Any, more: dict[str, Any]) -> None:
        from scoregen.errors import UserError
        from scoregen.smoothing.attacks import refutation

        for attacks in more.values():
            if why := refutation(attacks, run):
                raise UserError(why)

    def shown(self, g: Any, run: Any, out: Path) -> dict[str, Any]:
        return {"explanations": self._explained(g, run, out)} if self.explain else {}

    def _explained(self, g: Any, run: Any, out: Path) -> dict[int, Any]:
        from scoregen.smoothing.maps import explain_records, write_maps
        from scoregen.smoothing.page import SHOWN, extremes

        records = [record for some in extremes(run, SHOWN) for record in some]
        found = explain_records(g, self.inputs(), records, self.explain, self.alpha, self.seed)
        write_maps(out / "explanations.npz", found)
        return found
