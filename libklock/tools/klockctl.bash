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

_klockctl_takes_value()	# option
{
	case $1 in
	-s | --space | -o | --output | -d | --delay | -w | --timeout | -m | --mode | --long | --sort | \
	-E | --conflict-exit-code | --iterations | --count | --owner-died | --id | --capacity) ;;
	*) return 1 ;;
	esac
}

# The command, the space that was asked for before the cursor, how many arguments there are,
# and where the command that `run` runs begins, which is no option of its own.  "=" is a word.
_klockctl_parse()
{
	local i word
	for ((i = 1; i < COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		if _klockctl_takes_value "$word"; then
			((i++))
			[ "${COMP_WORDS[i]}" != = ] || ((i++))
			[[ $word != -s && $word != --space ]] || space=(--space "${COMP_WORDS[i]}")
		elif [ "$command" = run ] && ((arguments == 1)) && [[ $word = -- || $word != -* ]]; then
			first=$i
			[ "$word" != -- ] || ((first++))
			return
		elif [[ $word != -* ]]; then
			[ ! "$command" ] || ((arguments++))
			command=${command:-$word}
		fi
	done
	if [ "$command" = run ] && ((arguments == 1)) && [[ $cur != -* ]] &&
	   ! _klockctl_takes_value "$prev"; then
		first=$COMP_CWORD
	fi
}

_klockctl_value()	# option
{
	case $1 in
	-s | --space) klockctl spaces --noheadings --raw --output NAME 2> /dev/null ;;
	-o | --output) _klockctl_columns "$command" ;;
	--sort) echo waiting rate ;;
	--owner-died) echo run fail ;;
	esac
	_klockctl_takes_value "$1"
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
	if declare -F _command_offset > /dev/null; then
		_command_offset "$first"
	elif [ "$COMP_CWORD" = "$first" ]; then
		mapfile -t COMPREPLY < <(compgen -c -- "$cur")
	else
		COMPREPLY=()
	fi
}

_klockctl()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
	local command='' space=() arguments=0 first=0 words before=''
	if [ "$cur" = = ]; then
		cur=''
	elif [ "$prev" = = ]; then
		prev=${COMP_WORDS[COMP_CWORD - 2]}
	fi
	_klockctl_parse
	if ((first)); then
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
