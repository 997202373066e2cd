#!/usr/bin/env bash
# ensure-bundle where /usr/local is in memory, with hardly any room at first. Root
# of a mount namespace runs it: $1 is the checkout, $2 an empty folder.
set -euo pipefail
repo=$1 work=$2
mount -t tmpfs tmpfs "$work"
mkdir "$work/usr" "$work/usr.work"
mount -t overlay -o "lowerdir=/usr,upperdir=$work/usr,workdir=$work/usr.work" overlay /usr
mount -t tmpfs -o size=256k,mode=755 tmpfs /usr/local
kubectl=/usr/local/bin/kubectl
# The host may have one of its own.
rm -f /usr/{bin,sbin}/kubectl

so() { "$@" || { echo "not so: $*" >&2; exit 1; }; }
fails() { ! "$@"; }
for name in first second third; do
  mkdir -p "$work/$name/bin"
  head -c 400000 /dev/urandom >"$work/$name/bin/kubectl"
  chmod 755 "$work/$name/bin/kubectl"
  tar -C "$work/$name" -cf "$work/$name.k8sbundle" bin
done
mkdir "$work/bin"
cat >"$work/bin/k8sctl" <<'END'
#!/bin/bash
printf '[{"problem": null, "path": "%s"}]' "$BUNDLE"
END
cat >"$work/bin/mv" <<'END'
#!/bin/bash
[[ ${BREAKS_OFF:-} != 1 || $2 != */bin/kubectl ]] && exec /usr/bin/mv "$@"
END
chmod 755 "$work"/bin/*
# ensure BUNDLE: with BUNDLE as the newest; prints what it says.
ensure() {
  BUNDLE=$work/$1.k8sbundle PATH=$work/bin:/usr/local/bin:/usr/bin:/bin "$repo/tests/lab/ensure-bundle" 2>&1
}
umask 077

# Half of it does not stay.
so fails ensure first
so [ -z "$(find /usr/local -name '*kubectl*')" ]
mount -o remount,size=8m /usr/local
so ensure first
so cmp "$kubectl" "$work/first/bin/kubectl"
so [ "$(stat -c %a "$kubectl" /usr/local/lib/k8s-myhome /usr/local/lib/k8s-myhome/kubectl | xargs)" = '755 755 644' ]
so [ -z "$(ensure first)" ]

# Broken off behind the note: the one before is ours still.
BREAKS_OFF=1 so fails ensure second
so cmp "$kubectl" "$work/first/bin/kubectl"
so ensure second
so cmp "$kubectl" "$work/second/bin/kubectl"
so [ -z "$(ensure second)" ]

# The user's own one stays.
echo own >"$kubectl"
so [ -z "$(ensure third)" ]
so [ "$(<"$kubectl")" = own ]
so [ "$(ls -A /usr/local/bin)" = kubectl ]
echo all is so
