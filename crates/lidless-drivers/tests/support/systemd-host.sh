#!/usr/bin/env bash
# Boots a real systemd, with D-Bus, as a disposable host for tests. Needs root, util-linux, iproute2 and, to build the
# image, debootstrap. It changes nothing outside: the image is a read-only overlay below a tmpfs, in mount, pid, uts,
# ipc, cgroup and net namespaces of the host's own, which the kernel takes away with the host's PID 1.
#
#   systemd-host.sh build               make the image, once; others wait for it
#   systemd-host.sh up NAME             boot a host; prints the pid of its PID 1, as seen from here
#   systemd-host.sh hold NAME           the same, and crash it when standard input ends: no host outlives its test
#   systemd-host.sh exec NAME CMD...    run a command in it
#   systemd-host.sh put NAME PATH       write standard input to a file in it
#   systemd-host.sh crash NAME          end it at once, as a power cut does; its disk is lost too
#   systemd-host.sh down NAME           shut it down in order, then forget it
#
# With LIDLESS_HOST_NET=host a host shares our network, so that its services can be asked over loopback.
set -euo pipefail

BASE=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/lidless-test
# The number goes up when what `build` makes changes: an older image is left alone and a new one is made.
IMAGE=$BASE/systemd-image-1
HOSTS=$BASE/hosts
BOOT_SECONDS=${LIDLESS_HOST_BOOT_SECONDS:-30}
GUEST_PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

fail() {
  echo "systemd-host: $*" >&2
  exit 1
}

# --- the image ---------------------------------------------------------------------------------------------------

build() {
  local fresh=$IMAGE.building suite
  [[ -e $IMAGE/etc/lidless-image ]] && return
  command -v debootstrap >/dev/null || fail "debootstrap is not installed"
  mkdir -p "$BASE"
  exec 9>"$IMAGE.lock"
  flock -w 900 9 || fail "another build holds $IMAGE.lock for 15 minutes"
  [[ -e $IMAGE/etc/lidless-image ]] && return # The one we waited for made it.
  rm -rf "$fresh"
  # The machine's own release, for that is what its mirror surely has.
  suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-bookworm}")
  echo "systemd-host: building the image; this takes a minute or two, once" >&2
  debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,python3-minimal \
    "$suite" "$fresh" "$(mirror)" >"$IMAGE.log" 2>&1 || fail "debootstrap failed, see $IMAGE.log: $(tail -n 2 "$IMAGE.log")"
  trim "$fresh"
  rm -rf "$IMAGE"
  mv "$fresh" "$IMAGE"
}

# The mirror that this machine's apt is set up with, the one that most of its indexes come from.
mirror() {
  apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | sort | uniq -c | sort -nr | awk 'NR == 1 { print $2 }'
}

