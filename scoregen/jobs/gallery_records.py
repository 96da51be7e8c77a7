r"""What a gallery shows beside new samples: the log of the training, and the training samples nearest to new ones."""

from pathlib import Path

from scoregen.jobs.gallery_page import Section, curve_png, labelled_png
from scoregen.jobs.gallery_sections import MOST, SEEDS, Shown, first

_WORDS = {"grad_norm": "norm of the gradient", "lr": "learning rate", "KD": "kernel distance"}


def curves(folder: Path | None) -> Section:
    from scoregen.training.loggers import read_metrics

    heading = "Training curves"
    lines = [] if folder is None else read_metrics(folder)
    names = [name for name in dict.fromkeys(key for line in lines for key in line) if _is_curve(name)]
    figures = []
    for name in names:
        points = [(line["step"], line[name]) for line in lines if "step" in line and name in line]
        if len(points) > 1:
            steps, values = zip(*points, strict=True)
            title = _WORDS.get(name, name)
            figures.append((curve_png(steps, values, title), title))
    if not figures:
        return Section(heading, "There is no log with two or more points beside this checkpoint (metrics.jsonl).")
    return Section(heading, "What the training logged.", figures)


def _is_curve(name: str) -> bool:
    return name in ("loss", "grad_norm", "lr", "accuracy", "KD") or name[:2] in ("FD", "FI")


def neighbours(run: Shown) -> Section:
    from scoregen.metrics import nearest_neighbours

    heading = "Nearest neighbours in the training data"
    if run.data is None or run.data.part("train") is None:
        return Section(heading, f"No neighbours are looked for: {run.why or 'the data have no training part.'}")
    held = run.data.part("test") or run.data.part("validation")
    if held is None or len(held) < 2:
        return Section(heading, "The data have no held-out part to judge nearness by. Give data.test=0.1.")
    x, train = run.draw(run.sampler, run.n), first(run.data.train)
    found = nearest_neighbours(x.flatten(1), train.flatten(1), first(held).flatten(1))
    order = found.ratio.argsort()[:SEEDS]
    some = f" among the first {MOST:,}" if len(run.data.train) > MOST else ""
    text = (
        f"The {len(order)} of {run.n} samples that are nearest to a training sample{some}, by Euclidean distance. "
        f"Ratio: distance to training data over distance to held-out data; below {found.threshold:.3g} a sample "
        f"may be a copy (1 % by chance). Here {found.fraction:.1%} are below."
    )
    if not run.images:
        return Section(heading, text + " Their shape is not that of a picture, so that none is shown.")
    rows = [x[order], train[found.index[order, 0]]]
    names = [f"ratio {value:.2f}" for value in found.ratio[order].tolist()]
    return Section(
        heading, text, [(labelled_png(["sample", "training"], names, rows, run.range), "pairs, nearest first")]
    )
