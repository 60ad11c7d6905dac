"""The scripts that ask `dearlite` for candidates, one per shell, and the files of a shell that load them: data."""

from __future__ import annotations

from dataclasses import dataclass

# `-o default`: without a candidate the shell completes names of files itself. It works from bash 3.2 on.
_BASH = r"""_dearlite_completion() {
    local IFS=$'\n' kind value line files=""
    COMPREPLY=()
    for line in $(COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD _DEARLITE_COMPLETE=bash_complete \
        "$1" 2>/dev/null); do
        kind=${line%%,*} value=${line#*,}
        if [[ $kind == plain ]]; then COMPREPLY+=("$value"); else files=yes; fi
    done
    if [[ -n $files && ${#COMPREPLY[@]} -gt 0 ]]; then
        compopt -o filenames 2>/dev/null
        for line in $(compgen -f -- "${COMP_WORDS[COMP_CWORD]}"); do COMPREPLY+=("$line"); done
    fi
}
complete -o default -o nosort -F _dearlite_completion dearlite 2>/dev/null ||
    complete -o default -F _dearlite_completion dearlite
"""
_ZSH = r"""#compdef dearlite
_dearlite_completion() {
    local -a lines names
    local line files=""
    lines=("${(@f)$(COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) _DEARLITE_COMPLETE=zsh_complete \
        ${words[1]} 2>/dev/null)}")
    for line in $lines; do
        if [[ $line == plain,* ]]; then names+=("${line#plain,}"); elif [[ -n $line ]]; then files=yes; fi
    done
    [[ ${#names} -gt 0 ]] && compadd -V unsorted -- $names
    if [[ -n $files ]]; then
        [[ $PREFIX == --* ]] && compset -P '*='
        _files
    fi
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _dearlite_completion "$@"
else
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit -u; }
    compdef _dearlite_completion dearlite
fi
"""
_FISH = r"""function _dearlite_completion
    set -l lines (env _DEARLITE_COMPLETE=fish_complete COMP_WORDS=(commandline -cp) COMP_CWORD=(commandline -ct) \
        dearlite 2>/dev/null)
    for line in $lines
        set -l parts (string split -m 1 "," -- $line)
        if test "$parts[1]" = plain
            echo $parts[2]
        else if test -n "$parts[1]"
            set -l option (string match -r -- '^--[^=]*=' (commandline -ct))
            set -l typed (string replace -r -- '^--[^=]*=' '' (commandline -ct))
            for path in (complete -C "'' $typed")
                echo "$option$path"
            end
        end
    end
end
complete --no-files --command dearlite --arguments "(_dearlite_completion)"
"""
_POWERSHELL = r"""Register-ArgumentCompleter -Native -CommandName dearlite -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    $env:_DEARLITE_COMPLETE = 'powershell_complete'
    $env:COMP_WORDS = $commandAst.ToString()
    $env:COMP_INCOMPLETE = $wordToComplete
    try {
        $lines = @(dearlite 2>$null)
    } finally {
        Remove-Item Env:_DEARLITE_COMPLETE, Env:COMP_WORDS, Env:COMP_INCOMPLETE -ErrorAction SilentlyContinue
    }
    $names = @($lines | Where-Object { $_ -like 'plain,*' } | ForEach-Object { $_.Substring(6) })
    $names | ForEach-Object { [System.Management.Automation.CompletionResult]::new($_, $_, 'ParameterValue', $_) }
    $option = if ($wordToComplete -match '^--[^=]*=') { $Matches[0] } else { '' }
    # Without any result PowerShell completes the names of files itself, but not behind an option.
    if (($names.Count -or $option) -and ($lines | Where-Object { $_ -like 'file,*' })) {
        $path = $wordToComplete.Substring($option.Length)
        [System.Management.Automation.CompletionCompleters]::CompleteFilename($path) | ForEach-Object {
            $text = $option + $_.CompletionText
            [System.Management.Automation.CompletionResult]::new($text, $_.ListItemText, $_.ResultType, $_.ToolTip)
        }
    }
}
"""


@dataclass(frozen=True, slots=True)
class Shell:
    """A shell: its script, the file for the script, and the startup file with the line that loads it.

    `{config}` and `{data}` are the user's folders of configuration and of data, `{home}` the home folder, `{zdotdir}`
    zsh's. `startup` is empty for a shell that loads the file by itself.
    """

    script: str
    file: str
    startup: str = ""
    line: str = ""


SHELLS = {
    "bash": Shell(_BASH, "{data}/dearlite/completion.bash", "{home}/.bashrc", '[ -f "{file}" ] && . "{file}"'),
    "zsh": Shell(_ZSH, "{data}/dearlite/completion.zsh", "{zdotdir}/.zshrc", '[ -f "{file}" ] && . "{file}"'),
    "fish": Shell(_FISH, "{config}/fish/completions/dearlite.fish"),
    "powershell": Shell(_POWERSHELL, "{data}/dearlite/completion.ps1", "{profile}", '. "{file}"'),
}
MARK = "# completion of dearlite"
