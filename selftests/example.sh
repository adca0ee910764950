#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The example that README.md shows does what it says.

cd "$(dirname "$0")" || exit 1
echo "TAP version 13"
echo "1..1"
if said=$(./first) && [ "$said" = "lock 0 is ours; others find it by this number" ]; then
	echo "ok 1 example"
else
	echo "# it said: $said"
	echo "not ok 1 example"
	exit 1
fi
