#!/usr/bin/env bash
# Usage: scripts/test.sh [TOX ARGS]
#
# Makes the environment and runs the whole suite through tox: install and freeze (builds the
# spine) with lint, type and scripts beside them, shipped (the unit suite under the Python that
# ships), then vm (boots the spine in QEMU) with the properties and a second build beside it.
# Two thirds of its time is in VMs where there is no KVM; tox prints how long each part took.
# On Debian 12 or newer it installs the host tools that are missing.
#
#   scripts/test.sh                    everything
#   scripts/test.sh -e lint,type,unit  the quick parts; unit is the suite of `shipped`
#                                      under the Python of this machine
#   scripts/test.sh -e unit -- -k spawn
#   scripts/test.sh -e vm-full         every VM case, also the slow ones; for hours: scripts/vm-full.sh
#                                      does the same file by file and can be stopped
set -euo pipefail
LIB="$(dirname "$0")/lib"
# shellcheck source=lib/say.sh
. "$LIB/say.sh"
# shellcheck source=lib/host-tools.sh
. "$LIB/host-tools.sh"
# shellcheck source=lib/tox.sh
. "$LIB/tox.sh"

case "${1:-}" in
    -h | --help) help_from "$0"; exit 0 ;;
esac

ensure_host_tools build vm efi efi-vm test
# The canonical build is tried in a real container.
case " $* " in *vm-full*) ensure_host_tools full ;; esac
cd "$TOP"
ensure_tox
if [ $# -gt 0 ]; then
    step "running tox $*"
    exec "$TOX" run "$@"
fi

# Everything, on two processors. `behind` runs at the lowest priority what needs nothing but a processor,
# beside what comes after it; what it prints follows when it ends.
status=0
said="$(mktemp)"
trap 'kill "${other:-}" 2>/dev/null || true; rm -f "$said"' EXIT
behind() { # TOX ARGS
    nice -n 19 "$TOX" run "$@" >"$said" 2>&1 </dev/null &
    other=$!
}
wait_for() { # WHAT
    step "waiting for $1"
    wait "$other" || status=$?
    other=""
    cat "$said"
}

# The build compresses and unpacks for the most part of its time on one processor.
behind -e lint,type,scripts
step "running tox: install and the build, and lint, type and scripts behind them"
"$TOX" run -e install,freeze || status=$?
wait_for "lint, type and scripts"
step "running tox: the unit suite under the Python that ships"
"$TOX" run -e shipped || status=$?

# One VM at a time takes one processor, and waits for half of its time.
behind -e properties,rebuild -- -n 1
step "running tox: the VMs, and behind them the properties and a second build"
"$TOX" run -e vm || status=$?
wait_for "the properties and the second build"
exit "$status"
