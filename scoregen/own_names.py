r"""Overrides of names that the user's data give, such as price [EUR] or größe, which Hydra's grammar cannot read.

data.columns and condition are mappings of such names. Where Hydra cannot read one, it is read as YAML:

    'data.columns={"price [EUR]": positive, größe: real}'     'condition.price [EUR]=30'
"""

import re
from collections.abc import Sequence
from typing import Any

import yaml

from scoregen.errors import UserError

KEYS = ("data.columns", "condition")
Named = dict[str, dict[str, Any]]  # values by name by key
_OVERRIDE = re.compile(r"\+{0,2}(data\.columns|condition)(?:\.([^={]+))?=(.*)", re.DOTALL)
_BOOL = re.compile("(?:true|false|True|False)$")
_INT = re.compile(r"[-+]?(?:0|[1-9](?:_?[0-9])*)$")
_FLOAT = re.compile(r"[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)$")


def apart(overrides: Sequence[str]) -> tuple[Named, list[str], list[str]]:
    r"""Values of these keys that Hydra cannot read, their overrides, and the other overrides.

    Returns:
        values by name by key; the overrides that they come from; the others, in order.

    Raises:
        UserError: a value that is no mapping of names to single values.
    """
    found: Named = {}
    own, rest = [], []
    for text in overrides:
        match = _OVERRIDE.fullmatch(text)
        if match is None or _readable(text, match[2] is None):
            rest.append(text)
            continue
        key, name, value = match.groups()
        own.append(text)
        found.setdefault(key, {}).update(_mapping(key, value) if name is None else {name: _scalar(key, value)})
    return found, own, rest


def put(config: Any, named: Named) -> None:
    r"""Puts values into a configuration, beside those that stand there.

    Raises:
        UserError: it has no such key.
    """
    from omegaconf import OmegaConf, open_dict

    for key, values in named.items():
        above, _, last = key.rpartition(".")
        node = OmegaConf.select(config, above) if above else config
        if node is None or last not in node:
            raise UserError(f"{key}: there is no such key here. It is for tables: data=table.")
        with open_dict(config):
            node[last] = {**(node[last] or {}), **values}


def _readable(text: str, whole: bool) -> bool:
    r"""Whether Hydra reads an override, of a whole mapping as no text."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        (override,) = OverridesParser.create().parse_overrides([text])
        return override.is_sweep_override() or not (whole and isinstance(override.value(), str))
    except HydraException:
        return False


def _mapping(key: str, value: str) -> dict[str, Any]:
    found = _scalar(key, value, mapping=True)
    if not isinstance(found, dict) or not all(_is_single(one) for one in found.values()):
        raise UserError(
            f"{key}: must be names of columns with a value each, got {value}. Give '{key}={{\"NAME\": VALUE}}'."
        )
    return {str(name): one for name, one in found.items()}


def _scalar(key: str, value: str, mapping: bool = False) -> Any:
    try:
        text = value.strip()
        if mapping and text[:1] in "'\"":
            text = str(yaml.safe_load(text))  # quoted as a whole, as Hydra wants texts
        found = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise UserError(
            f"{key}: cannot be read: {value}. Quote names and texts: '{key}={{\"NAME\": VALUE}}'."
        ) from error
    if not (mapping or _is_single(found)):
        raise UserError(f"{key}: must be a single value, got {value}.")
    return found


def _is_single(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


class _Loader(yaml.SafeLoader):
    r"""YAML with Hydra's numbers: dates, times such as 12:30, 010, yes and no stay texts, and 1e3 is a number."""


_KEPT = {"int": _INT, "float": _FLOAT, "null": None, "bool": _BOOL}  # with the pattern in place of YAML's own
_Loader.yaml_implicit_resolvers = {
    first: [(tag, _KEPT[kind] or pattern) for tag, pattern in kinds if (kind := tag.rpartition(":")[2]) in _KEPT]
    for first, kinds in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
