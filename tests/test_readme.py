"""The README's blocks run as they stand, one after another, and a type checker accepts what they say."""

import json
import re
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest

import mspace as ms

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)

# what a reader does next with what the blocks gave
NEXT = """
aligned = ms.align(ensemble).neurons("0").ellipsoid(0.9)
shapes = [smooth.shape, future.shape, inputs.shape, targets.shape, labels.shape, ahead.shape]
members = [member for member in ensemble]
first: nn.Module = ensemble[0]
outputs = ms.predict(posterior, x).mean
distances = ms.wasserstein2(neurons, neurons[:3]).min(1).values
"""


def test_every_block_runs():
    names = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ms.datasets.DataReplaced)
        for block in BLOCKS:
            exec(compile(block, "README.md", "exec"), names)
    assert len(names["neurons"]) == 16 and names["neurons"].dim == 5
    assert names["small"](names["x"]).shape == (500, 3) and names["small"][0].out_features == 4
    assert names["ahead"].shape[0] == 50 and names["targets"].shape == (len(names["inputs"]), 1)


def errors_of_pyright(*files: Path, config: Path) -> list[str]:
    """Run pyright in its standard mode; each error in words."""
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--level", "error", "--project", str(config)]
    command += ["--pythonpath", sys.executable]
    done = subprocess.run([*command, *map(str, files)], cwd=ROOT, capture_output=True, text=True)
    found = json.loads(done.stdout)["generalDiagnostics"]
    return [f"{d['file']}:{d['range']['start']['line'] + 1}: {d['message']}" for d in found]


@pytest.mark.skipif(not find_spec("basedpyright"), reason="needs the extra `test`")
def test_types_are_shipped_and_hold_for_what_a_reader_writes(tmp_path):
    assert (ROOT / "mspace" / "py.typed").exists()
    program = tmp_path / "program.py"
    program.write_text("\n".join([*BLOCKS, NEXT]), encoding="utf-8")
    config = tmp_path / "pyrightconfig.json"
    config.write_text(json.dumps({"typeCheckingMode": "standard", "extraPaths": [str(ROOT)], "include": ["program.py"]}))
    assert errors_of_pyright(config=config) == []
    program.write_text(program.read_text() + "\nensemble.no_such_method()\nms.fit(epohcs=3)\n")
    assert len(errors_of_pyright(config=config)) >= 2  # it does look


@pytest.mark.skipif(not find_spec("basedpyright"), reason="needs the extra `test`")
def test_the_package_has_few_errors_of_types():
    errors = errors_of_pyright(config=ROOT / "pyproject.toml")
    assert len(errors) <= 102, "\n".join(errors)  # to sink to 40; never raise it
