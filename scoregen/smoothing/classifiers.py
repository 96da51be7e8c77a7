r"""Classifiers from outside the package, read for certification.

FILE.pt2              a `torch.export` program with a dynamic batch dimension
FILE.pt, FILE.ts      a TorchScript module
torchvision:NAME      a torchvision model with its default weights; their normalisation becomes part of it
MODULE:FUNCTION       MODULE.FUNCTION() returns the classifier; importing it runs its code

Files of the first two kinds are programs, and the last is one: they do what their authors wanted. Pickles inside a .pt2
file are refused all the same.
"""

import importlib
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from scoregen import storage
from scoregen.errors import UserError, closest
from scoregen.smoothing.programs import load_exported

Classify = Callable[[Tensor], Tensor]


class Normalized(nn.Module):
    r"""classifier((x - mean) / std), channel by channel, so that x and the noise on it stay in [0, 1] units."""

    mean: Tensor
    std: Tensor

    def __init__(self, classifier: nn.Module, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.classifier = classifier
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier((x - self.mean) / self.std)
        return logits


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


def read_classifier(source: str, device: torch.device | str = "cpu") -> Classify:
    r"""The classifier of a source (see the module's head), in evaluation mode.

    Raises:
        UserError: the source does not exist or cannot be read.
    """
    if Path(source).suffix in (".pt2", ".pt", ".ts", ".pth"):
        return _file(Path(source), device)
    kind, colon, name = source.partition(":")
    if not colon:
        raise UserError(
            f"classifier: '{source}' is neither a .pt2 or .pt file, nor torchvision:NAME, nor MODULE:FUNCTION. "
            f"If it is a checkpoint of scoregen, set checkpoint={source}."
        )
    classifier = _torchvision(name) if kind == "torchvision" else _function(kind, name)
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
        first = str(error).strip().splitlines()[:1]
        raise UserError(
            f"classifier: '{path}' is no torch.export (.pt2) or TorchScript (.pt) file ({' '.join(first)}). For a file "
            f"of weights alone set classifier=MODULE:FUNCTION, a function that builds the network."
        ) from error


def _torchvision(name: str) -> nn.Module:
    from scoregen.compat import repair_torchvision

    repair_torchvision()
    from torchvision.models import get_model, get_model_weights, list_models

    if name not in list_models():
        raise UserError(f"classifier: torchvision has no model '{name}'. {closest(name, list_models())}")
    weights = get_model_weights(name).DEFAULT
    transform = weights.transforms()
    try:
        model = get_model(name, weights=weights)
    except OSError as error:
        raise UserError(f"classifier: the weights of torchvision:{name} could not be fetched ({error}).") from error
    return Normalized(model, transform.mean, transform.std)


def _function(module: str, name: str) -> Classify:
    if "" not in sys.path:
        sys.path.insert(0, "")  # the working directory, as for python -m
    try:
        found = importlib.import_module(module)
    except ImportError as error:
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
    return classifier


@torch.no_grad()
def probe(classifier: Classify, x: Tensor) -> int:
    r"""The number of classes, found by classifying batches of two sizes.

    Raises:
        UserError: the classifier cannot take the input, or does not return logits of shape (B, K).
    """
    for size in (2, 3):
        try:
            logits = classifier(x.expand(size, *x.shape))
        except (RuntimeError, AssertionError) as error:  # an exported program asserts the sizes it was made for
            raise UserError(
                f"classifier: cannot take inputs of shape {tuple(x.shape)} and type {x.dtype}, {size} at once "
                f"({str(error).splitlines()[0]}). An exported program needs a dynamic batch dimension."
            ) from error
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        if not isinstance(shape, tuple) or len(shape) != 2 or len(logits) != size:
            raise UserError(f"classifier: must return logits (B, K), got {shape} for a batch of {size}.")
    return logits.shape[1]
