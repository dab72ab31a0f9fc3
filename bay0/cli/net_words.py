"""The grammar of `bay0 net`."""

from __future__ import annotations

from bay0.cli.grammar import JSON, Option, Verb

WAIT_MAX_S = 600


def _wait(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= WAIT_MAX_S):
        raise ValueError(f"whole seconds, 0 to {WAIT_MAX_S}")
    return int(text)


def _move(word: str, about: str, more: str) -> Verb:
    wait = Option("--wait", "wait until it is done (the default), or only until it is accepted", default=True, negatable=True)
    return Verb(about, "net:act", JSON, wait, sets={"move": word}, more=more)


VERBS = {
    "net": Verb(
        'the network of personas whose manifest says network = "net"; the spine itself has none',
        below={
            "status": Verb(
                "show the card, its address, and which personas have a cable", "net:status", JSON,
                Option(
                    "--wait", f"until it is up, at most N seconds (0 to {WAIT_MAX_S}); status 1 if it is not by then", "N",
                    default=0, convert=_wait,
                ),
                example="bay0 net status\nbay0 net status --wait 30",
            ),
            "up": _move(
                "up", "give the network card to sys://net, now and at each boot",
                "A card that is not there, or has no link, is no failure: it is used when it comes. Personas that run get their cable at once.",
            ),
            "down": _move("down", "take it down, now and for good: no persona has a way out then", "What runs goes on, without a network."),
            "configure": Verb(
                'say which card, and a static address in place of DHCP; "" gives a key its default again', "net:configure", JSON,
                Option("--address", "a static address and the length of its subnet", "ADDRESS/N"),
                Option("--gateway", "where everything else goes; with --address", "ADDRESS"),
                Option("--dns", "name servers, at most 3, with commas; the first is used, also in place of what DHCP says", "ADDRESSES"),
                Option("--device", "the card, as the kernel calls its device: virtio3, 0000:00:03.0 (default: the first)", "DEVICE"),
                Option("--dhcp", "ask for an address again"),
                more="Durable before the answer, and at work at once if the network is up. Addresses of personas (10.137.0.0/16), "
                "169.254.0.0/16 and 127.0.0.0/8 are refused here, and from a DHCP server too.",
                example=(
                    "bay0 net configure --address 192.0.2.5/24 --gateway 192.0.2.1 --dns 192.0.2.1\n"
                    'bay0 net configure --dhcp --dns ""'
                ),
            ),
        },
    ),
}  # fmt: skip
