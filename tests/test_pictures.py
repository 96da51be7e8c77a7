r"""Pictures hold the pixels that they were given; the report holds the pictures."""

import base64
import re

import numpy as np
import pytest
import torch
from PIL import Image

from scoregen.monitors import trajectory
from scoregen.monitors.preview import cycled_labels
from scoregen.pictures import is_image, save_curve, save_grid, save_image, to_bytes
from scoregen.report import write_report
from scoregen.sde import EDM, Affine


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_written_as_its_bytes(tmp_path, channels):
    exact = torch.arange(0, channels * 20, dtype=torch.uint8).reshape(channels, 4, 5)
    save_image(exact / 255, tmp_path / "a" / "x.png")
    found = pixels(tmp_path / "a" / "x.png").reshape(4, 5, channels)
    assert (found == exact.permute(1, 2, 0).numpy()).all()
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["x.png"]


def test_bytes_are_rounded_and_clamped():
    assert to_bytes(torch.tensor([-0.5, 0.4 / 255, 0.6 / 255, 1.0, 7.0])).tolist() == [0, 0, 1, 255, 255]


@pytest.mark.parametrize("columns", [2, None, 5])
def test_a_grid_holds_every_image_in_its_place(tmp_path, columns):
    x = (torch.arange(5.0) / 10)[:, None, None, None].expand(5, 1, 2, 3)
    found = pixels(save_grid(x, tmp_path / "g.png", columns))
    columns = columns or 2
    factor = 900 // max(4 * columns - 1, 3 * -(-5 // columns) - 1)
    for i in range(5):
        top, left = i // columns * 3 * factor, i % columns * 4 * factor
        tile = found[top : top + 2 * factor, left : left + 3 * factor]
        assert tile.size and (tile == round(25.5 * i)).all()


def test_vectors_are_shown_as_points_and_only_grey_and_rgb_as_images(tmp_path):
    assert [is_image(torch.zeros(2, c, 4, 4)) for c in (1, 2, 3, 4)] == [True, False, True, False]
    for dimensions in (1, 2, 5):
        path = save_grid(torch.randn(20, dimensions), tmp_path / f"{dimensions}.png", title="data")
        assert len(np.unique(pixels(path).reshape(-1, 4), axis=0)) > 2


def test_a_curve_is_drawn(tmp_path):
    assert pixels(save_curve([1, 2, 3], [3.0, 2.0, 1.0], tmp_path / "c.png", "loss")).std() > 1


def test_the_last_frame_of_a_trajectory_is_the_data_and_noise_is_scaled_to_it():
    process = EDM(chart=Affine(2.0, -1.0))
    clean = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.3
    frames = [clean * factor for factor in (80.0, 9.0, 1.0)]
    shown = trajectory(process, frames).unflatten(0, (2, 10))
    torch.testing.assert_close(shown[:, -1], process.from_chart(clean))
    torch.testing.assert_close(shown[:, 0], process.from_chart(clean))


def test_labels_cycle_through_the_classes():
    model = torch.nn.Linear(1, 1)
    assert cycled_labels(model, 5) is None
    model.num_classes = 3
    assert cycled_labels(model, 5).tolist() == [0, 1, 2, 0, 1]


def test_a_report_is_one_page_that_needs_nothing_else(tmp_path):
    picture, absent = save_image(torch.rand(1, 4, 4), tmp_path / "x.png"), tmp_path / "absent.png"
    sections = [("A < B", [(picture, "x & y"), (absent, "absent")]), ("Empty", [(absent, "n")])]
    page = write_report(tmp_path / "r.html", "<script>", sections, {"loss": 0.5}, "key: <value>").read_text()
    (data,) = re.findall(r'src="data:image/png;base64,([^"]*)"', page)
    assert base64.b64decode(data) == picture.read_bytes()
    assert "<script" not in page and "&lt;script&gt;" in page and "A &lt; B" in page and "key: &lt;value&gt;" in page
    assert re.search("<th[^>]*>loss</th><td>0.5</td>", page)
    assert "absent" not in page and "Empty" not in page and "http" not in page
