# shellcheck shell=bash
# The environment from which tox runs.

# ensure_tox: makes TOP/.venv with tox of the pinned versions, unless it is there; TOX is the command.
ensure_tox() {
    local venv="$TOP/.venv" lock="$TOP/scripts/lock/tox.txt"
    if ! cmp -s "$lock" "$venv/tox.txt"; then
        step "making .venv with tox ..."
        python3 -m venv --clear "$venv"
        "$venv/bin/pip" install -q --disable-pip-version-check --require-hashes -r "$lock"
        cp "$lock" "$venv/tox.txt"
    fi
    # shellcheck disable=SC2034  # for the script that sources this file
    TOX="$venv/bin/tox"
}
