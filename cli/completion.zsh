#compdef nvgrace-gpu
# SPDX-License-Identifier: GPL-2.0-only
# zsh completion for nvgrace-gpu(8), installed as /usr/share/zsh/vendor-completions/_nvgrace-gpu; zsh
# loads it when that command is completed. The program says what may come next.

local line
local -a found
for line in "${(@f)$(${(Q)words[1]} __complete "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}"; do
	case $line in
	'') ;;
	:files | :directories)
		compset -P '--*='
		[[ $line == :files ]] && _files || _files -/
		return
		;;
	# Before the tab is a word, and _describe takes its colons for the end.
	*$'\t'*) found+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}") ;;
	*) found+=("${line//:/\\:}") ;;
	esac
done
_describe -V arguments found
