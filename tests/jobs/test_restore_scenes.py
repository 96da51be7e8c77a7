r"""Restoration in the field: units, no data, GeoTIFFs, wrong scales, large scenes; the cases of radar users."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from pairs import pair
from tiny import DIGITS, command, job, train

WIDTH = 8  # of the border without data


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "log"
    small = [*DIGITS, "trainer.steps=2", "conditional=false"]
    return train(folder, *small, "sde=multiplicative", "sde.offset=0.02")


def intensity(height: int = 40, width: int = 48, looks: float = 4, seed: int = 0) -> np.ndarray:
    r"""A constant scene with speckle."""
    return (0.2 * np.random.default_rng(seed).gamma(looks, 1 / looks, (height, width))).astype(np.float32)


def restore(run: Path, out: Path, *overrides: str) -> Path:
    return job("restore", f"checkpoint={run}", *overrides).run(out)


def tiff(path: Path, *pages: np.ndarray, **options: object) -> Path:
    tifffile = pytest.importorskip("tifffile")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path) as file:
        for page in pages:
            file.write(page, **{"metadata": None, "photometric": "minisblack"} | options)
    return path


def pixels(path: Path) -> np.ndarray:
    import tifffile

    return tifffile.imread(path)


def bordered(x: np.ndarray, value: float) -> np.ndarray:
    x = x.copy()
    x[:, :WIDTH] = value
    return x


def told(run: Path, capsys: pytest.CaptureFixture[str], *overrides: str) -> tuple[int, str]:
    r"""The status, and all that was said."""
    capsys.readouterr()
    status = command("restore", f"checkpoint={run}", *overrides)
    return status, "".join(capsys.readouterr())


def test_pixels_without_data_are_given_back_and_are_no_signal(run, here, capsys):
    r"""NaN, a value that is given, and the tag of the file mark the same pixels, so the rest is the same."""
    x = intensity()
    found = {}
    for name, value, nodata, options in (
        ("nan", np.nan, None, []),
        ("zero", 0, None, ["nodata=0"]),
        ("tag", -9999, "-9999", []),
        ("both", np.nan, "-9999", ["nodata=0"]),
    ):
        tags = [] if nodata is None else [(42113, "s", 0, nodata, True)]
        image = tiff(here / name / "x.tif", bordered(x, value), extratags=tags)
        status, text = told(run, capsys, f"images={image}", "looks=4", f"out=out_{name}", *options)
        assert status == 0 and "no data: 17 % of the pixels, given back as they are" in text
        found[name] = pixels(here / f"out_{name}" / "images" / "x.tif")
        assert np.array_equal(found[name][:, :WIDTH], bordered(x, value)[:, :WIDTH], equal_nan=True)
        assert (found[name][:, WIDTH:] > 0).all()
        deviation = np.load(here / f"out_{name}" / "std" / "x.tif.npy")
        assert np.isnan(deviation[:, :WIDTH]).all() and (deviation[:, WIDTH:] > 0).all()
        assert np.array_equal(found[name][:, WIDTH:], found["nan"][:, WIDTH:])


def test_a_border_without_data_changes_valid_pixels_by_less_than_the_noise(run, here):
    x = intensity()
    whole = pixels(
        restore(run, here / "a", f"images={tiff(here / 'x.tif', x)}", "looks=4", "probes=0") / "images/x.tif"
    )
    image = tiff(here / "x.tif", bordered(x, np.nan))
    part = pixels(restore(run, here / "b", f"images={image}", "looks=4", "probes=0") / "images/x.tif")
    change = np.log(part[:, WIDTH:] / whole[:, WIDTH:])
    noise = 0.53  # sqrt(psi_1(4)), the deviation of log speckle
    assert np.abs(change).max() < noise
    assert np.abs(change[:, 2 * WIDTH :]).max() < 1e-6  # beyond the tiles that saw the border


@pytest.mark.parametrize("unit", ["amplitude", "db"])
def test_amplitudes_and_decibels_come_back_as_such(unit, run, here):
    x = intensity()
    convert = {"amplitude": np.sqrt, "db": lambda x: 10 * np.log10(x)}[unit]
    np.save(here / "x.npy", x)
    np.save(here / "y.npy", convert(x))
    plain = np.load(restore(run, here / "a", "images=x.npy", "looks=4") / "images" / "x.npy")
    found = np.load(restore(run, here / "b", "images=y.npy", "looks=4", f"unit={unit}") / "images" / "y.npy")
    np.testing.assert_allclose(found, convert(plain), rtol=1e-3, atol=1e-3)


def test_complex_scenes_keep_type_and_phase(run, here):
    z = np.sqrt(intensity()) * np.exp(1j * np.random.default_rng(1).uniform(0, 6, (40, 48)))
    image = tiff(here / "z.tif", z.astype(np.complex64), compression="zlib")
    found = pixels(restore(run, here / "out", f"images={image}", "looks=4") / "images" / "z.tif")
    assert found.dtype == np.complex64
    np.testing.assert_allclose(np.angle(found * z.conj()), 0, atol=1e-5)
    np.save(here / "a.npy", np.abs(z))
    plain = np.load(restore(run, here / "b", "images=a.npy", "looks=4", "unit=amplitude") / "images" / "a.npy")
    np.testing.assert_allclose(np.abs(found), plain, rtol=1e-3)


def test_half_a_look_of_a_whole_complex_image_is_refused(run, here, capsys):
    np.save(here / "z.npy", np.sqrt(intensity()).astype(np.complex64))
    status, found = told(run, capsys, "images=z.npy", "looks=0.5", "out=out")
    assert status == 1 and "looks: the intensity of complex images has at least 1 look, got looks=0.5" in found


SCALES = {
    "decibels": (lambda x: 10 * np.log10(x), [], "has negative values .*Give unit=db for decibels, or nodata=VALUE"),
    "marks in decibels": (
        lambda x: bordered(10 * np.log10(x), -9999),
        ["unit=db"],
        "nodata: 'x.npy' has 320 of 1,920 values beyond 200 decibels .first: -9999.*Give nodata=-9999",
    ),
    "numbers": (lambda x: 1e4 * x, [], "scale: .*must agree within a factor of 10.*scale=2e[+]03 is likely"),
    "numbers with a scale": (lambda x: 1e4 * x, ["scale=2"], "scale: .*scale=2e[+]03 is likely"),
    "faint": (lambda x: 1e-4 * x, [], "scale: .*scale=2e-05 is likely"),
    "darker than all of the training": (lambda x: 0.02 * x, ["scale=1"], "scale: .*scale=0.00\\d+ is likely"),
    "zeros": (lambda x: bordered(x, 0), [], "320 intensities of zero, of 1920.*nodata=0 .*floor=0.5"),
    "floor": (lambda x: x, ["floor=0.5"], "floor: 9. % of the pixels are darker than floor=0.5"),
    "empty": (lambda x: x * np.nan, [], "no pixel has data"),
}


@pytest.mark.parametrize("case", SCALES)
def test_other_units_and_scales_are_refused(case, run, here, capsys):
    change, options, text = SCALES[case]
    np.save(here / "x.npy", change(intensity()).astype(np.float32))
    status, found = told(run, capsys, "images=x.npy", "looks=4", "out=out", *options)
    assert status == 1 and re.search(text, found), found
    assert not (here / "out").exists()


def test_amplitudes_taken_for_intensities_are_told(run, here, capsys):
    np.save(here / "x.npy", np.sqrt(intensity()))
    status, found = told(run, capsys, "images=x.npy", "looks=4", "out=out", "dry_run=true")
    assert status == 0 and re.search(r"looks: 4 given, but homogeneous windows have 1\d.*unit=amplitude", found), found


def test_a_faint_scene_with_a_scale_of_its_own_goes_on_and_is_told(run, here, capsys):
    np.save(here / "x.npy", 0.2 * intensity())
    status, found = told(run, capsys, "images=x.npy", "looks=4", "scale=1", "out=out", "dry_run=true")
    assert status == 0 and re.search("the likely scale is 0.0[345]", found)


def test_an_automatic_scale_is_recorded_and_makes_units_irrelevant(run, here):
    found = []
    for k, factor in enumerate((1, 1e4)):
        np.save(here / "x.npy", (factor * intensity()).astype(np.float32))
        out = restore(run, here / str(k), "images=x.npy", "looks=4", "scale=auto")
        found.append(np.load(out / "images" / "x.npy") / factor)
        scale = float(re.search(r'"scale_used": ([\d.e+]+)', (out / "job.json").read_text())[1])
        # the scene is constant, so that its brightness is .2, and the highest of the training is 1.02
        assert scale == pytest.approx(factor * 0.2 / 1.02, rel=0.1)
    np.testing.assert_allclose(found[1], found[0], rtol=0.03)  # bins of the histogram are 2 % wide


@pytest.mark.parametrize("looks", [1, 4, 16])
def test_looks_are_estimated_within_ten_percent(looks, run, here, capsys):
    r"""Constant scenes of several brightness; a standard error of 2 %."""
    for k in range(3):
        (here / "in").mkdir(exist_ok=True)
        np.save(here / "in" / f"{k}.npy", (k + 1) / 2 * intensity(200, 150, looks, seed=k))
    status, found = told(run, capsys, "images=in", "looks=estimate", "out=out", "dry_run=true", "scale=1")
    assert status == 0
    value, spread = map(float, re.search(r"looks: ([\d.]+) \+- ([\d.]+), estimated from \d+", found).groups())
    assert value == pytest.approx(looks, rel=0.1) and spread < 0.1 * value


def test_a_folder_of_amplitude_geotiffs_comes_back_by_one_command(run, here, capsys):
    tifffile = pytest.importorskip("tifffile")
    tags = [
        (33550, "d", 3, (10.0, 10.0, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, 5e5, 4.6e6, 0.0), True),
        (34735, "H", 4, (1, 1, 0, 0), True),
        (42113, "s", 0, "0", True),
    ]
    before = {}
    for k in range(3):
        x = 300 * np.sqrt(bordered(intensity(30, 40 + k, seed=k), 0))
        before[f"in/{k}.tif"] = x
        tiff(here / f"in/{k}.tif", x, extratags=tags, compression="zlib" if k else None, rowsperstrip=7)
    options = ["images=in", "looks=4", "unit=amplitude", "scale=auto", "out=out"]
    status, found = told(run, capsys, *options)
    assert status == 0 and "unit: amplitude" in found
    for name, x in before.items():
        with tifffile.TiffFile(here / name) as old, tifffile.TiffFile(here / name.replace("in", "out/images")) as new:
            a, b = ({t.code: t.value for t in f.pages.first.tags if t.code not in (273, 279)} for f in (old, new))
            y = new.asarray()
        assert a == b and y.dtype == np.float32 and (y[:, :WIDTH] == 0).all()
        assert (y[:, WIDTH:] > 0).all() and np.sqrt((y**2).mean()) == pytest.approx(np.sqrt((x**2).mean()), rel=0.4)


def test_clean_images_add_their_measures_in_the_units_of_the_files(run, here, capsys):
    r"""A constant scene of .2: before, the error is that of speckle of 4 looks, 1/4 of .2^2."""
    tiff(here / "in" / "x.tif", 300 * np.sqrt(intensity()))
    tiff(here / "clean" / "x.tif", np.full((40, 48), 300 * np.sqrt(0.2), np.float32))
    options = ["images=in", "looks=4", "unit=amplitude", "scale=300", "out=out"]
    assert told(run, capsys, *options)[0] == 0
    status, text = told(run, capsys, *options, "clean=clean")  # the same results, measured again
    (one,) = json.loads((here / "out" / "measures.json").read_text())["measured"]
    assert status == 0 and "1, 1 already there" in text and "beside the clean images: PSNR" in text
    assert one["psnr_before"] == pytest.approx(-10 * np.log10(0.2**2 / 4), abs=0.5)
    status, text = told(run, capsys, *options, "clean=in/y.tif")
    assert status == 1 and "clean: " in text and "does not exist. Did you mean" in text


def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    r"""Bands of a row of tiles."""
    monkeypatch.setattr("scoregen.restoration.bands.PIXELS", 200)


@pytest.mark.parametrize("probes", [0, 2])
def test_a_scene_in_bands_is_the_scene_as_a_whole(probes, run, here, monkeypatch):
    r"""With pixels without data; up to the rounding of the network's sums over batches of tiles."""
    x = bordered(intensity(61, 30), np.nan)
    x[20:45, 12:20] = np.nan
    np.save(here / "x.npy", x)
    options = ["images=x.npy", "looks=4", f"probes={probes}"]
    whole = np.load(restore(run, here / "a", *options) / "images" / "x.npy")
    few_rows(monkeypatch)
    part = np.load(restore(run, here / "b", *options) / "images" / "x.npy")
    np.testing.assert_allclose(part, whole, rtol=2e-5)
    if probes:
        a, b = (np.load(here / name / "std" / "x.npy.npy") for name in "ab")
        np.testing.assert_allclose(b, a, rtol=2e-3, atol=1e-5)
    assert not list((here / "b" / "parts").rglob("*.npz"))


