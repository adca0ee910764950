// SPDX-License-Identifier: LGPL-2.1-or-later
#include "internal.h"

/* KLOCK_VERSION comes from the Makefile, as it does in klock.pc. */
const char *klock_version(void)
{
	return KLOCK_VERSION;
}
