r"""What the demo does with a speckled upload: the job `restore`, and the page that it writes."""

import io
import re
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scoregen.errors import UserError
from scoregen.jobs.demo_sampling import Drawing, keeping

if TYPE_CHECKING:
    from scoregen.jobs.demo import Demo

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy", ".npz")
_OWN_LINES = ("checkpoint:", "images:", "out:")  # of the job, which the page shows otherwise


@dataclass(frozen=True)
class Cleaned:
    r"""A despeckled upload.

    Args:
        file: of the result, of the kind of the upload. text: what is to be said of it. page: the report, as HTML.
        figures: those of the report, as they stand in it: before, after, their ratio, deviations.
    """

    file: Path
    text: str
    page: str
    figures: list[str]


@dataclass(frozen=True)
class Despeckling:
    r"""A multiplicative denoiser behind its tab.

    Args:
        demo: names the checkpoint. model: that was loaded from it.
    """

    demo: "Demo"
    model: Any

    def __call__(self, file: str | None, looks: str, out: Path, **values: Any) -> Cleaned:
        r"""Restores an upload.

        Args:
            file: of it. looks: a number, or "estimate". out: an empty folder.
            values: unit, scale, floor, samples, probes and seed of the job.

        Raises:
            UserError, ValueError: what the job refuses.
        """
        from scoregen.jobs.restore import Restore

        if file is None:
            raise UserError("images: a value is required. Upload a picture, a TIFF, .npy or .npz file.")
        given = {key: value for key, value in values.items() if value is not None}
        known = {"looks": number_or(looks, "looks", "estimate"), "scale": number_or(values["scale"], "scale", "auto")}
        plan = keeping(Restore(**self.demo.origin(), images=str(file), **given | known), self.model).plan(out)
        with redirect_stdout(io.StringIO()) as printed:
            plan.work()
        (result,) = [*out.glob("images/*"), *out.glob("restored.npz")]
        lines = [line for line in plan.lines if not line.startswith(_OWN_LINES)]
        lines += [line for line in printed.getvalue().splitlines() if not line.startswith(str(out))]
        report = (out / "report.html").read_text()
        return Cleaned(result, "\n".join(lines), report, re.findall(r"<figure>.*?</figure>", report, re.DOTALL))


def despeckling_of(drawing: Drawing | str) -> Despeckling | str:
    r"""What despeckles uploads; or in a sentence why the page does not."""
    from scoregen.samplers import Tiled
    from scoregen.samplers.despeckle import OnIntensity

    if isinstance(drawing, str):
        return drawing
    if len(drawing.shape) != 3:
        return f"The samples have shape {drawing.shape}. Despeckling needs a denoiser of images."
    try:
        OnIntensity(Tiled(drawing.model, min(drawing.shape[1:]), None, 1, drawing.shape[0]))
    except (TypeError, ValueError) as error:
        return str(error)
    return Despeckling(drawing.demo, drawing.model)


def number_or(text: str | None, name: str, word: str) -> float | str | None:
    r"""A number, or the one word that may stand for it; None for an empty field."""
    text = (text or "").strip()
    try:
        return text if text == word else float(text) if text else None
    except ValueError:
        raise UserError(f"{name}: must be a number or {word}, got '{text}'.") from None
