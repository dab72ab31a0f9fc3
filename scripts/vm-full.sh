#!/usr/bin/env bash
# Usage: scripts/vm-full.sh [OPTIONS] [TEST_FILE...]
#
# Runs every VM case, the slow ones too (hours), one test file after the other, and keeps
# for each file a line of JSON: verdict, cases, seconds, commit, seed, date. What was stopped
# goes on where it stopped. At the end, a table; the status is 0 if every file passed.
# Without TEST_FILE: all of tests/vm. SPINE_SEED (default 1) draws what is drawn.
#
#   --resume FILE    keep the lines in FILE (default build/vm-full.jsonl); a file that has a
#                    verdict there, of this commit and this seed, is not run again
#   --failed         run those again whose verdict is not "passed"
#   --any-commit     take verdicts of other commits too; the table says of which
#   --bound SECONDS  the longest that one file may take (default 7200)
#   --report         run nothing: print the table, in Markdown
#   --python PYTHON  a Python with the test requirements; then nothing is built and nothing
#                    installed. Without it, tox makes its environment and the image is built
set -euo pipefail
LIB="$(dirname "$0")/lib"
# shellcheck source=lib/say.sh
. "$LIB/say.sh"
# shellcheck source=lib/host-tools.sh
. "$LIB/host-tools.sh"
# shellcheck source=lib/tox.sh
. "$LIB/tox.sh"

python="" words=() ready=0
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) help_from "$0"; exit 0 ;;
        --python) need_value "$@"; python="$2" ready=1; shift ;;
        --report) words+=("$1") ready=1 ;;
        *) words+=("$1") ;;
    esac
    shift
done
if [ "$ready" -eq 0 ]; then
    cd "$TOP"
    ensure_host_tools build vm efi efi-vm test full
    ensure_tox
    step "making tox's environment for the VM tests ..."
    "$TOX" run -q -e vm-full --notest
    python="$TOP/.tox/vm-full/bin/python"
    step "building what the VMs run; what has not changed is reused ..."
    bash scripts/quickstart.sh --with-ai --gui --build-only --from registry
    bash scripts/mkaiclient.sh
fi
exec python3 "$LIB/vm_full.py" --python "${python:-python3}" "${words[@]}"
