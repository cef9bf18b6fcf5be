#!/bin/sh
# Passes the first bytes of stdin on to stdout, and writes the rest to a file
# (orchestrator/steps/fetch.py).
#
#   keep.sh BYTES FILE
#
# Exit status: 0 done; 74 what reads from here has gone, or the file cannot be written.

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL
umask 077
set -uf

# head reads no byte more than it is told to.
head -c "$1" || exit 74
exec >"$2" || exit 74
cat || exit 74
exit 0
