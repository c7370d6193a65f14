#!/usr/bin/env python3
"""Writes what is linked into a binary: deploy/bill.py TARGET BINARY SBOM LICENCES [CARGO OPTION...]

SBOM is a CycloneDX 1.5 document: each crate with its version, checksum and licence, the standard
library of Rust, musl, and the unwinder of LLVM. LICENCES has their texts. Both depend on nothing but
the source and the compiler, so the same input gives the same bytes. The options are features.
"""

import hashlib
import json
import pathlib
import re
import subprocess
import sys
import uuid

ROOT = pathlib.Path(__file__).resolve().parents[1]

# A file of a crate with a licence or a notice in it.
TEXT = re.compile(r"(?i)(licen[cs]e|copying|notice|unlicense|copyright)")



def run(*command):
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def linked(target, options):
    """The crates that are linked in, by name: no build scripts, no macros, no tests."""
    platform = ["--filter-platform", target]
    metadata = json.loads(
        run("cargo", "metadata", "--format-version=1", "--locked", *platform, *options)
    )
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    waiting, found = [root], {}
    while waiting:
        identity = waiting.pop()
        package = packages[identity]
        is_macro = any("proc-macro" in target["kind"] for target in package["targets"])
        if identity in found or is_macro:
            continue
        needs = [
            dependency["pkg"]
            for dependency in nodes[identity]["deps"]
            if any(kind["kind"] is None for kind in dependency["dep_kinds"])
        ]
        found[identity] = package, needs
        waiting.extend(needs)
    return packages[root], sorted(found.values(), key=lambda pair: (pair[0]["name"], pair[0]["version"]))


def checksums():
    """That of each crate in Cargo.lock, by name and version."""
    lock = (ROOT / "Cargo.lock").read_text()
    pattern = r'name = "(.*)"\nversion = "(.*)"\nsource = ".*"\nchecksum = "(.*)"'
    return {(name, version): checksum for name, version, checksum in re.findall(pattern, lock)}


def reference(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def licence_of(package):
    """As an expression of SPDX; crates of old write a slash for OR."""
    return (package["license"] or "NOASSERTION").replace("/", " OR ")


def component(package, sums):
    entry = {
        "type": "library",
        "bom-ref": reference(package),
        "name": package["name"],
        "version": package["version"],
        "purl": reference(package),
        "licenses": [{"expression": licence_of(package)}],
    }
    checksum = sums.get((package["name"], package["version"]))
    if checksum:
        entry["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return entry


def toolchain():
    """What comes with the compiler: name, version, licence and reference."""
    said = dict(line.split(": ", 1) for line in run("rustc", "-vV").splitlines() if ": " in line)
    rust, llvm = said["release"], said["LLVM version"]
    # Rust 1.93 and later have musl 1.2.5.
    return [
        ("rust-std", rust, "MIT OR Apache-2.0"),
        ("musl", "1.2.5", "MIT"),
        ("libunwind", llvm, "Apache-2.0 WITH LLVM-exception"),
    ]


def sbom(root, crates, binary):
    sums = checksums()
    tools = toolchain()
    generic = [
        {
            "type": "library",
            "bom-ref": f"pkg:generic/{name}@{version}",
            "name": name,
            "version": version,
            "purl": f"pkg:generic/{name}@{version}",
            "licenses": [{"expression": licence}],
        }
        for name, version, licence in tools
    ]
    digest = hashlib.sha256(binary.read_bytes()).hexdigest()
    subject = component(root, {}) | {
        "type": "application",
        "hashes": [{"alg": "SHA-256", "content": digest}],
    }
    names = {package["id"]: reference(package) for package, _ in crates}
    edges = []
    for package, needs in crates:
        on = sorted(names[need] for need in needs if need in names)
        if package["id"] == root["id"]:
            on += [entry["bom-ref"] for entry in generic]
        edges.append({"ref": reference(package), "dependsOn": on})
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        # The same binary has the same document.
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, digest)}",
        "version": 1,
        "metadata": {"component": subject},
        "components": [component(p, sums) for p, _ in crates if p["id"] != root["id"]] + generic,
        "dependencies": edges,
    }


def texts(root, crates):
    """The licences of all, each text once."""
    by_text = {}
    without = []
    for package, _ in crates:
        name = f"{package['name']} {package['version']} ({licence_of(package)})"
        folder = pathlib.Path(package["manifest_path"]).parent
        files = [path for path in sorted(folder.iterdir()) if TEXT.match(path.name) and path.is_file()]
        if not files:
            without.append(name)
        for path in files:
            by_text.setdefault(path.read_text(errors="replace").strip(), []).append(name)
    shared = pathlib.Path(run("rustc", "--print", "sysroot").strip()) / "share/doc/rust/licenses"
    for name, version, licence in toolchain():
        for part in re.split(r" OR | WITH ", licence):
            path = shared / f"{part}.txt"
            if path.is_file():
                text = path.read_text(errors="replace").strip()
                by_text.setdefault(text, []).append(f"{name} {version} ({licence})")
            else:
                without.append(f"{name} {version} ({licence})")
    out = [f"Licences of what is linked into {root['name']} {root['version']}.\n"]
    if without:
        out.append("Without a text of their own, under the texts below of the same name:\n")
        out += [f"  {name}" for name in sorted(set(without))] + [""]
    for text, names in sorted(by_text.items(), key=lambda pair: sorted(pair[1])):
        out.append("=" * 78)
        out += sorted(set(names)) + ["-" * 78, text, ""]
    return "\n".join(out)


def main():
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    target, binary, bill, licences, *options = sys.argv[1:]
    root, crates = linked(target, options)
    document = sbom(root, crates, pathlib.Path(binary))
    pathlib.Path(bill).write_text(json.dumps(document, indent=1) + "\n")
    pathlib.Path(licences).write_text(texts(root, crates))
    print(f"{len(crates) - 1} crates")


main()
