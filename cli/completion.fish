# SPDX-License-Identifier: GPL-2.0-only
# fish completion for nvgrace-gpu(8), installed as
# /usr/share/fish/vendor_completions.d/nvgrace-gpu.fish; fish loads it when that command is
# completed. tests/cli/test_text.py compares it with --help.

set -g __nvgrace_gpu_commands list bind unbind status doctor metrics wait bench test scrub guest help version

# The command on the line, or nothing.
function __nvgrace_gpu_command
    set -l words (commandline -opc)
    set -e words[1]
    while set -q words[1]
        switch $words[1]
            case -R --root
                set -e words[1]
            case '-*'
            case '*'
                echo $words[1]
                return 0
        end
        set -e words[1]
    end
    return 1
end

# Whether it is one of these.
function __nvgrace_gpu_in
    contains -- (__nvgrace_gpu_command; or echo none) $argv
end

# The addresses of all supported GPUs, from the program's list.
function __nvgrace_gpu_addresses
    set -l words (commandline -opc)
    set -l root
    for i in (seq 2 (count $words))
        switch $words[$i]
            case -R --root
                set root --root $words[(math $i + 1)]
            case '--root=*'
                set root $words[$i]
        end
    end
    $words[1] $root list 2>/dev/null | string match -r '^[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]'
end

complete -c nvgrace-gpu -f
complete -c nvgrace-gpu -s '?' -l help -d 'Print help'
complete -c nvgrace-gpu -l usage -d 'Print the options, briefly'
complete -c nvgrace-gpu -s V -l version -d 'Print the version'

complete -c nvgrace-gpu -n 'not __nvgrace_gpu_command' -s R -l root -x -a '(__fish_complete_directories)' -d 'Read a recorded tree'
complete -c nvgrace-gpu -n 'not __nvgrace_gpu_command' -a list -d 'Show every supported GPU'
complete -c nvgrace-gpu -n 'not __nvgrace_gpu_command' -a bind -d 'Bind GPUs, now or at every boot'
complete -c nvgrace-gpu -n 'not __nvgrace_gpu_command' -a unbind -d 'Undo that'
complete -c nvgrace-gpu -n 'not __nvgrace_gpu_command' -a status -d 'Draw the memory map of a GPU'
complete -c nvgrace-gpu -n 'not __nvgrace_gpu_command' -a doctor -d 'Find out what is wrong'
complete -c nvgrace-gpu -n 'not __nvgrace_gpu_command' -a metrics -d 'Print Prometheus text'
complete -c nvgrace-gpu -n 'not __nvgrace_gpu_command' -a wait -d 'Wait until GPUs are bound and ready'
complete -c nvgrace-gpu -n 'not __nvgrace_gpu_command' -a bench -d 'Measure the memory of a GPU'
complete -c nvgrace-gpu -n 'not __nvgrace_gpu_command' -a test -d 'Test a GPU and its memory in steps'
complete -c nvgrace-gpu -n 'not __nvgrace_gpu_command' -a scrub -d 'Overwrite the memory of idle GPUs'
complete -c nvgrace-gpu -n 'not __nvgrace_gpu_command' -a guest -d 'Print the configuration of a guest'
complete -c nvgrace-gpu -n 'not __nvgrace_gpu_command' -a help -d 'Print help'
complete -c nvgrace-gpu -n 'not __nvgrace_gpu_command' -a version -d 'Print the version'

complete -c nvgrace-gpu -n '__nvgrace_gpu_in help' -a "$__nvgrace_gpu_commands"
complete -c nvgrace-gpu -n '__nvgrace_gpu_in bind unbind status doctor wait bench test scrub guest' -a '(__nvgrace_gpu_addresses)'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in list bind unbind status doctor bench test scrub' -s j -l json -d 'Print JSON'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in list' -s w -l wide -d 'All columns'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in bind unbind wait scrub guest' -s a -l all -d 'Every GPU'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in bind unbind' -s p -l persist -d 'Also at every boot'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in bind unbind' -l boot-only -d 'Only at every boot'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in bind unbind' -l no-initramfs -d 'Leave the initramfs as it is'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in bind unbind' -s n -l dry-run -d 'Only print the steps'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in unbind' -l no-probe -d 'Leave it without a driver'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in status' -s w -l watch -d 'Again and again'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in doctor' -s q -l quiet -d 'Only what is warning or bad'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in doctor' -s r -l record -x -a '(__fish_complete_directories)' -d 'Write all that was read'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in doctor' -l fail-on -x -a 'bad warning' -d 'Which verdict fails'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in doctor' -l explain -d 'Say what findings mean'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in metrics' -s f -l format -x -a 'labels prometheus' -d 'What to print'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in metrics guest' -s o -l output -r -F -d 'Write to a file'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in wait' -s t -l timeout -x -d 'Give up after seconds'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in bench test scrub' -s y -l yes -d 'Do not ask'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in bench' -l quick -d 'Take about 5 seconds'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in bench' -l full -d 'Take about 10 minutes'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in bench' -l read-only -d 'Write nothing to GPU memory'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in test' -l full -d 'Then test the driver'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in test' -l list -d 'Print the steps'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in test' -s t -l time -x -d 'Repeat the patterns for seconds'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in test' -l until -x -a 'look open touch sample pattern reset d3hot file scrub driver' -d 'Stop after this step'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in test' -l log -r -F -d 'Log there what each step is about to do'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in test' -l seed -x -d 'Make the patterns of a number'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in test' -l ready-within -x -d 'How soon after a reset it must be ready'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in scrub' -l verify -d 'Then read all of it back'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in guest' -s f -l format -x -a 'json kubevirt libvirt qemu' -d 'What to print'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in guest' -l device -x -d 'A NIC or NVMe beside the GPUs'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in guest' -l fragment -d 'Only what a domain needs in addition'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in guest' -l name -x -d 'Its name'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in guest' -l memory -x -d 'Its memory'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in guest' -l cpus -x -d 'Its processors'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in guest' -l disk -r -F -d 'Its disk'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in guest' -l cloud-init -r -F -d 'Data for cloud-init'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in guest' -l ssh-port -x -d 'A port for its ssh'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in guest' -l uefi-vars -r -F -d 'The file of UEFI\'s variables'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in guest' -l secure-boot -d 'Firmware with secure boot'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in guest' -l tpm -d 'A TPM 2.0'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in guest' -l hugepages -x -d 'Memory of huge pages'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in guest' -l pin -d 'Only on processors and memory near the GPUs'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in guest' -l accel-smmu -x -a 'auto off on' -d 'SMMUs in hardware'
complete -c nvgrace-gpu -n '__nvgrace_gpu_in guest' -l iommufd -x -a 'auto off on' -d 'iommufd instead of type1'
