# shellcheck shell=bash
# Which Debian package gives which tool, and the installer of what is missing.
# A line: the purposes it serves, the test that shows the tool is there, the package.

host_tool_table() {
    cat <<'TABLE'
build       command:mmdebstrap            mmdebstrap
build       command:qemu-img              qemu-utils
build       command:debugfs               e2fsprogs
build       python:pip                    python3-pip
build       command:unshare               util-linux
vm          command:qemu-system-x86_64    qemu-system-x86
vm          file:/usr/share/seabios/bios-256k.bin seabios
vm,test     command:mkfs.ext4             e2fsprogs
test        python:venv                   python3-venv
test        command:git                   git
efi         command:fsck.erofs            erofs-utils
efi         file:/usr/lib/systemd/boot/efi/linuxx64.efi.stub systemd-boot-efi
efi         command:sgdisk                gdisk
efi         command:mformat               mtools
efi         command:mke2fs                e2fsprogs
efi         command:sbsign                sbsigntool
efi-vm      file:/usr/share/OVMF/OVMF_CODE_4M.fd ovmf
test        command:nbdkit                nbdkit
test        command:strace                strace
test        command:expect                expect
test        command:shellcheck            shellcheck
test        command:nft                   nftables
test        command:ip                    iproute2
test        command:dot                   graphviz
test        command:curl                  curl
test        command:zsh                   zsh
test        command:fish                  fish
test        command:modinfo               kmod
full        command:podman                podman
full        command:crun                  crun
full        file:/usr/lib/podman/netavark netavark
full        command:openssl               openssl
TABLE
}

# has_tool TEST: TEST is command:NAME, python:MODULE or file:PATH.
has_tool() {
    local what="${1#*:}"
    case $1 in
        command:*) PATH="$PATH:/usr/sbin:/sbin" command -v "$what" >/dev/null ;;
        # venv alone is always there on Debian; ensurepip is what its package brings.
        python:venv) python3 -c 'import ensurepip, venv' 2>/dev/null ;;
        python:*) python3 -c "import $what" 2>/dev/null ;;
        file:*) [ -e "$what" ] ;;
    esac
}

# missing_packages PURPOSE: the packages to install, one a line.
missing_packages() {
    local purposes test package
    host_tool_table | while read -r purposes test package; do
        case ",$purposes," in *",$1,"*) has_tool "$test" || echo "$package" ;; esac
    done | sort -u
}

# as_root CMD...: through sudo when needed.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; return; fi
    command -v sudo >/dev/null || die "installing host tools needs root: install sudo or run this as root."
    sudo -- "$@"
}

# ensure_host_tools PURPOSE...: build | vm | efi | efi-vm | test | full; says what it installs, nothing when all is there.
ensure_host_tools() {
    local purpose packages
    packages="$(for purpose in "$@"; do missing_packages "$purpose"; done | sort -u | xargs)"
    [ -n "$packages" ] || return 0
    command -v apt-get >/dev/null ||
        die "these Debian packages are missing and there is no apt-get to install them: $packages."
    step "installing host tools: $packages"
    as_root apt-get update -qq || note "apt-get update failed; trying with the lists that are here"
    # shellcheck disable=SC2086  # a list of package names
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        $packages >/dev/null ||
        die "apt-get could not install: $packages. Read its message above, then install them by hand."
}
