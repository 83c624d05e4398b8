# SPDX-License-Identifier: GPL-2.0-only
# bash completion for nvgrace-gpu(8), installed as /usr/share/bash-completion/completions/nvgrace-gpu; bash-completion
# loads it when that command is completed. The program says what may come next.

_nvgrace_gpu() {
	local cur prev words cword line
	# Colons and equals signs are parts of words.
	_init_completion -n := || return
	COMPREPLY=()
	while IFS=$'\t' read -r line _; do
		case $line in
		:directories | :files)
			cur=${cur#--*=}
			[[ $line == :files ]] || set -- -d
			_filedir "$@"
			return
			;;
		*) COMPREPLY+=("$line") ;;
		esac
	done < <("${words[0]/#\~/$HOME}" __complete "${words[@]:1:cword-1}" "$cur" 2>/dev/null)
	# bash replaces what follows the last of them.
	[[ $cur == --*=* ]] && COMPREPLY=("${COMPREPLY[@]#*=}")
	__ltrim_colon_completions "$cur"
}

complete -F _nvgrace_gpu nvgrace-gpu
