r"""What the demo does with an upload that is to be classified: the certificate of `SmoothedClassifier`, and its curve.

The curves are those of Cohen, Rosenfeld, Kolter (2019), arXiv 1902.02918: at the distance r from the input the winner
keeps at least, and any other class gets at most,

    Phi(Phi^{-1}(p_lower) - r/sigma),     Phi(Phi^{-1}(p_upper) + r/sigma)

of the votes. They meet at the certified radius.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scoregen.checks import inside, whole
from scoregen.errors import UserError
from scoregen.jobs.certifying import Method, user_errors
from scoregen.jobs.conditioning import known_of
from scoregen.pictures import Range, figure_png, has_ends, image_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from scoregen.jobs.demo import Demo
    from scoregen.smoothing import Certificate

MOST_DRAWS = 100_000
_MOST_PIXELS = 512 * 512  # of an upload for a classifier that takes any size
_MOST_BARS = 10


@dataclass(frozen=True)
class Certified:
    r"""A certificate on the page.

    Args:
        certificate: it. text: in words. seen: PNG of what was certified, None for what is no image.
        votes: PNG of a bar for each class. curve: PNG of what is proved of the votes around the input.
    """

    certificate: "Certificate"
    text: str
    seen: bytes | None
    votes: bytes
    curve: bytes


@dataclass(frozen=True)
class Certifying:
    r"""A classifier behind its tab.

    Args:
        classifier: of inputs (B, *S). shape: (*S) of its inputs; None where any picture will do. channels: of them,
            where only these are known. range: of their units. names: of its classes, or None.
        sigma: standard deviation of the noise that it is told; None for one that is not told.
    """

    classifier: Any
    shape: tuple[int, ...] | None
    channels: int | None = None
    range: Range | None = (0.0, 1.0)
    names: Sequence[str] | None = None
    sigma: float | None = None

    def __call__(
        self, file: str | None, sigma: float, n: int, *, alpha: float, method: Method, seed: int, n0: int = 100
    ) -> Certified:
        r"""The certificate of an upload under Gaussian noise.

        Args:
            file: of it. sigma: standard deviation of the noise, in units of the data. others: as in the job certify.

        Raises:
            UserError, ValueError: what the job refuses, or too many draws for a page.
        """
        from scoregen import parallel
        from scoregen.jobs.base_classifier import check_told
        from scoregen.smoothing import Gaussian, SmoothedClassifier
        from scoregen.smoothing.classifiers import probe
        from scoregen.smoothing.engine import placed

        whole(1, n=n)
        inside(1, MOST_DRAWS, n=n)
        inside(0, 2**63 - 1, seed=seed)  # those of torch
        noise, (x, told) = Gaussian(sigma), self.read(file)
        with user_errors():
            check_told(self.classifier, noise)
            x = x.to(parallel.device())
            classes = probe(self.classifier, x.to(*placed(self.classifier, x)))
            g = SmoothedClassifier(self.classifier, noise, classes)
            draws = torch.Generator().manual_seed(seed)
            (found,) = g.certify(x[None], n, alpha=alpha, n0=n0, method=method, generator=draws)
        names = [*(self.names or ()), *map(str, range(len(self.names or ()), classes))]
        seen = image_png(x.cpu(), True, self.range or (0.0, 1.0)) if x.ndim == 3 and x.shape[0] in (1, 3) else None

        return Certified(
            found, told + in_words(found, names), seen, votes_png(found, names), curve_png(found, noise.sigma)
        )

    def read(self, file: str | None) -> tuple[Tensor, str]:
        r"""An upload (*S) in the units of the data, and what was done to it, in a sentence that ends with a space.

        Raises:
            UserError: there is none, it is damaged, or it cannot be made an input of the classifier.
        """
        from scoregen.data.files import as_fraction, read_array, read_picture

        if file is None:
            raise UserError("images: a value is required. Upload a picture or an .npy file.")
        if Path(file).suffix == ".npy":
            x = torch.from_numpy(read_array(Path(file), "images")).float()
            if self.shape is not None and tuple(x.shape) != self.shape:
                raise UserError(f"images: the array has shape {tuple(x.shape)}, the classifier takes {self.shape}.")
            return x, ""
        if self.range is None or not has_ends(self.range) or (self.shape is not None and len(self.shape) != 3):
            raise UserError(
                f"images: the classifier takes inputs of shape {self.shape} in the range {self.range}, which no "
                "picture gives. Upload an array (.npy) in these units."
            )
        have = read_picture(Path(file), "images")
        channels = self.channels if self.shape is None else self.shape[0]
        modes = {1: "L", 3: "RGB", None: None}
        if channels not in modes:
            raise UserError(f"images: the classifier takes {channels} channels, which no picture has. Upload an .npy.")
        x, told = _fitted(as_fraction(read_picture(Path(file), "images", modes[channels])), self.shape, len(have))
        return self.range[0] + (self.range[1] - self.range[0]) * x, told


def _fitted(x: Tensor, shape: tuple[int, ...] | None, channels: int) -> tuple[Tensor, str]:
    r"""A picture (C, H, W) at the size of the classifier, and in a sentence what was done to it."""
    height, width = x.shape[1:]
    want = tuple(x.shape[1:]) if shape is None else shape[1:]
    if shape is None and height * width > _MOST_PIXELS:
        raise UserError(f"images: the picture has {width} x {height} pixels; {_MOST_PIXELS} are allowed. Resize it.")
    done = [] if len(x) == channels else ["made grey" if len(x) == 1 else "taken for a colour picture"]
    if want != (height, width):
        x = torch.nn.functional.interpolate(x[None], want, mode="bilinear", antialias=True)[0].clamp(0, 1)
        squeezed = "" if want[1] * height == want[0] * width else ", which changes its proportions"
        done.append(f"resized as a whole from {width} x {height} to {want[1]} x {want[0]} pixels{squeezed}")
    told = f"The upload was {' and '.join(done)}. The certificate is about the result. " if done else ""
    return x, told


def certifying_of(demo: "Demo", checkpoint: Path | None, model: Any) -> Certifying | str:
    r"""What certifies uploads; or in a sentence why the page does not."""
    from scoregen.jobs.base_classifier import trained
    from scoregen.jobs.conditioning import find_checkpoint

    if demo.classifier is not None and not Path(demo.classifier).is_dir():
        return _from_elsewhere(demo)
    if demo.classifier is not None:
        place = find_checkpoint(demo.classifier)
        return _trained(trained(demo, str(place), demo.weights), place)
    if checkpoint is None or hasattr(model, "sde"):
        return "The checkpoint holds a denoiser. Give a classifier too: classifier=RUN, timm:NAME, FILE.pt2, ..."
    return _trained(model, checkpoint)


def _trained(classifier: Any, place: Path) -> Certifying:
    from scoregen.checkpoint import stated_shape
    from scoregen.loading import describe

    config, known = describe(place), known_of(place)
    shape = config["model"].get("shape") or stated_shape(config)
    sigma = getattr(classifier, "noise_sigma", None)
    if shape is None:
        raise UserError(f"classifier: '{place}' does not say what shape its inputs have.")
    ready = classifier.to(memory_format=torch.channels_last)  # as the job certify asks it
    return Certifying(ready, tuple(shape), range=known.range, names=known.classes, sigma=sigma)


def _from_elsewhere(demo: "Demo") -> Certifying:
    from scoregen import parallel
    from scoregen.smoothing.classifiers import open_classifier, prepared

    device = parallel.device()
    classifier, wants = open_classifier(str(demo.classifier), device, demo.classifier_weights, demo.classifier_input)
    channels = None if wants.mean is None else len(wants.mean)
    shape = None
    if channels is not None and wants.size is not None:
        height, width = (wants.size, wants.size) if isinstance(wants.size, int) else wants.size
        shape = (channels, height, width)
    ready = prepared(classifier, wants, device)
    return Certifying(ready, shape, channels, sigma=getattr(classifier, "noise_sigma", None))


def in_words(found: "Certificate", names: Sequence[str]) -> str:
    r"""A certificate as Markdown; the radius is rounded down."""
    from decimal import Decimal

    from scoregen.smoothing.bounds import safe

    name = escaped(names[found.candidate])
    if found.label < 0:
        return (
            f"**Abstains.** {found.draws:,} draws prove no class at alpha = {found.alpha:g}. The most frequent one is "
            f"{name}. More draws or less noise may help."
        )
    return (
        f"**Class {name}, radius {safe(found.radius):g}** ({found.norm}). With probability at least "
        f"{1 - Decimal(repr(found.alpha)):f} over the noise drawn, the smoothed classifier gives this class to every "
        f"input closer than the radius. {found.draws:,} draws, alpha = {found.alpha:g}. The guarantee is for the "
        "smoothed classifier, not for the network alone."
    )


def votes_png(found: "Certificate", names: Sequence[str]) -> bytes:
    r"""A bar for each class with votes, at most ten, in the order of the classes."""
    counts = found.counts.tolist()
    most = sorted(sorted(range(len(counts)), key=lambda k: -counts[k])[:_MOST_BARS])
    kept = most if len(counts) <= _MOST_BARS else [k for k in most if counts[k]]
    left = sum(counts) - sum(counts[k] for k in kept)

    def draw(axes: "Axes") -> None:
        colours = ["tab:blue" if k == found.candidate else "tab:gray" for k in kept]
        bars = axes.bar(range(len(kept)), [counts[k] for k in kept], color=colours)
        axes.bar_label(bars, [f"{counts[k]:,}" if counts[k] else "" for k in kept], fontsize=8)
        axes.set_xticks(range(len(kept)), [names[k] for k in kept], rotation=45 if _long(names, kept) else 0)
        axes.set_xlabel("class" + (f" ({left:,} votes for others)" if left else ""))
        axes.set_ylabel(f"votes of {found.n:,} draws")
        axes.margins(y=0.12)

    return figure_png(draw, (5.0, 3.2))


def _long(names: Sequence[str], kept: Sequence[int]) -> bool:
    return max(len(names[k]) for k in kept) > 4


def share(p: float, sigma: float, sign: int) -> Callable[[Tensor], Tensor]:
    r"""Phi(Phi^{-1}(p) + sign r/sigma) of distances r."""
    from torch.special import ndtr, ndtri

    middle = ndtri(torch.tensor(p, dtype=torch.float64))
    return lambda r: ndtr(middle + sign * r / sigma)


def curve_png(found: "Certificate", sigma: float) -> bytes:
    r"""What is proved of the votes at each distance from the input."""
    r = torch.linspace(0, max(1.3 * found.radius, 0.5 * sigma), 200, dtype=torch.float64)

    def draw(axes: "Axes") -> None:
        axes.plot(r, share(found.p_lower, sigma, -1)(r), color="tab:blue", label="winner, at least")
        axes.plot(r, share(found.p_upper, sigma, 1)(r), color="tab:red", label="any other class, at most")
        if found.label >= 0:
            axes.axvline(found.radius, color="black", linestyle=":", label="certified radius")
        axes.set_xlabel(f"distance from the input ({found.norm})")
        axes.set_ylabel("share of all votes")
        axes.set_ylim(-0.03, 1.03)
        axes.legend(fontsize=8)

    return figure_png(draw, (5.0, 3.2))


def escaped(text: str) -> str:
    r"""Plain text for Markdown: names stay as they are."""
    return "".join(f"\\{c}" if c in r"\`*_{}[]<>#|~$" else c for c in text)
