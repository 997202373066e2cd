#!/usr/bin/env bash
# run and inside.sh, with stubs of libvirt and ip: where a lab is when a signal
# comes. Root of a mount namespace runs it: $1 is the checkout, $2 an empty folder.
set -euo pipefail
repo=$1 work=$2
mount -t tmpfs -o mode=777 tmpfs "$work"
mkdir -p "$work"/{bin,root,cache,users,target,tests/lab}
cp "$repo"/tests/lab/{run,inside.sh,common.sh,with-sudo} "$work/tests/lab/"

# hold NAME: the stub that was told to waits there, once, and tells so: with the pipe
# open, which forgets what was written to it when nobody has it open.
cat >"$work/bin/hold" <<'END'
[[ ${HOLD:-} != "$1" || -e $WORK/held ]] || { : >"$WORK/held"; read -r -t 60 _; } <>"$WORK/go"
END
cat >"$work/bin/ip" <<'END'
#!/bin/bash
case $* in
  "netns add "*) . "$WORK/bin/hold" netns ;;
  "netns exec "*) exec "${@:4}" ;;
esac
END
cat >"$work/bin/unshare" <<'END'
#!/bin/bash
. "$WORK/bin/hold" unshare
exec /usr/bin/unshare "$@"
END
cat >"$work/bin/flock" <<'END'
#!/bin/bash
[[ $* != 8 ]] || . "$WORK/bin/hold" flock
exec /usr/bin/flock "$@"
END
cat >"$work/bin/virsh" <<'END'
#!/bin/bash
[[ $* != *version ]] || . "$WORK/bin/hold" virsh
END
cat >"$work/bin/at-work" <<'END'
#!/bin/bash
: >"$WORK/ran"
exec sleep 60
END
# What makes it root is no shell: that would give up another's rights.
install -m 4755 "$(command -v setpriv)" "$work/root/setpriv"
cat >"$work/bin/sudo" <<'END'
#!/bin/bash
[[ $1 == -n ]] && shift || . "$WORK/bin/hold" sudo
exec "$WORK/root/setpriv" --reuid 0 --regid 0 --clear-groups -- "$@"
END
for name in virtlogd libvirtd; do
  cat >"$work/bin/$name" <<'END'
#!/usr/bin/env python3
import os, signal, socket
name = {"virtlogd": "virtlogd", "libvirtd": "libvirt"}[os.path.basename(__file__)]
socket.socket(socket.AF_UNIX).bind(f"/run/libvirt/{name}-sock")
signal.pause()
END
done
chmod 755 "$work"/bin/*
export WORK=$work PATH=$work/bin:$PATH K8S_MYHOME_CACHE=$work/cache
unset LAB_BUNDLE LAB_KEEP

so() { "$@" || { echo "not so: $*" >&2; exit 1; }; }
fails() { ! "$@"; }
lab() { exec "$work/tests/lab/run" "$@"; }
# soon COMMAND…: it succeeds within a minute.
soon() {
  local deadline=$((SECONDS + 60))
  until "$@"; do
    ((SECONDS < deadline)) || return 1
    sleep 0.02
  done
}
nothing_is_left() { [ -z "$(ls "$work"/cache/lab-runs)" ]; }

status=0
(lab bash -c 'exit 7') || status=$?
so [ "$status" = 7 ]
so nothing_is_left

# A bundle may have any name.
mkdir "$work/other"
echo kubectl >"$work/other/kubectl"
tar -C "$work" --transform=s/other/bin/ -cf "$work/a bundle" other/kubectl
cat >"$work/bin/has-bundle" <<'END'
#!/bin/bash
cmp "$LAB_DIR"/bundles/*.k8sbundle "$LAB_BUNDLE" && cmp "$LAB_DIR/bin/kubectl" "$WORK/other/kubectl"
END
chmod 755 "$work/bin/has-bundle"
so env LAB_BUNDLE="$work/a bundle" "$work/tests/lab/run" has-bundle

# Until CMD has begun, it never does.
for signal in TERM INT HUP; do
  for hold in netns unshare virsh; do
    rm -f "$work"/{held,go,ran}
    mkfifo "$work/go"
    (trap - INT; HOLD=$hold lab touch "$work/ran") &
    run=$!
    so soon [ -e "$work/held" ]
    kill "-$signal" "$run"
    # A shell that runs something hears of it behind that.
    [ "$hold" = netns ] || so soon [ -e "$work/cache/lab-runs/k8slab-$run/stop" ]
    echo go 1<>"$work/go"
    status=0
    wait "$run" || status=$?
    so [ "$status $signal at $hold" = "143 $signal at $hold" ]
    so [ ! -e "$work/ran" ]
    so nothing_is_left
  done
done

# Then it ends with the lab.
rm -f "$work/ran"
lab at-work &
run=$!
so soon [ -e "$work/ran" ]
kill -TERM "$run"
status=0
wait "$run" || status=$?
so [ "$status" = 143 ]
so nothing_is_left

# One that begins is not taken for a dead one, by another that begins.
rm -f "$work"/{held,go}
mkfifo "$work/go"
: >"$work/said"
HOLD=flock lab true &
run=$!
so soon [ -e "$work/held" ]
lab true 2>"$work/said" &
other=$!
so soon grep -q "waiting for another run" "$work/said"
echo go 1<>"$work/go"
so wait "$run"
so wait "$other"
so fails grep removing "$work/said"
so nothing_is_left
# But one that was killed is.
: >"$work/cache/lab-runs/k8slab-1.lock"
lab true 2>"$work/said" &
so wait "$!"
so grep removing "$work/said"
so nothing_is_left

# A user's lab, which is root's.
as_user() {
  exec setpriv --reuid 65534 --regid 65534 --clear-groups env HOME="$work/users" TMPDIR="$work/users" \
    K8S_MYHOME_CACHE="$work/users/cache" CARGO_TARGET_DIR="$work/target" "$@"
}
chown 65534:65534 "$work/users"
for command in run "with-sudo $work/tests/lab/run"; do
  for hold in sudo ''; do
    rm -f "$work"/{held,go,ran}
    mkfifo -m 666 "$work/go"
    : >"$work/target/file"
    read -ra words <<<"$command"
    HOLD=$hold as_user "$work/tests/lab/${words[0]}" "${words[@]:1}" at-work &
    run=$!
    if [ "$hold" = sudo ]; then so soon [ -e "$work/held" ]; else so soon [ -e "$work/ran" ]; fi
    kill -TERM "$run"
    if [ "$hold" = sudo ]; then
      so soon [ -e "$(echo "$work"/users/tmp.*)/stop" ]
      echo go 1<>"$work/go"
      so [ ! -e "$work/ran" ]
    fi
    status=0
    wait "$run" || status=$?
    so [ "$status $command $hold" = "143 $command $hold" ]
    so [ "$(stat -c %u "$work/target/file")" = 65534 ]
    so [ "$(ls "$work/users")" = cache ]
    so [ -z "$(ls "$work/users/cache/lab-runs")" ]
    so [ "$(stat -c %u "$work/users/cache/locks")" = 65534 ]
  done
done
echo all is so
