"""The questions: read_… asks a host, parse_… is pure."""
