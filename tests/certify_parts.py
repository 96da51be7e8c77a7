r"""The job certify on five digits, and the comparison of its results."""

from tiny import job


def run(out, *overrides, **nodes):
    r"""The job on five digits."""
    return job(
        "certify", "data=digits", "n=300", "max_inputs=5", *overrides, **{"classifier": "brightest:network"} | nodes
    ).run(out)


def comparison(out, *runs):
    return job("compare", runs=[str(run) for run in runs]).run(out)
