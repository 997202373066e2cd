# Shared by the scripts of tests/lab: where things live and how they report.
#
# Owns the names of the cache's folders; every script here sources it, and the
# recipes of the Makefile that call cargo. It runs nothing. Callers set
# `set -euo pipefail` themselves.
# shellcheck shell=bash disable=SC2034

LAB_SCRIPTS=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
LAB_REPO=$(cd -- "$LAB_SCRIPTS/../.." && pwd)

# Everything that is expensive to make, outside of the checkout.
CACHE=${K8S_MYHOME_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/k8s-myhome}

# Where deps found the distribution's Rust, when that is not on the PATH.
if [[ -s $CACHE/rust-path ]]; then PATH=$(<"$CACHE/rust-path"):$PATH; fi

# The only Kubernetes that Debian 12 has as a complete source package.
LAB_KUBERNETES=v1.20.2
LAB_BUNDLE_NAME=kubernetes-$LAB_KUBERNETES-lab

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "error: $*"; exit 1; }

# lock NAME: one builder of NAME at a time, on descriptor 9, until the script
# ends. Call it before looking at what NAME's builder leaves behind.
lock() {
  mkdir -p "$CACHE/locks"
  exec 9>"$CACHE/locks/$1"
  flock 9
}

# lab_image_note BUNDLE: the file that says which image this checkout's labs take
# with a bundle; written by build-image: checkout, bundle and image, one a line.
lab_image_note() {
  local key
  key=$(printf '%s %s' "$LAB_REPO" "$(realpath "$1")" | sha256sum)
  printf '%s' "$CACHE/lab-images/${key%% *}"
}

# gone PID: the process has ended, whether its parent knows or not.
gone() { [[ ! -e /proc/$1 || $(<"/proc/$1/stat") == *") Z "* ]]; }

# wait_until SECONDS WHAT COMMAND…: until COMMAND succeeds (asked every $POLL
# seconds, 0.05), or fail naming WHAT.
wait_until() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@"; do
    ((SECONDS < deadline)) || { say "error: $what: not so after the deadline"; return 1; }
    sleep "${POLL:-0.05}"
  done
}
