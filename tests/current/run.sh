# Run a command in the chroot's checkout. In namespaces of its own for mounts and processes: when this shell ends,
# whatever the reason, nothing is left mounted or running.
#   ROOT COMMAND [PATH...]: the paths are this machine's, and are seen there under the same names.
set -eu
root=$1 command=$2
shift 2
mount --make-rprivate /
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
find "$root/tmp" -mindepth 1 -delete
for path in "$@"; do
    if [ -d "$path" ]; then
        mkdir -p "$root$path"
    else
        mkdir -p "$root${path%/*}"
        touch "$root$path"
    fi
    mount --bind "$path" "$root$path"
    mount -o remount,bind,ro "$root$path"
done

# A session of its own: were the command in this shell's, processes that a test has stopped, and whose parent died,
# would be no orphaned group, and nobody would wake them. A shell's command in the background ignores Ctrl-C, and so
# would all that tests start: it is taken as usual again.
chroot "$root" env --default-signal=INT,QUIT setsid sh -c "cd /app && $command" &
running=$!
trap 'kill -TERM -"$running"' TERM
status=0
wait "$running" || status=$?
# A signal ends the first wait only: what it has ended is given the time to tidy up.
wait "$running" 2>/dev/null || true
exit "$status"
