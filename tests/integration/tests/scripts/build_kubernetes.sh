#!/usr/bin/env bash
# build-kubernetes with stubs of the archive and of make, and Debian's reflect2 in
# memory. Root of a mount namespace runs it: $1 is the checkout, $2 an empty
# folder.
set -euo pipefail
repo=$1 work=$2
mount -t tmpfs tmpfs "$work"
mkdir "$work/share" "$work/share.work"
mount -t overlay -o "lowerdir=/usr/share,upperdir=$work/share,workdir=$work/share.work" overlay /usr/share
reflect2=github.com/modern-go/reflect2
mkdir -p "/usr/share/gocode/src/$reflect2"
touch "/usr/share/gocode/src/$reflect2/a.go" "/usr/share/gocode/src/$reflect2/a.s"

so() { "$@" || { echo "not so: $*" >&2; exit 1; }; }
mkdir -p "$work/lab" "$work/bin"
cp "$repo"/tests/lab/{build-kubernetes,common.sh} "$work/lab/"
cat >"$work/lab/apt-source" <<END
#!/bin/bash
mkdir -p kubernetes-1.20.2/{debian,vendor/$reflect2}
END
cat >"$work/bin/dpkg-parsechangelog" <<'END'
#!/bin/bash
case $* in
  *Version) echo 1.20.2-1 ;;
  *Timestamp) echo 0 ;;
esac
END
# As Go does, it needs the folder for its temporary files.
cat >"$work/bin/make" <<'END'
#!/bin/bash
[ -d "$GOTMPDIR" ] || exit
echo "$GOTMPDIR" >>"$WORK/made"
mkdir -p _output/bin
for argument; do
  [[ $argument == WHAT=* ]] || continue
  for target in ${argument#WHAT=}; do
    printf '#!/bin/bash\necho image\n' >"_output/bin/${target#cmd/}"
    chmod 755 "_output/bin/${target#cmd/}"
  done
done
END
ln -s /bin/false "$work/bin/readelf" # what make makes is no ELF
chmod 755 "$work"/lab/* "$work"/bin/[!r]*
export WORK=$work PATH=$work/bin:$PATH K8S_MYHOME_CACHE=$work/cache
build() { "$work/lab/build-kubernetes"; }
made() { [ "$(wc -l <"$work/made")" = "$1" ]; }

build
so made 1
so [ "$(<"$work/made")" = "$work/cache/kubernetes/build/tmp" ]
build
so made 1
bin=$work/cache/kubernetes/v1.20.2/bin
rm "$bin/kubectl"
build
so made 2
: >"$bin/kubelet"
build
so made 3
so "$bin/kubectl"
so [ -s "$bin/kubelet" ]
echo all is so
