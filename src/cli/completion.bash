# shellcheck shell=bash
# Completion for bash (and zsh, by bashcompinit): commands, their options, keys
# behind --set and the values that a key may have, all as --help tells them.
#
#   . src/cli/completion.bash
#
# make install puts it where bash looks for it.

# The values of a key that has a choice.
_dancegrpo_values()
{
    awk -v key="$1" '$1 == key { on = 1; next }
        on && $1 ~ /^[a-z0-9]+\.[a-z0-9_]+$/ { exit }
        on && /^ +one of / {
            sub(/^ +one of /, ""); sub(/;.*/, ""); gsub(/\|/, " "); print; exit
        }
        on && /^ +true or false;/ { print "true false"; exit }'
}

_dancegrpo()
{
    local program=${COMP_WORDS[0]} command=${COMP_WORDS[1]} at=$COMP_CWORD
    local word=${COMP_WORDS[at]} before=${COMP_WORDS[at - 1]} words help

    COMPREPLY=()
    if [ "$at" = 1 ]; then
        words=$("$program" --help 2>/dev/null |
            sed -n 's/^  \([a-z]*\) .*/\1/p')
        mapfile -t COMPREPLY < <(compgen -W "$words help --help --version --man" -- "$word")
        return
    fi
    help=$("$program" "$command" --help 2>/dev/null) || return
    if [ "$before" = --set ]; then
        words=$(sed -n 's/^  \([a-z0-9]*\.[a-z0-9_]*\|rewards\) .*/\1=/p' \
            <<<"$help")
        compopt -o nospace 2>/dev/null
    elif [ "$at" -gt 3 ] && [ "$before" = = ] &&
        [ "${COMP_WORDS[at - 3]}" = --set ]; then
        words=$(_dancegrpo_values "${COMP_WORDS[at - 2]}" <<<"$help")
    elif [ "$at" -gt 2 ] && [ "$word" = = ] &&
        [ "${COMP_WORDS[at - 2]}" = --set ]; then
        words=$(_dancegrpo_values "$before" <<<"$help")
        word=
    else
        # what an option takes, where help says so: --weights raw|ema
        words=
        [[ $before != --?* ]] ||
            words=$(sed -n "s/^  $before \([a-z|]*|[a-z|]*\) .*/\1/p" <<<"$help")
        if [ -n "$words" ]; then
            words=${words//|/ }
        elif [[ $word == -* ]]; then
            words=$(sed -n 's/^  \(--[a-z-]*\) .*/\1/p' <<<"$help")
        else
            return # a file, as bash completes it
        fi
    fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}
complete -o default -o bashdefault -F _dancegrpo dancegrpo
