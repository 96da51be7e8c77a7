r"""Classifiers from outside the package, read for certification.

FILE.pt2              a `torch.export` program with a dynamic batch dimension
FILE.pt, FILE.ts      a TorchScript module
torchvision:NAME      a model of torchvision, timm:NAME of timm, hf:FOLDER or hf:OWNER/NAME of transformers, with the
                      size and normalisation that its library states (`scoregen.smoothing.libraries`)
MODULE:FUNCTION       MODULE.FUNCTION() returns the classifier; importing it runs its code

Files of the first two kinds are programs, and the last is one: they do what their authors wanted. Pickles inside a .pt2
file are refused all the same.
"""

import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from scoregen import storage
from scoregen.errors import UserError, closest
from scoregen.smoothing.classifier_weights import read_weights_into
from scoregen.smoothing.libraries import from_timm, from_torchvision, from_transformers
from scoregen.smoothing.logits import logits_of
from scoregen.smoothing.preparation import ClassifierInput
from scoregen.smoothing.programs import load_exported
from scoregen.targets import imported

Classify = Callable[[Tensor], Tensor]


class Exported(nn.Module):
    r"""An exported program, whose mode (training, evaluation) was fixed when it was exported.

    Args:
        program: read from a file.
        digest: of that file, which also holds constants that are neither parameters nor buffers.
    """

    def __init__(self, program: nn.Module, digest: str = "") -> None:
        super().__init__()
        self.digest = digest
        self.weights = nn.ParameterList(nn.Parameter(p.detach(), False) for p in program.parameters())
        for name, buffer in program.named_buffers():  # part of what is certified, and of its hash
            self.register_buffer(f"buffer_{name.replace('.', '_')}", buffer)
        self._program = [program]  # not a submodule: the mode of an exported program cannot be changed
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self._program[0](x)
        return logits

    def extra_repr(self) -> str:
        return str(self._program[0].code)


_LIBRARIES = {"torchvision": from_torchvision, "timm": from_timm, "hf": from_transformers}


def read_classifier(source: str, device: torch.device | str = "cpu", weights: str | None = None) -> Classify:
    r"""The classifier of a source (see the module's head), in evaluation mode, behind its size and normalisation.

    Arguments and errors as `open_classifier`.
    """
    classifier, wants = open_classifier(source, device, weights)
    return prepared(classifier, wants, device)


def open_classifier(
    source: str,
    device: torch.device | str = "cpu",
    weights: str | None = None,
    given: ClassifierInput | None = None,
) -> tuple[Classify, ClassifierInput]:
    r"""The classifier of a source, in evaluation mode, and what it wants its images to be.

    Args:
        source: where it comes from. device: where it goes.
        weights: a file of them, "pretrained" for those that its library fetches, or None for its own.
        given: wishes that replace those of the library.

    Raises:
        UserError: the source does not exist or cannot be read, or lacks weights.
    """
    given = given or ClassifierInput()
    if Path(source).suffix in (".pt2", ".pt", ".ts", ".pth"):
        if weights is not None:
            raise UserError(f"classifier_weights: '{source}' is a program with its own weights. Leave it out.")
        return _file(Path(source), device), given
    kind, colon, name = source.partition(":")
    if not colon:
        raise UserError(
            f"classifier: '{source}' is neither a .pt2 or .pt file, nor torchvision:NAME, timm:NAME or hf:FOLDER, nor "
            f"MODULE:FUNCTION. If it is a checkpoint of scoregen, set checkpoint={source}."
        )
    if kind not in _LIBRARIES:
        return _placed(_function(kind, name, weights), device), given
    network, wants = _LIBRARIES[kind](name, weights)
    if wants is None and given.mean is None:
        raise UserError(
            f"classifier_input.mean: '{source}' does not say how its images are normalised (no "
            "preprocessor_config.json). Give classifier_input.mean, .std and .size."
        )
    return _placed(network, device), (wants or ClassifierInput()).overridden(given)


def prepared(classifier: Classify, wants: ClassifierInput, device: torch.device | str) -> Classify:
    r"""A classifier behind the size and normalisation that it wants."""
    return _placed(wants.around(classifier), device)


