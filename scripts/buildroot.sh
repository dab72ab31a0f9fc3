#!/usr/bin/env bash
# Usage: scripts/buildroot.sh run CMD [ARG...]
#        scripts/buildroot.sh path
#
# Runs CMD in the build root: the Debian tree with the Python that ships in the
# spine. The checkout is at /src, read-only, and is the working directory;
# /tmp is fresh and writable; /opt/unit/bin (pytest, hypothesis and everything
# frozen into bay0) is first in PATH. The build root is made if it is not there.
# The exit status is CMD's.
#
#   scripts/buildroot.sh run python -m pytest tests
#
# `path` prints where the build root is.
set -euo pipefail
# shellcheck source=lib/say.sh
. "$(dirname "$0")/lib/say.sh"
# shellcheck source=lib/inputs.sh
. "$TOP/scripts/lib/inputs.sh"
# shellcheck source=lib/wheels.sh
. "$TOP/scripts/lib/wheels.sh"
# shellcheck source=lib/buildroot.sh
. "$TOP/scripts/lib/buildroot.sh"

case "${1:-}" in
    run) [ $# -ge 2 ] || usage_error "run needs a command." ;;
    path) buildroot_dir; exit 0 ;;
    -h | --help) help_from "$0"; exit 0 ;;
    "") usage_error "say what to do: run CMD, or path." ;;
    *) usage_error "unknown word $1." ;;
esac

become_root "$TOP/scripts/buildroot.sh" "$@"
shift
umask 022
mkdir -p "$CACHE"
# Two makers at once would build the same tree: the second waits and finds it made.
exec 9>"$BUILD/.lock"
flock 9
ensure_buildroot 2>&1 | { grep -v reused >&2 || true; }
flock -u 9
in_buildroot --ro "$TOP" /src -- "$@"
