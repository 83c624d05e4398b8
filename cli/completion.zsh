#compdef nvgrace-gpu
# SPDX-License-Identifier: GPL-2.0-only
# zsh completion for nvgrace-gpu(8), installed as /usr/share/zsh/vendor-completions/_nvgrace-gpu; zsh
# loads it when that command is completed. tests/cli/test_text.py compares it with --help.

# The addresses of all supported GPUs, from the program's list.
_nvgrace_gpu_addresses() {
	local -a found root
	[[ -z $tree ]] || root=(--root ${(Q)tree})
	found=(${${(f)"$(_call_program addresses ${(q)service_path} $root list 2>/dev/null)"}%% *})
	found=(${(M)found:#*:*:*.*})
	compadd -a found
}

_nvgrace_gpu() {
	local curcontext=$curcontext state line service_path=$words[1] tree
	local -A opt_args
	local -a commands common json boot yes
	commands=(
		'list:show every supported GPU'
		'bind:bind GPUs, now or at every boot'
		'unbind:undo that'
		'status:draw the memory map of a GPU'
		'doctor:find out what is wrong'
		'metrics:print Prometheus text'
		'wait:wait until GPUs are bound and ready'
		'bench:measure the memory of a GPU'
		'test:test a GPU and its memory in steps'
		'scrub:overwrite the memory of idle GPUs'
		'guest:print the configuration of a guest'
		'help:print help'
		'version:print the version'
	)
	common=(
		'(-? --help)'{-\?,--help}'[print help]'
		'--usage[print the options, briefly]'
		'(-V --version)'{-V,--version}'[print the version]'
	)
	json=('(-j --json)'{-j,--json}'[print JSON]')
	yes=('(-y --yes)'{-y,--yes}'[do not ask]')
	boot=(
		'(-a --all)'{-a,--all}'[every GPU]'
		'(-p --persist)'{-p,--persist}'[also at every boot]'
		'--boot-only[only at every boot]'
		'--no-initramfs[leave the initramfs as it is]'
		'(-n --dry-run)'{-n,--dry-run}'[only print the steps]'
		'*:address:_nvgrace_gpu_addresses'
	)

	_arguments -C $common \
		'(-R --root)'{-R,--root=}'[read a recorded tree]:directory:_files -/' \
		'1:command:->command' '*::argument:->argument' && return
	# The next call of _arguments forgets it.
	tree=${opt_args[-R]:-${opt_args[--root]:-}}
	case $state in
	command)
		_describe -t commands command commands
		;;
	argument)
		case $line[1] in
		list) _arguments $common $json '(-w --wide)'{-w,--wide}'[all columns]' ;;
		bind) _arguments $common $json $boot ;;
		unbind) _arguments $common $json $boot '--no-probe[leave it without a driver]' ;;
		status)
			_arguments $common $json '(-w --watch)'{-w,--watch=-}'[again and again]::seconds:' \
				'1:address:_nvgrace_gpu_addresses'
			;;
		doctor)
			_arguments $common $json '(-q --quiet)'{-q,--quiet}'[only what is warning or bad]' \
				'(-r --record)'{-r,--record=}'[write all that was read]:directory:_files -/' \
				'--fail-on=[which verdict fails]:verdict:(bad warning)' \
				'--explain[say what findings mean]' \
				'*:address:_nvgrace_gpu_addresses'
			;;
		metrics)
			_arguments $common '(-f --format)'{-f,--format=}'[what to print]:format:(labels prometheus)' \
				'(-o --output)'{-o,--output=}'[write to a file]:file:_files'
			;;
		wait)
			_arguments $common '(-a --all)'{-a,--all}'[every GPU that is bound at boot]' \
				'(-t --timeout)'{-t,--timeout=}'[give up after seconds]:seconds:' \
				'*:address:_nvgrace_gpu_addresses'
			;;
		bench)
			_arguments $common $json $yes '(--full)--quick[take about 5 seconds]' \
				'(--quick)--full[take about 10 minutes]' \
				'--read-only[write nothing to GPU memory]' '1:address:_nvgrace_gpu_addresses'
			;;
		test)
			_arguments $common $json $yes '(-t --time)'{-t,--time=}'[repeat for seconds]:seconds:' \
				'--until=[stop after this step]:step:(look open touch sample pattern reset d3hot file scrub driver)' \
				'--full=-[then test the driver]::directory:_files -/' '--list[print the steps]' \
				'--log=[say there what each step is about to do]:file:_files' \
				'--seed=[make the patterns of a number]:number:' \
				'--ready-within=[readiness after a reset]:seconds:' '1:address:_nvgrace_gpu_addresses'
			;;
		scrub)
			_arguments $common $json $yes '(-a --all)'{-a,--all}'[every bound GPU with memory]' \
				'--verify[then read all of it back]' '*:address:_nvgrace_gpu_addresses'
			;;
		guest)
			_arguments $common '(-a --all)'{-a,--all}'[every bound GPU]' \
				'(-f --format)'{-f,--format=}'[what to print]:format:(json kubevirt libvirt qemu)' \
				'--fragment[only what a domain needs in addition]' \
				'(-o --output)'{-o,--output=}'[write to a file]:file:_files' \
				'*--device=[a NIC or NVMe beside the GPUs]:address:' \
				'--name=[its name]:name:' '--memory=[its memory]:size:' \
				'--cpus=[its processors]:number:' '--disk=[its disk]:file:_files' \
				'--cloud-init=[data for cloud-init]:file:_files' \
				'--ssh-port=[a port for its ssh]:port:' \
				'--uefi-vars=[the file of UEFI variables]:file:_files' \
				'--secure-boot[firmware with secure boot]' '--tpm[a TPM 2.0]' \
				'--hugepages=[memory of huge pages]:size:' \
				'--pin[only on processors and memory near the GPUs]' \
				'--accel-smmu=[SMMUs in hardware]:when:(auto off on)' \
				'--iommufd=[iommufd instead of type1]:when:(auto off on)' \
				'*:address:_nvgrace_gpu_addresses'
			;;
		help) _describe -t commands command commands ;;
		esac
		;;
	esac
}

_nvgrace_gpu "$@"
