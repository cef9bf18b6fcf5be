"""The nemeses of `nemeses.vault`."""

from play import make_test

test_nemesis = make_test("vault")
