"""Stored backup sets: their format, what they are worth, which are kept, and how their host is reached."""
