r"""A folder of diffusers, read at a bounded cost: JSON of regular files, and which files hold the weights of a part."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scoregen.errors import UserError
from scoregen.foreign import MOST_BYTES, read_bytes

_WEIGHTS = "diffusion_pytorch_model"


@dataclass(frozen=True)
class Folder:
    r"""A pipeline (model_index.json), its parts unet/ and scheduler/, or a model (config.json with a `_class_name`).

    Args:
        path: the folder.
    """

    path: Path

    def exists(self) -> bool:
        r"""Whether it is such a folder."""
        if self.has("model_index.json") or self.has_parts():
            return True
        if not (self.path / "config.json").is_file():
            return False
        try:
            return "_class_name" in self.read("config.json")
        except UserError:
            return False

    def read(self, name: str) -> dict[str, Any]:
        r"""The mapping of a JSON file.

        Raises:
            UserError: the file is missing, damaged or not a mapping.
        """
        path = self.path / name
        try:
            found = json.loads(read_bytes(path, MOST_BYTES))
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(
                f"checkpoint: '{path}' is missing or damaged ({' '.join(str(error).split())[:200]}). Write the folder "
                "anew with save_pretrained."
            ) from error
        if not isinstance(found, dict):
            raise UserError(f"checkpoint: '{path}' must be a mapping, got {type(found).__name__}.")
        return found

    def has_parts(self) -> bool:
        r"""Whether a U-Net and its scheduler stand in it without the pipeline that they need."""
        return self.has("unet/config.json") and self.has("scheduler/scheduler_config.json")

    def has(self, name: str) -> bool:
        r"""Whether there is a file of this name."""
        return (self.path / name).is_file()

    def weights(self, part: str) -> list[Path]:
        r"""The safetensors of a part, a folder inside this one or "".

        Raises:
            UserError: there are no safetensors; pickles are not read.
        """
        folder = self.path / part
        whole = folder / f"{_WEIGHTS}.safetensors"
        if whole.is_file():
            return [whole]
        if (folder / f"{_WEIGHTS}.safetensors.index.json").is_file():
            return self._shards(part)
        other = sorted(file.name for file in folder.glob(f"{_WEIGHTS}*") if file.suffix != ".json")
        found = f"it has {', '.join(other)}" if other else "it has no weights"
        raise UserError(
            f"checkpoint: '{folder}' has no {whole.name}; {found}. Pickles are not read. Write it anew with "
            "save_pretrained(FOLDER, safe_serialization=True)."
        )

    def _shards(self, part: str) -> list[Path]:
        places = Folder(self.path / part).read(f"{_WEIGHTS}.safetensors.index.json").get("weight_map")
        names = sorted(set(map(str, places.values()))) if isinstance(places, Mapping) else []
        for name in names:
            if Path(name).name != name or not (self.path / part / name).is_file():
                raise UserError(f"checkpoint: '{self.path / part}' has no '{name}', which its index names.")
        return [self.path / part / name for name in names]
