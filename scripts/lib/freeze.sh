# shellcheck shell=bash
# bay0/ -> a PyInstaller folder, inside the build root.

# freeze_bay0 WORK: leaves the folder in WORK/out/bay0, tried with --help in the build root.
freeze_bay0() {
    local work="$1"
    [ -f "$TOP/bay0/__main__.py" ] || die "bay0/__main__.py is not there: is this a complete checkout?"
    mkdir -p "$work/src" "$work/out"
    # A copy without caches: what is frozen must depend on the sources alone.
    tar -C "$TOP" --exclude=__pycache__ -cf - bay0 | tar -C "$work/src" --no-same-owner -xf -
    cp -r "$TOP/scripts/freeze" "$work/src/freeze"
    in_buildroot --ro "$work/src" /src --rw "$work/out" /out -- \
        /opt/freeze/bin/pyinstaller --noconfirm --log-level WARN \
        --distpath /out --workpath /tmp/freeze /src/freeze/bay0.spec >"$BUILD/freeze.log" 2>&1 || {
        tail -n 20 "$BUILD/freeze.log" >&2
        die "PyInstaller could not freeze bay0 (its log is build/freeze.log)."
    }
    in_buildroot --ro "$work/out" /out -- /out/bay0/bay0 --help >"$BUILD/freeze-help.txt" 2>&1 || {
        tail -n 20 "$BUILD/freeze-help.txt" >&2
        die "the frozen bay0 does not even print its --help in the build root."
    }
    in_buildroot --ro "$work/out" /out -- /out/bay0/bay0 completion bash >"$work/completion.bash" || die "the frozen bay0 prints no completion for bash."
    note "frozen: $(du -sm "$work/out/bay0" | cut -f1) MB, --help works in the build root"
    list_bundled "$work/out/bay0" >"$work/bundled.tsv"
}

# list_bundled DIR: each library of the build root that was frozen in, its package and version, for the SBOM.
list_bundled() {
    (cd "$1/_internal" && find . -name '*.so*' -type f | sed 's|.*/||' | sort -u) >"$1/../libraries"
    # shellcheck disable=SC2016  # the build root's own variables
    in_buildroot --ro "${1%/*}" /out -- sh -c '
        owner() {
            if command -v dpkg-query >/dev/null; then
                package=$(dpkg-query -S "*/$1" 2>/dev/null | grep -v ^diversion | head -n 1 | cut -d: -f1)
                [ -z "$package" ] || dpkg-query -W -f "\${Package}\t\${Version}\n" "$package" | head -n 1
            else
                path=$(find /usr/lib /lib -name "$1" 2>/dev/null | head -n 1)
                [ -z "$path" ] || apk info --who-owns "$path" 2>/dev/null | sed -n "s/.* is owned by \(.*\)-\([^-]*-r[0-9]*\)\$/\1\t\2/p" | head -n 1
            fi
        }
        while read -r file; do printf "%s\t%s\n" "$file" "$(owner "$file")"; done </out/libraries'
}
