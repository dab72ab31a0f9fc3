"""Every path below /persist. Nothing outside `bay0.state` may name one (handoff, "state bridge pattern")."""

ROOT = "/persist"
SPINE = f"{ROOT}/spine"
DATABASE = f"{SPINE}/state.db"
GENESIS = f"{SPINE}/genesis.log"
LABEL = "SPINE-PERSIST"
FALLBACK_DEVICE = "/dev/vda"
