# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2154 # log is the script's
#
# What bash scripts with long steps share: messages, progress on stderr, and how
# they get what they need to make a Debian tree and mounts. A script sources this
# and sets log, the file for the steps' output.

die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }
say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

# fail TEXT: shows the end of the log, and exits.
fail() {
	tail -n 40 -- "$log" | sed 's/^/    /' >&2
	die "$1 (the full log is $log)"
}

# end_child: ends the command that a step is waiting for, and what that has
# started. For the script's traps.
child=
end_child() {
	[ -n "$child" ] || return 0
	kill -TERM -- "-$child" 2>/dev/null || :
	wait "$child" 2>/dev/null || :
}

# so_far: prints more about the progress of a step. A script may have its own.
so_far() { :; }

# watch TEXT CMD...: runs CMD with its output in the log, and shows the progress:
# on a terminal always, elsewhere every 20 s. CMD gets its own process group, and
# not the script's lock, file 9. Leaves CMD's status in rc, because CMD could not
# have "set -e" if callers asked for the status of this.
watch() {
	local text=$1 start=$SECONDS told=0 every=20 now
	[ ! -t 2 ] || every=1
	shift
	printf '\n== %s\n' "$text" >>"$log"
	set -m
	"$@" >>"$log" 2>&1 </dev/null 9>&- &
	child=$!
	set +m
	while kill -0 "$child" 2>/dev/null; do
		now=$((SECONDS - start))
		if [ "$now" -ge $((told + every)) ]; then
			told=$now
			if [ -t 2 ]; then
				printf '\r%s: %s ... %d s%s' "${0##*/}" "$text" "$now" "$(so_far)" >&2
			else
				say "$text ... $now s$(so_far)"
			fi
		fi
		# Each look is a process.
		if [ "$now" -lt 3 ]; then sleep 0.1; else sleep 1; fi
	done
	rc=0
	wait "$child" || rc=$?
	child=
	[ ! -t 2 ] || printf '\r\033[K' >&2
	say "$text ... $([ "$rc" = 0 ] || echo "failed after ")$((SECONDS - start)) s"
}

# step TEXT CMD...: the same, and exits with the end of the log if CMD fails. try
# returns CMD's status.
step() {
	local rc
	watch "$@"
	[ "$rc" = 0 ] || fail "$1: failed"
}
try() {
	local rc
	watch "$@"
	return "$rc"
}

# be_root ARGUMENT...: returns if this is root and can make mounts that nothing
# else sees. Otherwise runs the script again, with these arguments, where both is
# so.
be_root() {
	# Users have no chroot in theirs.
	export PATH=$PATH:/usr/sbin:/sbin
	if [ "$(id -u)" != 0 ]; then
		# Root of a user namespace that has all users of /etc/subuid,
		# because packages have files of several.
		unshare --user --map-root-user --map-auto --mount true ||
			die "this needs root, or a user namespace of your own: run it as root, for example with sudo;" \
				"or install uidmap, give $(id -un) a line in /etc/subuid and /etc/subgid, and let users make" \
				"namespaces (Ubuntu: sysctl kernel.apparmor_restrict_unprivileged_userns=0)"
		exec unshare --user --map-root-user --map-auto -- "$0" "$@"
	fi
	! unshare --mount true 2>/dev/null || return 0
	unshare --mount --propagation unchanged true ||
		die "this container may not make mounts; start it with more privileges, for example docker run --privileged"
	# In a chroot whose root is not a mount point, mounts can't be private,
	# and the kernel refuses user namespaces. In this mount namespace, the
	# chroot is the root. nsenter goes to the namespace's own root, so that
	# the first programs are those outside the chroot.
	exec unshare --mount --propagation unchanged -- nsenter --mount=/proc/self/ns/mnt -- sh -c '
		root=$(readlink /proc/self/fd/8) && exec 8<&- && cwd=$1 && shift &&
		mount --make-rprivate / && mount --rbind "$root" "$root" && cd "$root" && mount --move . / &&
		exec chroot . /bin/sh -c "cd \"\$1\" && shift && exec \"\$@\"" sh "$cwd" "$@"' sh "$PWD" "$0" "$@" 8</
}
