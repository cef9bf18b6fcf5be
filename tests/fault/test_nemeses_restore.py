"""The nemeses of `nemeses.restore`."""

from play import make_test

test_nemesis = make_test("restore")
