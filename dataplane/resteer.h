/* SPDX-License-Identifier: BSD-3-Clause */
/* Giving a flow, whose client waits for an answer to its SYN, to another backend. */
#pragma once

#include "core.h"

/*
 * All or nothing: a SNAT port towards `to`, the flow's key, and the client's SYN made again and sent. The old tuple
 * becomes a ghost. The flow is watched anew; its timer is the caller's to move. False: nothing has changed.
 */
bool resteer(struct worker *w, flow_ref up, const struct policy_backend *to);

/* Sends the client's SYN once more. If it cannot be sent, the client's own next one will be. */
void resteer_send_syn(struct worker *w, flow_ref up, enum made kind);
