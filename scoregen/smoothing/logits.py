r"""Where the logits are in what a classifier returns."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor


def logits_of(output: Any) -> Tensor:
    r"""The logits (B, K) in a classifier's output: a tensor, an object with `.logits`, a mapping or a tuple.

        A mapping may name them "logits". Else they are its only tensor of two dimensions, as in a tuple.

    Raises:
        ValueError: there are none, or several that could be.
    """
    found = output
    if isinstance(output, Mapping):
        found = output["logits"] if "logits" in output else _only(output.values())
    elif not isinstance(output, Tensor):
        found = getattr(output, "logits", None)
        if found is None and isinstance(output, tuple | list):
            found = _only(output)
    if not isinstance(found, Tensor) or found.ndim != 2:
        raise ValueError(
            f"classifier must return logits (B, K): a tensor, a tuple or mapping with one such tensor, or an object "
            f"with .logits, got {_described(output)}."
        )
    return found


def _only(parts: Iterable[Any]) -> Tensor | None:
    matrices = [part for part in parts if isinstance(part, Tensor) and part.ndim == 2]
    return matrices[0] if len(matrices) == 1 else None


def _described(output: Any) -> str:
    if isinstance(output, Tensor):
        return f"a tensor {tuple(output.shape)}"
    kind = f"{type(output).__name__}"
    if isinstance(output, Mapping):
        return f"{kind} of " + (", ".join(f"'{key}' {_described(part)}" for key, part in output.items()) or "nothing")
    if isinstance(output, tuple | list):
        return f"{kind} of " + (", ".join(map(_described, output)) or "nothing")
    return kind
