"""The checker on certificates of problems with data: accepted when honest, rejected when forged."""

from __future__ import annotations

import copy
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fpsolve as fp
from fpsolve import verify

#: What a user does in a folder with the checker: as a script, and whether fpsolve was loaded.
RUN = """
import runpy, sys
folder = sys.argv[1]
sys.path.insert(0, folder)
sys.argv = ["verify.py", folder + "/few.json"]
try:
    runpy.run_path(folder + "/verify.py", run_name="__main__")
except SystemExit:
    print("fpsolve:", "fpsolve" in sys.modules)
"""
MODEL = "a**2 + x*(1 + b/(1 + exp(-a*x)))"


def made(data: dict[str, np.ndarray], epsilon2: float, width: float) -> dict[str, Any]:
    land = fp.sample_landscape(
        model=MODEL, parameters=["a", "b"], inputs=["x"], target="y", sample_loss="(model - y)**2/2", data=data
    )
    process = fp.sgd_process(land, fp.noise_level(epsilon2=epsilon2))
    return fp.certify(process, fp.Ball((-5.63687, 2.96346), 1.5), width=width).certificate


def signed(content: dict[str, Any]) -> str:
    rest = {k: v for k, v in content.items() if k != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return json.dumps(rest | {"digest": hashlib.sha256(text.encode()).hexdigest()})


def scaled(value: Any, by: float) -> Any:
    return (float.fromhex(value) * by).hex() if isinstance(value, str) else [scaled(v, by) for v in value]


@pytest.fixture(scope="module")
def few() -> dict[str, Any]:
    table = fp.read_csv("demos/two_parameter_model/data.csv", ["x", "y"])
    return made({k: np.asarray(v)[::60] for k, v in table.items()}, 5e-4, 0.2)


def test_few(few: dict[str, Any]) -> None:
    verdict = verify.check(json.dumps(few))
    assert verdict.accepted, verdict.reason


@pytest.mark.parametrize("what", ["target", "epsilon2"])
def test_forged(few: dict[str, Any], what: str) -> None:
    content = copy.deepcopy(few)
    problem = content["problem"]
    if what == "epsilon2":
        problem["epsilon2"] = scaled(problem["epsilon2"], 0.9)
    else:
        row = problem["data"]["rows"][5]
        row[1] = scaled(row[1], 1.5)
    verdict = verify.check(signed(content))
    assert not verdict.accepted and "false" in verdict.reason, verdict.reason


def test_what_is_not_covered_is_said(few: dict[str, Any]) -> None:
    """Also what would be ignored otherwise, as a covariance beside the data."""
    problem = few["problem"]
    data = problem["data"]
    wrong: list[tuple[dict[str, Any], str]] = [
        (problem | {"covariance": [["1", "0"], ["0", "1"]]}, "data need"),
        (problem | {"loss": "a**2"}, "data need"),
        (problem | {"variables": ["_0", "b"]}, "begin with _"),
        (problem | {"epsilon2": "0x0p0"}, "noise"),
        (problem | {"data": data | {"rows": []}}, "no data"),
        (problem | {"data": data | {"weights": []}}, "weights"),
        (problem | {"data": data | {"target": "x"}}, "names of data"),
        (problem | {"data": data | {"sample_loss": "exp(a*y)"}}, "polynomial in the target"),
        (problem | {"data": data | {"sample_loss": "gamma(a)*y"}}, "not allowed"),
    ]
    for changed, reason in wrong:
        verdict = verify.check(signed(few | {"problem": changed}))
        assert not verdict.accepted and reason in verdict.reason, (reason, verdict.reason)


def test_without_the_second_file(few: dict[str, Any], tmp_path: Path) -> None:
    """verify.py alone rejects data; with verify_data.py beside it, it reads them, without the rest of fpsolve."""
    sources = [Path(verify.__file__), Path(verify.__file__).with_name("verify_data.py")]
    assert len(sources[1].read_text(encoding="utf-8").splitlines()) <= 120
    (tmp_path / "few.json").write_text(signed(few | {"claims": []}), encoding="utf-8")
    found = []
    for source in sources:
        (tmp_path / source.name).write_bytes(source.read_bytes())
        code = [sys.executable, "-P", "-c", RUN, str(tmp_path)]
        found.append(subprocess.run(code, capture_output=True, text=True, check=True).stdout)
    assert "rejected: data need verify_data.py beside this file" in found[0]
    assert "rejected: a lower bound at a start does not follow" in found[1]  # the data were read
    assert all("fpsolve: False" in text for text in found)
