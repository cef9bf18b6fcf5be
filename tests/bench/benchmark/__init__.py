"""The benchmark: one laboratory, several ways to a replica, measured in turn on the same data.

``make bench`` runs it. A way is a function that brings the recipient to a running replica (or, for
the limits, moves the same bytes) and says how long its phases took; the registry knows them all.
Before each, the recipient is brought back to the same start, and after each it is looked at, so
that a way that did not really work is not timed as one.

Only the product's command line is measured, as a user has it. Of its modules, the ways by hand use
those that make arguments and option files, so that both give the tools the same flags.
"""
