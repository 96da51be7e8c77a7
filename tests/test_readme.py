r"""What README and docs tell a user to type works, and what they point to exists."""

import ast
import importlib
import inspect
import re
import shlex
from pathlib import Path
from string import Template

import pytest
from tiny import DIGITS, train

from scoregen import command_line
from scoregen.config import conf_dir, locate
from scoregen.help import JOBS, options_of

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WRITTEN = [
    page for page in PAGES if page.name != "extending.md"
]  # whose classes are the reader's own; run by tests/laws
SCRIPTS = {"train.py": "train", "sample.py": "sample"}
MODULES = ("scoregen", "scoregen.metrics", "scoregen.smoothing")
START = re.compile(r"(?:\w+=\S* )*(?:python (?!-c)|scoregen |torchrun |accelerate |srun )")


def lines_of(page: Path) -> list[str]:
    r"""Lines of the code that is no Python: continued ones joined, comments left out, shell variables put in."""
    text = re.sub(r"```(?:python|yaml|toml).*?```", "", page.read_text(), flags=re.S)
    code = re.findall(r"```\w*\n(.*?)```", text, re.S) + re.findall(r"^ {4}(?:.*\n?)", text, re.M)
    joined = "".join(part if part.endswith("\n") else part + "\n" for part in code).replace("\\\n", " ")
    variables: dict[str, str] = {}
    found: list[str] = []
    for raw in joined.splitlines():
        line = Template(re.sub(r"(^|\s)#.*", "", raw).strip()).safe_substitute(variables)
        if re.fullmatch(r"""(\w+=("[^"]*"|'[^']*'|\S+)\s*)+""", line) and "." not in line.split("=")[0]:
            variables |= dict(part.split("=", 1) for part in shlex.split(line))
        elif line.startswith("... ") and found:
            found.append(f"{found[-1]} {line[4:]}")
        elif START.match(line):
            found.append(line)
    return found


