#!/usr/bin/env bash
# Usage: scripts/test.sh [TOX ARGS]
#
# Makes the environment and runs the whole suite through tox: lint, type, install,
# properties, scripts, freeze (builds the spine), shipped (the unit suite under the Python
# that ships) and vm (boots the spine in QEMU). About 35 minutes on two cores without KVM,
# two thirds of it in VMs; tox prints at the end how long each part took.
# On Debian 12 or newer it installs the host tools that are missing.
#
#   scripts/test.sh                    everything
#   scripts/test.sh -e lint,type,unit  the quick parts; unit is the suite of `shipped`
#                                      under the Python of this machine
#   scripts/test.sh -e unit -- -k spawn
#   scripts/test.sh -e vm-full         every VM case, also the slow ones
set -euo pipefail
LIB="$(dirname "$0")/lib"
# shellcheck source=lib/say.sh
. "$LIB/say.sh"
# shellcheck source=lib/host-tools.sh
. "$LIB/host-tools.sh"

case "${1:-}" in
    -h | --help) help_from "$0"; exit 0 ;;
esac

ensure_host_tools build vm efi efi-vm test
# The canonical build is tried in a real container.
case " $* " in *vm-full*) ensure_host_tools full ;; esac
cd "$TOP"
venv="$TOP/.venv"
lock="$TOP/scripts/lock/tox.txt"
if ! cmp -s "$lock" "$venv/tox.txt"; then
    step "making .venv with tox ..."
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install -q --disable-pip-version-check --require-hashes -r "$lock"
    cp "$lock" "$venv/tox.txt"
fi
step "running tox $*"
exec "$venv/bin/tox" run "$@"
