#!/bin/bash
# Boots a Debian in the namespaces that this runs in (mount, PID, UTS, IPC, network), as a container manager would:
#     boot.sh BASE UPPER CGROUP INIT...
# BASE is its root, to which nothing is written; UPPER takes what is; CGROUP is a directory of the cgroup v2 hierarchy.
set -e
base=$1 upper=$2 cgroup=$3
shift 3
root=$upper/root
mkdir -p "$upper/data" "$upper/work" "$root" "$cgroup"
echo $$ > "$cgroup/cgroup.procs"
mount -t overlay overlay -o "lowerdir=$base,upperdir=$upper/data,workdir=$upper/work" "$root"
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty fuse loop-control; do
    touch "$root/dev/$device" && mount --bind "/dev/$device" "$root/dev/$device"
done
for number in $(seq 0 63); do mknod -m 660 "$root/dev/loop$number" b 7 "$number"; done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx" && ln -s /proc/self/fd "$root/dev/fd"
exec unshare --cgroup sh -c '
    root=$1; shift
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
    cd "$root" && pivot_root . mnt && umount -l /mnt
    # Credentials of services come by propagation from where systemd mounts them; in a container it leaves this to us.
    mount --make-rshared /
    exec env -i container=namespaces PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "$@"
' sh "$root" "$@"
