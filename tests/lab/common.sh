# Shared by the scripts of tests/lab: where things live and how they report.
#
# Owns the names of the cache's folders, and what must not depend on who calls:
# language, umask, PATH. Every script here sources it, and the recipes of the
# Makefile that call cargo. It runs nothing. Callers set `set -euo pipefail`
# themselves.
# shellcheck shell=bash disable=SC2034

# Answers of programs are read in one language.
export LC_ALL=C.UTF-8
# What is made here is read by others: libvirt's users, users of k8sctl, the
# caller behind sudo. What is private is closed where it is made.
umask 022
# Root by a plain su has no sbin.
if [[ :$PATH: != *:/usr/sbin:* ]]; then export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin; fi

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

# It is part of a PATH, of configurations and of makefiles.
[[ $CACHE != *[[:space:]:]* ]] ||
  die "the cache's path has a space or a colon in it: $CACHE; set K8S_MYHOME_CACHE to one without"

# lock NAME: one builder of NAME at a time, on descriptor 9, until the script
# ends. Call it before looking at what NAME's builder leaves behind. What shall
# outlast the script is started without the descriptor.
lock() {
  mkdir -p "$CACHE/locks"
  exec 9>"$CACHE/locks/$1"
  flock --nonblock 9 && return
  say "waiting for another ${0##*/} that has the lock $1"
  flock 9
}

as_root() { if ((EUID == 0)); then "$@"; else sudo "$@"; fi; }

# apt_update: reads the package lists again. Whoever does so already, as the
# nightly upgrades do, is waited for. A broken source, often somebody else's, keeps
# nobody from what the others have: what is missing then fails by itself.
apt_update() {
  local said status deadline=$((SECONDS + 600)) waits=''
  while :; do
    status=0
    said=$(as_root env LC_ALL="$LC_ALL" apt-get -qq update 2>&1) || status=$?
    if ((status != 100 || SECONDS >= deadline)) || [[ $said != *"Could not get lock"* ]]; then break; fi
    [[ -n $waits ]] || say "waiting for whoever has the package lists: ${said%%$'\n'*}"
    waits=1
    sleep "${POLL:-1}"
  done
  [[ -z $said ]] || printf '%s\n' "$said" >&2
  ((status == 100)) || return "$status" # sudo's
  say "not all package lists could be read, for the reason above: going on with those that are there"
}

# programs_in FOLDER NAME…: each of these programs is in FOLDER.
programs_in() {
  local folder=$1 name
  shift
  for name; do
    [[ -s $folder/$name && -x $folder/$name ]] || return 1
  done
}

# lab_image_note BUNDLE: the file that says which image this checkout's labs take
# with a bundle; written by build-image: checkout, bundle and image, one a line.
lab_image_note() {
  local key
  key=$(printf '%s %s' "$LAB_REPO" "$(realpath -m "$1")" | sha256sum)
  printf '%s' "$CACHE/lab-images/${key%% *}"
}

# gone PID: the process has ended, whether its parent knows or not.
gone() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0 # it may end just now; `$(<…)` would end the shell then
  [[ $stat == *") Z "* ]]
}

# wait_for PID: the exit status of a child, however many signals with a trap come meanwhile.
wait_for() {
  local status=0
  wait "$1" || status=$?
  while [[ -e /proc/$1 ]]; do
    status=0
    wait "$1" || status=$?
  done
  return "$status"
}

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
