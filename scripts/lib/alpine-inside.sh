#!/bin/sh
# shellcheck shell=dash
# Internal: the half of the canonical build that runs in the pinned Alpine container, on its
# busybox and apk alone (source-alpine.sh starts it). One word says what to do:
#   fetch    the packages of /work/alpine-packages.txt that /cache lacks; needs the network
#   resolve  what the repositories have today for alpine-packages.in -> /work/resolved.txt; needs the network
#   build    without a network: packages -> root -> image, in /work
# /spine is the checkout, read-only; /cache holds files by their sha256; OWNER gets what is left in /work.
set -eu
SPINE="${SPINE:-/spine}"
PACKAGES="${PACKAGES:-/cache}"
WORK="${WORK:-/work}"
BRANCH=3.23
ARCH=x86_64
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL=C SPINE PACKAGES WORK PATH
umask 022

say() { echo "        $*" >&2; }
die() { echo "mkspine.sh (in the container): $*" >&2; exit 1; }

# leave: on every way out; what is half there goes, the rest belongs to who called.
leave() {
    rm -f "$PACKAGES"/*.part 2>/dev/null || true
    [ "$OWNER" = 0:0 ] || chown -R "$OWNER" "$WORK" 2>/dev/null || true
}
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

guard() {
    [ -f /run/.containerenv ] || [ -f /.dockerenv ] || [ "${NO_CONTAINER:-no}" = yes ] ||
        die "this is no container. Only --no-container builds outside of one."
    read -r release </etc/alpine-release || release=nothing
    case $release in
        $BRANCH.*) ;;
        *) die "the builder image is Alpine $release; the lock is for Alpine $BRANCH." ;;
    esac
}

# locked [SET]: the lock's lines, of one set if it is named: name version repository sha256 sets.
locked() { sed 's/#.*//' "$WORK/alpine-packages.txt" | awk -v set="${1:-}" 'NF && (set == "" || index("," $5 ",", "," set ","))'; }

# wanted_sets: the sets of this flavor.
wanted_sets() { case $FLAVOR in vm) echo build spine persona vm ;; metal) echo build spine persona metal ;; esac; }

# mirror REPOSITORY: where the pinned image itself says that it is.
mirror() { sed -n "s|^\(http[^ ]*/$1\)/*\$|\1|p" /etc/apk/repositories | head -n 1; }

# download URL FILE
download() {
    wget -q -T 30 -O "$2" "$1" 2>"$WORK/wget.log" && return
    tail -n 2 "$WORK/wget.log" >&2
    rm -f "$2"
    case $(cat "$WORK/wget.log") in *[Nn]"o space left"*) die "there is no space left for the package cache (build/cache)." ;; esac
    return 1
}

fetch() {
    for set in $(wanted_sets); do locked "$set"; done | sort -u >"$WORK/wanted"
    while read -r name version repository sum _; do
        [ ! -f "$PACKAGES/$sum" ] || continue
        from="$(mirror "$repository")/$ARCH/$name-$version.apk"
        part="$PACKAGES/$sum.part"
        download "$from" "$part" ||
            die "$name-$version.apk cannot be fetched. Alpine keeps only the newest version of a package: if the mirror has moved on, renew the lock (scripts/lock/renew-alpine.sh) or bring a build/cache that has it."
        got="$(sha256sum "$part" | cut -c1-64)"
        [ "$got" = "$sum" ] || {
            size="$(wc -c <"$part")"
            rm -f "$part"
            die "$name-$version.apk is not what the lock says: sha256 $got, $size bytes, instead of $sum. It is cut off or another file; it was not kept."
        }
        mv "$part" "$PACKAGES/$sum"
    done <"$WORK/wanted"
}

# names SET: the names that alpine-packages.in wants in a set, pinned where the old lock knows a version.
names() {
    sed 's/#.*//' "$SPINE/scripts/lock/alpine-packages.in" | awk -v set="$1" 'NF && index("," $2 ",", "," set ",") { print $1 }' | while read -r name; do
        version=""
        [ "${RENEW:-no}" = yes ] || version="$(locked | awk -v name="$name" '$1 == name && $2 != "-" { print $2; exit }')"
        echo "$name${version:+=$version}"
    done
}

