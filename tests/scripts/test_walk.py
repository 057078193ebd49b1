"""A short random walk with each of the settings: the program takes longer ones."""

from __future__ import annotations

import pytest

from tests.scripts import walk


@pytest.mark.server
@pytest.mark.parametrize(
    ("structure", "settings"), [(one, name) for one, (_, settings) in walk.WALKS.items() for name in settings]
)
def test_scripts_and_model_agree_on_a_walk(structure: str, settings: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Their replies and their keys are the same after each of 100 steps."""
    differ = walk.main([structure, "--steps", "100", "--seeds", "1-2", "--settings", settings])
    assert not differ, capsys.readouterr().out