def _placed(classifier: Classify, device: torch.device | str) -> Classify:
    return classifier.to(device).eval() if isinstance(classifier, nn.Module) else classifier


def _file(path: Path, device: torch.device | str) -> nn.Module:
    if not path.is_file():
        raise UserError(f"classifier: '{path}' does not exist.")
    digest = storage.digest(path)
    try:
        if path.suffix == ".pt2":
            return Exported(load_exported(path).to(device), digest)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript files outlive the deprecation
            module = torch.jit.load(path, map_location=device)  # type: ignore[no-untyped-call]  # torch: no types
            return Exported(module.eval(), digest)
    except Exception as error:
        first = _reason(error).split(". ")[0]
        raise UserError(
            f"classifier: '{path}' is no torch.export (.pt2) or TorchScript (.pt) file ({first}). A file of weights "
            f"alone is classifier_weights={path}, beside classifier=timm:NAME, torchvision:NAME or MODULE:FUNCTION."
        ) from error


def _function(module: str, name: str, weights: str | None) -> Classify:
    if "" not in sys.path:
        sys.path.insert(0, "")  # the working directory, as for python -m
    try:
        found = imported(module, module, "classifier")
    except ModuleNotFoundError as error:
        raise UserError(f"classifier: cannot import '{module}' ({error}).") from None
    if not hasattr(found, name):
        public = [key for key in vars(found) if key[0] != "_"]
        raise UserError(f"classifier: '{module}' has no '{name}'. {closest(name, public)}")
    try:
        classifier: Classify = getattr(found, name)()
    except Exception as error:
        raise UserError(f"classifier: {module}:{name}() failed ({type(error).__name__}: {error}).") from error
    if not callable(classifier):
        raise UserError(f"classifier: {module}:{name}() must return a classifier, got {type(classifier).__name__}.")
    if weights is not None:
        if not isinstance(classifier, nn.Module):
            raise UserError(f"classifier_weights: {module}:{name}() is no module, which has no weights. Leave it out.")
        read_weights_into(classifier, weights, f"{module}:{name}")
    return classifier


_FIXED_BATCH = re.compile(r"Guard failed: [\w.]+(\(\))?\[0\]")  # of an exported program


def _reason(error: Exception) -> str:
    r"""What a classifier says; of a TorchScript program the end, which is its own words."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1] if "TorchScript" in lines[0] else lines[0]


def _remedy(error: Exception, size: int) -> str:
    r"""What to do about a classifier that cannot take a batch of 2, or takes that and not one of 3."""
    if size == 3 or _FIXED_BATCH.match(str(error)):
        return "It must take batches of any size: export it with a dynamic batch dimension."
    return (
        "Give data of the shape that it was made for (pictures in files: data.size, data.channels), or resize them "
        "before it: classifier_input.size."
    )


@torch.no_grad()
def probe(classifier: Classify, x: Tensor) -> int:
    r"""The number of classes, found by classifying batches of two sizes.

    Raises:
        UserError: the classifier cannot take the input, or does not return logits of shape (B, K).
    """
    for size in (2, 3):
        try:
            output = classifier(x.expand(size, *x.shape))
        except UserError:
            raise
        except (RuntimeError, AssertionError, ValueError, TypeError, IndexError) as error:
            raise UserError(
                f"classifier: cannot take inputs of shape {tuple(x.shape)} and type {x.dtype}, {size} at once "
                f"({_reason(error)}). {_remedy(error, size)}"
            ) from error
        try:
            logits = logits_of(output)
        except ValueError as error:
            raise UserError(f"classifier: {str(error).removeprefix('classifier ')}") from error
        if len(logits) != size:
            raise UserError(f"classifier: must return logits (B, K), got {tuple(logits.shape)} for a batch of {size}.")
    if not bool(logits.isfinite().all()):
        found = "NaN" if bool(logits.isnan().any()) else "infinity"
        raise UserError(
            f"classifier: its logits hold {found} for the first input without noise. Check its weights, and the range "
            "and normalisation of its images."
        )
    return logits.shape[1]
