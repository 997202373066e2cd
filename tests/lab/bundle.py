"""Writes the lab's bundle: one tar with bundle.toml, bin/, cni/ and an OCI layout.

Owns the assembly only: build-bundle fetches and compiles what goes in. The same
inputs give the same bytes (sorted entries, one time stamp, uid 0).
"""

import argparse
import datetime
import hashlib
import io
import json
import os
import subprocess
import tarfile

LAYER = "application/vnd.oci.image.layer.v1.tar"
CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LIBRARY_DIRS = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib", "lib")
LOADER = "lib64/ld-linux-x86-64.so.2"


def digest(data):
    return hashlib.sha256(data).hexdigest()


def file_digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def compact(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


class Root:
    """The unpacked packages: finds files, and the libraries that programs need."""

    def __init__(self, path):
        self.path = path

    def find(self, name):
        """The real file of NAME (a path in the root); links stay within the root."""
        for _ in range(10):
            path = os.path.join(self.path, name)
            if not os.path.islink(path):
                return path if os.path.isfile(path) else None
            target = os.readlink(path)
            name = target.lstrip("/") if target.startswith("/") else os.path.normpath(
                os.path.join(os.path.dirname(name), target))
        return None

    def library(self, name):
        for folder in LIBRARY_DIRS:
            if found := self.find(f"{folder}/{name}"):
                return found
        raise SystemExit(f"bundle.py: no package has the library {name}")

    def libraries(self, programs):
        """Image path -> file, of every library that PROGRAMS need, and the loader."""
        found, queue = {}, list(programs)
        while queue:
            text = subprocess.run(["readelf", "-d", queue.pop()], check=True,
                                  capture_output=True, text=True).stdout
            for line in text.splitlines():
                if "(NEEDED)" not in line:
                    continue
                name = line.split("[")[1].split("]")[0]
                path = f"usr/lib/x86_64-linux-gnu/{name}"
                if not name.startswith("ld-linux") and path not in found:
                    found[path] = self.library(name)
                    queue.append(found[path])
        if found:
            found[LOADER] = self.library("ld-linux-x86-64.so.2")
        return found


class Tar:
    """A tar file whose bytes depend on its entries only."""

    def __init__(self, file, stamp):
        self.stamp = stamp
        self.tar = tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)

    def entry(self, name, kind, mode):
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.mtime = kind, mode, self.stamp
        return info

    def data(self, name, data, mode=0o644):
        info = self.entry(name, tarfile.REGTYPE, mode)
        info.size = len(data)
        self.tar.addfile(info, io.BytesIO(data))

    def file(self, name, path, mode=0o755):
        info = self.entry(name, tarfile.REGTYPE, mode)
        info.size = os.path.getsize(path)
        with open(path, "rb") as file:
            self.tar.addfile(info, file)

    def link(self, name, target):
        info = self.entry(name, tarfile.SYMTYPE, 0o777)
        info.linkname = target
        self.tar.addfile(info)

    def folder(self, name, mode=0o755):
        self.tar.addfile(self.entry(name, tarfile.DIRTYPE, mode))


class Layout:
    """The OCI layout in the making: blobs by digest, and images by name."""

    def __init__(self, stamp):
        self.stamp = stamp
        self.created = datetime.datetime.fromtimestamp(stamp, datetime.timezone.utc).strftime(
            "%Y-%m-%dT%H:%M:%SZ")
        self.blobs, self.images = {}, []

    def blob(self, data, media_type):
        name = digest(data)
        self.blobs[name] = data
        return {"mediaType": media_type, "digest": f"sha256:{name}", "size": len(data)}

    def image(self, name, role, files, links=None, entrypoint=None, command=None):
        """One image of one layer: FILES is path -> file, LINKS is path -> target."""
        links = links or {}
        layer, folders = io.BytesIO(), {"tmp", "etc"}
        for path in [*files, *links]:
            while path := os.path.dirname(path):
                folders.add(path)
        tar = Tar(layer, self.stamp)
        for folder in sorted(folders):
            tar.folder(folder, 0o1777 if folder == "tmp" else 0o755)
        for path in sorted({*files, *links}):
            if path in links:
                tar.link(path, links[path])
            else:
                tar.file(path, files[path])
        tar.tar.close()
        layer = self.blob(layer.getvalue(), LAYER)
        config = {"Env": [PATH]}
        if entrypoint:
            config["Entrypoint"] = entrypoint
        if command:
            config["Cmd"] = command
        config = self.blob(compact({
            "architecture": "amd64", "os": "linux", "created": self.created, "config": config,
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
            "history": [{"created": self.created, "created_by": "k8s-myhome tests/lab"}],
        }), CONFIG)
        manifest = self.blob(compact({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer],
        }), MANIFEST)
        manifest["annotations"] = {
            "org.opencontainers.image.ref.name": name, "io.containerd.image.name": name}
        manifest["platform"] = {"architecture": "amd64", "os": "linux"}
        size = layer["size"] + config["size"] + manifest["size"]
        self.images.append((name, role, manifest, size))


