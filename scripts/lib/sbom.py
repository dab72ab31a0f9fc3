#!/usr/bin/env python3
"""Write the software bill of materials of a built spine (CycloneDX 1.6 JSON), or check one against a root.

Usage: sbom.py --manifest FILE --root ROOTFS --bundled TSV --wheels DIR [--apk FILE] [--docs DIR]
       sbom.py --check SBOM ROOTFS

Names, versions and digests come from the manifest; licences from apk's database (--apk), from Debian's copyright files (--docs,
where they are in the machine-readable form) and from the wheels' own metadata; what is not known there is left out, never guessed.
A wheel counts as shipped if its modules are in the frozen program; the others only built it and have the scope "excluded".
The same build gives the same bytes: time and serial number come from the manifest.
"""

import argparse
import json
import re
import sys
import uuid
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from email.parser import Parser
from pathlib import Path
from typing import Any

FROZEN = "usr/lib/bay0/_internal"
INNER_MANIFEST = "usr/lib/bay0/manifest.json"
NAMESPACE = uuid.UUID("5b1fe5b1-5e00-4a1b-8b0b-0a15e5b1e000")
BOOTLOADER = "pyinstaller"  # /usr/lib/bay0/bay0 itself is its bootloader
SPDX = re.compile(r"[A-Za-z0-9.+-]+(?: (?:AND|OR|WITH) [A-Za-z0-9.+-]+)*")
APK, DEB, WHEEL, BUNDLED, TOOL = "apk", "deb", "wheel", "bundled", "tool"  # the property "spine:kind"

Component = dict[str, Any]


def licence(text: str) -> list[dict[str, Any]]:
    """Return CycloneDX's form of a licence: an expression if it reads as one of SPDX, else a name."""
    text = " ".join(text.split())
    if not text:
        return []
    return [{"expression": text}] if SPDX.fullmatch(text) and " " in text else [{"license": {"name": text}}]


def apk_licences(database: Path) -> dict[str, str]:
    """Name to licence, from apk's installed database."""
    if not database.is_file():
        return {}
    records = (dict(line.split(":", 1) for line in record.splitlines() if line[1:2] == ":") for record in database.read_text().split("\n\n"))
    return {record["P"]: record.get("L", "") for record in records if "P" in record}


def deb_licence(docs: Path, name: str) -> str:
    """Return the licence of the stanza `Files: *`, where a copyright file is machine-readable (Debian's copyright-format 1.0)."""
    path = docs / name / "copyright"
    if not path.is_file():
        return ""
    text = path.read_text(errors="replace")
    found = re.search(r"^Files:\s*\*\s*\n(?:.+\n)*?License:[ \t]*(.+)$", text, re.MULTILINE)
    return found[1] if found and text.lstrip().startswith("Format:") else ""


def component(kind: str, name: str, version: str, purl: str, licences: list[dict[str, Any]], **more: Any) -> Component:
    """Return one component; `more` as CycloneDX names it."""
    made: Component = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    if licences:
        made["licenses"] = licences
    return made | more | {"properties": [{"name": "spine:kind", "value": kind}, *more.get("properties", [])]}


def hashed(digest: str) -> list[dict[str, str]]:
    """Return CycloneDX's form of a sha256."""
    return [{"alg": "SHA-256", "content": digest}]


def packages(manifest: dict[str, Any], apk: dict[str, str], docs: Path) -> Iterator[Component]:
    """Yield what was unpacked into the root."""
    for row in manifest["packages"]:
        name, version = row["name"], row["version"]
        if row["kind"] == "deb":
            purl, licences, kind = f"pkg:deb/debian/{name}@{version}?arch={row['arch']}", licence(deb_licence(docs, name)), DEB
        elif row["kind"] == "alpine":
            purl, licences, kind = f"pkg:apk/alpine/{name}@{version}?arch={row['arch']}", licence(apk.get(name, "")), APK
        else:
            purl, licences, kind = f"pkg:pypi/{name}@{version}", [], row["kind"]
        more: dict[str, Any] = {}
        if "sha256" in row:
            more["hashes"] = hashed(row["sha256"])
        if "apk_checksum" in row:
            more["properties"] = [{"name": "apk:checksum", "value": row["apk_checksum"]}]
        if name.startswith("linux-") and not name.startswith("linux-firmware"):
            more["properties"] = [*more.get("properties", []), {"name": "spine:kernel_release", "value": manifest["kernel_release"]}]
        yield component(kind, name, version, purl, licences, **more)


