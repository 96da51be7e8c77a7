r"""What is installed is what is here."""

import tomllib
from pathlib import Path

import pytest

import scoregen

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_package_of_the_tree_is_listed():
    tree = {".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "scoregen").rglob("__init__.py")}
    assert {*PROJECT["tool"]["setuptools"]["packages"]} == {*tree, "scoregen.conf"}
    folders = {p.parent for p in (ROOT / "scoregen").rglob("*.py")}
    assert all((folder / "__init__.py").exists() for folder in folders)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    r"""The tree that setuptools would put into the wheel."""
    pytest.importorskip("setuptools", "77")
    from setuptools import Distribution
    from setuptools.command.build_py import build_py
    from setuptools.config.pyprojecttoml import apply_configuration

    place = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        distribution = Distribution()
        apply_configuration(distribution, ROOT / "pyproject.toml")
        distribution.script_name = "setup.py"
        command = build_py(distribution)
        command.build_lib = str(place)
        command.finalize_options()
        command.run()
    return place


def test_the_wheel_holds_every_configuration_and_module(built):
    def relative(root: Path, pattern: str) -> set[str]:
        return {str(p.relative_to(root)) for p in root.rglob(pattern) if "__pycache__" not in p.parts}

    assert relative(built / "scoregen" / "conf", "*.yaml") == relative(ROOT / "conf", "*.yaml")
    assert relative(built / "scoregen", "*.py") == relative(ROOT / "scoregen", "*.py")


def test_an_installed_package_finds_its_configuration(built, monkeypatch):
    monkeypatch.setattr("scoregen.config.__file__", str(built / "scoregen" / "config.py"))
    from scoregen.config import conf_dir

    assert conf_dir() == built / "scoregen" / "conf"
    assert (conf_dir() / "train.yaml").is_file()


@pytest.mark.parametrize("name", PROJECT["project"]["scripts"])
def test_every_console_script_can_be_imported(name):
    from importlib import import_module

    module, _, function = PROJECT["project"]["scripts"][name].partition(":")
    assert callable(getattr(import_module(module), function))


def test_public_names_are_exported():
    from importlib import import_module

    for package in PROJECT["tool"]["setuptools"]["packages"]:
        if package.count(".") == 1 and package != "scoregen.conf":
            module = import_module(package)
            assert all(hasattr(module, name) for name in module.__all__)
    assert callable(scoregen.load)
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = scoregen.lod