# Takes away what makes a boot slow or noisy, or has no business in a namespace.
trim() {
  local root=$1 unit
  rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}/*
  rm -f "$root"/etc/{machine-id,hostname,fstab} "$root"/var/lib/dbus/machine-id
  mkdir -p "$root/etc/systemd/system.conf.d" "$root/etc/systemd/journald.conf.d"
  printf '%s\n' '[Manager]' LogTarget=journal ShowStatus=no DefaultTimeoutStopSec=5s >"$root/etc/systemd/system.conf.d/test.conf"
  printf '%s\n' '[Journal]' Storage=volatile RateLimitIntervalSec=0 >"$root/etc/systemd/journald.conf.d/test.conf"
  printf '%s\n' '[Unit]' 'Description=Disposable host' 'Requires=basic.target dbus.socket' \
    'After=basic.target dbus.socket' AllowIsolate=yes >"$root/etc/systemd/system/host.target"
  for unit in getty.target systemd-{udevd,udev-trigger,timesyncd,firstboot,update-utmp,pstore,random-seed}.service \
    systemd-{remount-fs,journal-flush,networkd,resolved,sysctl,binfmt,modules-load}.service modprobe@.service \
    dev-hugepages.mount \
    sys-kernel-{debug,tracing,config}.mount sys-fs-fuse-connections.mount proc-sys-fs-binfmt_misc.automount \
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
  done
  touch "$root/etc/lidless-image"
}

# --- a host, from outside ----------------------------------------------------------------------------------------

# A pid alone may have been given to another process since; with the time of its start it cannot.
started() { awk '{ sub(/.*\) /, ""); if ($1 != "Z") print $20 }' "/proc/$1/stat" 2>/dev/null; }

# Prints the pid of PID 1 of a host that runs.
pid_of() {
  local pid start
  read -r pid start 2>/dev/null <"$HOSTS/$1/init" || return
  [[ -n $start && $(started "$pid") == "$start" ]] && echo "$pid"
}

inside() {
  local pid
  pid=$(pid_of "$1") || fail "no host '$1' runs"
  shift
  nsenter --target "$pid" --all env -i PATH="$GUEST_PATH" HOME=/root LANG=C.UTF-8 "$@"
}

# The cgroup below our own in which the host lives. Only in the v2 hierarchy: seeing that one on /sys/fs/cgroup, the
# systemd within uses no other. Were v1 offered to it, it would mount every v1 hierarchy that the kernel knows, and the
# ones without a cgroup of the host's own would be the real machine's, in which it then leaves its directories.
cgroup_of() {
  local mount own
  mount=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/self/mounts)
  [[ -n $mount ]] || fail "no cgroup v2 hierarchy is mounted here"
  own=$(sed -n 's/^0:://p' /proc/self/cgroup)
  [[ -d $mount/$own ]] || own=/
  echo "${mount}${own%/}/lidless-test-$1"
}

up() {
  local name=$1 dir=$HOSTS/$1 cgroup launcher pid state end wrapper=(setsid) namespaces
  [[ $name =~ ^[a-z0-9-]{1,40}$ ]] || fail "bad name '$name': lower-case letters, digits and dashes"
  [[ $EUID == 0 ]] || fail "booting a systemd needs root"
  build
  pid_of "$name" && return
  sweep
  cgroup=$(cgroup_of "$name")
  namespaces=(--mount --pid --uts --ipc --cgroup)
  [[ ${LIDLESS_HOST_NET:-private} == host ]] || namespaces+=(--net)
  # Held, a host ends with the script that holds it, even when that one is killed and can clean up nothing.
  [[ $verb != hold ]] || wrapper+=(setpriv --pdeathsig KILL)
  rm -rf "$dir"
  mkdir -p "$dir/root" "$cgroup"
  echo "$cgroup" >"$dir/cgroup"
  (
    echo "$BASHPID" >"$cgroup/cgroup.procs"
    # Without these two the lock of the image and the pipe that ends `hold` would stay open in the host.
    exec 9>&- </dev/null >"$dir/log" 2>&1
    exec "${wrapper[@]}" unshare --fork --kill-child "${namespaces[@]}" -- "$BASH" "$0" __within "$dir" "$name"
  ) &
  launcher=$!
  disown "$launcher"
  end=$((SECONDS + BOOT_SECONDS))
  until pid=$(tr -d ' ' 2>/dev/null <"/proc/$launcher/task/$launcher/children") && [[ -n $pid && $(cat "/proc/$pid/comm") == systemd ]]; do
    kill -0 "$launcher" 2>/dev/null || give_up "$name" "$launcher" "did not start"
    ((SECONDS < end)) || give_up "$name" "$launcher" "no systemd after $BOOT_SECONDS s"
    sleep 0.02
  done
  echo "$pid $(started "$pid")" >"$dir/init"
  until state=$(inside "$name" systemctl is-system-running 2>/dev/null) || [[ $state == degraded ]]; do
    pid_of "$name" >/dev/null || give_up "$name" "$launcher" "PID 1 ended"
    ((SECONDS < end)) || give_up "$name" "$launcher" "in state '$state' after $BOOT_SECONDS s"
    sleep 0.05
  done
  echo "$pid"
}

give_up() {
  local log
  log=$(tail -n 3 "$HOSTS/$1/log" 2>/dev/null || true)
  kill -KILL "$2" 2>/dev/null || true # Its PID 1 goes with it, and all of the host with that.
  forget "$1"
  fail "host '$1' $3: $log"
}

put() {
  inside "$1" sh -c 'mkdir -p "$(dirname "$1")" && cat >"$1"' sh "$2"
}

crash() {
  local pid
  if pid=$(pid_of "$1"); then
    kill -KILL "$pid"
    gone "$1" 10 || fail "host '$1' survives SIGKILL"
  fi
  forget "$1"
}

down() {
  local pid
  if pid=$(pid_of "$1"); then
    kill -CONT "$pid"
    kill -s RTMIN+4 "$pid" # Power off, in systemd's language.
    gone "$1" 10 || true
  fi
  crash "$1"
}

gone() {
  local end=$((SECONDS + $2))
  while pid_of "$1" >/dev/null; do
    ((SECONDS < end)) || return
    sleep 0.02
  done
}

# A cgroup can be removed once its last process is reaped, which is a moment after the host has gone.
forget() {
  local cgroup end=$((SECONDS + 5))
  if cgroup=$(cat "$HOSTS/$1/cgroup" 2>/dev/null); then
    while [[ -d $cgroup ]]; do
      find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || true
      ((SECONDS < end)) || break
      [[ ! -d $cgroup ]] || sleep 0.02
    done
  fi
  rm -rf "${HOSTS:?}/$1"
}

# Forgets the hosts that ended with nobody left to forget them.
sweep() {
  local init name
  for init in "$HOSTS"/*/init; do
    name=$(basename "$(dirname "$init")")
    [[ ! -e $init ]] || pid_of "$name" >/dev/null || forget "$name"
  done
}