def wheel_facts(wheel: Path, frozen: Path) -> tuple[str, list[dict[str, Any]], bool]:
    """Return a wheel's name, its licence, and whether its modules are in the frozen program."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
        fields = Parser().parsestr(archive.read(metadata).decode())
    text = fields["License-Expression"] or ""
    if not text:
        trove = [value.rsplit(" :: ", 1)[1] for value in fields.get_all("Classifier", []) if value.startswith("License :: OSI")]
        text = " / ".join(trove) or (fields["License"] or "").split("\n")[0]
    modules = [name for name in names if name.endswith(".py") and ".dist-info/" not in name]
    ships = fields["Name"] == BOOTLOADER or any((frozen / f"{name}c").is_file() for name in modules)
    return fields["Name"], licence(text), ships


def wheels(manifest: dict[str, Any], folder: Path, frozen: Path) -> Iterator[Component]:
    """Yield the wheels of the lock."""
    found = [wheel_facts(wheel, frozen) for wheel in sorted(folder.glob("*.whl"))]
    facts = {re.sub(r"[-_.]+", "-", name).lower(): (licences, ships) for name, licences, ships in found}
    for row in manifest["wheels"]:
        licences, ships = facts[row["name"]]
        yield component(WHEEL, row["name"], row["version"], f"pkg:pypi/{row['name']}@{row['version']}", licences,
                        hashes=hashed(row["sha256"]), scope="required" if ships else "excluded")  # fmt: skip


def bundled(tsv: Path, system: str) -> Iterator[Component]:
    """Yield the build root's packages whose libraries were frozen in, each with the files."""
    files: dict[tuple[str, str], list[str]] = {}
    for line in tsv.read_text().splitlines():
        file, name, version = (*line.split("\t"), "", "")[:3]
        if name:
            files.setdefault((name, version), []).append(file)
    for (name, version), found in sorted(files.items()):
        purl = f"pkg:{'apk/alpine' if system == 'alpine' else 'deb/debian'}/{name}@{version}#bay0"
        yield component(BUNDLED, name, version, purl, [], properties=[{"name": "spine:file", "value": f"/{FROZEN}/{file}"} for file in sorted(found)])


def build(options: argparse.Namespace) -> dict[str, Any]:
    """Return the whole bill."""
    manifest = json.loads(options.manifest.read_text())
    content = manifest["content_sha256"]
    parts = [
        *packages(manifest, apk_licences(options.apk), options.docs),
        *wheels(manifest, options.wheels, options.root / FROZEN),
        *bundled(options.bundled, manifest["source"]),
    ]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, content)}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(manifest["source_date_epoch"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {
                "type": "operating-system",
                "bom-ref": "spine",
                "name": "alpine-spline",
                "version": manifest["bay0"],
                "hashes": hashed(manifest["artifacts"]["spine.img"]["sha256"]),
                "properties": [{"name": f"spine:{key}", "value": str(manifest[key])}
                               for key in ("content_sha256", "lock_sha256", "packages_sha256", "source", "flavor", "kernel_release")],
            },
        },
        "components": sorted(parts, key=lambda part: part["bom-ref"]),
    }  # fmt: skip


def prop(part: Component, name: str) -> list[str]:
    """Return the values of a property."""
    return [each["value"] for each in part["properties"] if each["name"] == name]


def complaints(bill: dict[str, Any], root: Path) -> Iterator[str]:
    """Yield what the bill and the root do not agree on."""
    parts, inner = bill["components"], json.loads((root / INNER_MANIFEST).read_text())
    refs = [part["bom-ref"] for part in parts]
    for double in sorted({ref for ref in refs if refs.count(ref) > 1}):
        yield f"{double} is listed twice"
    of_kind = {kind: {(p["name"], p["version"]) for p in parts if prop(p, "spine:kind") == [kind]} for kind in (APK, DEB)}
    for kind, label in ((APK, "alpine"), (DEB, "deb")):
        there = {(p["name"], p["version"]) for p in inner["packages"] if p["kind"] == label}
        for name, version in sorted(there ^ of_kind[kind]):
            yield f"{name} {version} is in only one of the bill and the image's own manifest"
    for part in parts:
        for release in prop(part, "spine:kernel_release"):
            if not (root / "usr/lib/modules" / release / "modules.dep").is_file():
                yield f"the kernel {release} of {part['name']} has no modules in the image"
    listed = {file for part in parts for file in prop(part, "spine:file")}
    there = {f"/{FROZEN}/{path.name}" for path in (root / FROZEN).rglob("*.so*") if path.is_file()}
    for file in sorted(listed ^ there):
        yield f"{file} is in only one of the bill and the image"
    own = {"bay0"} | {part["name"].replace("-", "_") for part in parts if prop(part, "spine:kind") == [WHEEL] and part["scope"] == "required"}
    for path in sorted((root / FROZEN).glob("*/__init__.pyc")):
        if path.parent.name not in own | set(sys.stdlib_module_names) | {"attr"}:  # attrs' old name
            yield f"the module {path.parent.name} in the frozen program belongs to no component"


def main(arguments: list[str]) -> int:
    """Write a bill or check one; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", nargs=2, type=Path, metavar=("SBOM", "ROOTFS"))
    for name in ("--manifest", "--root", "--bundled", "--wheels", "--apk", "--docs"):
        parser.add_argument(name, type=Path, default=Path("/nonexistent"))
    options = parser.parse_args(arguments)
    if options.check:
        found = list(complaints(json.loads(options.check[0].read_text()), options.check[1]))
        for line in found:
            print(f"        FAIL SBOM: {line}", file=sys.stderr)
        return 1 if found else 0
    json.dump(build(options), sys.stdout, indent=1, sort_keys=True)
    print()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