# resolve: kernels and firmware by themselves, everything else with what it depends on.
resolve() {
    : >"$WORK/urls"
    for set in build spine persona vm metal; do
        mkdir -p "$WORK/solver"
        names "$set" >"$WORK/names"
        # shellcheck disable=SC2046  # a list of words
        apk fetch --root "$WORK/solver" --arch "$ARCH" --keys-dir /etc/apk/keys --repositories-file /etc/apk/repositories \
            --no-cache --simulate --url --recursive $(cat "$WORK/names") >"$WORK/solved" 2>"$WORK/solver.log" || {
            cat "$WORK/solved" "$WORK/solver.log" >&2
            die "apk cannot resolve the set '$set': see above."
        }
        # It ends with 0 even when it cannot: every name must have come out.
        while read -r name; do
            grep -q "/${name%%=*}-[^/-]*-r[0-9]*\.apk\$" "$WORK/solved" || { cat "$WORK/solver.log" >&2; die "apk finds no $name for the set '$set': see above."; }
        done <"$WORK/names"
        sed -n "s|^.*\(http[^ ]*\.apk\)\$|\1 $set|p" "$WORK/solved" >"$WORK/solved.set"
        case $set in
            vm | metal)
                while read -r name; do grep "/${name%%=*}-[^/-]*-r[0-9]*\.apk " "$WORK/solved.set" || true; done <"$WORK/names" >>"$WORK/urls" ;;
            *) cat "$WORK/solved.set" >>"$WORK/urls" ;;
        esac
        rm -rf "$WORK/solver"
    done
    [ -s "$WORK/urls" ] || die "apk resolved nothing."
    awk '{ sets[$1] = sets[$1] (sets[$1] ? "," : "") $2 } END { for (url in sets) print url, sets[url] }' "$WORK/urls" | sort >"$WORK/urls.sets"
    : >"$WORK/resolved"
    while read -r url sets; do
        file="${url##*/}"
        rest="${url%/"$ARCH"/*}"
        part="$PACKAGES/$file.part"
        download "$url" "$part" || die "$file cannot be fetched."
        apk verify "$part" >"$WORK/verify.log" 2>&1 || { cat "$WORK/verify.log" >&2; die "$file has no signature that the builder image trusts."; }
        sum="$(sha256sum "$part" | cut -c1-64)"
        mv "$part" "$PACKAGES/$sum"
        stem="${file%.apk}"
        name="$(echo "$stem" | sed 's/-[^-]*-r[0-9]*$//')"
        echo "$name ${stem#"$name"-} ${rest##*/} $sum $sets" >>"$WORK/resolved"
    done <"$WORK/urls.sets"
    {
        echo "# Made by renew-alpine.sh from alpine-packages.in: do not edit."
        echo "# name version repository sha256 sets"
        sort "$WORK/resolved"
    } >"$WORK/resolved.txt"
}

# lay_out SET DIR: the set's packages in DIR under their own names, each what the lock says.
lay_out() {
    mkdir -p "$2"
    locked "$1" >"$WORK/set"
    [ -s "$WORK/set" ] || die "the lock has no package in the set '$1'."
    while read -r name version _ sum _; do
        file="$PACKAGES/$sum"
        [ -f "$file" ] || die "$name-$version.apk is not in the cache."
        [ "$(sha256sum "$file" | cut -c1-64)" = "$sum" ] ||
            die "$name-$version.apk in the cache is not what the lock says (its sha256 is not $sum): it was changed. Remove build/cache/sha256/$sum."
        cp "$file" "$2/$name-$version.apk"
    done <"$WORK/set"
}

