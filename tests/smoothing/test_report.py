r"""Tables, curves and the page, on runs whose numbers are known by hand."""

import base64
import re
from operator import itemgetter

import numpy as np
import pytest
import torch

from scoregen.smoothing import Gaussian, LogNormal, LogNormalGain, SmoothedClassifier
from scoregen.smoothing.bounds import high_probability_accuracy, percent, significant
from scoregen.smoothing.choice import make_method
from scoregen.smoothing.dataset import certify_dataset
from scoregen.smoothing.page import extremes, write_page
from scoregen.smoothing.report import certified_accuracy, curve, guaranteed_accuracy, summary, table, table_radii
from scoregen.smoothing.results import Run


def run(radii, predicted, label, draws=100, reach=None):
    records = [
        {"index": i, "label": y, "predicted": p, "radius": r, "draws": draws, "p_lower": 0.5 + r / 10}
        for i, (r, p, y) in enumerate(zip(radii, predicted, label, strict=True))
    ]
    header = {"alpha": 0.001, "norm": "l2", "step": 0.25, "reach": reach, "indices": list(range(len(records)))}
    return Run(header, records)


FIVE = run([0.5, 0.25, 1.0, 0.0, 0.7], [0, 1, 2, -1, 1], [0, 1, 0, 0, 1])  # right, right, wrong, abstains, right


def test_certified_accuracy_counts_right_labels_with_a_strictly_larger_radius():
    assert certified_accuracy(FIVE, [0.0, 0.2499, 0.25, 0.5, 0.6, 0.7, 2.0]).tolist() == pytest.approx(
        [0.6, 0.6, 0.4, 0.2, 0.2, 0.0, 0.0]
    )


def test_abstentions_and_errors_stay_in_the_denominator():
    found = summary(FIVE)
    assert found.inputs == 5
    assert found.accuracy == pytest.approx(3 / 5)
    assert found.average_radius == pytest.approx((0.5 + 0.25 + 0.7) / 5)
    assert found.abstentions == pytest.approx(1 / 5)
    assert found.draws == 100


def test_guaranteed_accuracy_is_the_bound_of_the_counts():
    many = run([1.0] * 400 + [0.0] * 100, [0] * 500, [0] * 500)
    assert guaranteed_accuracy(many, [0.5])[0] == high_probability_accuracy(400, 500, 0.001, 0.001)


def test_table_has_a_row_for_each_radius_and_a_column_for_each_run():
    text = table({"a": FIVE, "b": run([0.3], [1], [1], draws=7000)}, [0.0, 0.5])
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    assert lines[0] == ["radius (l2)", "a", "b"]
    assert [line[0] for line in lines[2:4]] == ["0", "0.5"]
    assert [cell.split()[0] for cell in lines[2][1:]] == ["60.0", "100.0"]
    assert [cell.split()[0] for cell in lines[3][1:]] == ["20.0", "0.0"]
    rest = {line[0]: line[1:] for line in lines[4:]}
    assert rest["average certified radius"] == ["0.290", "0.300"]
    assert rest["abstentions, %"] == ["20.0", "0.0"]
    assert rest["mean draws"] == ["100", "7,000"]
    assert rest["inputs"] == ["5", "1"]


def test_rows_say_what_a_radius_implies_rounded_to_the_safe_side():
    text = table({"a": FIVE}, [0.0, 0.5], implies=LogNormalGain(0.5).implies)
    rows = [line.split("|")[1].strip() for line in text.splitlines()]
    assert rows[2:4] == ["0 (gain 1 to 1)", "0.5 (gain 0.607 to 1.648)"]  # e^-.5 = .60653, e^.5 = 1.64872
    assert LogNormal(0.5, offset=0.3).implies(0.5) == "l2 0.15 for x' >= 0, one pixel x 1.648"
    assert (
        LogNormal(0.5, offset=255.0).implies(0.5012345) == "l2 127.8147 for x' >= 0, one pixel x 1.65"
    )  # 127.81480, 1.65076
    assert LogNormal(0.5).implies(0.5) == "one pixel x 1.648"
    assert Gaussian(0.5).implies(0.5) == ""


def test_bounds_and_radii_are_never_rounded_up():
    r"""0.994995 guaranteed of 999 right; a rung at 0.878900629; an average of 1.2346 that is a lower bound."""
    text = table({"a": run([1.2346] * 999, [0] * 999, [0] * 999, reach=1.5)}, [0.878900629, 1 / 6, 0.3])
    rows = {line.split("|")[1].strip(): line.split("|")[2].strip() for line in text.splitlines()[2:]}
    assert list(rows)[:3] == ["0.8789", "0.166666", "0.3"]
    assert rows["0.8789"] == "100.0 (99.4)"
    assert rows["average certified radius"] == ">= 1.234"


def test_a_printed_share_never_flatters():
    almost = run([0.5] * 9_996 + [0.0] * 4, [0] * 9_996 + [-1] * 4, [0] * 10_000)
    rows = {line.split("|")[1].strip(): line.split("|")[2].strip() for line in table({"a": almost}, [0]).splitlines()}
    assert rows["0"] == "99.9 (99.7)"  # 9,996 and 9,972 of 10,000
    assert rows["abstentions, %"] == "0.1"
    assert percent(0.29) == "29.0"


