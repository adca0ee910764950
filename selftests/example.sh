#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# What people are shown does what it says: the first example, and the demo.

cd "$(dirname "$0")" || exit 1
failed=0

result()	# number, name, exit status, what it said
{
	if [ "$3" = 0 ]; then
		echo "ok $1 $2"
	else
		echo "$4" | sed 's/^/# /'
		echo "not ok $1 $2"
		failed=1
	fi
}

echo "TAP version 13"
echo "1..2"
said=$(./first 2>&1)
[ "$said" = "lock 0 is ours; others find it by this number" ]
result 1 example $? "$said"
said=$(./demo 2>&1)
result 2 demo $? "$said"
exit $failed
