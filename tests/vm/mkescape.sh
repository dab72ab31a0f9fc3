#!/usr/bin/env bash
# Usage: tests/vm/mkescape.sh AI.tar OUT.tar
#
# The AI tenant's image with one program more, /usr/lib/escape/escape (tests/vm/escape.py):
# it tries from inside what must not work. For tests only. Needs root, as scripts/mkai.sh.
set -euo pipefail
LIB="$(dirname "$0")/../../scripts/lib"
# shellcheck source=../../scripts/lib/say.sh
. "$LIB/say.sh"
for part in inputs wheels buildroot host-tools images image-build; do
    # shellcheck source=/dev/null
    . "$LIB/$part.sh"
done
[ $# -eq 2 ] || usage_error "say which archive, and what the new one is called."
ai="$1"
out="$2"
is_image_archive "$ai" || die "$ai is no image archive: make it with scripts/mkai.sh."
begin_image
ensure_buildroot
mkdir -p "$WORK/src" "$WORK/out" "$WORK/root/usr/lib"
cp "$TOP/tests/vm/escape.py" "$WORK/src/"
in_buildroot --ro "$WORK/src" /src --rw "$WORK/out" /out -- /opt/freeze/bin/pyinstaller --noconfirm --log-level WARN \
    --strip --name escape --distpath /out --workpath /tmp/freeze --specpath /tmp/freeze /src/escape.py >"$BUILD/freeze-escape.log" 2>&1 || {
    tail -n 20 "$BUILD/freeze-escape.log" >&2
    die "PyInstaller could not freeze the probes."
}
mv "$WORK/out/escape" "$WORK/root/usr/lib/escape"
python3 "$LIB/packtree.py" --on "$ai" --epoch "$IMAGE_EPOCH" --out "$WORK/image.tar" "tests/vm/escape.py=$WORK/root"
publish_image "$out" "localhost/spine-ai:1 with the escape probes"
