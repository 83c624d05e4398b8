# SPDX-License-Identifier: GPL-2.0-only
# bash completion for nvgrace-gpu(8), installed as /usr/share/bash-completion/completions/nvgrace-gpu; bash-completion
# loads it when that command is completed. tests/cli/test_text.py compares it with --help.

# The addresses of all supported GPUs, from the program's list.
_nvgrace_gpu_addresses() {
	"$@" list 2>/dev/null | while read -r address _; do
		[[ $address == *:*:*.* ]] && echo "$address"
	done
}

_nvgrace_gpu() {
	local cur prev words cword
	# A colon is part of an address.
	_init_completion -n : || return

	local commands='list bind unbind status doctor metrics wait bench test scrub guest help version'
	local options='--help --usage --version' command='' root='' i
	for ((i = 1; i < cword; i++)); do
		case ${words[i]} in
		-R | --root)
			root=${words[i + 1]:-}
			((i++))
			;;
		--root=*) root=${words[i]#*=} ;;
		-*) ;;
		*)
			command=${words[i]}
			break
			;;
		esac
	done

	case $prev in
	-R | --root)
		_filedir -d
		return
		;;
	-r | --record)
		[[ $command == doctor ]] && {
			_filedir -d
			return
		}
		;;
	-o | --output)
		[[ $command =~ ^(metrics|guest)$ ]] && {
			_filedir
			return
		}
		;;
	--fail-on)
		mapfile -t COMPREPLY < <(compgen -W 'bad warning' -- "$cur")
		return
		;;
	-t | --timeout | --time)
		[[ $command =~ ^(wait|test)$ ]] && return
		;;
	--until)
		mapfile -t COMPREPLY < <(compgen -W 'look open touch sample pattern reset d3hot file scrub driver' -- "$cur")
		return
		;;
	--seed | --ready-within | --ssh-port | --device | --name | --memory | --cpus | --hugepages)
		return
		;;
	--cloud-init | --disk | --log | --uefi-vars)
		_filedir
		return
		;;
	-f | --format)
		case $command in
		metrics) mapfile -t COMPREPLY < <(compgen -W 'labels prometheus' -- "$cur") ;;
		*) mapfile -t COMPREPLY < <(compgen -W 'json kubevirt libvirt qemu' -- "$cur") ;;
		esac
		return
		;;
	--accel-smmu | --iommufd)
		mapfile -t COMPREPLY < <(compgen -W 'auto off on' -- "$cur")
		return
		;;
	esac
	case $cur in
	--root=* | --record=*)
		cur=${cur#*=}
		_filedir -d
		return
		;;
	--output=* | --cloud-init=* | --disk=* | --log=* | --uefi-vars=*)
		cur=${cur#*=}
		_filedir
		return
		;;
	esac

	case $command in
	'') options+=" --root $commands" ;;
	list) options+=' --json --wide' ;;
	bind) options+=' --all --boot-only --dry-run --json --no-initramfs --persist' ;;
	unbind) options+=' --all --boot-only --dry-run --json --no-initramfs --no-probe --persist' ;;
	status) options+=' --json --watch' ;;
	doctor) options+=' --explain --fail-on --json --quiet --record' ;;
	metrics) options+=' --format --output' ;;
	wait) options+=' --all --timeout' ;;
	bench) options+=' --full --json --quick --read-only --yes' ;;
	test) options+=' --full --json --list --log --ready-within --seed --time --until --yes' ;;
	scrub) options+=' --all --json --verify --yes' ;;
	guest) options+=' --accel-smmu --all --cloud-init --cpus --device --disk --format --fragment --hugepages --iommufd --memory --name --output --pin --secure-boot --ssh-port --tpm --uefi-vars' ;;
	help | version) options='' ;;
	*) return ;;
	esac
	if [[ $command == help ]]; then
		options=$commands
	elif [[ $command =~ ^(bind|unbind|status|doctor|wait|bench|test|scrub|guest)$ && $cur != -* ]]; then
		options=$(_nvgrace_gpu_addresses "${words[0]/#\~/$HOME}" ${root:+--root "$root"})
	elif [[ -z $command && $cur != -* ]]; then
		options=$commands
	elif [[ $cur != -* ]]; then
		return
	fi
	mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
	__ltrim_colon_completions "$cur"
}

complete -F _nvgrace_gpu nvgrace-gpu
