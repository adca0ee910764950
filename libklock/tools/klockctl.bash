# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# Completion of klockctl: commands, options and columns are those that its help names.

_klockctl_locks()	# further options of list
{
	klockctl "${space[@]}" list --noheadings --raw --output ID "$@" 2> /dev/null
}

_klockctl_commands()
{
	klockctl --help 2> /dev/null | sed -n '/^Commands:/,/^$/s/^ \([a-z-]*\) .*/\1/p'
}

_klockctl_columns()	# command
{
	klockctl "$1" --help 2> /dev/null | sed -n '/^Columns/,$s/^ [ *] \([^ ]*\) .*/\1/p'
}

# The command, and the space that was asked for before the cursor
_klockctl_parse()
{
	local i
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		-s | --space)
			space=(--space "${COMP_WORDS[i + 1]}")
			((i++))
			;;
		-o | --output)
			((i++))
			;;
		-*) ;;
		*) command=${command:-${COMP_WORDS[i]}} ;;
		esac
	done
}

_klockctl_value()	# option
{
	case $1 in
	-s | --space) klockctl spaces --noheadings --raw --output NAME 2> /dev/null ;;
	-o | --output) _klockctl_columns "$command" ;;
	--sort) echo waiting rate ;;
	--owner-died) echo run fail ;;
	*) return 1 ;;
	esac
}

_klockctl_argument()
{
	case $command in
	'' | help) _klockctl_commands ;;
	break) _klockctl_locks --held ;;
	why | free | run | watch) _klockctl_locks ;;
	esac
}

_klockctl()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
	local command='' space=() words
	_klockctl_parse
	if ! words=$(_klockctl_value "$prev"); then
		if [[ $cur = -* ]]; then
			words=$(klockctl ${command:+"$command"} --help 2> /dev/null |
				grep -o -e '--[a-z-]*')
		else
			words=$(_klockctl_argument)
		fi
	fi
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}

complete -o default -F _klockctl klockctl
