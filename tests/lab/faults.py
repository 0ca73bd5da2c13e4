# SPDX-License-Identifier: BSD-3-Clause
"""What breaks in a network, each as a context manager that mends it at the end; small links are in paths.py."""

import contextlib

TABLE = "lab_fault"


@contextlib.contextmanager
def nft(ns, rules):
    """A table of our own in the namespace; `rules` is its inside."""
    ns.run("nft", "-f", "-", input=f"table inet {TABLE} {{\n{rules}\n}}\n")
    try:
        yield
    finally:
        ns.run("nft", "delete", "table", "inet", TABLE)


@contextlib.contextmanager
def refusing(nginx):
    """The server dies, its host lives: it refuses connections."""
    nginx.stop()
    try:
        yield
    finally:
        nginx.start()


def silent(ns):
    """A host that hears TCP no more, and says so to nobody."""
    return nft(ns, "chain in { type filter hook input priority -300; meta l4proto tcp drop; }")


def unplugged(ns):
    """A host that nothing of TCP reaches, and that nothing leaves: not what it would send again either.

    ARP and neighbour discovery go on, so that no router tells: there is silence, and nothing else.
    """
    chain = "chain {0} {{ type filter hook {0} priority -300; meta l4proto tcp drop; }}\n"
    return nft(ns, chain.format("input") + chain.format("output"))


@contextlib.contextmanager
def forgetful_firewall(router, timeout_s):
    """On a router: a connection that idles longer is forgotten, and what comes then is dropped.

    Gives a function that says how many packets that were.
    """
    rules = """
    counter forgotten {}
    chain forward {
        type filter hook forward priority 0;
        meta l4proto != tcp accept;
        ct state established accept;
        tcp flags & (syn | ack | rst | fin) == syn ct state new accept;
        counter name forgotten drop;
    }"""
    keys = ("netfilter__nf_conntrack_tcp_timeout_established", "netfilter__nf_conntrack_tcp_loose")
    old = [router.get_sysctl(key) for key in keys]

    def forgotten():
        out = router.run("nft", "list", "counter", "inet", TABLE, "forgotten").stdout
        return int(out.split("packets")[1].split()[0])

    with nft(router, rules):
        try:
            # Not loose: a packet of a connection that it does not know is none to learn it from.
            router.sysctl(**dict(zip(keys, (timeout_s, 0))))
            yield forgotten
        finally:
            router.sysctl(**dict(zip(keys, old)))


def vanished(lab, addresses):
    """These hosts' network is gone: they hear nothing, nothing of them is heard, and nobody says so."""
    families = {a: "ip6" if ":" in a else "ip" for a in addresses}
    drop = "".join(f"{f} saddr {a} drop; {f} daddr {a} drop; " for a, f in families.items())
    return nft(lab.wan, f"chain forward {{ type filter hook forward priority filter; {drop} }}")


@contextlib.contextmanager
def stalled(upstream):
    """A slow upstream whose workers all wait, for whatever reason, while its kernel takes connections."""
    upstream.stall()
    try:
        yield
    finally:
        upstream.go_on()
