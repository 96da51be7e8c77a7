r"""Clean images beside restored ones: matched by name and size, in the same units; PSNR and SSIM."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scoregen.errors import UserError
from scoregen.metrics import ssim
from scoregen.restoration import Clean, Reading, open_scenes, units_of
from scoregen.restoration.clean import check_clean, fidelity, open_clean


def images(folder: Path, **arrays: np.ndarray) -> Path:
    folder.mkdir()
    for name, x in arrays.items():
        np.save(folder / f"{name}.npy", x)
    return folder


def flat(value: float = 0.5, height: int = 9) -> np.ndarray:
    return np.full((height, 8), value, np.float32)


def test_clean_images_are_matched_by_name_with_any_suffix(tmp_path):
    scenes = open_scenes(str(images(tmp_path / "in", a=flat(), b=flat())))
    folder = images(tmp_path / "clean", a=flat(), c=flat())
    Image.fromarray((255 * flat()).astype(np.uint8)).save(folder / "b.png")
    assert [one.name for one in open_clean(str(folder), scenes, 100, None)] == ["a.npy", "b.png"]
    single = open_clean(str(folder / "c.npy"), scenes[:1], 100, None)
    assert [one.name for one in single] == ["c.npy"]


CASES = {
    "missing": (
        {"a": flat()},
        "clean: '.*clean' has no clean image for 'b.npy'. Names must be .* Did you mean 'a.npy'",
    ),
    "size": ({"a": flat(), "b": flat(height=7)}, "clean: 'b.npy' has 7 x 8 pixels of 1 channels, 'b.npy' 9 x 8"),
    "number": ({"a": flat(), "b": np.stack([flat()] * 2)}, "clean: 'b.npy' has 2 images, the first of 9 x 8"),
    "none": ({}, "clean: no images"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_does_not_match_is_refused_by_name(case, tmp_path):
    scenes = open_scenes(str(images(tmp_path / "in", a=flat(), b=flat())))
    arrays, text = CASES[case]
    with pytest.raises(UserError, match=text):
        open_clean(str(images(tmp_path / "clean", **arrays)), scenes, 100, None)


def test_two_clean_images_of_one_name_are_refused(tmp_path):
    scenes = open_scenes(str(images(tmp_path / "in", a=flat())))
    folder = images(tmp_path / "clean")
    for suffix in ("png", "jpg"):
        Image.fromarray((255 * flat()).astype(np.uint8)).save(folder / f"a.{suffix}")
    with pytest.raises(UserError, match=r"clean: 'a.npy' could be 'a.jpg' and 'a.png' of"):
        open_clean(str(folder), scenes, 100, None)


@pytest.mark.parametrize("factor, right", [(1.5, True), (2.1, False), (0.45, False)])
def test_clean_images_in_other_units_are_refused(factor, right, tmp_path):
    r"""Amplitudes of images and clean ones; NaN is no data in either."""
    x, y = flat(0.5), flat(0.5 * math.sqrt(factor))
    x[0], y[1] = np.nan, np.nan
    scenes = open_scenes(str(images(tmp_path / "in", a=x)))
    clean = open_clean(str(images(tmp_path / "clean", a=y)), scenes, 100, None)
    units = [[units_of(np.dtype("f4"), "amplitude", None, None, 1.0)]]
    pair = Clean(clean, units, 1.0)
    if right:
        check_clean(scenes, units, Reading(), pair)
        return
    with pytest.raises(UserError, match=f"of the clean images is {0.25 * factor:.3g} .*, that of the images 0.25"):
        check_clean(scenes, units, Reading(), pair)


@pytest.mark.parametrize("peak, top", [(2.0, 2.0), (None, 0.9)])
def test_psnr_and_ssim_leave_out_what_has_no_data(peak, top):
    r"""A clean image, itself plus .1 or noise, in two blocks; a corner is missing in either."""
    draw = torch.Generator().manual_seed(0)
    clean = 0.9 * torch.rand(2, 1, 24, 20, generator=draw, dtype=torch.float64)
    clean[0, 0, 0, 0] = 0.9
    noise = 0.1 * torch.randn(clean.shape, generator=draw, dtype=torch.float64)
    for found in (clean + 0.1, clean + noise):
        psnr, similar = fidelity(list(found), list(clean), peak)
        assert psnr == pytest.approx(-10 * (((found - clean) / top) ** 2).mean().log10().item())
        assert similar == pytest.approx(ssim(found / top, clean / top).mean().item())
        cut, other = found.clone(), clean.clone()
        cut[:, :, :3, :3], other[:, :, -2:] = torch.nan, torch.nan
        valid = cut.isfinite() & other.isfinite()
        psnr, similar = fidelity(list(cut), list(other), top)
        assert psnr == pytest.approx(-10 * (((found - clean) / top) ** 2)[valid].mean().log10().item())
        assert 0 < similar < 1
    assert fidelity([torch.full((1, 4, 4), torch.nan)], [torch.ones(1, 4, 4)], 1.0)[0] is math.nan
