# SPDX-License-Identifier: GPL-2.0-only
# fish completion for nvgrace-gpu(8), installed as
# /usr/share/fish/vendor_completions.d/nvgrace-gpu.fish; fish loads it when that command is
# completed. The program says what may come next.

function __nvgrace_gpu
    set -l words (commandline -opc)
    for line in ($words[1] __complete $words[2..-1] (commandline -ct) 2>/dev/null)
        switch $line
            case :files
                __fish_complete_path (commandline -ct)
            case :directories
                __fish_complete_directories (commandline -ct)
            case '*'
                echo $line
        end
    end
end

complete -c nvgrace-gpu -f -a '(__nvgrace_gpu)'
