"""The way of a state transfer in MariaDB's own cluster: an mbstream through socat, with TLS.

As ``wsrep_sst_mariabackup`` does it with ``encrypt=4``: both ends have a certificate and check the
other's. Replication is wired in the end, so that all ways come to the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab import servers

from benchmark.hands import choose_hands, need_completed
from benchmark.registry import way
from benchmark.results import Outcome
from benchmark.ways import bare

if TYPE_CHECKING:
    from benchmark.stand import Stand

PORT = 4444
_TLS = f"cert=/etc/mysql/tls/server.pem,key=/etc/mysql/tls/server.key,cafile={servers.SERVER_CA}"


@way("sst", "the SST way: mbstream over socat with TLS", flavors=("mariadb",))
def measure(stand: Stand) -> Outcome:
    """Stream through socat, and go on as by hand."""
    hands = choose_hands(stand)
    hands.lend_keys()
    receive = f"socat -u openssl-listen:{PORT},reuseaddr,{_TLS} stdio"
    listener = stand.listen(f"{receive} | {{ {hands.extract(quick=False)}; }}", PORT)
    try:
        clock = stand.start_clock()
        name = f"no-sni=1,commonname={stand.recipient.name}"
        to = f"openssl-connect:{stand.recipient.address}:{PORT},{name},{_TLS}"
        stand.run(stand.donor, f"{hands.backup()} | socat -u stdio {to}")
        need_completed(stand)
        listener.wait()
    finally:
        listener.stop()
    clock.end_phase("transfer")
    bare.finish(stand, hands, clock)
    return Outcome(values=clock.seconds)
