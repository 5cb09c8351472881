"""Reading data files of samples, and what is said of bad data, files and formulas."""

from __future__ import annotations

import time

import numpy as np
import pytest

from fpsolve.errors import InputError
from fpsolve.model.sample_data import read_csv
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


def test_a_million_rows_are_read_in_seconds(tmp_path):
    path = tmp_path / "long.csv"
    path.write_text("x,y\n" + "0.12345678901234567,-3.25\n" * 1_000_000)
    start = time.process_time()
    data = read_csv(path, ["x", "y"])
    assert len(data["x"]) == 1_000_000 and time.process_time() - start < 8


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