hold() {
  trap 'crash "$name"' EXIT
  up "$name"
  cat >/dev/null
}

# --- a host, from within its namespaces --------------------------------------------------------------------------

within() {
  local dir=$1 name=$2 root=$1/root device
  mount --make-rprivate /
  mount -t tmpfs -o size=512m disk "$dir/root"
  mkdir "$root"/{upper,work,merged}
  mount -t overlay -o "lowerdir=$IMAGE,upperdir=$root/upper,workdir=$root/work" overlay "$root/merged"
  root=$root/merged
  hostname "$name"
  echo "$name" >"$root/etc/hostname"
  printf '127.0.0.1 localhost\n::1 localhost\n' >"$root/etc/hosts"
  md5sum <<<"$name" | cut -c 1-32 >"$root/etc/machine-id"
  [[ ${LIDLESS_HOST_NET:-private} == host ]] || ip link set lo up

  mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
  # The kernel's settings are those of the real machine: to be read, never written.
  mount --bind "$root/proc/sys" "$root/proc/sys"
  mount -o remount,bind,ro "$root/proc/sys"
  [[ ! -e $root/proc/sysrq-trigger ]] || mount --bind /dev/null "$root/proc/sysrq-trigger"
  mount_sys "$root"
  mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup"

  mount -t tmpfs -o mode=755,size=1m dev "$root/dev"
  while read -r device minor; do
    mknod -m 666 "$root/dev/$device" c 1 "$minor"
  done <<<$'null 3\nzero 5\nfull 7\nrandom 8\nurandom 9'
  mkdir "$root/dev/pts" "$root/dev/shm"
  mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
  ln -s pts/ptmx "$root/dev/ptmx"
  ln -s /proc/self/fd "$root/dev/fd"
  for device in dev/shm tmp; do mount -t tmpfs -o mode=1777 tmpfs "$root/$device"; done
  mount -t tmpfs -o mode=755 tmpfs "$root/run"

  cd "$root"
  mkdir .before
  pivot_root . .before
  umount --lazy .before
  rmdir .before
  exec env -i container=lidless-test PATH="$GUEST_PATH" /lib/systemd/systemd --system --unit=host.target </dev/null
}

# A sysfs of its own only comes with a network namespace of its own.
mount_sys() {
  mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$1/sys" 2>/dev/null && return
  mount -t tmpfs -o mode=755 sys "$1/sys"
  mkdir -p "$1/sys/fs/cgroup"
}

verb=${1:-} name=${2:-}
shift $(($# > 1 ? 2 : $#))
[[ $verb == build || -n $name ]] || verb=usage
case $verb in
  build) build ;;
  up) up "$name" ;;
  hold) hold "$name" ;;
  exec) inside "$name" "$@" ;;
  put) put "$name" "$1" ;;
  crash) crash "$name" ;;
  down) down "$name" ;;
  __within) within "$name" "$1" ;;
  *)
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" >&2
    exit 2
    ;;
esac
