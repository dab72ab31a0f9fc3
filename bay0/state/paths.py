"""Every path below /persist. Nothing outside `bay0.state` may name one (handoff, "state bridge pattern")."""

ROOT = "/persist"
SPINE = f"{ROOT}/spine"
DATABASE = f"{SPINE}/state.db"
GENESIS = f"{SPINE}/genesis.log"
TIME = f"{SPINE}/time"  # the last good time
SEED = f"{SPINE}/seed"  # for the kernel's random number generator
MARKER = f"{SPINE}/validate.marker"  # of `bay0 --validate`: the last one's, a line
LOGS = f"{ROOT}/logs"  # of personas; conmon writes them
HOMES = f"{ROOT}/homes"  # of personas; kept across resets, touched by nobody else
SNAPSHOTS = f"{ROOT}/snapshots"  # homes as they were; open to root alone
# outside SPINE, which is closed to everybody but root: a container's own root, another uid outside, must be able to pass
CONTAINERS = f"{ROOT}/containers"  # podman's own: images and containers, which can be made anew
IMAGES = f"{ROOT}/images"  # archives that scripts/mkpersist.sh put there
AI_ARCHIVE = f"{IMAGES}/spine-ai.tar"
STAGING = f"{SPINE}/staging"  # copies that are being made, each beside its place until it is whole
TRASH = f"{SPINE}/trash"  # what was taken away and is not deleted yet
LABEL = "SPINE-PERSIST"
FALLBACK_DEVICE = "/dev/vda"
