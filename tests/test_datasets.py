"""Reading data sets and cutting them into minibatches."""

import ast
import gzip
import hashlib
import re
import struct
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

import fastnn.datasets
from fastnn.datasets import iterate_minibatches, load_dataset, normalize, standardize

PUBLISHED_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
NAMES = list(PUBLISHED_MD5)
IMAGES_NAME = "train-images-idx3-ubyte"
LABELS_NAME = "train-labels-idx1-ubyte"
N_TRAIN, N_TEST, HEIGHT, WIDTH = 13, 5, 3, 4


def idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def arrays():
    """A small data set whose pixels include 0 and 255, by file name."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (N_TRAIN + N_TEST, HEIGHT, WIDTH), dtype=np.uint8)
    images[0, 0, :2] = 0, 255
    labels = rng.integers(0, 10, N_TRAIN + N_TEST, dtype=np.uint8)
    parts = images[:N_TRAIN], labels[:N_TRAIN], images[N_TRAIN:], labels[N_TRAIN:]
    return dict(zip(NAMES, parts, strict=True))


@pytest.fixture
def directory(tmp_path, arrays):
    """That data set as files that are not gzipped."""
    for name, array in arrays.items():
        (tmp_path / name).write_bytes(idx(array))
    return tmp_path


def write_emnist(folder, arrays, split, first_label=0):
    """Write the data set as EMNIST's files hold it, under the names of one of its parts."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        stored = array.transpose(0, 2, 1) if array.ndim == 3 else array + np.uint8(first_label)
        name = f"emnist-{split}-{name.replace('t10k', 'test')}"
        (folder / name).write_bytes(idx(np.ascontiguousarray(stored)))


