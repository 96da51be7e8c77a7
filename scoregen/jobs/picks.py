r"""What a training takes from its data unless it is told: the network by the shape, the chart by the range.

| samples | model | | range | chart |
|---|---|---|---|---|
| vectors | mlp | | low .. high | to [-1, 1] |
| images up to 12 pixels | unet_tiny | | above 0, without end | 1, the geometric mean, to 0 |
| grey images up to 32 pixels | unet_patch | | none stated | the identity |
| other images | unet | | | |

Of a table the model is `table`, the loss too, and the chart takes each column to about N(0, 1/4).
"""

import math
from collections.abc import Mapping
from typing import Any

from scoregen.config import Node, accepts
from scoregen.data import Source
from scoregen.description import merged, option
from scoregen.errors import UserError, closest
from scoregen.parallel import say_once
from scoregen.sde import Columns
from scoregen.tables import Schema

AUTO = "auto"
STEPS = 20_000  # of a training of other data than tables
_MOST_PASSES = 500
_PLAIN_LOSS = "scoregen.losses.DenoisingScoreMatching"


def schema_of(source: Source) -> Schema | None:
    r"""The columns of a table; None for other data."""
    found = getattr(source, "schema", None)
    return found if isinstance(found, Schema) else None


def chosen_loss(loss: Node, source: Source) -> tuple[Node, list[str]]:
    r"""The node of a loss: for a table that of its columns in place of the usual one; and what was picked, in words."""
    if schema_of(source) is None or loss.get("_target_") != _PLAIN_LOSS:
        return loss, []
    usual, own = option("loss", "score_matching"), option("loss", "table")
    for key, value in loss.items():
        if key not in own and value != usual.get(key):
            raise UserError(f"loss.{key}: the data picked loss=table, which has no {key}. Leave it out.")
    found = own | {key: value for key, value in loss.items() if key in own and key != "_target_"}
    return Node(found), ["loss: table, picked by the columns of the data"]


def table_steps(rows: int) -> int:
    r"""Steps of training, of 128 rows each, that suit a table: small ones are soon learnt by heart."""
    return max(200, min(4000, round(2.5 * rows - 150)))


def chosen_steps(trainer: Node, source: Source) -> tuple[Node, list[str]]:
    r"""The node of a trainer with its steps, where they are open; and what was picked, in words.

    Of a table they are those of its rows, with a warm-up of half of them at most; of other data `STEPS`.
    """
    if trainer.get("steps", STEPS) is not None:
        return trainer, []
    if schema_of(source) is None:
        return Node({**trainer, "steps": STEPS}), []
    rows = len(source.train)
    steps, schedule = table_steps(rows), dict(trainer.get("schedule") or {})
    told = [f"trainer.steps: {steps}, picked by the {rows:,} rows of the table"]
    if schedule.get("warmup", 0) > steps // 2:
        told.append(f"trainer.schedule.warmup: {steps // 2}, half of the steps, in place of {schedule['warmup']}")
        schedule["warmup"] = steps // 2
    return Node({**trainer, "steps": steps, **({"schedule": schedule} if schedule else {})}), told


