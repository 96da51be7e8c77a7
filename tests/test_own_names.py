r"""Names of columns on the command line: what Hydra cannot read is read as YAML, all else is left to it."""

import pytest
from omegaconf import OmegaConf

from scoregen.errors import UserError
from scoregen.own_names import apart, put


@pytest.mark.parametrize(
    ("text", "key", "values"),
    [
        ('data.columns={"mean radius": real}', "data.columns", {"mean radius": "real"}),
        ('data.columns={"price [EUR]": real, b: drop}', "data.columns", {"price [EUR]": "real", "b": "drop"}),
        ('data.columns="{\\"conc (mg/l)\\": real}"', "data.columns", {"conc (mg/l)": "real"}),
        ("data.columns.größe=real", "data.columns", {"größe": "real"}),
        ("data.columns.Unnamed: 0=drop", "data.columns", {"Unnamed: 0": "drop"}),
        (
            'condition={"a b": 2.5, ok: yes, day: 2021-05-01, f: true, "R&D": 3}',
            "condition",
            {"a b": 2.5, "ok": "yes", "day": "2021-05-01", "f": True, "R&D": 3},
        ),
        ("condition.price [EUR]=30", "condition", {"price [EUR]": 30}),
        (
            'condition={"time [h]": 12:30, "post code": 010, "c (mg/l)": 1e3}',  # YAML's own numbers: 750, 8, a text
            "condition",
            {"time [h]": "12:30", "post code": "010", "c (mg/l)": 1000.0},
        ),
    ],
)
def test_what_hydra_cannot_read_is_read(text, key, values):
    assert apart([text, "n=5"]) == ({key: values}, [text], ["n=5"])


@pytest.mark.parametrize("text", ["condition={species: cat}", "data.columns.a=real", "condition=null", "n=5", "x={"])
def test_all_else_is_left_to_hydra(text):
    assert apart([text]) == ({}, [], [text])


@pytest.mark.parametrize("text", ["condition=cat", 'condition={"a": [1, 2]}', 'condition={"a: 1', "condition.ö=[1]"])
def test_what_is_no_value_of_a_column_is_refused(text):
    with pytest.raises(UserError, match=r"^condition: "):
        apart([text])


def test_values_stand_beside_those_that_hydra_has_read():
    config = OmegaConf.create({"data": {"columns": {"a": "real"}}, "condition": None})
    put(config, {"data.columns": {"price [EUR]": "real"}, "condition": {"ö": 1}})
    assert config == {"data": {"columns": {"a": "real", "price [EUR]": "real"}}, "condition": {"ö": 1}}
    with pytest.raises(UserError, match="condition: there is no such key here"):
        put(OmegaConf.create({"n": 1}), {"condition": {"ö": 1}})
