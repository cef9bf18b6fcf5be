"""The nemeses of `nemeses.donor`."""

from play import make_test

test_nemesis = make_test("donor")
