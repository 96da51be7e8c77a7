r"""Checkpoints at a URL that fsspec knows: s3://, gs://, az://, sftp://, file://, memory://.

Stores of objects rename nothing as a whole. A checkpoint there is whole by its order: its state.json, which holds the
digests of the other files, is written last and removed first. Nothing is read from a URL that a user did not give.
"""

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from scoregen.errors import UserError
from scoregen.storage import digest, put_folder

_MANIFEST = "state.json"
_MOST_MANIFEST = 2**26


def is_url(path: Path | str) -> bool:
    r"""Whether a text is a URL, not a path."""
    return isinstance(path, str) and "://" in path


def check_url(url: str, key: str) -> None:
    r"""Refuses what is no URL that fsspec can use, without reaching for it.

    Raises:
        UserError: it names the key.
    """
    if not is_url(url):
        raise UserError(f"{key}: must be a URL such as s3://BUCKET/RUN, got {url!r}.")
    Remote(url, key)


class Remote:
    r"""A folder at a URL.

    Args:
        url: of the folder. key: that gave it, for messages.

    Raises:
        UserError: fsspec is not installed, or does not know the kind of URL.
    """

    def __init__(self, url: str, key: str) -> None:
        self.url, self.key = url.rstrip("/"), key
        try:
            import fsspec
        except ModuleNotFoundError as error:
            raise UserError(f"{key}: '{url}' needs the extra `remote`: pip install 'scoregen[remote]'.") from error
        try:
            self.files, self.root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:  # a package that it needs, or an unknown protocol
            raise UserError(f"{key}: '{url}' cannot be used: {' '.join(str(error).split())}") from error

    def names(self, below: str = "") -> list[str]:
        r"""The names of files and folders there; none where there is no such folder."""
        with self._reached():
            place = self._place(below)
            if not self.files.exists(place):
                return []
            self.files.invalidate_cache()
            return sorted(PurePosixPath(name).name for name in self.files.ls(place, detail=False))

    def manifest(self, checkpoint: str) -> bytes | None:
        r"""state.json of a checkpoint, None where there is none, so that the checkpoint is not whole."""
        with self._reached():
            try:
                found: bytes = self.files.cat_file(self._place(f"{checkpoint}/{_MANIFEST}"), end=_MOST_MANIFEST)
            except FileNotFoundError:
                return None
            return found

    def upload(self, folder: Path, checkpoint: str) -> None:
        r"""Writes a checkpoint, state.json last; one of this name that is the same is left as it is."""
        manifest = (folder / _MANIFEST).read_bytes()
        before = self.manifest(checkpoint)
        if before == manifest:
            return
        others = [path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / _MANIFEST]
        with self._reached():
            if before is not None:
                self.files.rm_file(self._place(f"{checkpoint}/{_MANIFEST}"))
            self.files.makedirs(self._place(checkpoint), exist_ok=True)
            for path in (*others, folder / _MANIFEST):
                self.files.put_file(str(path), self._place(f"{checkpoint}/{path.relative_to(folder).as_posix()}"))

    def download(self, checkpoint: str, folder: Path) -> Path:
        r"""The files that state.json lists, and it, in a local folder; each is compared with its digest.

        Raises:
            UserError: it is not whole, or not what was written.
        """
        manifest = self.manifest(checkpoint)
        if manifest is None:
            raise UserError(f"{self.key}: '{self.url}/{checkpoint}' is no whole checkpoint: it has no {_MANIFEST}.")
        listed = self._listed(manifest, checkpoint)
        if _is_there(folder, manifest, listed):
            return folder
        partial = folder.with_name(f".{folder.name}.{os.getpid()}.{threading.get_ident()}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            with self._reached():
                for name, expected in listed.items():
                    self.files.get_file(self._place(f"{checkpoint}/{name}"), str(partial / name))
                    if digest(partial / name) != expected:
                        raise UserError(
                            f"{self.key}: '{self.url}/{checkpoint}/{name}' is not what was written. Use an earlier "
                            "checkpoint."
                        )
                (partial / _MANIFEST).write_bytes(manifest)
            put_folder(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return folder

    def remove(self, checkpoint: str) -> None:
        r"""Deletes a checkpoint, state.json first."""
        with self._reached():
            names = self.names(checkpoint)
            for name in sorted(names, key=lambda name: name != _MANIFEST):
                self.files.rm(self._place(f"{checkpoint}/{name}"))
            if self.files.exists(self._place(checkpoint)):  # stores of objects have no empty folders
                self.files.rm(self._place(checkpoint), recursive=True)

    def write(self, name: str, data: bytes) -> None:
        r"""Writes a small file."""
        with self._reached():
            self.files.pipe_file(self._place(name), data)

    def read(self, name: str) -> bytes | None:
        r"""A small file, or None where there is none."""
        with self._reached():
            try:
                found: bytes = self.files.cat_file(self._place(name), end=4096)
            except FileNotFoundError:
                return None
            return found

    def _place(self, name: str) -> str:
        return "/".join(part for part in (str(self.root), *name.split("/")) if part)

    def _listed(self, manifest: bytes, checkpoint: str) -> dict[str, str]:
        r"""Names and digests of the files of a checkpoint, names that stay inside its folder."""
        try:
            files = json.loads(manifest)["files"]
            listed = {str(name): str(value) for name, value in files.items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{self.key}: '{self.url}/{checkpoint}/{_MANIFEST}' is damaged ({error}).") from error
        strange = next((name for name in listed if PurePosixPath(name).name != name or "\\" in name), None)
        if strange is not None:
            raise UserError(f"{self.key}: '{self.url}/{checkpoint}' lists a file outside its folder: {strange!r}.")
        return listed

    @contextmanager
    def _reached(self) -> Iterator[None]:
        r"""Whatever a store raises is one message: each has errors of its own."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            text = " ".join(str(error).split())[:300]
            raise UserError(f"{self.key}: '{self.url}' failed ({type(error).__name__}: {text}).") from error


def newest(remote: Remote) -> str | None:
    r"""The checkpoint that a URL means: itself (""), else the last whole one of a run; None where there is none."""
    if remote.manifest("") is not None:
        return ""
    for below in ("checkpoints/", ""):
        names = remote.names(below)
        steps = [name for name in names if name.startswith("step_") and name.removeprefix("step_").isdigit()]
        last = remote.read(f"{below}last") if "last" in names else None
        first = [name for name in steps if last is not None and name == last.decode(errors="replace").strip()]
        for name in dict.fromkeys([*first, *sorted(steps, key=lambda step: int(step[5:]), reverse=True)]):
            if remote.manifest(below + name) is not None:
                return below + name
    return None


def fetched(url: str, key: str) -> Path:
    r"""A local copy of the checkpoint that a URL means, in the cache of the user; it is kept and compared next time.

    Args:
        url: of a checkpoint, or of a run (its last whole one). key: that gave it, for messages.

    Raises:
        UserError: there is none, or it is damaged.
    """
    remote = Remote(url, key)
    name = newest(remote)
    if name is None:
        raise UserError(f"{key}: '{url}' has no whole checkpoint (a folder with {_MANIFEST}).")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scoregen" / "remote"
    place = hashlib.sha256(remote.url.encode()).hexdigest()[:16]
    return remote.download(name, cache / place / (PurePosixPath(name).name or PurePosixPath(remote.root).name))


def _is_there(folder: Path, manifest: bytes, listed: dict[str, str]) -> bool:
    r"""Whether a local copy is this checkpoint, read and compared."""
    try:
        same = (folder / _MANIFEST).read_bytes() == manifest
        return same and all(digest(folder / name) == value for name, value in listed.items())
    except OSError:
        return False
