#!/bin/sh
# Runs a script as root over a tree that it leaves as it was, with a repository that apt can install from.
#
#   unshare --mount --uts --pid --net --ipc --fork --kill-child \
#       sh chroot.sh TREE REPOSITORY AT EPOCH TREE.PY SCRIPT [ARGUMENT...]
#
# What the script changes is kept in memory, in a file system at AT, and gone with the namespaces. What the script
# prints goes to standard error; the tree that it leaves goes to standard output, as tree.py tells it, unless that is ''.
#
# The script finds what the packages' scripts find in a build: no network but the machine itself, the same name of the
# machine and the same environment, no service that starts. There are devices, but no terminal.
set -eu
tree=$1 repository=$2 at=$3 epoch=$4 tell=$5 script=$6
shift 6
root=$at/root

mount -t tmpfs -o mode=0755 tmpfs "$at"
mkdir "$at/upper" "$at/work" "$root"
mount -t overlay -o "lowerdir=$tree,upperdir=$at/upper,workdir=$at/work" overlay "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=0755 tmpfs "$root/dev"
for device in null:3 zero:5 full:7 random:8 urandom:9; do
    mknod -m 0666 "$root/dev/${device%:*}" c 1 "${device#*:}"
done
ln -s /proc/self/fd "$root/dev/fd"
mount --bind "$repository" "$root/mnt"

hostname build
ip link set lo up
printf '127.0.0.1\tlocalhost\n127.0.0.1\tbuild\n::1\tlocalhost ip6-localhost ip6-loopback\n' >"$at/hosts"
: >"$root/etc/hosts"
mount --bind "$at/hosts" "$root/etc/hosts"

printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
echo 'deb [trusted=yes] file:/mnt ./' >"$root/etc/apt/sources.list"
# Nothing here outlives a crash of the machine.
echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/parity"

env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root SHELL=/bin/sh TERM=dumb \
    LC_ALL=C.UTF-8 TZ=UTC DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true \
    SOURCE_DATE_EPOCH="$epoch" PYTHONHASHSEED=0 \
    chroot "$root" /bin/sh -eu -s "$@" <"$script" >&2

umount "$root/etc/hosts" "$root/mnt" "$root/dev" "$root/proc"
rm "$root/etc/hosts" "$root/etc/dpkg/dpkg.cfg.d/parity" "$root/usr/sbin/policy-rc.d"
if [ -n "$tell" ]; then
    exec python3 "$tell" "$root"
fi
