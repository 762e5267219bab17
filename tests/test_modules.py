"""The table modules x methods: every cell is right or refused with the way out, and the book's page shows it as it is."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import modules  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*weight_norm.*:FutureWarning")
SHOWN = {
    cells[0].strip(): [c.strip() for c in cells[1:]]
    for line in modules.PAGE.read_text(encoding="utf-8").partition("<!-- table -->")[2].splitlines()
    if line.startswith("| ") and (cells := line.strip("|").split("|"))
}


@pytest.mark.parametrize("name", modules.KINDS)
def test_right_or_refused(name):
    cells = {m: modules.cell(modules.KINDS[name], m) for m in modules.METHODS}
    assert not {m: c for m, c in cells.items() if c.startswith("wrong")}
    for said in cells.values():
        assert said == "✓" or re.match(
            r"refused: (model|inputs|layers|loss|data|targets|generator)\b.*(:|, )", said, re.DOTALL
        )
    assert [c == "✓" for c in cells.values()] == [c == "✓" for c in SHOWN[name]]


def test_no_kind_is_missing_on_the_page():
    assert set(modules.KINDS) == set(SHOWN) - {"module"}
