/* SPDX-License-Identifier: BSD-3-Clause */
#include "note.h"

#include <rte_ring.h>
#include <unistd.h>

bool note_add(struct worker *w, const struct note *note)
{
	if (rte_ring_sp_enqueue_elem(w->notes, (void *)note, sizeof(*note))) {
		count_add(&w->notes_lost, 1);
		return false;
	}
	w->notes_added = true;
	return true;
}

void note_announce(struct worker *w)
{
	uint64_t one = 1;

	if (!w->notes_added)
		return;
	w->notes_added = false;
	if (write(w->dp->notes_fd, &one, sizeof(one)) < 0)
		return; /* full counter: decide is told already */
}