def write_qmnist(folder, arrays):
    """Write the data set as QMNIST's files hold it: labels are rows of eight 32-bit integers."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        name = f"qmnist-{name.replace('t10k', 'test')}"
        content = idx(array)
        if array.ndim == 1:
            name = name.replace("idx1-ubyte", "idx2-int")
            rows = np.full((len(array), 8), 70_000, ">i4")
            rows[:, 0] = array
            content = struct.pack(">BBBB2I", 0, 0, 12, 2, *rows.shape) + rows.tobytes()
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))


def gzip_file(path):
    zipped = path.with_name(path.name + ".gz")
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    return zipped


def assert_is_small_data_set(loaded, arrays):
    X_train, y_train, X_val, y_val, X_test, y_test = loaded
    np.testing.assert_array_equal(np.concatenate([X_train, X_val]), arrays[NAMES[0]])
    np.testing.assert_array_equal(np.concatenate([y_train, y_val]), arrays[NAMES[1]])
    np.testing.assert_array_equal(X_test, arrays[NAMES[2]])
    np.testing.assert_array_equal(y_test, arrays[NAMES[3]])


class TestEmbeddedMNIST:
    @pytest.fixture(autouse=True)
    def _no_environment(self, monkeypatch):
        monkeypatch.delenv("FASTNN_DATA", raising=False)

    @pytest.mark.parametrize("name", NAMES)
    def test_checksums(self, name):
        folder = resources.files("fastnn") / "mnist"
        zipped = (folder / f"{name}.gz").read_bytes()
        assert (
            hashlib.md5(gzip.decompress(zipped), usedforsecurity=False).hexdigest()
            == PUBLISHED_MD5[name]
        )
        readme = (folder / "README.md").read_text()
        assert PUBLISHED_MD5[name] in readme
        assert f"{len(zipped):,} | `{hashlib.sha256(zipped).hexdigest()}`" in readme

    def test_split_is_that_of_the_raw_files(self):
        def raw(name, offset):
            zipped = (resources.files("fastnn") / "mnist" / f"{name}.gz").read_bytes()
            return np.frombuffer(gzip.decompress(zipped), np.uint8, offset=offset)

        images, test_images = (raw(NAMES[i], 16).reshape(-1, 28, 28) for i in (0, 2))
        labels, test_labels = (raw(NAMES[i], 8) for i in (1, 3))
        loaded = load_dataset(dtype=np.uint8)
        expected = (
            images[:50_000],
            labels[:50_000],
            images[50_000:],
            labels[50_000:],
            test_images,
            test_labels,
        )
        for got, want in zip(loaded, expected, strict=True):
            np.testing.assert_array_equal(got, want)
        for X, y in zip(loaded[::2], loaded[1::2], strict=True):
            assert X.dtype == np.uint8
            assert y.dtype == np.int64
            assert np.unique(y).tolist() == list(range(10))

    def test_scaled_and_flattened_by_default_dtype(self):
        X_train, y_train, X_val, y_val, X_test, y_test = load_dataset(flatten=True)
        assert [X.shape for X in (X_train, X_val, X_test)] == [
            (50_000, 784),
            (10_000, 784),
            (10_000, 784),
        ]
        assert [y.shape for y in (y_train, y_val, y_test)] == [(50_000,), (10_000,), (10_000,)]
        raw = load_dataset(dtype=np.uint8)
        for X, pixels in zip((X_train, X_val, X_test), raw[::2], strict=True):
            assert X.dtype == np.float32
            assert X.flags.c_contiguous
            assert (X.min(), X.max()) == (0, 1)
            np.testing.assert_array_equal(X, pixels.reshape(-1, 784) / np.float32(255))

    def test_empty_environment_variable_counts_as_unset(self, monkeypatch):
        monkeypatch.setenv("FASTNN_DATA", "")
        assert load_dataset(dtype=np.uint8)[0].shape == (50_000, 28, 28)


class TestDirectory:
    def test_plain_files(self, directory, arrays):
        assert_is_small_data_set(load_dataset(path=directory, dtype=np.uint8), arrays)

    def test_gzipped_files(self, directory, arrays):
        for name in NAMES:
            gzip_file(directory / name)
        assert_is_small_data_set(load_dataset(path=str(directory), dtype=np.uint8), arrays)

    @pytest.mark.parametrize("zipped", [False, True])
    def test_dotted_names(self, directory, arrays, zipped):
        for name in NAMES:
            dotted = (directory / name).rename(directory / name.replace("-idx", ".idx"))
            if zipped:
                gzip_file(dotted)
        assert_is_small_data_set(load_dataset(path=directory, dtype=np.uint8), arrays)

    def test_gzip_is_known_by_its_first_bytes(self, directory, arrays):
        (directory / NAMES[0]).rename(directory / f"{NAMES[0]}.gz")  # and is not gzipped
        for name in NAMES[1:3]:
            gzip_file(directory / name).rename(directory / name)
        assert_is_small_data_set(load_dataset(path=directory, dtype=np.uint8), arrays)

    def test_plain_file_is_preferred(self, directory, arrays):
        (directory / f"{IMAGES_NAME}.gz").write_bytes(b"not read")
        assert_is_small_data_set(load_dataset(path=directory, dtype=np.uint8), arrays)

    def test_environment_variable(self, directory, arrays, monkeypatch):
        monkeypatch.setenv("FASTNN_DATA", str(directory))
        assert_is_small_data_set(load_dataset(dtype=np.uint8), arrays)

    def test_path_goes_before_environment_variable(self, directory, arrays, monkeypatch):
        monkeypatch.setenv("FASTNN_DATA", str(directory / "nowhere"))
        assert_is_small_data_set(load_dataset(path=directory, dtype=np.uint8), arrays)

    @pytest.mark.parametrize(("n", "n_val"), [(5, 0), (6, 1), (13, 2), (60_000, 10_000)])
    @pytest.mark.parametrize("flatten", [False, True])
    def test_validation_share(self, directory, n, n_val, flatten):
        images = np.zeros((n, HEIGHT, WIDTH), np.uint8)
        (directory / IMAGES_NAME).write_bytes(idx(images))
        (directory / LABELS_NAME).write_bytes(idx(np.arange(n).astype(np.uint8)))
        X_train, y_train, X_val, y_val, X_test, _ = load_dataset(flatten, path=directory)
        shape = (HEIGHT * WIDTH,) if flatten else (HEIGHT, WIDTH)
        assert X_train.shape == (n - n_val, *shape)
        assert X_val.shape == (n_val, *shape)
        assert X_test.shape == (N_TEST, *shape)
        assert (len(y_train), len(y_val)) == (n - n_val, n_val)

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, "float64", float, ">f4"])
    def test_floating_dtypes_are_scaled(self, directory, arrays, dtype):
        X_test = load_dataset(path=directory, dtype=dtype)[4]
        assert X_test.dtype == np.dtype(dtype)
        expected = np.divide(arrays[NAMES[2]], 255, dtype=np.dtype(dtype).newbyteorder("="))
        np.testing.assert_array_equal(X_test, expected)

    def test_elements_across_chunks_keep_their_order(self, directory, arrays, monkeypatch):
        monkeypatch.setattr(fastnn.datasets, "_CHUNK_BYTES", 7)
        gzip_file(directory / IMAGES_NAME)
        assert_is_small_data_set(load_dataset(path=directory, dtype=np.uint8), arrays)

    def test_arrays_can_be_written(self, directory):
        for dtype in (np.uint8, np.float32):
            assert all(a.flags.writeable for a in load_dataset(path=directory, dtype=dtype))


@pytest.fixture
def no_place(tmp_path, monkeypatch):
    """An empty home and working directory."""
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("FASTNN_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestNames:
    def test_images_of_emnist_are_turned_and_letters_begin_with_0(self, tmp_path, arrays):
        write_emnist(tmp_path, arrays, "letters", first_label=1)
        assert_is_small_data_set(load_dataset(path=tmp_path, dtype=np.uint8), arrays)
        X_test = load_dataset(flatten=True, path=tmp_path)[4]
        expected = arrays[NAMES[2]].reshape(N_TEST, -1) / np.float32(255)
        np.testing.assert_array_equal(X_test, expected)

    def test_turning_in_parts(self, tmp_path, arrays, monkeypatch):
        write_emnist(tmp_path, arrays, "digits")
        monkeypatch.setattr(fastnn.datasets, "_CHUNK_BYTES", 5 * HEIGHT * WIDTH + 1)
        assert_is_small_data_set(load_dataset(path=tmp_path, dtype=np.uint8), arrays)

    def test_parts_of_emnist_in_one_folder(self, tmp_path, arrays):
        write_emnist(tmp_path, arrays, "letters", first_label=1)
        others = {name: array[::-1] for name, array in arrays.items()}
        write_emnist(tmp_path, others, "balanced")
        found = "expected one data set, found emnist_balanced, emnist_letters; choose one by name"
        with pytest.raises(ValueError, match=re.escape(str(tmp_path)) + f": {found}"):
            load_dataset(path=tmp_path)
        for name, expected in (("emnist-letters", arrays), ("EMNIST_balanced", others)):
            loaded = load_dataset(name, path=tmp_path, dtype=np.uint8)
            assert_is_small_data_set(loaded, expected)

    def test_a_letter_that_is_none(self, tmp_path, arrays):
        arrays[LABELS_NAME][3] = 0
        write_emnist(tmp_path, arrays, "letters")
        with pytest.raises(ValueError, match=r"emnist-letters-train.*labels of at least 1, got 0"):
            load_dataset(path=tmp_path)

    def test_labels_of_qmnist(self, tmp_path, arrays):
        write_qmnist(tmp_path, arrays)
        loaded = load_dataset(path=tmp_path, dtype=np.uint8)
        assert_is_small_data_set(loaded, arrays)
        assert loaded[1].dtype == np.int64

    @pytest.mark.parametrize("cut", [1, 4 * 8])
    def test_truncated_labels_of_qmnist(self, tmp_path, arrays, cut):
        write_qmnist(tmp_path, arrays)
        file = tmp_path / "qmnist-test-labels-idx2-int.gz"
        file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes())[:-cut]))
        holds = 8 * N_TEST - -(-cut // 4)
        with pytest.raises(ValueError, match=f"promises 5 x 8 integers, but it holds {holds}$"):
            load_dataset(path=tmp_path)

    @pytest.mark.parametrize("place", ["here", "data", "FASTNN_DATA", "keras"])
    def test_where_files_are_looked_for(self, no_place, directory, arrays, monkeypatch, place):
        if place == "here":
            path, folder = no_place / "some", no_place / "some"
        else:
            path = None
            folder = {
                "data": no_place / "data" / "FashionMNIST" / "raw",
                "FASTNN_DATA": no_place / "sets" / "fashion_mnist",
                "keras": no_place / ".keras" / "datasets" / "fashion-mnist",
            }[place]
            monkeypatch.setenv("FASTNN_DATA", str(no_place / "sets"))
        folder.mkdir(parents=True)
        for name in NAMES:
            (directory / name).rename(folder / name)
        for name in ("fashion_mnist", "FashionMNIST", "fashion-mnist"):
            loaded = load_dataset(name, path=path, dtype=np.uint8)
            assert_is_small_data_set(loaded, arrays)
        assert load_dataset("fashion_mnist", True, path=path)[0].ndim == 2

    def test_files_that_may_be_another_set_are_not_taken(self, no_place, directory, monkeypatch):
        monkeypatch.setenv("FASTNN_DATA", str(directory))
        with pytest.raises(FileNotFoundError):
            load_dataset("fashion_mnist")
        assert load_dataset("fashion_mnist", path=directory)[0].shape[1:] == (HEIGHT, WIDTH)

    def test_files_that_say_what_they_are(self, no_place, arrays, monkeypatch):
        write_qmnist(no_place / "sets", arrays)
        monkeypatch.setenv("FASTNN_DATA", str(no_place / "sets"))
        assert_is_small_data_set(load_dataset("qmnist", dtype=np.uint8), arrays)

    def test_what_to_put_where_is_said(self, no_place):
        with pytest.raises(FileNotFoundError) as caught:
            load_dataset("fashion_mnist", flatten=True)
        message = str(caught.value)
        for part in (*NAMES, "https://github.com/zalandoresearch/fashion-mnist", "as path"):
            assert part in message
        for place in ("data/FashionMNIST/raw", ".keras/datasets/fashion-mnist"):
            assert str(Path(place)) in message

    def test_mnist_is_embedded(self, directory, monkeypatch):
        monkeypatch.setenv("FASTNN_DATA", str(directory))
        assert load_dataset("MNIST", dtype=np.uint8)[0].shape == (50_000, 28, 28)
        assert load_dataset("mnist", path=directory)[0].shape[1:] == (HEIGHT, WIDTH)

    def test_flatten_first_as_the_notebooks_have_it(self, directory):
        assert load_dataset(True, path=directory)[0].ndim == 2


class TestBadArguments:
    @pytest.mark.parametrize(
        ("dtype", "came"),
        [
            (np.int64, "int64"),
            (np.int8, "int8"),
            (bool, "bool"),
            (complex, "complex128"),
            (str, "<U0"),
            ("float33", "'float33'"),
            (None, "None"),
        ],
    )
    def test_dtype(self, directory, dtype, came):
        message = f"dtype: expected a floating dtype or np.uint8, got {came}"
        with pytest.raises(TypeError, match=re.escape(message)):
            load_dataset(path=directory, dtype=dtype)

    def test_flatten(self, directory):
        with pytest.raises(TypeError, match="flatten: expected True or False, got str "):
            load_dataset(flatten=str(directory))

    @pytest.mark.parametrize("name", ["emnist", "fashion", "", "data/digits"])
    def test_unknown_name(self, name):
        message = f"name: expected one of mnist, fashion_mnist, .* got '{name}'; a directory is giv"
        with pytest.raises(ValueError, match=message):
            load_dataset(name)

    def test_name_of_wrong_type(self, directory):
        with pytest.raises(TypeError, match=r"name: expected a str or None, got .*Path"):
            load_dataset(directory)

    def test_path_of_wrong_type(self):
        with pytest.raises(TypeError, match=r"path: expected a str, a path or None, got 3"):
            load_dataset(path=3)

    def test_missing_directory(self, tmp_path, monkeypatch):
        missing = tmp_path / "nowhere"
        with pytest.raises(FileNotFoundError, match=rf"^path: .*{re.escape(str(missing))}"):
            load_dataset(path=missing)
        monkeypatch.setenv("FASTNN_DATA", str(missing))
        with pytest.raises(FileNotFoundError, match=rf"^FASTNN_DATA: .*{re.escape(str(missing))}"):
            load_dataset()


class TestBadFiles:
    @pytest.fixture(params=NAMES)
    def name(self, request):
        return request.param

    @staticmethod
    def assert_refused(directory, file, wrong, exception=ValueError):
        with pytest.raises(exception, match=rf"{re.escape(str(file))}: .*{wrong}"):
            load_dataset(path=directory)

    def test_missing(self, directory, name):
        (directory / name).unlink()
        self.assert_refused(directory, directory, rf"none of .*{name}, .*{name}\.gz", OSError)
        with pytest.raises(FileNotFoundError):
            load_dataset(path=directory)

    @pytest.mark.parametrize("n_bytes", [0, 3, 6])
    @pytest.mark.parametrize("zipped", [False, True])
    def test_truncated_header(self, directory, name, n_bytes, zipped):
        file = directory / name
        file.write_bytes(file.read_bytes()[:n_bytes])
        file = gzip_file(file) if zipped else file
        self.assert_refused(directory, file, f"truncated: expected a header .* got {n_bytes}")

    def test_truncated_elements(self, directory, arrays, name):
        file = directory / name
        file.write_bytes(file.read_bytes()[:-1])
        size = arrays[name].size
        shape = " x ".join(map(str, arrays[name].shape))
        # Too short for what a plain file could hold, or only once it is read.
        self.assert_refused(directory, file, f"truncated: its header promises {shape} bytes")
        file = gzip_file(file)
        self.assert_refused(
            directory, file, f"truncated: .* {shape} bytes, but it holds {size - 1}"
        )

    def test_header_that_asks_for_more_than_memory(self, directory, name):
        for zipped in (False, True):
            file = directory / name
            n_dims = 3 if "images" in name else 1
            file.write_bytes(struct.pack(f">BBBB{n_dims}I", 0, 0, 8, n_dims, *[2**32 - 1] * n_dims))
            file = gzip_file(file) if zipped else file
            self.assert_refused(directory, file, "its header promises 4294967295")

    @pytest.mark.parametrize("zipped", [False, True])
    def test_trailing_bytes(self, directory, name, zipped):
        file = directory / name
        file.write_bytes(file.read_bytes() + b"\0")
        file = gzip_file(file) if zipped else file
        self.assert_refused(directory, file, "too long: bytes follow")

    def test_bad_magic(self, directory, name):
        file = directory / name
        data = bytearray(file.read_bytes())
        data[2] = 0x0D  # floats
        file.write_bytes(data)
        self.assert_refused(directory, file, r"not an IDX file .* 00 00 08 0\d, got 00 00 0d 0\d")

    def test_labels_in_the_place_of_images(self, directory):
        file = directory / IMAGES_NAME
        file.write_bytes((directory / LABELS_NAME).read_bytes())
        self.assert_refused(directory, file, "in 3 dimensions: .* got 00 00 08 01")

    def test_empty(self, directory):
        file = directory / IMAGES_NAME
        file.write_bytes(idx(np.zeros((0, HEIGHT, WIDTH), np.uint8)))
        self.assert_refused(directory, file, "empty: its header says 0 x 3 x 4")

    def test_truncated_gzip(self, directory, name):
        file = gzip_file(directory / name)
        file.write_bytes(file.read_bytes()[:-9])
        self.assert_refused(directory, file, "truncated gzip data")

    def test_gzip_checksum(self, directory, name):
        file = gzip_file(directory / name)
        data = bytearray(file.read_bytes())
        data[-8] ^= 1
        file.write_bytes(data)
        self.assert_refused(directory, file, "corrupt gzip data: CRC check failed")

    def test_corrupt_deflate_stream(self, directory, name):
        file = gzip_file(directory / name)
        data = bytearray(file.read_bytes())
        data[10] = 0xFF  # after the gzip header: a block of the reserved type
        file.write_bytes(data)
        self.assert_refused(directory, file, "corrupt gzip data: .*invalid block type")

    def test_bytes_after_gzip_data(self, directory, name):
        file = gzip_file(directory / name)
        file.write_bytes(file.read_bytes() + b"rest")
        self.assert_refused(directory, file, "corrupt gzip data: Not a gzipped file")

    @pytest.mark.parametrize("subset", ["train", "t10k"])
    def test_counts_differ(self, directory, arrays, subset):
        labels_file = directory / f"{subset}-labels-idx1-ubyte"
        labels = arrays[labels_file.name]
        labels_file.write_bytes(idx(labels[:-1]))
        wrong = (
            f"holds {len(labels) - 1} labels, "
            f"but .*{subset}-images-idx3-ubyte holds {len(labels)} images"
        )
        self.assert_refused(directory, labels_file, wrong)

    def test_image_sizes_differ(self, directory, arrays):
        file = directory / "t10k-images-idx3-ubyte"
        # As many pixels, so that flattening would hide it.
        file.write_bytes(idx(arrays[file.name].reshape(N_TEST, WIDTH, HEIGHT)))
        wrong = f"images are 4 x 3 pixels, but those of .*{IMAGES_NAME} are 3 x 4"
        self.assert_refused(directory, file, wrong)


class TestMinibatches:
    inputs = np.arange(22.0).reshape(11, 2)
    targets = np.arange(11)

    def test_in_order_without_the_last_shorter_batch(self):
        batches = list(iterate_minibatches(self.inputs, self.targets, 4))
        assert len(batches) == 2
        np.testing.assert_array_equal(np.concatenate([x for x, _ in batches]), self.inputs[:8])
        np.testing.assert_array_equal(np.concatenate([y for _, y in batches]), self.targets[:8])

    @pytest.mark.parametrize(("batchsize", "n_batches"), [(1, 11), (5, 2), (11, 1), (12, 0)])
    @pytest.mark.parametrize("shuffle", [False, True])
    def test_number_of_batches(self, batchsize, n_batches, shuffle):
        batches = list(iterate_minibatches(self.inputs, self.targets, batchsize, shuffle))
        assert [len(x) for x, _ in batches] == [batchsize] * n_batches

    def test_views_without_shuffling(self):
        for x, y in iterate_minibatches(self.inputs, self.targets, np.int64(4)):
            assert np.shares_memory(x, self.inputs)
            assert np.shares_memory(y, self.targets)

    def test_shuffling_visits_samples_once_and_keeps_pairs(self):
        n = 1000
        inputs = np.stack([np.arange(n), -np.arange(n)], axis=1)
        rng = np.random.default_rng(1)
        batches = list(iterate_minibatches(inputs, np.arange(n), 32, True, rng=rng))
        visited = np.concatenate([y for _, y in batches])
        assert len(visited) == n // 32 * 32
        assert len(set(visited)) == len(visited)
        assert visited.max() >= len(visited)  # the dropped samples are not always the last
        assert not np.array_equal(visited, np.sort(visited))
        np.testing.assert_array_equal(np.concatenate([x for x, _ in batches]), inputs[visited])

    def test_rng_decides_the_order(self):
        def order(rng):
            batches = iterate_minibatches(np.arange(100), np.arange(100), 10, True, rng=rng)
            return np.concatenate([y for _, y in batches]).tolist()

        rng = np.random.default_rng(7)
        first, second = order(rng), order(rng)
        assert first == order(np.random.default_rng(7))
        assert first != second
        assert order(None) != order(None)

    def test_order_is_drawn_at_the_call(self):
        rng = np.random.default_rng(7)
        batches = iterate_minibatches(self.inputs, self.targets, 11, True, rng=rng)
        rng.random()
        (_, y), *_ = batches
        expected = np.random.default_rng(7).permutation(11)
        np.testing.assert_array_equal(y, expected)

    def test_global_random_state_is_neither_read_nor_advanced(self):
        legacy = np.random.mtrand._rand  # what np.random.seed() and friends share
        legacy.seed(0)
        before = legacy.get_state()[1:3]
        orders = []
        for _ in range(2):
            legacy.seed(0)
            batches = iterate_minibatches(np.arange(100), np.arange(100), 100, shuffle=True)
            orders.append(next(batches)[0].tolist())
        assert orders[0] != orders[1]
        after = legacy.get_state()[1:3]
        np.testing.assert_array_equal(before[0], after[0])
        assert before[1] == after[1]

    def test_unshuffled_iteration_leaves_rng_alone(self):
        rng = np.random.default_rng(7)
        list(iterate_minibatches(self.inputs, self.targets, 4, rng=rng))
        assert rng.random() == np.random.default_rng(7).random()

    def test_lists(self):
        ((x, y),) = iterate_minibatches([[1, 2], [3, 4]], [0, 1], 2, shuffle=True)
        np.testing.assert_array_equal(x, np.array([[1, 2], [3, 4]])[y])

    @pytest.mark.parametrize(
        ("changes", "exception", "message"),
        [
            ({"targets": targets[:10]}, ValueError, "inputs and targets: .* 11 inputs and 10 tar"),
            ({"inputs": 3.0}, ValueError, "inputs: expected an array"),
            ({"targets": np.int64(3)}, ValueError, "targets: expected an array"),
            ({"batchsize": 0}, ValueError, "batchsize: expected an integer of at least 1, got 0"),
            ({"batchsize": -4}, ValueError, "batchsize: expected an integer of at least 1, got -4"),
            (
                {"batchsize": True},
                TypeError,
                "batchsize: expected an integer of at least 1, got True",
            ),
            ({"batchsize": np.True_}, TypeError, "batchsize: expected an integer"),
            (
                {"batchsize": 4.0},
                TypeError,
                "batchsize: expected an integer of at least 1, got float 4.0",
            ),
            (
                {"batchsize": "4"},
                TypeError,
                "batchsize: expected an integer of at least 1, got str '4'",
            ),
            ({"shuffle": np.random.default_rng(0)}, TypeError, "shuffle: expected True or False"),
            ({"rng": 0}, TypeError, "rng: expected a numpy.random.Generator or None, got 0"),
            ({"rng": np.random}, TypeError, "rng: expected a numpy.random.Generator or None"),
        ],
    )
    def test_arguments_are_checked_at_the_call(self, changes, exception, message):
        arguments = {"inputs": self.inputs, "targets": self.targets, "batchsize": 4} | changes
        with pytest.raises(exception, match=message):
            iterate_minibatches(**arguments)


def test_knows_nothing_of_networks():
    tree = ast.parse(Path(fastnn.datasets.__file__).read_text(encoding="utf-8"))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported |= {f"{node.module}.{alias.name}" for alias in node.names}
    ours = {name for name in imported if name.startswith("fastnn") or name.startswith("None")}
    assert ours == {"fastnn.checks", "fastnn.unpacking"}
    others = {name.partition(".")[0] for name in imported - ours}
    assert others - sys.stdlib_module_names == {"numpy"}


EPS = np.finfo(np.float64).eps


SCALED_DTYPES = {
    np.uint8: np.float32,
    np.bool_: np.float32,
    np.int16: np.float32,
    np.float16: np.float32,
    np.float32: np.float32,
    np.int32: np.float64,
    np.int64: np.float64,
    np.uint64: np.float64,
    np.float64: np.float64,
}


class TestScaling:
    @pytest.mark.parametrize("dtype", SCALED_DTYPES)
    def test_values_and_dtypes(self, dtype):
        values = np.random.default_rng(1).integers(0, 2 if dtype is np.bool_ else 100, (41, 3, 7))
        values = values.astype(dtype)
        exact = values.astype(np.float64)
        tolerance = 8 * np.finfo(SCALED_DTYPES[dtype]).eps
        normal = normalize(values)
        assert normal.dtype == SCALED_DTYPES[dtype]
        expected = (exact - exact.min()) / (exact.max() - exact.min())
        np.testing.assert_allclose(normal, expected, rtol=tolerance)
        assert normal.min() == 0.0
        assert normal.max() == 1.0
        standard = standardize(values)
        assert standard.dtype == SCALED_DTYPES[dtype]
        expected = (exact - exact.mean()) / exact.std()
        np.testing.assert_allclose(standard, expected, rtol=tolerance, atol=tolerance)

    def test_as_the_notebook_has_it(self):
        values = np.random.default_rng(2).normal(5.0, 3.0, (100, 7))
        low, high = values.min(), values.max()
        np.testing.assert_array_equal(normalize(values), (values - low) / (high - low))
        # the sums of 700 numbers in another order
        standard = (values - values.mean()) / values.std()
        np.testing.assert_allclose(standardize(values), standard, rtol=0, atol=700 * EPS)

    @pytest.mark.parametrize("function", [normalize, standardize])
    def test_other_data_are_scaled_as_the_reference(self, function):
        rng = np.random.default_rng(3)
        train, test = rng.normal(size=(50, 4)), rng.normal(2.0, 5.0, (9, 2, 2))
        both = np.concatenate([train.ravel(), test.ravel()])
        together = function(both, train)
        np.testing.assert_array_equal(together[:200], function(train).ravel())
        np.testing.assert_array_equal(together[200:], function(test, reference=train).ravel())
        assert function(test, train).shape == test.shape

    @pytest.mark.parametrize("function", [normalize, standardize])
    @pytest.mark.parametrize(
        ("dtype", "value"),
        [(np.uint8, 0), (np.uint8, 7)]
        + [(t, v) for t in (np.float32, np.float64) for v in (0, 0.1, 1 / 3, 1e30, -1e-30)],
    )
    def test_constant_values_give_zeros(self, function, dtype, value):
        constant = np.full((999, 3), value, dtype)
        np.testing.assert_array_equal(function(constant), np.zeros((999, 3)))
        moved = function(np.array([value, value], dtype) * dtype(2), constant)
        np.testing.assert_allclose(moved, value, rtol=8 * EPS if dtype is np.float64 else 1e-6)

    @pytest.mark.parametrize("function", [normalize, standardize])
    def test_any_layout_and_size(self, function):
        values = np.random.default_rng(4).normal(1e6, 1.0, (300, 101)).astype(np.float32)
        expected = function(values)
        assert abs(float(standardize(values).mean(dtype=np.float64))) < 1e-7
        for other in (np.asfortranarray(values), np.repeat(values, 2, 1)[:, ::2]):
            # a mean of the same numbers in another order
            np.testing.assert_allclose(function(other), expected, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(function([1, 2, 3]), function(np.array([1.0, 2.0, 3.0])))
        assert function(5.0).shape == ()

    def test_a_range_beyond_float32(self):
        values = np.array([-3e38, 0.0, 3e38], np.float32)
        np.testing.assert_array_equal(normalize(values), np.array([0.0, 0.5, 1.0], np.float32))
        np.testing.assert_allclose(standardize(values), [-np.sqrt(1.5), 0.0, np.sqrt(1.5)], 1e-6)

    @pytest.mark.parametrize("size", [1e200, 1e-200])
    def test_numbers_whose_squares_are_out_of_range(self, size):
        values = size * np.array([-1.0, 0.0, 1.0])
        np.testing.assert_allclose(normalize(values), [0.0, 0.5, 1.0], rtol=4 * EPS)
        expected = [-np.sqrt(1.5), 0.0, np.sqrt(1.5)]
        np.testing.assert_allclose(standardize(values), expected, rtol=8 * EPS)

    def test_the_data_are_left_as_they_are(self):
        values = np.arange(6.0)
        values.flags.writeable = False
        normalize(values)
        standardize(values, values)
        np.testing.assert_array_equal(values, np.arange(6.0))

    @pytest.mark.parametrize("function", [normalize, standardize])
    @pytest.mark.parametrize(
        ("arguments", "exception", "message"),
        [
            (([],), ValueError, r"^values: expected at least one number, got shape \(0,\)"),
            (([1.0], []), ValueError, "^reference: expected at least one number"),
            ((["a"],), TypeError, "^values: expected an array of real numbers"),
            (([1j],), TypeError, "^values: expected an array of real numbers"),
            (([1.0], ["a"]), TypeError, "^reference: expected an array of real numbers"),
            (([1.0, np.nan],), ValueError, "^values: expected a finite range, got nan in row 1"),
            (([1.0], [0.0, np.inf]), ValueError, "^reference: expected a finite range"),
            (([-1.7e308, 1.7e308],), ValueError, "^values: expected a finite range"),
            ((np.ones(2, np.longdouble),), TypeError, "^values: expected .*float32 or float64"),
        ],
    )
    def test_bad_arguments(self, function, arguments, exception, message):
        with pytest.raises(exception, match=message):
            function(*arguments)
