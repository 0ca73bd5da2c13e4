/* SPDX-License-Identifier: BSD-3-Clause */
/* IPv4 packets that are longer than the MTU of their way and may be cut (RFC 791 3.2): rare, and slow. */
#pragma once

#include "core.h"

/*
 * Sends on a translated packet of a flow, in the frame that it leaves in, as fragments: the first counts as forwarded,
 * the others as made. Returns VERDICT_forwarded_fragments, and the packet's buffer is gone; or why not, and it is the
 * caller's.
 */
enum verdict fragment_send(struct worker *w, struct item *it);
