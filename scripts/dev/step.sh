# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2154 # log is the script's
#
# What bash scripts with long steps share: messages, and progress on stderr.
# A script sources this and sets log, the file for the steps' output.

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
		sleep 0.1
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
