r"""Random values for random keys of a random job: it can be run, or ends in one message."""

from collections.abc import Sequence
from typing import Any

from fault_jobs import MESSAGE, TOY, Bench, Seen
from fault_process import Child, one_message

VALUES: Sequence[str] = (
    *("null", "0", "-1", "1", "2", "0.5", "1e308", "-1e308", "nan", "inf", "1e-320", "true", "''", "abc", "[]", "{}"),
    *("[1]", "[1,2,3]", "{a: 1}", "10000000000000000000000", "auto", "???", "ünïcödé", '"a b"', "[[[]]]", "[null]"),
)


def keys(job: str) -> list[str]:
    r"""The keys of a job's configuration, nodes and leaves."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from scoregen.config import conf_dir

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config: Any = OmegaConf.to_container(compose(job, overrides=BASES[job]), resolve=False)

    def walk(node: Any, where: str) -> list[str]:
        below = [found for key, inner in node.items() for found in walk(inner, f"{where}.{key}".strip("."))]
        return [where, *below] if where else below

    def tree(node: Any) -> Any:
        return {key: tree(inner) for key, inner in node.items()} if isinstance(node, dict) else {}

    return sorted(key for key in walk(tree(config), "") if key not in ("out", "dry_run"))


BASES = {
    "train": [*TOY, "trainer.steps=2"],
    "sample": ["n=2"],
    "restore": ["looks=4"],
    "interpolate": ["between=[0,1]"],
    "evaluate": ["data=digits", "n=4", "features=pixels"],
    "sweep": ["data=digits", "n=4", "features=pixels"],
    "smoothness": ["data=digits", "pairs=2"],
    "certify": ["data=digits", "n=100", "max_inputs=2"],
}


def overridden(bench: Bench) -> Seen:
    r"""Random values for random keys of a random job, which only looks."""
    chance, folder = bench.random, bench.new()
    job = chance.choice(["train", "train", "train", *BASES])
    known = bench.made.setdefault(f"keys of {job}", (keys(job), 0.0))[0]  # type: ignore[arg-type]  # kept there too
    pairs = [f"{key}={chance.choice(VALUES)}" for key in chance.sample(known, chance.choice([1, 1, 1, 2, 3]))]
    needed = [] if job == "train" else [f"checkpoint={bench.network('classifier' if job == 'certify' else 'digits')}"]
    ended = Child(job, [*BASES[job], *needed, *pairs, "dry_run=true"], folder / "log").wait(60)
    if ended.status == 0 or (ended.status == 1 and one_message(ended) == MESSAGE):
        return Seen("done, or one message")
    return Seen(f"{job} {' '.join(pairs)}: status {ended.status}, {one_message(ended)}")
