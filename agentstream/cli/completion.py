"""agentstream completion: a script for bash, zsh or fish that completes the command line.

The script knows nothing by itself: at each Tab it asks `agentstream completion -- SHELL LINE`,
which answers from the parser (`complete`).  So it is never older than the command.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Dict

from agentstream.cli.exits import DONE
from agentstream.cli.output import Output

if TYPE_CHECKING:
    import argparse

__all__ = ["SCRIPTS", "completion"]

_BASH = r"""
# agentstream, for bash:  eval "$(agentstream completion bash)"  in ~/.bashrc
_agentstream() {
    local word about
    COMPREPLY=()
    compopt +o default 2>/dev/null
    while IFS=$'\t' read -r word about; do
        if [[ $word == ":files" ]]; then
            compopt -o default 2>/dev/null
        else
            [[ $word == *[!A-Za-z0-9_.,:=@%+/-]* ]] && word=$(printf '%q' "$word")
            COMPREPLY+=("$word")
        fi
    done < <("$1" completion -- bash "${COMP_LINE:0:COMP_POINT}" 2>/dev/null)
}
complete -o default -F _agentstream agentstream
"""

_ZSH = r"""
#compdef agentstream
# agentstream, for zsh:  eval "$(agentstream completion zsh)"  in ~/.zshrc, behind compinit
_agentstream() {
    local word about files=0
    local -a found
    while IFS=$'\t' read -r word about; do
        if [[ $word == ":files" ]]; then
            files=1
        else
            found+=("${word//:/\\:}${about:+:$about}")
        fi
    done < <("${words[1]}" completion -- zsh "${(j: :)words[1,CURRENT-1]} $PREFIX" 2>/dev/null)
    [[ $PREFIX == --*=* ]] && compset -P '*='
    (( $#found )) && _describe agentstream found
    (( files )) && _files
}
if [[ ${funcstack[1]} == _agentstream ]]; then
    _agentstream "$@"
else
    compdef _agentstream agentstream
fi
"""

_FISH = r"""
# agentstream, for fish:  agentstream completion fish | source  in ~/.config/fish/config.fish
function __agentstream_complete
    set -l line (commandline -cp)
    for found in (agentstream completion -- fish "$line" 2>/dev/null)
        if test "$found" = ":files"
            set -l flag (commandline -ct | string match -r '^--[a-z-]+=')
            set -l begun (commandline -ct | string replace -r '^--[a-z-]+=' '')
            for path in (__fish_complete_path "$begun")
                echo "$flag$path"
            end
        else
            echo $found
        end
    end
end
complete -c agentstream -f -a "(__agentstream_complete)"
"""

#: The scripts, by shell.
SCRIPTS: Dict[str, str] = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def completion(given: argparse.Namespace) -> int:
    """Write a shell's script; returns the exit code."""
    Output(sys.stdout).write(SCRIPTS[given.shell].lstrip())
    return DONE
