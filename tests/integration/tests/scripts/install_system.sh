#!/usr/bin/env bash
# install-system where changes of /usr and /etc are in memory; systemd does not
# run, at first. Root of a mount namespace runs it: $1 is the checkout, $2 an
# empty folder.
set -euo pipefail
repo=$1 work=$2
mount -t tmpfs tmpfs "$work"
for folder in usr etc; do
  mkdir "$work/$folder" "$work/$folder.work"
  mount -t overlay -o "lowerdir=/$folder,upperdir=$work/$folder,workdir=$work/$folder.work" overlay "/$folder"
done
mount -t tmpfs tmpfs /run
rm -rf /usr/local/bin/k8sctl /usr/local/bin/k8s-host-agent /usr/lib/k8s-myhome
rm -f /etc/systemd/system/k8s-host-agent.service /etc/k8s-myhome/host-agent.toml
for file in /etc/group /etc/gshadow; do
  [ ! -e "$file" ] || sed -i '/^k8sctl/d' "$file"
done

mkdir -p "$work/dist/bin" "$work/dist/plugins/hello" "$work/stubs" "$work/systemd" /usr/local/bin
for name in k8sctl k8s-host-agent k8s-node-agent; do echo "$name" >"$work/dist/bin/$name"; done
chmod 755 "$work"/dist/bin/*
echo plugin >"$work/dist/plugins/hello/plugin.toml"
# As a checkout of somebody who closes everything.
chmod 600 "$work/dist/plugins/hello/plugin.toml"
cat >"$work/stubs/systemctl" <<'END'
#!/bin/bash
# Notes what changes something, and fails at it where the file "broken" is.
unit=/etc/systemd/system/k8s-host-agent.service
cd "$SYSTEMD" || exit
case $* in
  "show "*)
    [ -e loaded ] || cp "$unit" loaded # at its first mention
    cmp -s "$unit" loaded && echo no || echo yes
    exit
    ;;
  "is-enabled "*) [ -e enabled ] && echo enabled || echo disabled; exit ;;
  "--quiet is-active "*) [ -e active ]; exit ;;
esac
[ ! -e broken ] || exit 1
echo "$*" >>calls
case $* in
  daemon-reload) cp "$unit" loaded ;;
  *enable*) : >enabled ;;
  restart*) echo $$ >/run/k8s-myhome/k8s-host-agent.pid ;;
esac
END
chmod 755 "$work/stubs/systemctl"
export PATH=$work/stubs:$PATH SYSTEMD=$work/systemd
umask 077

so() { "$@" || { echo "not so: $*" >&2; exit 1; }; }
fails() { ! "$@"; }
install() { "$repo/tests/lab/install-system" "$work/dist"; }
installed() { find /usr/local/bin /usr/lib/k8s-myhome -type f -newer "$work/before" | sort; }
before() {
  touch -d '1 second ago' "$work/before"
  find /usr/local/bin /usr/lib/k8s-myhome -type f -exec touch -d '1 hour ago' {} +
}
# breaks_off: install, without what comes behind the host agent.
breaks_off() {
  mv "$work/dist/bin/k8s-node-agent" "$work/away"
  so fails install
  mv "$work/away" "$work/dist/bin/k8s-node-agent"
}

touch -d '1 second ago' "$work/before"
install
wanted='/usr/lib/k8s-myhome/k8s-node-agent
/usr/lib/k8s-myhome/plugins/hello/plugin.toml
/usr/local/bin/k8s-host-agent
/usr/local/bin/k8sctl'
so [ "$(installed)" = "$wanted" ]
so cmp "$work/dist/bin/k8sctl" /usr/local/bin/k8sctl
so getent group k8sctl k8sctl-admin
# For everybody, whatever the umask.
cd /usr/lib/k8s-myhome
so [ "$(stat -c %a . k8s-node-agent plugins plugins/hello plugins/hello/plugin.toml | xargs)" = '755 755 755 755 644' ]
so [ "$(stat -c %a /usr/local/bin/k8sctl /usr/local/bin/k8s-host-agent | xargs)" = '755 755' ]

before
install
so [ -z "$(installed)" ]

# A host agent that runs ends where its program changed, and there alone.
cp "$(command -v sleep)" "$work/k8s-host-agent"
# agent_runs: one that k8sctl started; it writes its process id when it begins.
agent_runs() {
  mkdir -p /run/k8s-myhome
  "$work/k8s-host-agent" 1000 >/dev/null 2>&1 &
  echo $! >/run/k8s-myhome/k8s-host-agent.pid
}
end_jobs() {
  local job
  for job in $(jobs -p); do kill "$job" 2>/dev/null || true; done
}
trap end_jobs EXIT
# has_ended: by now, by being asked to.
has_ended() {
  local ended=0
  [[ ! -e /proc/$! || $(<"/proc/$!/stat") == *") Z "* ]] || return 1
  wait $! || ended=$?
  [ "$ended" = 143 ]
}
agent_runs
echo new >"$work/dist/bin/k8sctl"
before
install
so [ "$(installed)" = /usr/local/bin/k8sctl ]
so kill -0 $!
echo new >"$work/dist/bin/k8s-host-agent"
install
so has_ended
# Also where the run that replaced its program broke off.
agent_runs
echo second >"$work/dist/bin/k8s-host-agent"
breaks_off
so cmp "$work/dist/bin/k8s-host-agent" /usr/local/bin/k8s-host-agent
so kill -0 $!
install
so has_ended
# One that began since then stays.
agent_runs
install
so kill -0 $!
kill $!
# The number is somebody else's after a crash.
sleep 1000 >/dev/null 2>&1 &
echo $! >/run/k8s-myhome/k8s-host-agent.pid
echo third >"$work/dist/bin/k8s-host-agent"
install
so kill -0 $!
kill $!
so [ ! -e "$SYSTEMD/calls" ]

# Where systemd runs, it has the unit; a run that broke off is gone on with.
unit=k8s-host-agent.service
mkdir -p /run/systemd/system
: >"$SYSTEMD/broken"
so fails install
so cmp "$repo/host-agent/systemd/$unit" "/etc/systemd/system/$unit"
so [ "$(stat -c %a "/etc/systemd/system/$unit")" = 644 ]
rm "$SYSTEMD/broken"
# calls: what it did to systemd, since the last time.
calls() {
  if [ -e "$SYSTEMD/calls" ]; then
    xargs -d '\n' printf '%s;' <"$SYSTEMD/calls"
    rm "$SYSTEMD/calls"
  fi
}
install
so [ "$(calls)" = "--quiet enable $unit;" ]
install
so [ -z "$(calls)" ]

: >"$SYSTEMD/active"
echo 1 >/run/k8s-myhome/k8s-host-agent.pid
install
so [ -z "$(calls)" ]
echo fourth >"$work/dist/bin/k8s-host-agent"
breaks_off
so [ -z "$(calls)" ]
install
so [ "$(calls)" = "restart $unit;" ]
install
so [ -z "$(calls)" ]
# Another unit.
echo '# older' >>"/etc/systemd/system/$unit"
cp "/etc/systemd/system/$unit" "$SYSTEMD/loaded"
: >"$SYSTEMD/broken"
so fails install
rm "$SYSTEMD/broken"
install
so [ "$(calls)" = "daemon-reload;restart $unit;" ]
install
so [ -z "$(calls)" ]
echo all is so
