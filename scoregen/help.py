r"""Help of the jobs, read from their configuration files: quick, without Hydra and torch."""

import re

from scoregen.config import conf_dir

JOBS = (
    *("train", "sample", "restore", "interpolate", "evaluate", "sweep", "smoothness", "certify", "predict", "compare"),
    *("export", "fit_grid", "impute", "gallery", "demo"),
    *("dual", "targets"),
)
FLAGS = (
    "--cfg job prints the configuration, --multirun runs every combination of a=1,2, --hydra-help lists Hydra's flags"
)


def list_of_jobs() -> str:
    r"""One line a job."""
    width = max(map(len, JOBS))
    lines = [f"  {job.ljust(width)}  {_head(_text(job))[0]}" for job in JOBS]
    return "\n".join(["scoregen JOB key=value ...", "", *lines, "", "scoregen JOB --help lists the keys of a job."])


def help_of(job: str) -> str:
    r"""What a job does, three examples, its groups with their options, and its keys with their comments."""
    text = _text(job)
    what, *examples = _head(text)
    groups = [_group(name, default, comment) for name, default, comment in _defaults(text)]
    if job == "train":
        groups.append(_group("+experiment", "NAME", "a recipe; its file has command, time and result"))
    keys = _keys(text)
    groups_part = ["", "Groups (GROUP=OPTION):", *groups] if groups else []
    return "\n".join([what, "", *examples, *groups_part, "", "Keys (KEY=VALUE):", *keys, "", FLAGS + "."])


def _text(job: str) -> str:
    return (conf_dir() / f"{job}.yaml").read_text()


def _head(text: str) -> list[str]:
    r"""The comment that a root begins with: what the job does, then examples."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if line.strip("# "):
            lines.append(line.removeprefix("# ").rstrip())
    return lines


def _defaults(text: str) -> list[tuple[str, str, str]]:
    r"""(group, default, comment) of the defaults list."""
    found = re.findall(r"^  - (\w+): (\w+)(?: # (.*))?$", text, re.MULTILINE)
    return [(group, default, comment) for group, default, comment in found]


def _group(name: str, default: str, comment: str) -> str:
    note = f" ({comment})" if comment else ""
    return f"  {name}={default}{note}\n      {' '.join(options_of(name.lstrip('+')))}"


def options_of(group: str) -> list[str]:
    r"""The options of a configuration group, those in its folders too: TOPIC/NAME."""
    folder = conf_dir() / group
    return sorted(file.relative_to(folder).with_suffix("").as_posix() for file in folder.rglob("*.yaml"))


def _keys(text: str) -> list[str]:
    r"""The keys with their comments, without what is Hydra's."""
    body = text.split("_target_: scoregen.jobs.", 1)[1].split("\n", 1)[1]
    body = re.split(r"^hydra:", body, flags=re.MULTILINE)[0]
    lines = [line for line in body.splitlines() if line.strip() and "_target_:" not in line]
    return [f"  {line}" for line in lines]