# install ROOT DIR ARGS...: these packages and no other; apk checks each signature against the image's keys.
# No package's script runs: what the root holds depends on the packages alone.
install() {
    root="$1" dir="$2"
    shift 2
    apk add --root "$root" --arch "$ARCH" --keys-dir /etc/apk/keys --repositories-file /dev/null --no-network --no-cache \
        --no-scripts --no-progress "$@" "$dir"/*.apk >"$WORK/apk.log" 2>&1 || {
        tail -n 20 "$WORK/apk.log" >&2
        die "apk could not unpack the locked packages: see above."
    }
}

# rows SET KIND: packages.tsv's lines of a set.
rows() { locked "$1" | awk -v kind="$2" -v arch="$ARCH" '{ printf "%s\t%s\t%s\t%s\t%s\n", kind, $1, $2, arch, $4 }'; }

# kernel DIR: the kernel set unpacked -> $WORK/kernel.
kernel() {
    out="$WORK/kernel"
    release="$(ls "$1/lib/modules" 2>/dev/null || ls "$1/usr/lib/modules")"
    case $release in "" | *" "*) die "the kernel package has no modules, or two kernels' ($release)." ;; esac
    mkdir -p "$out/modules"
    cp "$1"/boot/vmlinuz-* "$out/vmlinuz"
    for place in "$1/lib/modules" "$1/usr/lib/modules"; do [ ! -d "$place/$release" ] || mv "$place/$release" "$out/modules/"; done
    # EROFS compresses them again, and better.
    find "$out/modules" -name '*.ko.gz' -exec gunzip {} +
    rm -rf "$out/modules/$release"/vmlinuz "$out/modules/$release"/*-suffix "$out/modules/$release/build"
    echo "$release" >"$out/release"
    # Microcode, as the kernel's early loader wants it: uncompressed archives in front of the initramfs.
    for place in "$1"/boot/*-ucode.img; do [ ! -f "$place" ] || cat "$place" >>"$out/microcode.img"; done
    for place in "$1/lib/firmware" "$1/usr/lib/firmware"; do
        [ ! -d "$place" ] || { mkdir -p "$out/firmware"; cp -a "$place/." "$out/firmware/"; }
    done
}

build() {
    for set in $(wanted_sets); do lay_out "$set" "$WORK/apk/$set"; done
    say "unpacking $(locked build | wc -l) packages that build, $(locked spine | wc -l) of the spine"
    install / "$WORK/apk/build"
    mkdir -p "$WORK/rootfs" "$WORK/kernel/root" "$WORK/unpacked"
    install "$WORK/rootfs" "$WORK/apk/spine" --initdb
    install "$WORK/kernel/root" "$WORK/apk/persona" --initdb
    cp /etc/apk/repositories "$WORK/kernel/root/etc/apk/repositories"
    for package in "$WORK/apk/$FLAVOR"/*.apk; do
        apk extract --keys-dir /etc/apk/keys --no-chown --destination "$WORK/unpacked" "$package" >"$WORK/apk.log" 2>&1 || {
            tail -n 20 "$WORK/apk.log" >&2
            die "${package##*/} cannot be unpacked: see above."
        }
    done
    kernel "$WORK/unpacked"
    cp "$WORK/rootfs/bin/busybox" "$WORK/rootfs/lib/ld-musl-x86_64.so.1" "$WORK/kernel/"
    for set in spine persona "$FLAVOR"; do rows "$set" alpine; done | sort -u >"$WORK/packages.tsv"
    # What builds: the locked packages and what else the builder image holds, as apk knows it.
    awk -v RS= -v FS='\n' -v OFS='\t' '{ for (i = 1; i <= NF; i++) f[substr($i, 1, 1)] = substr($i, 3); print f["P"], f["V"], f["A"] }' \
        /lib/apk/db/installed | sort >"$WORK/build-packages.tsv"
    cp "$WORK/rootfs/lib/apk/db/installed" "$WORK/apk-installed"
    rm -rf "$WORK/apk" "$WORK/unpacked"
    bash "$SPINE/scripts/lib/alpine-build.sh"
}

guard
case ${1:-} in
    fetch | resolve | build) "$1" ;;
    *) die "internal: unknown word '${1:-}'." ;;
esac