def test_a_scene_goes_on_after_the_band_where_it_was_ended(run, here, monkeypatch, capsys):
    from scoregen.restoration import Results

    few_rows(monkeypatch)
    np.save(here / "x.npy", intensity(61, 30))
    options = ["images=x.npy", "looks=4", "probes=1"]
    whole = (restore(run, here / "a", *options) / "images" / "x.npy").read_bytes()
    put, done = Results.put, []

    def ends(self, band, *rest):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(band)
        put(self, band, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Results, "put", ends)
        with pytest.raises(KeyboardInterrupt):
            restore(run, here / "b", *options)
    assert len(list((here / "b" / "parts").rglob("*.npz"))) == 3 and not (here / "b" / "images").exists()
    with monkeypatch.context() as patch:
        patch.setattr(Results, "put", lambda self, band, *rest: (done.append(band), put(self, band, *rest)))
        restore(run, here / "b", *options)
    assert len(done) == len(set(done)) > 4
    assert (here / "b" / "images" / "x.npy").read_bytes() == whole


@pytest.mark.slow
def test_two_processes_share_the_bands_of_a_scene(run, here, monkeypatch):
    few_rows(monkeypatch)
    np.save(here / "x.npy", bordered(intensity(61, 30), np.nan))
    options = ["images=x.npy", "looks=4", "probes=1"]
    alone = restore(run, here / "a", *options)
    script = "import scoregen.restoration.bands as b; b.PIXELS = 200; from scoregen.command_line import run_job; "
    script += "import sys; run_job('restore', sys.argv[1:])"
    (here / "two.py").write_text(script)
    process = pair(here, str(here / "two.py"), f"checkpoint={run}", *options, "out=b")
    text = process.communicate(timeout=600)[0]
    assert process.returncode == 0, text
    for name in ("images/x.npy", "std/x.npy.npy"):
        assert (here / "b" / name).read_bytes() == (alone / name).read_bytes()


def test_draws_of_a_scene_larger_than_memory_are_refused(run, here, capsys):
    np.save(here / "x.npy", intensity())
    options = ["images=x.npy", "looks=4", "samples=2", "sampler.steps=2", "max_pixels=1000", "out=out"]
    status, text = told(run, capsys, *options)
    assert status == 1 and "samples: draws keep the whole image in memory, and 'x.npy' has 48 x 40 pixels" in text
