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

_klockctl_options()	# [command]
{
	klockctl "$@" --help 2> /dev/null | sed -n '/^Options:/,/^$/s/^ .*\(--[a-z-]*\).*/\1/p'
}

# The command, the space that was asked for before the cursor, and how many arguments
# there are and where the last of them is
_klockctl_parse()
{
	local i
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		-s | --space)
			space=(--space "${COMP_WORDS[i + 1]}")
			((i++))
			;;
		-o | --output | -d | --delay | -w | --timeout | -E | --conflict-exit-code | -m | --mode | \
		--long | --sort | --iterations | --count | --owner-died | --id | --capacity)
			((i++))
			;;
		-*) ;;
		*)
			if [ "$command" ]; then
				((arguments++))
				at=$i
				[ "$command" != run ] || return
			fi
			command=${command:-${COMP_WORDS[i]}}
			;;
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

# Words that `run` runs are completed as if they stood alone.
_klockctl_command()
{
	local first=$((at + 1))
	[ "${COMP_WORDS[first]}" != -- ] || ((first++))
	if [ "$COMP_CWORD" -lt $first ]; then
		COMPREPLY=()
	elif declare -F _command_offset > /dev/null; then
		_command_offset $first
	elif [ "$COMP_CWORD" = $first ]; then
		mapfile -t COMPREPLY < <(compgen -c -- "$cur")
	fi
}

_klockctl()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
	local command='' space=() arguments=0 at=0 words before=''
	_klockctl_parse
	if [ "$command" = run ] && [ $arguments != 0 ]; then
		_klockctl_command
		return
	fi
	if ! words=$(_klockctl_value "$prev"); then
		if [[ $cur = -* ]]; then
			words=$(_klockctl_options ${command:+"$command"})
		else
			words=$(_klockctl_argument)
		fi
	elif [[ $prev = -o || $prev = --output ]]; then
		before=${cur%"${cur##*[,+]}"}
	fi
	mapfile -t COMPREPLY < <(compgen -P "$before" -W "$words" -- "${cur#"$before"}")
}

complete -o default -F _klockctl klockctl