def add_images(layout, args, root):
    with open(f"{args.kubernetes}/images", encoding="utf-8") as file:
        names = {line.strip().rsplit("/", 1)[1].split(":")[0]: line.strip() for line in file}
    programs = f"{args.kubernetes}/bin"
    for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler"):
        layout.image(names[name], name, {f"usr/local/bin/{name}": f"{programs}/{name}"})

    # kube-proxy: Debian's iptables on nftables, as in the nodes themselves.
    tables, conntrack = root.find("usr/sbin/xtables-nft-multi"), root.find("usr/sbin/conntrack")
    matches = "usr/lib/x86_64-linux-gnu/xtables"
    extensions = {f"{matches}/{name}": root.find(f"{matches}/{name}")
                  for name in os.listdir(f"{root.path}/{matches}") if name.endswith(".so")}
    layout.image(
        names["kube-proxy"], "kube-proxy",
        {"usr/local/bin/kube-proxy": f"{programs}/kube-proxy", "usr/sbin/xtables-nft-multi": tables,
         "usr/sbin/conntrack": conntrack, **extensions,
         **root.libraries([tables, conntrack, *extensions.values()])},
        {f"usr/sbin/{family}{verb}": "xtables-nft-multi"
         for family in ("iptables", "ip6tables") for verb in ("", "-save", "-restore")})

    etcd = root.find("usr/bin/etcd")
    layout.image(names["etcd"], "etcd", {"usr/local/bin/etcd": etcd, **root.libraries([etcd])})
    layout.image(names["pause"], "pause", {"pause": args.pause}, entrypoint=["/pause"])

    busybox = root.find("bin/busybox") or root.find("usr/bin/busybox")
    applets = subprocess.run([busybox, "--list"], check=True, capture_output=True,
                             text=True).stdout.split()
    layout.image("lab.k8s-myhome/busybox:1", "workload", {"bin/busybox": busybox},
                 {f"bin/{applet}": "busybox" for applet in applets if applet != "busybox"},
                 command=["/bin/sh"])


def components(args, root, versions):
    """(name, version, path in the bundle, file), in the bundle's order."""
    packaged = {"containerd": "containerd", "containerd-shim-runc-v2": "containerd",
                "ctr": "containerd", "runc": "runc"}
    found = [(name, args.version, f"bin/{name}", f"{args.kubernetes}/bin/{name}")
             for name in ("kubeadm", "kubectl", "kubelet")]
    for name, package in packaged.items():
        path = root.find(f"usr/bin/{name}") or root.find(f"usr/sbin/{name}")
        found.append((name, versions[package], f"bin/{name}", path))
    plugins = "usr/lib/cni"
    for name in os.listdir(f"{root.path}/{plugins}"):
        found.append((name, versions["containernetworking-plugins"], f"cni/{name}",
                      root.find(f"{plugins}/{name}")))
    return sorted(found, key=lambda component: component[2])


def quoted(value):
    return json.dumps(value)  # a JSON string is a TOML basic string


def description(args, layout, parts, source):
    lines = ["format = 1", f"kubernetes = {quoted(args.version)}", 'arch = "x86_64"',
             f"name = {quoted(args.name)}", "trial = true",
             f"source = {quoted('Debian source package kubernetes ' + source)}",
             f"created = {quoted(layout.created)}"]
    for name, version, path, file in parts:
        lines += ["", "[[component]]", f"name = {quoted(name)}", f"version = {quoted(version)}",
                  f"path = {quoted(path)}", f"sha256 = {quoted(file_digest(file))}",
                  f"size = {os.path.getsize(file)}"]
    for name, role, manifest, size in layout.images:
        lines += ["", "[[image]]", f"name = {quoted(name)}", f"role = {quoted(role)}",
                  f"manifest = {quoted(manifest['digest'])}", f"size = {size}"]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for option in ("name", "kubernetes", "version", "root", "packages", "pause", "output"):
        parser.add_argument(f"--{option}", required=True)
    args = parser.parse_args()
    with open(f"{args.kubernetes}/source-date", encoding="utf-8") as file:
        stamp = int(file.read())
    with open(f"{args.kubernetes}/source-version", encoding="utf-8") as file:
        source = file.read().strip()
    with open(args.packages, encoding="utf-8") as file:
        versions = dict(line.split() for line in file)

    root, layout = Root(args.root), Layout(stamp)
    add_images(layout, args, root)
    parts = components(args, root, versions)
    with open(args.output, "wb") as file:
        tar = Tar(file, stamp)
        tar.data("bundle.toml", description(args, layout, parts, source).encode())
        for _, _, path, source_file in parts:
            tar.file(path, source_file)
        tar.data("images/oci-layout", compact({"imageLayoutVersion": "1.0.0"}))
        tar.data("images/index.json", compact({
            "schemaVersion": 2, "mediaType": INDEX,
            "manifests": [manifest for _, _, manifest, _ in layout.images]}))
        for name in sorted(layout.blobs):
            tar.data(f"images/blobs/sha256/{name}", layout.blobs[name])
        tar.tar.close()


if __name__ == "__main__":
    main()
