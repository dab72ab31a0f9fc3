"""What is done to namespaces, cards and cables: one bounded command each, by iproute2 and nft.

Theory of operation. Code of our own for rtnetlink would have to run in another process anyway, since
entering a namespace is not for PID 1, and these two programs are well kept and print JSON. A script is a
constant: words go in as "$1", "$2", a filter by stdin, so nothing that a stranger said is ever part of it.
`ip -n` and `nsenter` alone enter a namespace.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0.effects.spawn import Ending, Result

if TYPE_CHECKING:
    from bay0.base.bounds import Bounds
    from bay0.pid1 import flow

NETNS = "/run/netns"  # where `ip netns` pins namespaces
SPACE = "net"  # the one of sys://net
LIMBO = "/proc/2/ns/net"  # where the kernel makes cards (effects/limbo.py)
CAPTURE = 1 << 20  # bytes of output that are kept
NOT_STARTED = 127  # as the shell has it
MARK = "--"  # a line between two answers
# by name beforehand, so that nothing has to be loaded because somebody inside asks for it
MODULES = (
    "veth", "af_packet", "nf_tables", "nft_ct", "nft_chain_nat", "nft_masq", "nft_nat", "nft_reject_inet", "nft_connlimit",
)  # fmt: skip

# IPv6 is off before there is anything that could have an address of it
_QUIET = (
    "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6; echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6"
)

RAISE = f"""
ip netns del {SPACE} 2>/dev/null || :
ip netns add {SPACE}
nsenter --net={NETNS}/{SPACE} nft -f -
nsenter --net={NETNS}/{SPACE} /bin/sh -ec '[ ! -d /proc/sys/net/ipv6 ] || {{ {_QUIET}; }}
cd /proc/sys/net/ipv4
echo 1 >ip_forward; echo 1 >conf/all/rp_filter; echo 1 >conf/default/rp_filter; echo 0 >conf/all/accept_redirects
echo 0 >conf/default/accept_redirects; echo 0 >conf/all/send_redirects; echo 0 >conf/default/send_redirects'
ip -n {SPACE} link set lo up
nsenter --net={NETNS}/{SPACE} nft -j -t list ruleset
"""

LOWER = f"ip netns del {SPACE}"

# what is called "card" there, and what the kernel has made where nobody lives
LOOK = f"""
ip -n {SPACE} -j -d link show dev card 2>/dev/null || :
echo; echo {MARK}
nsenter --net={LIMBO} ip -j -d link show
"""

# a moved interface keeps its index only if that is free there, so it is known by its device from now on
MOVE = f"""
nsenter --net={LIMBO} ip link set dev "$1" down
nsenter --net={LIMBO} ip link set dev "$1" netns {SPACE} name card
"""

RETURN = f"""
ip -n {SPACE} link set dev card down
ip -n {SPACE} link set dev card netns 2 name "$1"
"""

BRING_UP = f"""
ip -n {SPACE} link set dev card up
ip -n {SPACE} -j -d link show dev card
"""

# The old address goes first: one more in its subnet would be its secondary, and go with it.
# $1 address/length, $2 seconds or "forever", $3 gateway or "", $4 the address before or ""; stdin: which name server
SET = f"""
[ -z "$4" ] || ip -n {SPACE} addr del "$4" dev card 2>/dev/null || :
ip -n {SPACE} addr replace "$1" dev card valid_lft "$2" preferred_lft "$2"
if [ -n "$3" ]; then ip -n {SPACE} route replace default via "$3" dev card
else ip -n {SPACE} route del default 2>/dev/null || :; fi
nsenter --net={NETNS}/{SPACE} nft -f -
nsenter --net={NETNS}/{SPACE} nft -j -t list ruleset
"""

UNSET = f"ip -n {SPACE} addr flush dev card"

# a persona's own namespace, $1; stdin: its filter
NAMESPACE = f"""
ip netns del "$1" 2>/dev/null || :
ip netns add "$1"
nsenter --net="{NETNS}/$1" nft -f -
nsenter --net="{NETNS}/$1" /bin/sh -ec '[ ! -d /proc/sys/net/ipv6 ] || {{ {_QUIET}; }}
echo "0 2147483647" >/proc/sys/net/ipv4/ping_group_range || echo "ping will need rights" >&2'
ip -n "$1" link set lo up
nsenter --net="{NETNS}/$1" nft -j list ruleset
"""

# the cable of $1: $2 its end in sys://net, $3 the persona's address, $4 the gateway's; neither end is ever elsewhere
CABLE = f"""
ip -n {SPACE} link del "$2" 2>/dev/null || :
ip -n "$1" link del eth0 2>/dev/null || :
ip link add "$2" netns {SPACE} type veth peer name eth0 netns "$1"
nsenter --net={NETNS}/{SPACE} nft add element inet net cables "{{ \\"$2\\" . $3 }}"
ip -n {SPACE} addr add "$4/32" dev "$2"
ip -n {SPACE} link set dev "$2" up
ip -n {SPACE} route add "$3/32" dev "$2"
ip -n "$1" addr add "$3/32" dev eth0
ip -n "$1" link set dev eth0 up
ip -n "$1" route add "$4" dev eth0
ip -n "$1" route add default via "$4"
"""

UNPIN = 'ip netns del "$1"'

# what a cable has carried, and what the filter has counted
COUNT = f"""
ip -n "$1" -j -s addr show dev eth0 2>/dev/null || :
echo; echo {MARK}
nsenter --net="{NETNS}/$1" nft -j list ruleset
"""

Run = Callable[..., object]  # the spawner's


@define(eq=False, repr=False)
class Scripts:
    """Runs them, each with a bound."""

    run: Run
    bounds: Bounds
    loaded: bool = field(init=False, default=False)  # the modules

    def __call__(self, name: str, script: str, *words: str, text: str = "") -> flow.Waitable:
        """Run one: its `Result`. `text` is its stdin."""
        return lambda resume: self._start(name, script, words, text, resume)

    def _start(
        self, name: str, script: str, words: tuple[str, ...], text: str, resume: Callable[[Result], None]
    ) -> None:
        argv = ["/bin/sh", "-euc", script, name, *words]
        with contextlib.ExitStack() as opened:
            files: list[tuple[Any, ...]] = []
            try:
                if (
                    text
                ):  # a file without a name, so that nothing has to be written into a pipe while it is read
                    stdin = opened.enter_context(os.fdopen(os.memfd_create(name), "w+b", buffering=0))
                    stdin.write(text.encode())
                    stdin.seek(0)
                    files = [(os.POSIX_SPAWN_DUP2, stdin.fileno(), 0)]
            except OSError as error:  # no descriptor is left
                resume(Result(Ending.EXITED, NOT_STARTED, "", str(error), 0, 0.0))
                return
            self.run(name, argv, self.bounds.net, resume, capture=CAPTURE, files=files)

    def modules(self) -> flow.Flow[None]:
        """Load what all of this takes, once."""
        if not self.loaded:
            yield lambda resume: self.run(
                "modprobe-net", ["modprobe", "-a", "-q", *MODULES], self.bounds.modprobe, resume
            )
            self.loaded = True
