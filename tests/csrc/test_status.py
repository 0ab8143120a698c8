"""No status of a CUDA call is left unread."""

import re

from emulator import ROOT

# What a call may stand in: what throws, or what tells what went wrong.
READ = ("check(", "STD_TORCH_CHECK(")


def test_every_status_is_checked() -> None:
    found = 0
    for source in sorted((ROOT / "csrc").rglob("*.cu*")):
        text = re.sub(r"//.*", "", source.read_text())
        assert "<<<" not in text, f"{source}: launch through binaural::launch, which checks"
        for call in re.finditer(r"\bcuda[A-Z]\w*\(", text):
            found += 1
            statement = re.split(r"[;{}]", text[: call.start()])[-1]
            assert any(reader in statement for reader in READ), f"{source}: {statement}{call[0]}...)"
    assert found >= 4
