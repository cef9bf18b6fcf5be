"""The nemeses of `nemeses.disks`."""

from play import make_test

test_nemesis = make_test("disks")
