/* SPDX-License-Identifier: BSD-3-Clause */
#include "view.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

/*
 * The lock covers only "read the pointer and take a reference": without it a reader could load a pointer whose last
 * reference goes before it adds its own. Decide holds it for one store.
 */
static pthread_mutex_t current_lock = PTHREAD_MUTEX_INITIALIZER;
static struct view *current;

const struct view *view_get(void)
{
	struct view *view;

	pthread_mutex_lock(&current_lock);
	view = current;
	if (view)
		atomic_fetch_add_explicit(&view->refs, 1, memory_order_relaxed);
	pthread_mutex_unlock(&current_lock);
	return view;
}

void view_put(const struct view *view)
{
	struct view *mine = (struct view *)view;

	if (mine && atomic_fetch_sub_explicit(&mine->refs, 1, memory_order_acq_rel) == 1)
		view_free(mine);
}

void view_publish(struct view *view)
{
	struct view *old;

	pthread_mutex_lock(&current_lock);
	old = current;
	current = view;
	pthread_mutex_unlock(&current_lock);
	view_put(old);
}

void view_free(struct view *view)
{
	if (!view)
		return;
	for (size_t i = 0; i < view->n_services; i++) {
		free(view->services[i].listen);
		free(view->services[i].backends);
	}
	free(view->backends);
	free(view->breakers);
	free(view->services);
	free(view->names);
	free(view->gates);
	free(view);
}
