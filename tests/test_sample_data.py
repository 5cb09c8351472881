"""Reading data files of samples, and what is said of bad data, files and formulas."""

from __future__ import annotations

import time
import tracemalloc
import zipfile

import numpy as np
import pytest

from fpsolve.errors import InputError
from fpsolve.model.sample_data import read_csv, read_samples
from fpsolve.model.samples import sample_landscape


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("x,z\n1,2\n3,4\n", "column named 'y'"),
        ("x,Y\n1,2\n3,4\n", "Did you mean"),
        ("x,y\n1,2\n3,abc\n", "column 'y', row 2 is 'abc'"),
        ("x,y\n1,2\n\n3,\n", "column 'y', row 2 is ''"),
        ("x,y\n1,2\n3\n", "row 2 has 1 entries"),
        ("x,y\n1,2\n3,nan\n", "column 'y', row 2 is nan"),
        ("x,y\n1,inf\n3,4\n", "column 'y', row 1 is inf"),
        ("x,y\n", "has none"),
        ("", "is empty"),
        ("x,y\n1,2\n", "no noise"),
        ("x,y,y\n1,2,3\n1,2,3\n", "2 of them"),
    ],
)
def test_bad_files_are_refused_with_the_place(tmp_path, text, part):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=part) as caught:
        read_csv(path, ["x", "y"], "process.data.file")
    assert caught.value.key == "process.data.file" and "bad.csv" in str(caught.value)


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_csv(tmp_path / "none.csv", ["x"])
    with pytest.raises(InputError, match="directory"):
        read_csv(tmp_path, ["x"])
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="text file"):
        read_csv(tmp_path / "b.csv", ["x"])


def test_a_good_file_with_text_columns_quotes_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "good.csv"
    path.write_bytes('\ufeff"x", name ,y\r\n1,"a,b",2.5\r\n\r\n-1e3,c,0.1\r\n'.encode())
    data = read_csv(path, ["y", "x"])
    assert data["x"].tolist() == [1.0, -1000.0] and data["y"].tolist() == [2.5, 0.1]


