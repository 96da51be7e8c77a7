r"""Attacks on a run of certificates: how many labels break below and above their radius.

A certificate says that no attack works below its radius, so a label that breaks there means one of three things: the
certificate is false by bad luck (with probability alpha at most), the classifier is no function of one input, or a
mistake. Above the radius nothing is claimed; what breaks there shows that the attack has power.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scoregen.parallel import barrier
from scoregen.rng import Stream, generator
from scoregen.smoothing.attack import DRAWS, STEPS, attack, check_attackable
from scoregen.smoothing.bounds import most_false, percent
from scoregen.smoothing.certificate import ABSTAIN
from scoregen.smoothing.dataset import Data, Record, work_through
from scoregen.smoothing.engine import noise_source
from scoregen.smoothing.methods import AbstractMethod
from scoregen.smoothing.prediction import decide, make_vote
from scoregen.smoothing.results import Results, Run, hashed, load
from scoregen.smoothing.smoothed_classifier import SmoothedClassifier

BELOW, ABOVE = 0.99, (1.25, 1.5, 2.0)  # radii at which inputs are attacked, in certified radii
FACTORS = (BELOW, *ABOVE)
VOTES, ALPHA = 10_000, 1e-5  # of the prediction that says whether a label broke: it errs less often than a certificate
_BLOCK = 16  # inputs whose predictions share batches
_RHO = 1e-3


def attack_dataset(
    g: SmoothedClassifier,
    data: Data,
    run: Run,
    out: str | Path,
    *,
    seed: int,
    draws: int = DRAWS,
    steps: int = STEPS,
) -> Run:
    r"""Attacks each certified input at `FACTORS` times its radius, into a folder, or resumes there.

    Args:
        g: the smoothed classifier that was certified.
        data: data[i] -> (x, ...).
        run: its certificates.
        out: the folder; the file is attacks.jsonl.
        seed: seed of the noise, which certificates of this seed do not share.
        draws, steps: of the attack.

    Returns:
        The attacks, one record an input: the label that was predicted at each factor, -1 where none was sure. Without
        records where nothing is certified.

    Raises:
        TypeError: for a noise whose distance the attack does not serve.
        ValueError: the classifier gives no gradient, or the folder holds attacks on other certificates.
    """
    check_attackable(g.noise)
    certified = {record["index"]: record for record in run.records if record["radius"] > 0}
    vote = make_vote("sequential", VOTES, ALPHA)
    asked = [[index, r["predicted"], r["radius"]] for index, r in certified.items()]
    header: dict[str, Any] = {"seed": seed, "indices": list(certified), "factors": list(FACTORS)}
    header |= {"draws": draws, "steps": steps, "n": VOTES, "alpha": ALPHA}
    header["certificates"] = hashed(json.dumps(asked).encode())
    if not certified:
        return Run(header, [])

    def attacked(todo: Sequence[int]) -> Iterator[Record]:
        waiting = iter(todo)
        while some := list(islice(waiting, _BLOCK)):
            moved = {i: _moved(g, data[i][0], certified[i], seed, (draws, steps)) for i in some}
            labels = [dict(_labels(g, {i: moved[i][k] for i in some}, vote, seed, k)) for k in range(len(FACTORS))]
            yield from ({"index": i, "label": certified[i]["predicted"], "found": [f[i] for f in labels]} for i in some)

    with Results(out, header, "attacks") as results:
        work_through(results, list(certified), attacked, "attacking", f"broken at {FACTORS[-1]:g} R", _broken_last)
    barrier()
    return load(out, "attacks")


def _moved(g: SmoothedClassifier, x: Tensor, record: Record, seed: int, sizes: tuple[int, int]) -> list[Tensor]:
    r"""An attacked input for each factor."""
    label, found = record["predicted"], []
    for k, factor in enumerate(FACTORS):
        keyed = generator(seed, Stream.ATTACK, record["index"], k, device=noise_source(x.device))
        found.append(attack(g, x, label, factor * record["radius"], keyed, draws=sizes[0], steps=sizes[1]))
    return found


def _labels(
    g: SmoothedClassifier, moved: dict[int, Tensor], vote: AbstractMethod, seed: int, k: int
) -> Iterator[tuple[int, int]]:
    r"""What g says of attacked inputs, by draws of their own."""
    own = int(torch.randint(2**62, (), generator=generator(seed, Stream.ATTACK, Stream.VOTE, k)))
    for index, tally in g.tallies(moved.items(), vote, own):
        yield index, decide(tally, vote).label


def _broken(record: Record, k: int) -> bool:
    found = record["found"][k]
    return bool(found not in (ABSTAIN, record["label"]))


def _broken_last(record: Record) -> bool:
    return _broken(record, len(FACTORS) - 1)


def attack_rows(attacks: Run) -> list[list[str]]:
    r"""The cells of a table, row by row; the first row is the head. Shares of all inputs that were attacked."""
    total = len(attacks.records)
    head = ["attack at", "broken, %", "inputs"]
    counts = [sum(_broken(record, k) for record in attacks.records) for k in range(len(FACTORS))]
    rows = zip(FACTORS, counts, strict=True)
    return [
        head,
        *([f"{f:g} R", percent(count / total, up=f < 1) if total else "-", f"{count} of {total}"] for f, count in rows),
    ]


def attack_table(attacks: Run) -> str:
    r"""The table of attacks as Markdown."""
    head, *rows = attack_rows(attacks)
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows))


def refutation(attacks: Run, certificates: Run) -> str:
    r"""What labels that broke below their radius mean, as a message; empty where none broke."""
    broken = [record["index"] for record in attacks.records if _broken(record, 0)]
    if not broken:
        return ""
    alpha, total = certificates.header["alpha"], len(attacks.records)
    shown = ", ".join(map(str, broken[:5])) + (", ..." if len(broken) > 5 else "")
    return (
        f"attack: {len(broken)} of {total} certificates are FALSE: the label of input {shown} broke at {BELOW:g} of "
        f"its radius. At alpha={alpha:g} bad luck explains at most {most_false(total, alpha, _RHO)}. Otherwise the "
        "classifier is no function of one input, or strict=false was used on a hostile one. Do not use these "
        "certificates."
    )
