# shellcheck shell=bash
# What every script shares: where the checkout is, how to speak, how to fail.

# shellcheck disable=SC2034  # TOP is for the scripts that source this file
TOP="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
PROG="$(basename "$0")"

# step TEXT: a progress line with the seconds since this script started.
step() { printf '[%4ds] %s\n' "$SECONDS" "$*" >&2; }

# note TEXT: a line that belongs to the step above it.
note() { printf '        %s\n' "$*" >&2; }

# die TEXT: one clear sentence, status 1.
die() {
    printf '%s: %s\n' "$PROG" "$*" >&2
    exit 1
}

# usage_error TEXT: the caller's mistake, status 2.
usage_error() {
    printf '%s: %s Try %s --help.\n' "$PROG" "$*" "$PROG" >&2
    exit 2
}

# need_value OPTION "$@": the option at the head of "$@" must have a value.
need_value() {
    [ "$#" -ge 2 ] && [ -n "$2" ] || usage_error "$1 needs a value."
}

# need_command NAME HINT: a missing tool is named together with its remedy.
need_command() {
    command -v "$1" >/dev/null || die "the command '$1' is missing: $2"
}

# help_from FILE: the comment block at the top of a script is its --help text.
help_from() {
    awk 'NR == 1 { next } /^#/ { sub(/^# ?/, ""); print; next } { exit }' "$1"
}

# become_root SCRIPT "$@": run again as root, for what only root can do (chroot, mount).
become_root() {
    [ "$(id -u)" -ne 0 ] || return 0
    command -v sudo >/dev/null ||
        die "this needs root (it works inside a chroot): run it as root or install sudo."
    note "$PROG needs root for its chroots; running it again with sudo"
    exec sudo --preserve-env=SOURCE_DATE_EPOCH -- "$@"
}

# give_back PATH...: what root made in the checkout belongs to the user who called sudo.
give_back() {
    [ -z "${SUDO_UID:-}" ] || chown -h "$SUDO_UID:${SUDO_GID:-$SUDO_UID}" "$@"
}

# hash_of FILE...: one sha256 over names (as given) and contents.
hash_of() { sha256sum "$@" | sha256sum | cut -c1-64; }
