"""The nemeses of `nemeses.stream`."""

from play import make_test

test_nemesis = make_test("stream")
