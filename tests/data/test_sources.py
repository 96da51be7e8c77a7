r"""What is read: values in data units, shapes, labels, splits; and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import image_folder, mnist_like

from scoregen.data import CIFAR10, KMNIST, MNIST, ArrayDataset, Digits, FashionMNIST, Folder, Npz, Toy2D
from scoregen.data.base import split
from scoregen.errors import UserError


@pytest.mark.parametrize("low, high", [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)])
def test_bytes_stay_bytes_and_their_units_are_those_of_the_range(low, high):
    stored = torch.tensor([[0, 51, 255]], dtype=torch.uint8)
    part = ArrayDataset(stored, range=(low, high))
    assert torch.equal(part[0][0], stored[0])
    assert part.in_units(0)[0].tolist() == pytest.approx([low, low + 0.2 * (high - low), high], abs=1e-6)


def test_floats_are_in_the_units_of_the_source():
    part = ArrayDataset(torch.tensor([[-3.5]], dtype=torch.float64))
    assert part[0][0].dtype == torch.float32
    assert part.in_units(0)[0].tolist() == [-3.5]


@pytest.mark.parametrize(
    "x, label, text",
    [
        (torch.zeros(3, 2), torch.zeros(2).long(), r"3 samples and labels \(2,\)"),
        (torch.zeros(3, 2), torch.zeros(3), "integer label for each sample.*torch.float32"),
        (torch.tensor([[0.0], [float("nan")]]), None, "finite, got 1 values"),
        (torch.zeros(3, 2, dtype=torch.int64), None, r"uint8 \(read as x/255\) or float, got torch.int64"),
    ],
    ids=["lengths", "float-labels", "nan", "int64"],
)
def test_arrays_that_are_no_data_are_refused(x, label, text):
    with pytest.raises(ValueError, match=text):
        ArrayDataset(x, label)


def test_labels_in_a_column_are_flattened():
    assert ArrayDataset(torch.zeros(3, 2), torch.tensor([[0], [1], [2]])).label.tolist() == [0, 1, 2]


def test_a_fingerprint_tells_content_shape_and_type_apart():
    x = torch.arange(6.0).reshape(2, 3)
    prints = {ArrayDataset(a).fingerprint() for a in (x, x.reshape(3, 2), x + 1, x.double())}
    assert len(prints) == 4
    assert ArrayDataset(x.clone()).fingerprint() == ArrayDataset(x).fingerprint()


def test_a_split_is_a_partition_and_always_the_same():
    x = torch.arange(25.0)[:, None]
    train, test = split(x, torch.arange(25), True), split(x, torch.arange(25), False)
    assert len(test) == 2
    assert sorted([*train.label.tolist(), *test.label.tolist()]) == list(range(25))
    assert torch.equal(train.x[:, 0].long(), train.label)
    assert torch.equal(split(x, None, True).x, train.x)
    with pytest.raises(ValueError, match="at least 2 samples"):
        split(x[:1], None, True)


def test_digits_are_scikit_learns_in_unit_range():
    from sklearn.datasets import load_digits

    source, digits = Digits(), load_digits()
    assert (len(source.train), len(source.test), source.shape, source.num_classes) == (1617, 180, (1, 8, 8), 10)
    x = torch.cat([source.train.x, source.test.x]).flatten(1)
    label = torch.cat([source.train.label, source.test.label])
    own = sorted((*(16 * row).round().int().tolist(), int(k)) for row, k in zip(x, label, strict=True))
    assert own == sorted((*map(int, row), int(k)) for row, k in zip(digits.data, digits.target, strict=True))


@pytest.mark.parametrize("kind, folder", [(MNIST, "MNIST"), (FashionMNIST, "FashionMNIST"), (KMNIST, "KMNIST")])
def test_mnist_files_are_read_from_the_root(tmp_path, kind, folder):
    images = mnist_like(tmp_path, folder)
    source = kind(str(tmp_path), download=False)
    assert source.shape == (1, 28, 28)
    assert torch.equal(source.train[:][0][:, 0], torch.from_numpy(images))
    assert source.test.label.tolist() == [k % 10 for k in range(20)]


@pytest.mark.parametrize(
    "kind, file, shape", [(KMNIST, "kmnist_10k.npz", (28, 28)), (CIFAR10, "cifar10_subset.npz", (32, 32, 3))]
)
def test_a_subset_in_the_root_stands_in_for_the_whole(tmp_path, kind, file, shape):
    images = np.random.default_rng(0).integers(0, 256, (6, *shape), dtype=np.uint8)
    labels = np.arange(6)
    arrays = {"train_images": images, "train_labels": labels, "test_images": images[:2], "test_labels": labels[:2]}
    np.savez(tmp_path / file, **arrays)
    source = kind(str(tmp_path), download=False)
    assert source.name == file.removesuffix(".npz")
    expected = torch.from_numpy(images.reshape(6, *shape[:2], -1)).permute(0, 3, 1, 2)
    assert torch.equal(source.train[:][0], expected)
    assert len(source.test) == 2


def test_absent_data_name_the_root(tmp_path):
    with pytest.raises(UserError, match=r"data.root: mnist is not under .*download=false.*Give data.root=FOLDER"):
        _ = MNIST(str(tmp_path), download=False).train


@pytest.mark.parametrize(
    "arrays, shape, classes",
    [
        ({"train_images": np.zeros((9, 5, 4), np.uint8), "train_labels": np.arange(9)[:, None] % 3}, (1, 5, 4), 3),
        ({"images": np.zeros((9, 5, 4, 3), np.float32)}, (3, 5, 4), None),
        ({"x": np.zeros((9, 7)), "y": np.arange(9)}, (7,), 9),
        ({"images": np.zeros((9, 3, 6, 5), np.float32), "more": np.zeros(2)}, (3, 6, 5), None),
    ],
    ids=["grey-column-labels", "channels-last", "table", "channels-first"],
)
def test_npz_layouts(tmp_path, arrays, shape, classes):
    np.savez(tmp_path / "a.npz", **arrays)
    source = Npz(str(tmp_path / "a.npz"))
    assert source.shape == shape
    assert len(source.train) + len(source.test) == 9
    assert source.num_classes == classes  # those of the held-out part too


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (np.zeros((0, 4, 4), np.uint8), np.zeros((3, 4, 4), np.uint8)),
        (np.zeros((3, 4, 4), np.uint8), np.zeros((0, 4, 4), np.uint8)),
        (np.zeros((3, 4, 4), np.uint8), np.zeros((3, 5, 4), np.uint8)),
        (np.zeros((3, 4, 4), np.uint8), np.zeros((3, 4, 4), np.float32)),
    ],
    ids=["empty", "empty-test", "shape", "type"],
)
def test_parts_that_do_not_fit_are_refused(tmp_path, train, test):
    np.savez(tmp_path / "a.npz", train_images=train, test_images=test)
    with pytest.raises(UserError, match=r"all parts .* must hold images of one shape and type"):
        Npz(str(tmp_path / "a.npz"))


@pytest.mark.parametrize("damage", ["text", "truncated", "no-images", "npy", "pickle", "empty"])
def test_files_that_are_no_data_are_refused(tmp_path, damage):
    path = tmp_path / "a.npz"
    if damage in ("text", "empty"):
        path.write_text("hello" if damage == "text" else "")
    elif damage == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif damage == "pickle":
        np.savez(path, images=np.array([{"a": 1}], dtype=object))
    else:
        np.savez(path, pictures=np.zeros((50, 50)))
        path.write_bytes(path.read_bytes()[: 300 if damage == "truncated" else None])
    text = "must hold 'train_images'" if damage == "no-images" else "not a readable .npz file"
    with pytest.raises(UserError, match=text):
        Npz(str(path))


def test_an_absent_path_names_its_neighbour(tmp_path):
    (tmp_path / "breast.npz").touch()
    with pytest.raises(UserError, match=r"data.path: '.*breist.npz' does not exist. Did you mean '.*breast.npz'\?"):
        Npz(str(tmp_path / "breist.npz"))


def test_a_folder_is_read_with_its_sub_folders_as_classes(tmp_path):
    source = Folder(str(image_folder(tmp_path, classes=("b", "a", "b"))))
    assert (source.shape, source.num_classes) == ((1, 4, 6), 2)
    x = torch.cat([source.train.x, source.test.x])
    label = torch.cat([source.train.label, source.test.label])
    assert {int(a.max()): int(k) for a, k in zip(x, label, strict=True)} == {0: 1, 17: 0, 34: 1}


def test_an_image_beside_the_classes_is_refused(tmp_path):
    image_folder(tmp_path, classes=("b", "a", "b"))
    Image.fromarray(np.zeros((6, 4), dtype=np.uint8)).save(tmp_path / "zz.png")
    with pytest.raises(UserError, match=r"has 1 files without a class \(first: 'zz.png'\)"):
        Folder(str(tmp_path))


def test_resizing_takes_the_shorter_side_and_crops_the_middle(tmp_path):
    gradient = np.tile(np.arange(16, dtype=np.uint8) * 10, (8, 1))
    for i in range(2):
        Image.fromarray(gradient).save(tmp_path / f"{i}.png")
    source = Folder(str(tmp_path), size=8)
    assert source.train.x[0, 0].tolist() == gradient[:, 4:12].tolist()


@pytest.mark.parametrize(
    "options, size, text",
    [
        ({"modes": ("L", "RGB", "L")}, None, "same channels, but '.*0.png' has 1, '.*1.png' 3. Give data.channels=3"),
        ({"modes": ("L", "RGB", "L")}, 4, "same channels"),
        (
            {"sizes": ((6, 4), (6, 4), (4, 4))},
            None,
            r"same size, but '.*0.png' has 6 x 4, '.*2.png' 4 x 4. Give data.size=N",
        ),
        ({"modes": ("L", "I;16", "L")}, None, "same depth, but '.*0.png' has 8 bits, '.*1.png' 16 bits"),
    ],
    ids=["channels", "channels-resized", "sizes", "16-bit"],
)
def test_mixed_folders_are_refused_by_the_name_of_the_file(tmp_path, options, size, text):
    with pytest.raises(UserError, match=text):
        Folder(str(image_folder(tmp_path, **options)), size)


def test_a_damaged_image_is_named(tmp_path):
    image_folder(tmp_path)
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:40])
    with pytest.raises(UserError, match=r"1.png' is not a readable image"):
        _ = Folder(str(tmp_path)).train


def test_a_picture_stands_as_its_camera_noted(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turned by a quarter
    stored = np.arange(24, dtype=np.uint8).reshape(4, 6)
    for i in range(2):
        Image.fromarray(stored).save(tmp_path / f"{i}.png", exif=exif)
    seen = Folder(str(tmp_path), test="none").train[[0]][0][0, 0]
    np.testing.assert_array_equal(seen.numpy(), np.rot90(stored, -1))  # its first row is the last column


def test_hidden_files_are_left_out_and_deeper_folders_refused(tmp_path):
    image_folder(tmp_path, classes=("b", "a", "b"))
    (tmp_path / "a" / ".ipynb_checkpoints").mkdir()
    Image.new("L", (6, 4)).save(tmp_path / "a" / ".ipynb_checkpoints" / "x.png")
    assert Folder(str(tmp_path)).num_classes == 2
    (tmp_path / "a" / "more").mkdir()
    Image.new("L", (6, 4)).save(tmp_path / "a" / "more" / "x.png")
    with pytest.raises(UserError, match=r"'.*a' has 1 files without a class \(first: '1.png'\)"):
        Folder(str(tmp_path))


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="no images"):
        Folder(str(tmp_path))


def test_half_circles_have_unit_radius_around_their_centres():
    source = Toy2D(n=50, noise=0.0)
    x, label = source.train[:]
    centre = torch.stack([label - 0.5, 0.5 * label - 0.25], dim=1)
    torch.testing.assert_close((x - centre).norm(dim=1), torch.ones(45))
    assert bool(((x - centre)[:, 1] * (1.0 - 2.0 * label) >= 0).all())
    assert len(source.test) == 5
