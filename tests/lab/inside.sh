#!/usr/bin/env bash
# inside.sh FOLDER CMD…: the first process of a lab: sets its libvirt up, runs
# CMD, and takes everything down again. Called by run, only.
#
# It is process 1 of its own process namespace: whatever CMD leaves running
# ends with it at the latest.
set -euo pipefail
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

LAB_DIR=$1
shift
agent_pid_file=/run/k8s-myhome/k8s-host-agent.pid
command_pid='' virtlogd='' is_set_up=''

# Before anything else: process 1 hears no signal that it has no trap for. The mark
# is there before a signal is, and stays.
mark=$LAB_DIR/stop
stop() {
  : >"$mark"
  [[ -n $is_set_up ]] || exit 143
  if [[ -n $command_pid ]] && ! gone "$command_pid"; then kill -TERM "$command_pid" || true; fi
}
trap stop TERM
if [[ -e $mark ]]; then stop; fi

private_mounts() {
  mount -t tmpfs -o mode=755,size=64m tmpfs /run
  mkdir -p /run/lock /run/libvirt /run/k8s-myhome
  local path
  for path in etc/libvirt var/lib/libvirt var/log/libvirt var/cache/libvirt; do
    mkdir -p "$LAB_DIR/$path" "/$path"
    if [[ $path == etc/libvirt && -d /etc/libvirt/nwfilter ]]; then
      cp -r /etc/libvirt/nwfilter "$LAB_DIR/etc/libvirt/"
    fi
    mount --bind "$LAB_DIR/$path" "/$path"
  done
  mkdir -p /var/lib/libvirt/{qemu,images,network,dnsmasq} /var/log/libvirt/qemu
  # There is no polkit in here for virsh to ask on a terminal.
  local agent=/usr/bin/pkttyagent
  if [[ -e $agent ]]; then mount --bind /dev/null "$agent"; fi
}

configure() {
  cat >/etc/libvirt/libvirtd.conf <<END
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_rw_perms = "0700"
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
END
  cat >/etc/libvirt/qemu.conf <<END
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
remember_owner = 0
stdio_handler = "logd"
END
  : >/etc/libvirt/virtlogd.conf

  mkdir -p "$LAB_DIR"/{bin,state,pool,bundles,images}
  local bundle=${LAB_BUNDLE:-$CACHE/bundles/$LAB_BUNDLE_NAME.k8sbundle}
  if [[ -e $bundle ]]; then
    bundle=$(realpath "$bundle")
    # Whatever its name: without the ending it would be no bundle.
    local link=$LAB_DIR/bundles/lab.k8sbundle
    ln "$bundle" "$link" 2>/dev/null || ln -s "$bundle" "$link"
  elif [[ -n ${LAB_BUNDLE:-} ]]; then
    die "LAB_BUNDLE=$LAB_BUNDLE does not exist"
  fi
  local note
  note=$(lab_image_note "$bundle")
  if [[ -s $note ]]; then
    # Links to the files: the image stays while the lab runs, whatever is built meanwhile.
    cp -al "$CACHE/images/$(sed -n 3p "$note")" "$LAB_DIR/images/"
  else
    say "no node image for this lab yet: tests/lab/prepare makes it"
  fi
  local kubectl=$CACHE/kubernetes/$LAB_KUBERNETES/bin/kubectl
  if [[ -n ${LAB_BUNDLE:-} ]]; then
    tar -C "$LAB_DIR" -xf "$bundle" --occurrence=1 bin/kubectl
  elif [[ -e $kubectl ]]; then
    ln -s "$kubectl" "$LAB_DIR/bin/kubectl"
  fi
  # A link, so that a test can put another agent there.
  ln -sfn "$CACHE/dist/bin/k8s-node-agent" "$LAB_DIR/k8s-node-agent"
  cat >"$LAB_DIR/host-agent.toml" <<END
state_dir = "$LAB_DIR/state"
run_dir = "/run/k8s-myhome"
pool_dir = "$LAB_DIR/pool"
image_dir = "$LAB_DIR/images"
bundle_dir = "$LAB_DIR/bundles"
libvirt_uri = "qemu:///system"
node_agent = "$LAB_DIR/k8s-node-agent"
plugin_dir = "$CACHE/dist/plugins"
END
  export LAB_DIR LAB_REPO LAB_BUNDLE=$bundle
  export PATH=$CACHE/dist/bin:$LAB_DIR/bin:$PATH:$CACHE/lab-bin
  export KUBECONFIG=$LAB_DIR/kubeconfig
  # kubectl keeps its cache in the home directory, which in a lab by sudo is not root's: it would leave a folder there
  # that its owner cannot write. cargo's things stay where they are.
  export K8S_MYHOME_CACHE=$CACHE CARGO_HOME=${CARGO_HOME:-$HOME/.cargo} RUSTUP_HOME=${RUSTUP_HOME:-$HOME/.rustup}
  export HOME=$LAB_DIR/home
  mkdir -p "$HOME"
  export K8SCTL_CONFIG=$LAB_DIR/host-agent.toml
  export LIBVIRT_DEFAULT_URI=qemu:///system
  declare -px LAB_DIR LAB_REPO LAB_BUNDLE PATH KUBECONFIG K8SCTL_CONFIG LIBVIRT_DEFAULT_URI >"$LAB_DIR/environment"
}

