r"""Certifications side by side: one table and one curve; nothing is certified."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from scoregen.errors import UserError
from scoregen.jobs.certifying import user_errors
from scoregen.jobs.job import Job, Plan


@dataclass(frozen=True, kw_only=True)
class Compare(Job):
    r"""Compares certifications; keys as in conf/compare.yaml.

    Args:
        runs: folders of the job certify, of the same data and norm.
        names: names of the curves and columns, one for each run; those of the folders unless given.
    """

    known: ClassVar = ("table.md", "curve.png", "certificates.jsonl")
    runs: list[str]
    names: list[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.runs:
            raise UserError("runs: must not be empty. Give runs=[outputs/certify/A,outputs/certify/B].")
        if len({Path(run).resolve() for run in self.runs}) < len(self.runs):
            raise UserError(f"runs: must name different folders, got {', '.join(self.runs)}.")
        _check_names(self.names, self.runs)

    def plan(self, out: Path) -> Plan:
        from scoregen.smoothing.report import names_of
        from scoregen.smoothing.results import load

        with user_errors():
            found = {Path(run): load(run) for run in self.runs}
            _check_comparable(found)
            runs = names_of(found) if self.names is None else dict(zip(self.names, found.values(), strict=True))
        return Plan(lambda: _write(runs, out))


def _check_names(names: list[str] | None, runs: list[str]) -> None:
    if names is None:
        return
    if len(names) != len(runs):
        raise UserError(f"names: must be one for each of the {len(runs)} runs, got {len(names)}. Give names=[A,B,...].")
    for name in names:
        if not name.strip() or name.startswith("_") or "|" in name or not name.isprintable():
            raise UserError(f"names: must be texts of one line without '|' that do not begin with '_', got {name!r}.")
    if len(set(names)) < len(names):
        raise UserError(f"names: must be different, got {', '.join(names)}.")


def _check_comparable(found: dict[Path, Any]) -> None:
    for folder, run in found.items():
        if not run.complete:
            raise UserError(
                f"runs: '{folder}' has {len(run.records)} of {len(run.header['indices'])} certificates, and those that "
                "are done first are no random sample. Finish it by its command."
            )
    for key, name in (("norm", "norm of the radii"), ("data_hash", "data"), ("labels_hash", "labels")):
        values = {run.header.get(key) or run.header["description"].get(key) for run in found.values()} - {None}
        if len(values) > 1:
            raise UserError(f"runs: must have one {name}, got {', '.join(sorted(map(str, values)))}.")
    (first, run), *others = found.items()
    for folder, other in others:
        if other.header["indices"] != run.header["indices"]:
            raise UserError(
                f"runs: must be of the same inputs, got {len(run.records)} of '{first}' and {len(other.records)} of "
                f"'{folder}', whose numbers differ. Certify both with one max_inputs."
            )
        for key in ("inputs", "labels"):
            if other.header.get(key, run.header.get(key)) != run.header.get(key, other.header.get(key)):
                raise UserError(f"runs: must be of the same data, got other {key} in '{folder}' than in '{first}'.")


def _settings(runs: Any) -> str:
    r"""Rows of the table that say what the certificates of each run are of."""
    rows = {
        name: [str(run.header[key]) for run in runs.values()]
        for key, name in (("noise", "noise"), ("method", "method"), ("n", "n"), ("alpha", "alpha"))
    }
    return "\n".join(f"| {' | '.join([name, *cells])} |" for name, cells in rows.items())


def _write(runs: Any, out: Path) -> None:
    from scoregen.parallel import rank
    from scoregen.smoothing.report import curve, table
    from scoregen.storage import write_text

    if rank() == 0:
        text = f"{table(runs)}\n{_settings(runs)}"
        write_text(out / "table.md", text + "\n")
        curve(runs, out / "curve.png")
        print(text)
        print(f"\n{out / 'curve.png'}")
