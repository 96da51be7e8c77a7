from scoregen.metrics.report import Number
from scoregen.metrics.sweep import Point, save_figure, table


def points():
    values = {("heun", 9, 17): 2.0, ("ddim", 8, 8): 3.5, ("ddim", 18, 18): 2.5}
    return [Point(*key, Number("FD-x", v, "lower", 1.0, v - 0.1, v + 0.1)) for key, v in values.items()]


def test_each_point_is_a_row():
    rows = table(points()).splitlines()
    assert rows[0] == "| sampler | steps | calls | FD-x | interval | floor |"
    assert rows[3] == "| ddim | 8 | 8 | 3.5 | 3.4 .. 3.6 | 1 |"
    assert len(rows) == 5


def test_the_figure_is_a_png(tmp_path):
    file = save_figure(points(), tmp_path / "sweep.png")
    assert file.read_bytes().startswith(b"\x89PNG")