def spoken(page: Path) -> list[str]:
    r"""Commands with arguments inside sentences."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    return [span for span in re.findall(r"`([^`\n]+)`", text) if START.match(span)]


def job_and_arguments(line: str) -> tuple[str, list[str]] | None:
    r"""(job, arguments) of a command line; None for another program."""
    words = shlex.split(re.split(r"\s(?:[&|;]+|>+\s?\S+)(?:\s|$)", line)[0])
    for k, word in enumerate(words):
        if word in SCRIPTS:
            return SCRIPTS[word], words[k + 1 :]
        if word == "-m" and words[k + 1] in MODULES[1:] and not words[k + 2].startswith("verify="):  # which is no job
            return _meant(words[k + 1], words[k + 2 :])
        if (word == "-m" and words[k + 1] == "scoregen") or (word == "scoregen" and words[k - 1] != "-m"):
            job, *rest = words[k + 1 + (word == "-m") :] or ["--help"]
            return None if job.startswith("-") or not job.isidentifier() or job == "JOB" else (job, rest)
    return None


def _meant(module: str, words: list[str]) -> tuple[str, list[str]]:
    r"""The job that a module of the package makes of its arguments."""
    found: list[tuple[str, list[str]]] = []
    program = importlib.import_module(f"{module}.__main__")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [module, *words])
        patch.setattr(program, "run_job", lambda job, argv: found.append((job, argv)))
        program.main()
    return found[0]


def overrides_of(arguments: list[str]) -> list[str]:
    r"""Arguments without what stands for something (`...`, DATA as an option), and one value for each sweep."""
    found = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        group = (conf_dir() / name.lstrip("+")).is_dir()
        stands_for = value == "..." or "$" in value or (group and value.isupper())
        if argument == "..." or argument.startswith("hydra") or (group and stands_for):
            continue
        sweep = equals and re.fullmatch(r"[\w./]+(,[\w./]+)+|(range|interval|choice)\(.*\)", value)
        first = re.sub(r"^\w+\(", "", value).split(",")[0]
        found.append(f"{name}=null" if stands_for else f"{name}={first}" if sweep else argument)
    return found


def check_nodes(node: object, where: str = "") -> None:
    r"""Every key beside a `_target_` is an argument of the target."""
    if isinstance(node, list):
        for inner in node:
            check_nodes(inner, where)
    if isinstance(node, dict):
        target = node.get("_target_", "auto")
        own = target.split(".")[0] not in ("scoregen", "torch")  # of a class that the reader writes, or picked by data
        known = None if own else inspect.signature(locate(target, where)).parameters
        for key, inner in node.items():
            assert known is None or key in ("_target_", "_partial_") or key in known, f"{where}.{key} of {target}"
            check_nodes(inner, f"{where}.{key}")


def check_command(job: str, arguments: list[str]) -> None:
    r"""A command line as the program reads it, up to the building of the job."""
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf, open_dict

    assert job in JOBS, job
    overrides = overrides_of(arguments)
    command_line._check_arguments(job, overrides)
    overrides = [part for part in overrides if not part.startswith("-")]
    command_line._check_grammar(overrides)
    whole, rest = command_line._whole_nodes(overrides)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose(job, overrides=rest, return_hydra_config=True)
    HydraConfig.instance().set_config(config)  # for ${hydra:runtime.choices.data}
    with open_dict(config):
        config.pop("hydra")
        config.pop("out", None)
    command_line._replace(config, whole, rest)
    check_nodes(OmegaConf.to_container(config, resolve=True))


COMMANDS = {
    f"{page.name}: {line}": found
    for page in PAGES
    for line in (*lines_of(page), *spoken(page))
    if (found := job_and_arguments(line))
}


def merged() -> dict[str, tuple[str, list[str], list[str]]]:
    r"""(job, overrides, lines) of the commands that choose the same options, with the keys of all of them."""
    found: dict[str, tuple[str, dict[str, str], list[str]]] = {}
    for line, (job, arguments) in COMMANDS.items():
        overrides = overrides_of(arguments)
        chosen = [
            part for part in overrides if part[0] == "~" or (conf_dir() / part.split("=")[0].lstrip("+")).is_dir()
        ]
        _, keys, lines = found.setdefault(" ".join([job, *chosen]), (job, {part: part for part in chosen}, []))
        keys.update({part.split("=")[0]: part for part in overrides if part not in chosen})
        lines.append(line)
    return {name: (job, list(keys.values()), lines) for name, (job, keys, lines) in found.items()}


def test_the_readme_shows_every_job_and_every_way_to_start_one():
    text = "\n".join([*lines_of(ROOT / "README.md"), *spoken(ROOT / "README.md")])
    for program in ("python train.py", "python sample.py", *(f"python -m {module}" for module in MODULES)):
        assert program in text, program
    shown = {found[0] for name, found in COMMANDS.items() if name.startswith("README.md")}
    assert shown == set(JOBS)


@pytest.mark.parametrize(("job", "arguments", "lines"), merged().values(), ids=list(merged()))
def test_commands_compose_with_keys_and_options_that_exist(job, arguments, lines):
    try:
        check_command(job, arguments)
    except Exception as error:
        error.add_note("\n".join(lines))
        raise


@pytest.mark.parametrize(
    "line",
    [
        "python train.py trainer.stepz=3",
        "python train.py +trainer.stepz=3",
        "python train.py sde=vpp",
        "python sample.py restore=a.png",
        "scoregen certify data=mnist votes=3",
        "python -m scoregen.metrics sweep=[heun] call=[3]",
        "torchrun --standalone --nproc_per_node 2 train.py data=DATA sampler=none",
    ],
)
def test_wrong_commands_would_be_found(line):
    found = job_and_arguments(line)
    assert found
    with pytest.raises(Exception, match=r"\w"):
        check_command(*found)


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_options_named_in_sentences_exist(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for span in re.findall(r"`([^`\n]+)`", text):
        for group, value in re.findall(r"(?:^|[\s'+])(\w+)=([a-z]\w*(?:/\w+)*)(?=$|[\s'|])", span):
            if (conf_dir() / group).is_dir():
                assert value in (*options_of(group), "null"), span


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_benchmarks_and_make_targets_exist(page):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"(?:^ {4}|`|\n)make ([\w-]+)", page.read_text())) <= targets
    for name, rest in re.findall(r"python benchmarks/(\w+)\.py([^`\n#]*)", page.read_text()):
        source = (ROOT / "benchmarks" / f"{name}.py").read_text()
        for flag in re.findall(r"(?<=\s)(--[a-z-]+)", rest):
            assert f'"{flag}"' in source, (name, flag)


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_files_and_tests_that_a_page_names_exist(page):
    text = page.read_text()
    for name in re.findall(r"(?:tests|benchmarks|conf|scoregen)/[\w/]+\.(?:py|yaml)", text):
        assert (ROOT / name).exists(), name
    tests = "".join(path.read_text() for path in sorted((ROOT / "tests").rglob("test_*.py")))
    for name in re.findall(r"`(test_\w+)`", text):
        assert f"def {name}(" in tests, name


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_imports_of_the_python_examples_work(page):
    for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.S):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("scoregen"):
                module = importlib.import_module(node.module or "")
                for name in node.names:
                    assert hasattr(module, name.name), f"{node.module}.{name.name}"


def test_the_library_examples_run_and_give_what_they_state(tmp_path, monkeypatch):
    train(tmp_path / "outputs" / "demo", *DIGITS, "trainer.steps=1")
    monkeypatch.chdir(tmp_path)
    lines, job = re.findall(r"```python\n(.*?)```", README, re.S)
    names: dict = {}
    exec(compile(lines, "README.md", "exec"), names)
    assert names["x"].shape == (10, 1, 8, 8)
    first = re.search(r"shape=\((\d+), 1, 8, 8\), generator=g\)\s+# \((.*?)\)", lines)
    assert first.group(2) == f"{first.group(1)}, 1, 8, 8"
    exec(compile(job, "README.md", "exec"), {})
    assert len(list((tmp_path / "outputs/samples/heun/images").iterdir())) == 64


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_exist_and_pictures_are_small(page):
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        target = page.parent / link
        assert target.exists(), link
        assert target.suffix != ".png" or target.stat().st_size < 300_000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_headings_have_a_heading(page):
    for link, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text()):
        target = (page.parent / link if link else page).read_text()
        headings = [
            re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.*)$", target, re.M)
        ]
        assert anchor in headings, f"{link}#{anchor}"
