/* SPDX-License-Identifier: BSD-3-Clause */
/* What becomes of flows whose time has come. */
#pragma once

#include "core.h"

/* Looks at the flows that the wheel has for now: a bounded number per call. */
void due_run(struct worker *w);