def test_a_million_rows_are_read_and_answered_in_bounded_memory(tmp_path):
    """A thousand rows, a thousand times: the means are those of the thousand. Memory beyond the data: below 60 MB."""
    few = np.random.default_rng(0).normal(size=(1000, 2))
    path = tmp_path / "long.csv"
    path.write_text("x,y\n" + "".join(f"{x!r},{y!r}\n" for x, y in few.tolist()) * 1000)
    start = time.process_time()
    data = read_csv(path, ["x", "y"])
    assert len(data["x"]) == 1_000_000 and time.process_time() - start < 8
    np.savez(tmp_path / "long.npz", **data)
    again = read_samples(tmp_path / "long.npz", ["x", "y"])
    assert all(np.array_equal(again[name], data[name]) for name in data)
    short = {"x": few[:, 0], "y": few[:, 1]}
    every, expected = (sample_landscape("a*tanh(b*x)", ["a", "b"], ["x"], "y", None, d) for d in (again, short))
    x = np.array([[0.5, 1.0], [-1.0, 2.0], [3.0, 0.1]])
    tracemalloc.start()
    found = every.statistics(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6
    np.testing.assert_allclose(every.loss(x), expected.loss(x), rtol=1e-12)
    for name, values in vars(expected.statistics(x)).items():
        np.testing.assert_allclose(getattr(found, name), values, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("constant", ["x", "y", "both"])
def test_constant_columns_have_an_answer(constant):
    rng = np.random.default_rng(1)
    data = {name: np.full(9, 0.7) if constant in (name, "both") else rng.normal(size=9) for name in "xy"}
    landscape = sample_landscape("a*tanh(b*x) + c", ["a", "b", "c"], ["x"], "y", None, data)
    at = np.array([[0.5, 1.0, -0.2]])
    q = landscape.covariance(at)[0]
    g = landscape.sample_gradients(at)[0]
    np.testing.assert_allclose(q, np.cov(g.T, bias=True), rtol=1e-12, atol=1e-30)
    assert np.linalg.matrix_rank(q, hermitian=True) == {"x": 1, "y": 3, "both": 0}[constant]


@pytest.mark.parametrize(
    ("change", "key", "part"),
    [
        ({"model": "a*x + c"}, "process.data.model", "Unknown symbol 'c'"),
        ({"model": "x"}, "process.data.model", "one of a, b"),
        ({"sample_loss": "y**2"}, "process.data.sample_loss", "model occurs"),
        ({"sample_loss": "abs(model - y)"}, "process.data.sample_loss", "DiracDelta"),
        ({"parameters": ["a", "exp"]}, "process.data.parameters", "not a function"),
        ({"parameters": ["a", "x"]}, "process.data", "distinct"),
        ({"parameters": []}, "process.data.parameters", "at least one"),
        ({"target": "model"}, "process.data", "stands for the model"),
        ({"target": "yy"}, "process.data", "Did you mean 'y'"),
        ({"data": {"x": [1.0], "y": [2.0]}}, "process.data", "no noise"),
        ({"data": {"x": [1.0, 2.0], "y": [2.0]}}, "process.data", "equal length"),
        ({"data": {"x": [1.0, 2.0], "y": [2.0, np.nan]}}, "process.data.y", "Row 2"),
        ({"data": {"x": [[1.0, 2.0]], "y": [2.0, 1.0]}}, "process.data.x", "one-dimensional"),
        ({"data": {"x": ["u", "v"], "y": [2.0, 1.0]}}, "process.data.x", "numbers"),
    ],
)
def test_wrong_input_is_named(change, key, part):
    given = {
        "model": "a*x + b",
        "parameters": ["a", "b"],
        "inputs": ["x"],
        "target": "y",
        "sample_loss": None,
        "data": {"x": [1.0, 2.0], "y": [2.0, 1.0]},
    } | change
    with pytest.raises(InputError, match=part) as caught:
        sample_landscape(**given)
    assert caught.value.key == key


# --- NPZ files -----------------------------------------------------------------------------------------


def test_an_npz_file_gives_the_same_as_a_csv_file(tmp_path):
    x, y = np.random.default_rng(0).normal(size=(2, 50))
    np.savez(tmp_path / "data.npz", x=x, y=y.astype(np.float32), label=np.array(["a"] * 50), count=np.arange(50))
    data = read_samples(tmp_path / "data.npz", ["y", "x", "count"])
    assert list(data) == ["y", "x", "count"] and np.array_equal(data["x"], x)
    assert np.array_equal(data["y"], y.astype(np.float32)) and data["count"][-1] == 49
    np.savetxt(tmp_path / "data.csv", np.column_stack([x, y]), delimiter=",", header="x,y", comments="", fmt="%.17g")
    again = read_samples(tmp_path / "data.csv", ["x", "y"])
    assert np.array_equal(again["x"], x) and np.array_equal(again["y"], y)


@pytest.mark.parametrize(
    ("arrays", "part"),
    [
        ({"x": [1.0, 2.0]}, "an array named 'y'.*It has x"),
        ({"x": [1.0, 2.0], "Y": [1.0, 2.0]}, "Did you mean 'Y'"),
        ({}, "It has nothing"),
        ({"x": [1.0, 2.0], "y": ["1", "b"]}, "array 'y' holds texts"),
        ({"x": [1.0, 2.0], "y": [1j, 2.0]}, "array 'y' holds complex"),
        ({"x": [1.0, 2.0], "y": np.array([None, 2.0], dtype=object)}, "array 'y' holds Python objects"),
        ({"x": [1.0, 2.0], "y": np.zeros(2, dtype=[("u", float)])}, "array 'y' holds no real"),
        ({"x": [1.0, 2.0], "y": [1.0, np.nan]}, "column 'y', row 2 is nan"),
        ({"x": [-np.inf, 2.0], "y": [1.0, 2.0]}, "column 'x', row 1 is -inf"),
        ({"x": [[1.0], [2.0]], "y": [1.0, 2.0]}, r"array 'x' has shape \(2, 1\)"),
        ({"x": 1.0, "y": 2.0}, r"array 'x' has shape \(\)"),
        ({"x": [1.0, 2.0, 3.0], "y": [1.0, 2.0]}, "equal length.*'x': 3, 'y': 2"),
        ({"x": [1.0], "y": [1.0]}, "no noise"),
        ({"x": [], "y": []}, "has none"),
    ],
)
def test_bad_npz_files_are_refused_with_the_place(tmp_path, arrays, part):
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=part) as caught:
        read_samples(path, ["x", "y"], "process.data.file")
    assert caught.value.key == "process.data.file" and "bad.npz" in str(caught.value)


def test_files_that_are_no_npz_archive_or_a_damaged_one(tmp_path):
    path = tmp_path / "bad.npz"
    for contents, part in [(b"", "no zip"), (b"x,y\n1,2\n3,4\n", "no zip"), (b"PK\x03\x04 and then nothing", "no zip")]:
        path.write_bytes(contents)
        with pytest.raises(InputError, match=part):
            read_samples(path, ["x", "y"])
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(InputError, match="single array"):
        read_samples(path, ["x", "y"])
    np.savez_compressed(path, x=np.arange(1000.0), y=np.arange(1000.0) ** 2)
    whole = path.read_bytes()
    for start in (60, 200, 900, len(whole) // 2, len(whole) - 40):  # 30 bytes of noise, anywhere
        path.write_bytes(whole[:start] + b"\x5a" * 30 + whole[start + 30 :])
        with pytest.raises(InputError, match=r"bad\.npz"):
            read_samples(path, ["x", "y"])
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", b"text")
        archive.writestr(
            "y.npy", b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (1" + b"0" * 15
        )
    with pytest.raises(InputError, match="array"):
        read_samples(path, ["x", "y"])
    with pytest.raises(InputError, match="No such file"):
        read_samples(tmp_path / "none.npz", ["x"])
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(InputError, match="directory"):
        read_samples(tmp_path / "folder.npz", ["x"])
