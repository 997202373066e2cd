# Imports the bundle's container images into a root file system, with that root's own containerd.
# Runs as the first process of its own mount and process namespaces, so that nothing of it can stay.
# $1 the root file system, $2 the OCI layout, $3 the pause image's name or nothing
set -eu
# Directories that containerd makes are the containers', whose users are others.
umask 022
root=$1 images=$2 pause=$3
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
cat >"$root/run/containerd.toml" <<'TOML'
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "/run/containerd/containerd.sock"
TOML
chroot "$root" /usr/bin/containerd --config /run/containerd.toml >"$root/run/log" 2>&1 &
containerd=$!
ctr() { chroot "$root" /usr/bin/ctr --address /run/containerd/containerd.sock --namespace k8s.io "$@"; }
tries=0
until ctr version >/dev/null 2>&1; do
  tries=$((tries + 1))
  if [ $tries -gt 300 ] || ! kill -0 "$containerd" 2>/dev/null; then
    echo "containerd does not answer; its log:" >&2
    tail -n 20 "$root/run/log" >&2
    exit 1
  fi
  sleep 0.1
done
if ! tar -C "$images" -cf - oci-layout index.json blobs | ctr images import --snapshotter overlayfs -; then
  tail -n 20 "$root/run/log" >&2
  exit 1
fi
# The kubelet's image collector leaves pinned images alone.
if [ -n "$pause" ]; then ctr images label "$pause" io.cri-containerd.pinned=pinned >/dev/null; fi
ctr images ls -q
kill "$containerd"
wait "$containerd" || true
