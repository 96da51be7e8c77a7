r"""The same values of each job twice: on the command line, and in Python."""

from pathlib import Path

from tiny import DIGITS, compose

import scoregen
from scoregen.data import Digits
from scoregen.description import option
from scoregen.jobs import Job
from scoregen.metrics import Pixels, Settings
from scoregen.samplers import DDIM, Heun, Karras
from scoregen.smoothing import Gaussian

TENTHS = [k / 10 for k in range(1, 11)]
Ways = dict[str, tuple[list[str], Job]]


def both_ways(runs: Path) -> Ways:
    r"""The arguments of the command line and the job in Python, by the name of the job; `runs` has their inputs."""
    return _making(runs) | _measuring(runs) | _certifying(runs)


def _making(runs: Path) -> Ways:
    r"""Jobs that make samples, pictures, tables or a model."""
    digits, heun, ddim = f"{runs}/digits", Heun(2, grid=Karras(7.0)), DDIM(3, grid=Karras(7.0))
    return {
        "sample": (
            [f"checkpoint={digits}", "sampler=heun", "sampler.steps=2", "n=3", "label=all", "guidance=2"],
            scoregen.Sample(checkpoint=digits, sampler=heun, n=3, label="all", guidance=2),
        ),
        "restore": (
            [f"checkpoint={runs}/log", f"images={runs}/speckled.npz", "looks=4", "probes=1"],
            scoregen.Restore(checkpoint=f"{runs}/log", images=f"{runs}/speckled.npz", looks=4, probes=1),
        ),
        "impute": (
            [f"checkpoint={runs}/table", f"table={runs}/rows.csv", "draws=2", "sampler=heun", "sampler.steps=2"],
            scoregen.Impute(checkpoint=f"{runs}/table", table=f"{runs}/rows.csv", draws=2, sampler=heun),
        ),
        "interpolate": (
            [f"checkpoint={digits}", "sampler=ddim", "sampler.steps=3", "between=[0,1]", "frames=3"],
            scoregen.Interpolate(checkpoint=digits, sampler=ddim, between=[0, 1], frames=3),
        ),
        "gallery": (
            [f"run={digits}", "sampler=ddim", "sampler.steps=3", "samplers=[ddim]", "calls=[1]", "n=10"],
            scoregen.Gallery(checkpoint=digits, sampler=ddim, samplers=["ddim"], calls=[1], n=10),
        ),
        "export": (
            [f"checkpoint={digits}", "sampler=ddim", "sampler.steps=3", "n=2", "licence=mit"],
            scoregen.Export(checkpoint=digits, sampler=ddim, n=2, licence="mit"),
        ),
        "fit_grid": (
            [f"checkpoint={digits}", "sampler=ddim", "sampler.steps=3", "n=2", "evaluations=2", "reference=4"],
            scoregen.FitGrid(checkpoint=digits, sampler=ddim, n=2, evaluations=2, reference=4),
        ),
        "train": (
            [*DIGITS, "trainer.steps=2"],
            scoregen.Train(
                data=Digits(),
                model=option("model", "auto") | {"network": {**option("model", "auto")["network"], "channels": [4]}},
                trainer=compose(*DIGITS, "trainer.steps=2")["trainer"],
                preview={"_target_": "scoregen.monitors.Preview", "every": None, "n": 64, "seed": 0},
            ),
        ),
    }


def _measuring(runs: Path) -> Ways:
    r"""Jobs that measure a model."""
    digits, data, fast = f"{runs}/digits", Digits(), Settings(bootstrap=0, subset=50, k=3)
    quick = ["data=digits", "features=pixels", "metrics.bootstrap=0", "metrics.subset=50", "cache=null", "n=5"]
    measured = {"data": data, "features": Pixels(), "metrics": fast, "cache": None, "n": 5, "checkpoint": digits}
    heun, ddim = Heun(2, grid=Karras(7.0)), DDIM(3, grid=Karras(7.0))
    return {
        "evaluate": (
            [f"checkpoint={digits}", "sampler=heun", "sampler.steps=2", *quick],
            scoregen.Evaluate(sampler=heun, **measured),
        ),
        "sweep": (
            [f"checkpoint={digits}", "samplers=[ddim]", "calls=[2]", *quick],
            scoregen.Sweep(samplers=["ddim"], calls=[2], **measured),
        ),
        "smoothness": (
            [f"checkpoint={digits}", "sampler=ddim", "sampler.steps=3", "pairs=2", "points=3", "inversion=1"],
            scoregen.Smoothness(checkpoint=digits, sampler=ddim, pairs=2, points=3, inversion=1, data=data),
        ),
    }


def _certifying(runs: Path) -> Ways:
    r"""Jobs of certificates."""
    data = Digits()
    return {
        "certify": (
            [f"checkpoint={runs}/classifier", "data=digits", "n=200", "max_inputs=2", "noise.sigma=0.25"],
            scoregen.Certify(checkpoint=f"{runs}/classifier", data=data, n=200, max_inputs=2, noise=Gaussian(0.25)),
        ),
        "predict": (
            [f"checkpoint={runs}/classifier", "data=digits", "data.test=auto", "n=100"],
            scoregen.Predict(checkpoint=f"{runs}/classifier", data=data, n=100),
        ),
        "dual": (
            [
                f"selector={runs}/classifier",
                f"experts=[{','.join([f'{runs}/classifier'] * 10)}]",
                f"sigmas={TENTHS}".replace(" ", ""),
                *("data=digits", "n=200", "max_inputs=2", "noise.sigma=0.25"),
            ],
            scoregen.Dual(
                selector=f"{runs}/classifier",
                experts=[f"{runs}/classifier"] * 10,
                sigmas=TENTHS,
                **{"data": data, "n": 200, "max_inputs": 2, "noise": Gaussian(0.25)},
            ),
        ),
        "targets": (
            [f"runs=[{runs}/small,{runs}/large]", "data=digits"],
            scoregen.Targets(runs=[f"{runs}/small", f"{runs}/large"], data=data),
        ),
        "compare": ([f"runs=[{runs}/a,{runs}/b]"], scoregen.Compare(runs=[f"{runs}/a", f"{runs}/b"])),
    }
