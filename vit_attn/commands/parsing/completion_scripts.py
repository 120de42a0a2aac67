"""Scripts for bash and zsh that complete commands, options by group, values and files, without starting Python."""

import shlex
from collections.abc import Callable, Mapping, Sequence

from vit_attn.commands.parsing.completions import Completion

BASH = r"""# Completion of vit-attn for bash: source <(vit-attn completion bash)
_vit_attn() {
    local command="${COMP_WORDS[1]}" current="${COMP_WORDS[COMP_CWORD]}" option="${COMP_WORDS[COMP_CWORD-1]}"
    local options="" flags="" values="" files="" prefix="" candidates="" each rest
    COMPREPLY=()
    if [[ $COMP_CWORD -eq 1 ]]; then
        COMPREPLY=($(compgen -W @COMMANDS@ -- "$current"))
        return
    fi
    if [[ $current == "=" ]]; then
        current=""
    elif [[ $option == "=" ]]; then
        option="${COMP_WORDS[COMP_CWORD-2]}"
    elif [[ $current == --*=* ]]; then
        prefix="${current%%=*}=" option="${current%%=*}" current="${current#*=}"
    fi
    case $command in
@OPTIONS@
    esac
    case "$command $option" in
@VALUES@
    esac
    if [[ $option == -* && " $flags " != *" $option "* && $current != --* ]]; then
        COMPREPLY=($(compgen -P "$prefix" -W "$values" -- "$current"))
        _vit_attn_files
        return
    fi
    [[ $current != -* && -n $files$current ]] && _vit_attn_files
    for each in $options; do
        [[ $each == "$current"* ]] || continue
        rest="${each#"$current"}"
        if [[ $rest == *.* ]]; then
            each="$current${rest%%.*}."
        fi
        [[ " $candidates " == *" $each "* ]] || candidates+=" $each"
    done
    if [[ -z $candidates && $current == --?* ]]; then
        for each in $options; do
            [[ $each == *".${current#--}"* ]] && candidates+=" $each"
        done
    fi
    COMPREPLY+=($candidates)
    if [[ ${#COMPREPLY[@]} -eq 1 && $candidates == *. ]] && type compopt &>/dev/null; then
        compopt -o nospace 2>/dev/null
    fi
}
_vit_attn_files() {
    local IFS=$'\n'
    COMPREPLY+=($(compgen -P "$prefix" -f -- "$current"))
    type compopt &>/dev/null && compopt -o filenames 2>/dev/null
}
complete -F _vit_attn vit-attn
"""
ZSH = r"""#compdef vit-attn
# Completion of vit-attn for zsh: source <(vit-attn completion zsh)
_vit_attn() {
    local command=$words[2] option=$words[CURRENT-1] name
    local -a commands options flags values leaves branches
    if (( CURRENT == 2 )); then
        commands=(@COMMANDS@)
        _describe command commands
        return
    fi
    if [[ $PREFIX == --*=* ]]; then
        option=${PREFIX%%=*}
        compset -P '*='
    fi
    local files=""
    case $command in
@OPTIONS@
    esac
    case "$command $option" in
@VALUES@
    esac
    if [[ $option == -* && $flags[(Ie)$option] -eq 0 && $PREFIX != --* ]]; then
        (( $#values )) && compadd -a values
        _files
        return
    fi
    [[ $PREFIX != -* && -n $files$PREFIX ]] && _files
    for each in $options; do
        name=${each%%:*}
        [[ $name == $PREFIX* ]] || continue
        if [[ ${name#$PREFIX} == *.* ]]; then
            branches+=("$PREFIX${${name#$PREFIX}%%.*}.")
        else
            leaves+=($each)
        fi
    done
    if (( $#leaves + $#branches == 0 )); then
        leaves=(${(M)options:#*.${PREFIX#--}*})
        (( $#leaves )) && compadd -U -- ${leaves%%:*}
        return
    fi
    (( $#branches )) && compadd -S '' -- ${(u)branches}
    (( $#leaves )) && _describe option leaves
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -u; }
compdef _vit_attn vit-attn
"""


def bash_script(options: Mapping[str, Sequence[Completion]], files: Sequence[str]) -> str:
    """Write the completion for bash.

    Args:
        options: Options by command.
        files: Commands whose positional arguments are files.
    """
    lines, values = [], []
    for command, known in options.items():
        names = shlex.quote(" ".join(each.name for each in known))
        flags = shlex.quote(" ".join(each.name for each in known if not each.takes_value))
        lines.append(f"    {command}) options={names} flags={flags} files={'yes' if command in files else ''} ;;")
        values += _value_lines(command, known, lambda listed: shlex.quote(" ".join(listed)))
    return _filled(BASH, shlex.quote(" ".join(options)), lines, values)


def zsh_script(options: Mapping[str, Sequence[Completion]], files: Sequence[str], summaries: Mapping[str, str]) -> str:
    """Write the completion for zsh, which shows descriptions.

    Args:
        options: Options by command.
        files: Commands whose positional arguments are files.
        summaries: Descriptions of the commands.
    """
    lines, values = [], []
    for command, known in options.items():
        names = " ".join(shlex.quote(f"{each.name}:{each.help.replace(':', '')}") for each in known)
        flags = " ".join(each.name for each in known if not each.takes_value)
        lines.append(f"    {command}) options=({names}) flags=({flags}) files={'yes' if command in files else ''} ;;")
        values += _value_lines(command, known, lambda listed: f"({' '.join(map(shlex.quote, listed))})")
    commands = " ".join(shlex.quote(f"{name}:{summaries[name].replace(':', '')}") for name in options)
    return _filled(ZSH, commands, lines, values)


def _value_lines(command: str, known: Sequence[Completion], quote: Callable[[Sequence[str]], str]) -> list[str]:
    return [f"    '{command} {each.name}') values={quote(each.values)} ;;" for each in known if each.values]


def _filled(script: str, commands: str, options: Sequence[str], values: Sequence[str]) -> str:
    parts = {"@COMMANDS@": commands, "@OPTIONS@": "\n".join(options), "@VALUES@": "\n".join(values)}
    for name, text in parts.items():
        script = script.replace(name, text)
    return script