def test_small_units_keep_their_digits_in_rungs_averages_and_factors():
    noise = Gaussian(1e-10)
    ladder = make_method("ladder", noise, n=1000)
    rungs = [significant(noise.radius(p, 1 - p)) for p in ladder.targets]
    assert rungs[:3] == pytest.approx([0, 0.5e-10, 1e-10], rel=1e-8)
    small = run([1.23456e-10, 2.34567e-10], [0, 0], [0, 0])
    text = table({"a": small}, [1.2e-10])
    assert "| 1.2e-10 | 100.0 (" in text
    assert "| average certified radius | 1.79e-10 |" in text  # 1.790115e-10
    assert LogNormalGain(1e-6).implies(1.2345e-6) == "gain 0.99999877 to 1.00000123"


def test_default_rows_go_one_step_beyond_the_largest_certified_radius():
    assert table_radii([FIVE]) == [0.0, 0.25, 0.5, 0.75]


def test_what_a_method_did_not_ask_for_is_not_shown_as_failure():
    stopped = run([0.6, 0.3], [0, 0], [0, 0], reach=0.5)
    assert table_radii([stopped]) == [0.0, 0.25, 0.5]
    rows = {
        line.split("|")[1].strip(): line.split("|")[2].strip()
        for line in table({"a": stopped}, [0.5, 0.75]).splitlines()
    }
    assert rows["0.5"].startswith("50.0")
    assert rows["0.75"] == "-"
    assert rows["average certified radius"] == ">= 0.450"


def test_extremes_are_ordered_by_certainty():
    most, least = extremes(FIVE, 2)
    assert [r["index"] for r in most] == [2, 4]
    assert [r["index"] for r in least] == [3, 1]


@pytest.mark.parametrize("count", [3, 8])
def test_no_input_is_among_the_most_and_the_least_certain(count):
    most, least = extremes(FIVE, count)
    assert len(most) == 3 and len(least) == 2
    assert sorted(r["index"] for r in most + least) == [
        r["index"] for r in sorted(FIVE.records, key=itemgetter("index"))
    ]


def test_curve_falls_as_the_table_does(tmp_path):
    from matplotlib.image import imread

    curve({"a": FIVE}, tmp_path / "curve.png")
    picture = imread(tmp_path / "curve.png")[..., :3]
    blue = (picture[..., 2] - picture[..., 0]) > 0.3  # the curve's colour
    rows, columns = np.nonzero(blue)
    left, right = columns < np.quantile(columns, 0.2), columns > np.quantile(columns, 0.8)
    assert rows[left].mean() < rows[right].mean()  # higher on the left


@pytest.mark.parametrize("shape", [(1, 6, 6), (3, 6, 6), (5,)], ids=["grey", "colour", "vector"])
def test_page_stands_alone_and_shows_each_chosen_input_with_its_noise(tmp_path, shape):
    def bright(y):
        margin = y.flatten(1).mean(1) - 0.5
        return torch.stack((-margin, margin), 1)

    noise = Gaussian(0.25)
    data = [(torch.full(shape, v), int(v > 0.5)) for v in (0.1, 0.4, 0.6, 0.9)]
    method = make_method("ladder", noise, n=300)
    told = {"checkpoint": None, "sampler": {"grid": {"rho": 7.0}}}
    found = certify_dataset(
        SmoothedClassifier(bright, noise, 2), data, range(4), method, tmp_path, seed=0, description=told
    )
    write_page(tmp_path / "report.html", found, data, noise, count=2, class_names=["dark", "<bright>"])
    text = (tmp_path / "report.html").read_text()
    assert not re.search(r"https?://|<script", text)
    assert "<bright>" not in text and "&lt;bright&gt;" in text
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    assert len(pictures) == 1 + (2 * 4 if len(shape) == 3 else 0)
    assert all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures)
    assert len(set(pictures)) == len(pictures) if len(shape) == 3 else True
    assert text.count("<figcaption>") == 4
    settings = text.split("<h2>Settings</h2>")[1]
    assert "digest of classifier" in settings and "precision" not in settings  # what was not set is left out
    assert re.search("<th[^>]*>sampler.grid.rho</th><td>7.0</td>", text) and "checkpoint" not in text


def test_page_shows_the_range_of_the_data_as_black_to_white_and_numbers_the_classes_without_a_name(tmp_path):
    from io import BytesIO

    from PIL import Image

    def third(y):
        return torch.stack((y.flatten(1).mean(1) * 0, y.flatten(1).mean(1) * 0, y.flatten(1).mean(1)), 1)

    noise, data = Gaussian(0.25), [(torch.full((1, 2, 2), 51.0), 0), (torch.full((1, 2, 2), 255.0), 2)]
    method = make_method("ladder", noise, n=300)
    found = certify_dataset(SmoothedClassifier(third, noise, 3), data, range(2), method, tmp_path, seed=0)
    write_page(tmp_path / "a.html", found, data, noise, count=2, class_names=["dark"], data_range=(0.0, 255.0))
    text = (tmp_path / "a.html").read_text()
    shown = [base64.b64decode(x) for x in re.findall(r'src="data:image/png;base64,([^"]+)"', text)[1:]]
    assert {np.array(Image.open(BytesIO(png))).max() for png in shown[::2]} == {51, 255}
    assert "true dark" in text and "label 2" in text
    write_page(tmp_path / "b.html", found, data, noise, count=2, data_range=None)
    assert "51, 51, 51, 51" in (tmp_path / "b.html").read_text()
