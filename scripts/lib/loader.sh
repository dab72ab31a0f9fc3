# shellcheck shell=bash
# The loader of a disk with two slots, EFI Boot Guard: its bytes are pinned in scripts/lock/loader.txt and kept in build/cache.

# loader_lock WHAT COLUMN: a word of the lock file.
loader_lock() { awk -v what="$1" -v column="$2" '$1 == what { print $column }' "$LOCK/loader.txt"; }

# pinned_loader: its path; fetched once, about 74 KB.
pinned_loader() {
    local dir file
    dir="$(loader_dir)" || exit 1
    file="$dir/$(loader_lock loader 3)"
    [ "$(sha256sum <"$file" 2>/dev/null | cut -c1-64)" = "$(loader_lock loader 2)" ] ||
        die "$file is not the loader that scripts/lock/loader.txt names: delete $dir and run this again."
    echo "$file"
}

# debian_mirror: the mirror that this machine's apt uses; DEBIAN_MIRROR names another.
debian_mirror() {
    [ -z "${DEBIAN_MIRROR:-}" ] || { echo "${DEBIAN_MIRROR%/}"; return; }
    # shellcheck disable=SC2016  # apt's own variable
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | sed -n 's|^\(.*/debian\)/*$|\1|p' | head -n 1
}

# loader_dir: where its package is unpacked, the tools bg_setenv and bg_printenv with it.
loader_dir() {
    local digest url dir part
    digest="$(loader_lock package 2)"
    url="$(loader_lock package 3)"
    case $url in *://*) ;; *) url="$(debian_mirror)/$url" ;; esac
    dir="$CACHE/loader-${digest:0:12}"
    if [ ! -d "$dir" ]; then
        case $url in /*) die "this machine's apt knows no mirror of Debian's: set DEBIAN_MIRROR to one, or name a loader with --loader." ;; esac
        need_command dpkg-deb "it is Debian's dpkg. Or name a loader with --loader."
        step "downloading the loader (EFI Boot Guard, 74 KB) ..."
        mkdir -p "$CACHE" && part="$(mktemp -d "$dir.XXXXXX")" || die "cannot write to $CACHE."
        chmod 755 "$part"
        # shellcheck disable=SC2064  # the path as it is now
        trap "rm -rf '$part'" EXIT # of the subshell that asks for the loader
        # shellcheck disable=SC2016  # Python's own text
        python3 -c 'import sys, urllib.request
with urllib.request.urlopen(sys.argv[1], timeout=60) as answer, open(sys.argv[2], "wb") as out: out.write(answer.read(1 << 24))' \
            "$url" "$part/package.deb" 2>"$part/log" ||
            die "the loader could not be downloaded from $url ($(tail -n 1 "$part/log")): try again, or name one with --loader."
        [ "$(sha256sum <"$part/package.deb" | cut -c1-64)" = "$digest" ] ||
            die "what came from $url is not what scripts/lock/loader.txt names: nothing was taken."
        dpkg-deb -x "$part/package.deb" "$part" 2>"$part/log" || die "the loader's package cannot be unpacked: $(tail -n 1 "$part/log")."
        rm -f "$part/package.deb" "$part/log"
        mv -T "$part" "$dir" 2>/dev/null || [ -d "$dir" ] || die "cannot write to $CACHE." # or another run was first
        give_back "$BUILD" "$CACHE" "$dir"
    fi
    echo "$dir"
}