def told_steps(trainer: Any, source: Source) -> list[str]:
    r"""A line where a training reads each sample so often that it will know them by heart."""
    rows = len(source.train)
    passes = trainer.steps * trainer.batch_size / rows
    if passes <= _MOST_PASSES:
        return []
    table = schema_of(source) is not None
    name = "rows" if table else "images" if len(source.shape) == 3 else "samples"
    steps = table_steps(rows) if table else max(1, _MOST_PASSES * rows // trainer.batch_size)
    beside = "" if source.part("validation") is not None else " with data.validation=0.1"
    return [
        f"trainer.steps: {trainer.steps:,} steps read each of the {rows:,} {name} {passes:,.0f} times, and more than "
        f"{_MOST_PASSES} times teaches {name} by heart. Give trainer.steps={steps}, or "
        f"early_stopping.every{beside}."
    ]


def pick_model(source: Source) -> str:
    r"""The option of the group model that suits the samples of a source."""
    if hasattr(source, "captions"):
        raise UserError(
            f"model: {source.name} has captions, which are for a text-to-image pipeline. Choose model=latent_diffusion "
            "model.pipeline=PATH loss=latent."
        )
    shape = tuple(source.shape)
    if schema_of(source) is not None:
        return "table"
    if len(shape) != 3:
        return "mlp"
    if max(shape[1:]) <= 12:
        return "unet_tiny"
    return "unet_patch" if shape[0] == 1 and max(shape[1:]) <= 32 else "unet"


def pick_chart(source: Source) -> Node:
    r"""The chart that takes the range of a source to about [-1, 1]."""
    if (schema := schema_of(source)) is not None:
        layout = schema.layout
        numbers = source.train.in_units(slice(None))[0][:, : layout.numbers]
        return Node({"_target_": "scoregen.sde.Columns", **Columns.fit(numbers, layout.logarithmic)})
    found = source.range
    if found is None:
        scale, shift = 1.0, 0.0
    elif math.isinf(found[1]):
        scale, shift = 1.0, -1.0
    else:
        scale = 2 / (found[1] - found[0])
        shift = -1 - scale * found[0]
    return Node({"_target_": "scoregen.sde.Affine", "scale": scale, "shift": shift})


def chosen_chart(sde: Node, chart: Node, source: Source) -> tuple[Node, bool]:
    r"""The node of a process with its chart, and whether that was picked by the data."""
    by_data = chart.get("_target_") == AUTO
    if by_data and len(chart) > 1:
        key = next(key for key in chart if key != "_target_")
        raise UserError(f"chart.{key}: chart=auto is picked by the data. Choose chart=unit_range with chart.{key}=...")
    if not accepts(sde, "chart", "sde"):
        if not by_data:
            raise UserError(f"chart: {sde['_target_']} has its own chart. Leave chart=... out.")
        return sde, False
    if sde.get("chart") is not None:
        return sde, False
    return Node({**sde, "chart": dict(pick_chart(source) if by_data else chart)}), by_data


def chart_text(chart: Mapping[str, Any], source: Source) -> str:
    r"""A chart that was picked, and why, in words: y = 2 x - 1, picked by the range (0, 1) of the data."""
    if "logarithmic" in chart:
        columns, logs = len(chart["scale"]), sum(chart["logarithmic"])
        return f"of {columns} columns of numbers, {logs} of them by their logarithms; picked by the columns of the data"
    return f"{affine_text(chart)}, picked by the range {source.range} of the data"


def affine_text(chart: Mapping[str, Any]) -> str:
    r"""An affine chart in words: y = 2 x - 1."""
    shift = chart["shift"]
    return f"y = {chart['scale']:g} x" + (f" {'-' if shift < 0 else '+'} {abs(shift):g}" if shift else "")


def chosen_model(model: Node, source: Source) -> tuple[Node, str | None]:
    r"""The node of a model without open choices, and the option that was picked by the data, if any.

    In a node of conf/model/auto.yaml keys that are null are open; the others replace those of the option.
    """
    network = model.get("network")
    if AUTO not in (model.get("_target_"), (network or {}).get("_target_") if isinstance(network, Mapping) else None):
        return model, None
    name = pick_model(source)
    found, given = option("model", name), _given(model)
    if isinstance(network, Mapping) and "_target_" in given.get("network", {}):  # a network of the user's own
        found.pop("network")
        if not network.keys() >= option("model", AUTO)["network"].keys():  # given whole: its nulls are meant
            given["network"] = network
    elif isinstance(network, Mapping):
        _check_known(given.get("network", {}), found["network"], name)
    if "_target_" in given:  # another class around the network, with its own defaults
        found = {"network": found["network"]} if "network" in found else {}
    picked = name if "network" in found else None
    return Node(merged(found, given)), picked


def _given(node: Mapping[str, Any]) -> dict[str, Any]:
    r"""The keys that are not open."""
    values = {key: _given(value) if isinstance(value, Mapping) else value for key, value in node.items()}
    return {key: value for key, value in values.items() if value not in (None, AUTO, {})}


def _check_known(given: Mapping[str, Any], network: Mapping[str, Any], name: str) -> None:
    for key in given:
        if key not in network:
            kind = network["_target_"].rpartition(".")[2]
            raise UserError(
                f"model.network.{key}: the data picked model={name}, a {kind}, which has no {key}. Choose another "
                f"model=... {closest(key, network.keys() - {'_target_'})}"
            )


def fill_model(model: Mapping[str, Any], source: Source, conditional: bool, where: str = "model") -> Node:
    r"""The model's node with what only the data know: shape and number of classes, where it leaves them open."""
    node = Node(model)
    if (schema := schema_of(source)) is not None and accepts(node, "sizes", where):
        own = {"numbers": schema.layout.numbers, "sizes": list(schema.layout.sizes)}
        for key, value in own.items():
            if node.get(key) not in (None, value):
                raise UserError(f"{where}.{key}: must be that of the data, {value}, got {node[key]}. Leave it out.")
        node |= own
    if "network" in node:
        if not isinstance(node["network"], Mapping):
            raise UserError(
                f"{where}.network: must be a mapping with a _target_, got {node['network']!r}."
                f" Give {where}.network._target_=MODULE.CLASS."
            )
        node["network"] = dict(fill_model(node["network"], source, conditional, f"{where}.network"))
        return node
    if accepts(node, "shape", where):
        _fill_shape(node, source, where)
    if accepts(node, "num_classes", where) and node.get("num_classes") is None and conditional:
        node["num_classes"] = source.num_classes
    asked = node.get("num_classes")
    if isinstance(asked, int) and asked < (source.num_classes or 0):
        raise UserError(
            f"model: num_classes must be at least {source.num_classes}, the classes of {source.name}, got {asked}."
        )
    return node


def tell_next(model: Node, loss: Any) -> Node:
    r"""The model's node, with a network that is told the next level where the loss needs one and the network can."""
    network = model.get("network")
    if not loss.needs_next or not isinstance(network, Mapping) or not accepts(network, "next_level", "model.network"):
        return model
    return Node({**model, "network": {**network, "next_level": True}})


def tell_learned(config: dict[str, Any], model: Any, loss: Any) -> None:
    r"""States in a configuration, and to its model, what the loss makes of a denoiser that cannot know it by itself.

    That is the least noise ratio that the loss trains, and that D(u, s) is the end of a path.
    """
    least = loss.least_s(model.sde) if hasattr(model, "sde") else 0.0
    learned = {"least_s": least, "consistency": loss.consistency}
    for name, value in learned.items():
        if value and accepts(config["model"], name, "model"):
            config["model"] = {**config["model"], name: value}
            setattr(model, name, value)
    if loss.consistency and not getattr(model, "is_consistency", False):
        say_once(
            f"loss: {type(loss).__name__} makes a consistency function, which a {type(model).__name__} does not "
            "record. Sample it with sampler=consistency alone."
        )


def has_shape(model: Mapping[str, Any]) -> bool:
    r"""Whether the innermost node of a model says the shape of the data."""
    while isinstance(model.get("network"), Mapping):
        model = model["network"]
    return "shape" in model


def _fill_shape(node: Node, source: Source, where: str) -> None:
    shape = list(source.shape)
    if node.get("shape") is None:
        node["shape"] = shape
    given = list(node["shape"]) if isinstance(node["shape"], list | tuple) else node["shape"]
    if given != shape:
        raise UserError(
            f"{where}.shape: must be that of the data, {shape} of {source.name}, got {given}. Leave it out."
        )
