r"""What is installed is what is here, with what it imports; what is promised of versions is what is tested."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from importlib import import_module
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from tiny import TOY, train

import scoregen

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DEPENDENCIES = PROJECT["project"]["dependencies"]
EXTRAS = PROJECT["project"]["optional-dependencies"]


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
        assert distribution.get_version() == scoregen.__version__
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
    assert (built / "scoregen" / "py.typed").is_file()


def test_an_installed_package_finds_its_configuration(built, monkeypatch):
    monkeypatch.setattr("scoregen.config.__file__", str(built / "scoregen" / "config.py"))
    from scoregen.config import conf_dir

    assert conf_dir() == built / "scoregen" / "conf"
    assert (conf_dir() / "train.yaml").is_file()


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    r"""A folder with nothing but what pip installs of the wheel, which was built from the sdist."""
    pytest.importorskip("setuptools", "77")
    from setuptools import build_meta

    place = tmp_path_factory.mktemp("release")
    kept = shutil.ignore_patterns(".*", "outputs", "data", "tests", "benchmarks", "docs", "*.egg-info", "build", "dist")
    shutil.copytree(ROOT, place / "tree", ignore=lambda f, n: kept(f, n) if Path(f) == ROOT else {"__pycache__"} & {*n})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place / "tree")
        with tarfile.open(place / build_meta.build_sdist(str(place))) as archive:
            archive.extractall(place, filter="data")
        patch.chdir(place / f"scoregen-{scoregen.__version__}")
        wheel = place / build_meta.build_wheel(str(place))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile", "--target"]
    subprocess.run([*pip, str(place / "installed"), str(wheel)], check=True, capture_output=True)
    return place / "installed"


def test_the_installed_wheel_samples(installed, tmp_path):
    r"""Outside the tree, with the package of the wheel before the one that is here."""
    train(tmp_path / "run", *TOY, "trainer.steps=1")
    overrides = ["checkpoint=run", "n=2", "sampler.steps=2", "format=npz", "out=samples"]
    code = (
        "import scoregen, sys; from scoregen.__main__ import main; print(scoregen.__file__);"
        "sys.argv[1:] = ['--help']; assert not main();"
        f"sys.argv[1:] = ['sample', *{overrides}]; main()"
    )
    environment = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(installed))
    assert "smoothness" in done.stdout  # a job that --help lists
    assert (tmp_path / "samples" / "samples.npz").is_file()
    script = (installed / "bin" / "scoregen").read_text()
    assert "from scoregen.__main__ import main" in script


@pytest.mark.parametrize("name", PROJECT["project"]["scripts"])
def test_every_console_script_can_be_imported(name):
    module, _, function = PROJECT["project"]["scripts"][name].partition(":")
    assert callable(getattr(import_module(module), function))


def test_public_names_are_exported():
    for package in PROJECT["tool"]["setuptools"]["packages"]:
        if package != "scoregen.conf":
            module = import_module(package)
            assert all(hasattr(module, name) for name in module.__all__)
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = scoregen.lod


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements: list[str]) -> set[str]:
    return {normal(re.match(r"[\w.-]+", requirement)[0]) for requirement in requirements}


def imports(tree: ast.AST) -> set[str]:
    r"""The first names of the packages that a module imports, anywhere in it."""
    found = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    found += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 0]
    return {name.split(".")[0] for name in found} - {*sys.stdlib_module_names, "scoregen"}


@pytest.fixture(scope="module")
def distributions():
    return packages_distributions()


@pytest.mark.parametrize(
    ("inside_functions", "declared"),
    [
        pytest.param(False, names(DEPENDENCIES), id="at the top of a module: a dependency"),
        pytest.param(
            True,
            names(DEPENDENCIES + [r for name in EXTRAS if name not in ("test", "dev", "bench") for r in EXTRAS[name]]),
            id="in a function: a dependency or an extra",
        ),
    ],
)
def test_what_is_imported_is_declared(distributions, inside_functions, declared):
    undeclared = {}
    for file in (ROOT / "scoregen").rglob("*.py"):
        tree = ast.parse(file.read_text())
        if not inside_functions:
            tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        for package in imports(tree):
            if not declared & {normal(name) for name in distributions.get(package, [package])}:
                undeclared[package] = str(file.relative_to(ROOT))
    assert undeclared == {}


def test_no_module_imports_names_of_the_package_that_it_lies_in():
    r"""The import contracts see circles between modules, not those through an __init__.py."""
    for file in (ROOT / "scoregen").rglob("*.py"):
        package = ".".join(file.parent.relative_to(ROOT).parts)
        if file.name != "__init__.py" and package != "scoregen":
            nodes = ast.walk(ast.parse(file.read_text()))
            wanted = {a.name for n in nodes if isinstance(n, ast.ImportFrom) and n.module == package for a in n.names}
            assert wanted <= {path.stem for path in file.parent.glob("*.py")}, file


def pins(file: str) -> dict[str, str]:
    lines = [line for line in (ROOT / file).read_text().splitlines() if line and not line.startswith("#")]
    return {normal(name): version for name, version in (line.split("==") for line in lines)}


def trimmed(version: str) -> str:
    r"""1.26.0 and 1.26 are one version."""
    return re.sub(r"(\.0)+$", "", version)


def test_the_lowest_versions_that_are_tested_are_the_lowest_that_are_allowed():
    tested = pins("constraints-lowest.txt")
    allowed = [*DEPENDENCIES, *(r for e in ("tensorboard", "metrics", "lora", "test") for r in EXTRAS[e])]
    bounds = dict(re.match(r"([\w.-]+)>=([\d.]+)", r).groups() for r in allowed if not r.startswith("scoregen["))
    assert {name: trimmed(tested.get(normal(name), "")) for name in bounds} == {
        name: trimmed(bound) for name, bound in bounds.items()
    }


def test_losses_and_samplers_are_tested_with_the_lowest_torch():
    r"""`make test-lowest` leaves most of them out, since `make test` runs them with the same torch."""
    assert pins("constraints.txt")["torch"] == pins("constraints-lowest.txt")["torch"]


def test_every_requirement_has_a_version_with_which_all_tests_pass():
    required = names([*DEPENDENCIES, *(r for extra in EXTRAS.values() for r in extra)]) - {"scoregen"}
    assert required <= {*pins("constraints.txt")}


def test_the_citation_names_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == scoregen.__version__
    assert citation["license"] == PROJECT["project"]["license"]