start_libvirt() {
  ip link set lo up
  # Sessions of their own: a Ctrl-C is for CMD.
  setsid virtlogd >"$LAB_DIR/virtlogd.out" 2>&1 8>&- </dev/null &
  virtlogd=$!
  wait_until 20 "virtlogd's socket" test -S /run/libvirt/virtlogd-sock
  setsid libvirtd >"$LAB_DIR/libvirtd.out" 2>&1 8>&- </dev/null &
  wait_until 20 "libvirtd's socket" test -S /run/libvirt/libvirt-sock
  timeout 30 virsh --quiet version >/dev/null || { cat "$LAB_DIR/libvirtd.out" >&2; die "libvirtd does not answer"; }
}

# libvirtd_now: the one that runs. Tests end the first one, and see it come back.
libvirtd_now() {
  local exe
  for exe in /proc/[0-9]*/exe; do
    if [[ $(readlink "$exe") == */libvirtd ]]; then
      exe=${exe#/proc/}
      printf '%s' "${exe%/exe}"
      return
    fi
  done
}

# end PID WHAT: asks the process to end, then makes it.
end() {
  gone "$1" && return
  kill -TERM "$1"
  if ! wait_until 15 "$2 ($1) ends" gone "$1" && ! gone "$1"; then kill -KILL "$1"; fi
}

tear_down() {
  trap '' TERM
  set +e # every step runs, whatever came of those before it
  if [[ -s $agent_pid_file ]]; then end "$(<"$agent_pid_file")" "the host agent"; fi
  local libvirtd
  libvirtd=$(libvirtd_now)
  if [[ -n $libvirtd ]] && ! gone "$libvirtd"; then
    local id
    for id in $(timeout 20 virsh --quiet list --uuid); do timeout 20 virsh --quiet destroy "$id" >/dev/null; done
    for id in $(timeout 20 virsh --quiet net-list --uuid); do timeout 20 virsh --quiet net-destroy "$id" >/dev/null; done
    end "$libvirtd" libvirtd
  fi
  if [[ -n $virtlogd ]]; then end "$virtlogd" virtlogd; fi
  local process left=()
  for process in /proc/[0-9]*; do
    process=${process#/proc/}
    ((process == 1)) || gone "$process" || left+=("$(tr '\0' ' ' <"/proc/$process/cmdline" | cut -c1-100)")
  done
  ((${#left[@]} == 0)) || printf 'lab: ended with the lab: %s\n' "${left[@]}" >&2
}

private_mounts
trap tear_down EXIT # not sooner: /run was the host's
configure
start_libvirt

cd "${LAB_WORKDIR:-$PWD}"
if [[ -e $mark ]]; then stop; fi
is_set_up=1
env --default-signal=INT,QUIT -- "$@" 8>&- <&0 &
command_pid=$!
if [[ -e $mark ]]; then stop; fi
status=0
wait "$command_pid" || status=$?
if [[ -e $mark ]]; then
  status=143
  wait_until 30 "the lab's command ends" gone "$command_pid" || kill -KILL "$command_pid"
fi
command_pid=''
exit "$status"
