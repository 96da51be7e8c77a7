r"""A table as a source: rows as vectors, with nan for what is missing."""

import numpy as np
import pytest
import torch

from scoregen.data import TableFile

pytest.importorskip("pandas")


@pytest.mark.parametrize("index", [slice(None), torch.arange(18), list(range(18))], ids=["slice", "tensor", "list"])
def test_a_missing_cell_reaches_the_training_as_missing(index, tmp_path):
    r"""It is 0 in no column: 0 has no logarithm, and in a column of numbers of both signs it is a number."""
    file = tmp_path / "a.csv"
    lines = [f"{'' if k % 3 == 0 else 1.25 * k},{'' if k % 4 == 0 else 0.5 * k - 2}" for k in range(1, 21)]
    file.write_text("\n".join(["weight,height", *lines]) + "\n")
    source = TableFile(str(file))
    assert [column.kind for column in source.schema.columns] == ["positive", "real"]
    train, test = (source.part(name).in_units(slice(None))[0] for name in ("train", "test"))
    assert int(torch.cat([train, test]).isnan().sum()) == 6 + 5
    np.testing.assert_array_equal(source.train.in_units(index)[0], train)
