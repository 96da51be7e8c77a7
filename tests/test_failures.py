r"""What fails in the machine is one message; what is our own mistake says so and keeps its traceback."""

import errno
import lzma
import os
import resource
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny import TOY, command, train

from scoregen import checkpoint, failures
from scoregen.command_line import _end
from scoregen.errors import Interrupted, UserError, printable
from scoregen.messages import user_message


def raised(make) -> BaseException:
    try:
        make()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def deep() -> None:
    deep()


def truncated_zip(folder):
    (folder / "a.zip").write_bytes(b"PK")
    return zipfile.ZipFile(folder / "a.zip")


FAILURES = {
    "disk": (lambda folder: Path("/dev/full").write_text("a"), "no space is left on the device."),
    "absent": (lambda folder: (folder / "a/b").read_text(), "b': there is no such file or folder."),
    "folder": (lambda folder: folder.read_text(), "it is a folder."),
    "long": (lambda folder: (folder / ("a" * 300)).read_text(), "': the name or path is too long."),
    "read-only": (lambda folder: os.mkdir("/proc/self/a"), "'/proc/self/a': "),
    "loop": (
        lambda folder: (os.symlink("a", folder / "a"), (folder / "a").read_text()),
        "its links go round in a circle.",
    ),
    "allocator": (lambda folder: torch.empty(2**60), "there is not enough memory. Give a smaller batch_size"),
    "overflow": (lambda folder: torch.empty(2**62, 2**62), "there is not enough memory."),
    "memory": (lambda folder: bytearray(2**62), "there is not enough memory."),
    "deep": (lambda folder: deep(), "something is nested too deeply."),
    "zip": (truncated_zip, "a file is damaged: File is not a zip file."),
    "zlib": (lambda folder: zlib.decompress(b"abc"), "a file is damaged: "),
    "lzma": (lambda folder: lzma.decompress(b"abc"), "a file is damaged: "),
    "safetensors folder": (lambda folder: save_file({"a": torch.zeros(1)}, folder / "a/b"), "there is no such file"),
    "safetensors limit": (lambda folder: limited(folder), "larger than this process may write (ulimit -f)."),
    "python limit": (lambda folder: limited(folder, plain=True), "larger than this process may write (ulimit -f)."),
}


def limited(folder, plain: bool = False) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        (folder / "a").write_bytes(bytes(9999)) if plain else save_file({"a": torch.zeros(9999)}, folder / "a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", FAILURES)
def test_a_failure_of_the_machine_is_one_line(tmp_path, kind):
    make, text = FAILURES[kind]
    found = user_message(raised(lambda: make(tmp_path)))
    assert found is not None and text in found and "\n" not in found and "Errno" not in found


def test_an_error_of_safetensors_is_known_by_its_number():
    error = type("SafetensorError", (Exception,), {})("I/O error: No space left on device (os error 28)")
    assert failures.message(error) == "no space is left on the device."


@pytest.mark.parametrize(
    "error", [KeyError("a"), RuntimeError("shapes"), TypeError("x"), AssertionError(), ValueError()]
)
def test_other_errors_are_not_taken_for_one(error):
    assert failures.message(error) is None and user_message(error) is None
    with pytest.raises(type(error)), failures.translated("reading", "Look."):
        raise error


def test_a_translated_failure_says_what_was_done_and_what_to_do():
    text = r"^reading \(no space is left on the device\)\. Free some\.$"
    with pytest.raises(UserError, match=text), failures.translated("reading", "Free some."):
        raise OSError(errno.ENOSPC, "No space")
    with pytest.raises(UserError, match=r"^as it is$"), failures.translated("reading", "Free some."):
        raise UserError("as it is")


def test_a_mistake_of_ours_keeps_its_traceback_and_says_so():
    with pytest.raises(KeyError) as caught:
        _end("sample", [KeyError("a")], False)
    assert caught.value.__notes__[0].startswith("sample: this is a mistake in scoregen")
    code = "from scoregen.command_line import _end\ntry: {}['a']\nexcept KeyError as e: _end('sample', [e], False)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr and "KeyError: 'a'\nsample: this is a mistake in scoregen" in ended.stderr


@pytest.mark.parametrize(
    "text, shown",
    [
        ("a\x1b[31mred\x07", r"a\x1b[31mred\x07"),
        ("two\nlines\r", r"two\nlines\r"),
        ("right\u202eleft", r"right\u202eleft"),
        ("byte\udcff", r"byte\udcff"),
        ("Grüße, 你好 ~'=\\", "Grüße, 你好 ~'=\\"),
    ],
)
def test_control_characters_are_not_printed_raw(text, shown):
    assert printable(text) == shown == printable(printable(text))
    for error in (UserError(text), Interrupted(1, text), OSError(errno.ENOENT, "x", text)):
        assert shown in user_message(error)


def test_a_name_of_a_file_does_not_reach_the_terminal_raw(tmp_path, capfd):
    name = "a\x1b]0;title\x07.png"
    (tmp_path / name).write_bytes(b"no picture")
    (tmp_path / "b.png").write_bytes(b"no picture")
    assert command("train", "data=folder", f"data.path={tmp_path}", f"hydra.run.dir={tmp_path}/run") == 1
    shown = capfd.readouterr().err
    assert "\x1b" not in shown and r"a\x1b]0;title\x07.png" in shown


def test_a_checkpoint_on_a_full_disk_is_one_message_and_leaves_nothing(tmp_path):
    options = [*TOY, "model.network.width=64", "trainer.checkpoint_every=1"]
    folder = train(tmp_path / "run", *options, "trainer.steps=1")
    before = sorted(path.name for path in (folder / "checkpoints").iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))  # room for texts
    try:
        with pytest.raises(UserError, match=r"cannot be written \(.*larger than this process may write") as caught:
            train(folder, *options, "trainer.steps=2", "trainer.resume=auto")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == before
    train(folder, *options, "trainer.steps=2", "trainer.resume=auto")
    assert checkpoint.find(folder).name == "step_00000002"
