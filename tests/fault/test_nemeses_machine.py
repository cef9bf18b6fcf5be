"""The nemeses of `nemeses.machine`."""

from play import make_test

test_nemesis = make_test("machine")
