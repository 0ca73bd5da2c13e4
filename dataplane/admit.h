/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What belongs to no flow: first packets are admitted, given a backend and placed; strays are refused by name.
 */
#pragma once

#include "core.h"

void admit_burst(struct worker *w, struct burst *b);
