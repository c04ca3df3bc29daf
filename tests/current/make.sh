# Make a chroot of a Debian release, with packages in it. In a mount namespace of its own: nothing stays mounted.
#   ROOT RELEASE MIRROR PACKAGE...
set -eu
root=$1 release=$2 mirror=$3
shift 3
mount --make-rprivate /

debootstrap --variant=minbase --include=ca-certificates "$release" "$root" "$mirror"

# A package's scripts start nothing; nobody reads manuals there, and what a crash leaves half-written is made again.
printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
printf '%s\n' force-unsafe-io 'path-exclude=/usr/share/doc/*' 'path-exclude=/usr/share/man/*' \
    > "$root/etc/dpkg/dpkg.cfg.d/lean"

# The network as this machine has it: how apt downloads, whom a proxy's certificate is signed by.
apt-config dump | grep -E '^Acquire::(Check-|Retries|http|ftp)' > "$root/etc/apt/apt.conf.d/90machine" || true
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
[ ! -e /etc/ssl/certs/ca-certificates.crt ] || cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"

mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
chroot "$root" apt-get update -qq
chroot "$root" apt-get install -qq -y --no-install-recommends "$@"
chroot "$root" apt-get clean
