#!/usr/bin/env bash
# Usage: scripts/test.sh [TOX ARGS]
#
# Makes the environment and runs the whole suite through tox: lint, type, install, scripts,
# freeze (builds the spine), shipped (the unit suite under the Python that ships), then vm
# (boots the spine in QEMU) with the properties behind it. About 35 minutes on two cores
# without KVM, two thirds of it in VMs; tox prints how long each part took.
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

# Everything. One VM at a time takes one processor, and waits for half of its time: the properties, which need
# nothing but a processor, run behind the VMs at the lowest priority. What they print follows when they end.
status=0
step "running tox: all that needs no VM"
"$TOX" run -e lint,type,install,scripts,freeze,shipped || status=$?
step "running tox: the VMs, and the properties behind them"
said="$(mktemp)"
nice -n 19 "$TOX" run -e properties -- -n 1 >"$said" 2>&1 </dev/null &
properties=$!
trap 'kill "$properties" 2>/dev/null || true; rm -f "$said"' EXIT
"$TOX" run -e vm || status=$?
step "waiting for the properties"
wait "$properties" || status=$?
cat "$said"
exit "$status"
