"""The nemeses of `nemeses.hosts`."""

from play import make_test

test_nemesis = make_test("hosts")
