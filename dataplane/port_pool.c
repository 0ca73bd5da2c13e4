/* SPDX-License-Identifier: BSD-3-Clause */
#include "port.h"

#include <limits.h>
#include <rte_errno.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

/* A UMEM chunk is at least half a page and fits a page. */
#define OBJECT_MIN   2048
#define OBJECT_MAX   4096
/* What the kernel keeps free before each received frame, beside our own headroom. */
#define XDP_HEADROOM 256
#define POOL_CACHE   256u

static uint32_t data_room(uint32_t max_frame)
{
	uint32_t room = RTE_PKTMBUF_HEADROOM + XDP_HEADROOM + RTE_ALIGN_CEIL(max_frame, 64);

	return RTE_MAX(room, (uint32_t)(OBJECT_MIN - sizeof(struct rte_mbuf)));
}

uint32_t port_pool_object_size(uint32_t max_frame)
{
	return rte_mempool_calc_obj_size(sizeof(struct rte_mbuf) + data_room(max_frame), 0, NULL);
}

uint32_t port_xsk_max_frame(void)
{
	uint32_t frame = OBJECT_MAX - RTE_PKTMBUF_HEADROOM - XDP_HEADROOM - sizeof(struct rte_mbuf);

	frame -= frame % 64;
	while (port_pool_object_size(frame) > OBJECT_MAX)
		frame -= 64;
	return frame;
}

/*
 * Without the demand for contiguous I/O addresses per object (they are virtual addresses here, hence contiguous anyway)
 * objects may cross pages, and the pool is one dense chunk also on plain 4 KiB pages.
 */
struct rte_mempool *port_pool_create(const char *name, uint32_t n_mbufs, uint32_t max_frame)
{
	struct rte_pktmbuf_pool_private priv = {.mbuf_data_room_size = data_room(max_frame)};
	struct rte_mempool *pool;
	int rc;

	if (port_pool_object_size(max_frame) > OBJECT_MAX) {
		rte_errno = EMSGSIZE;
		return NULL;
	}
	pool = rte_mempool_create_empty(name, n_mbufs, sizeof(struct rte_mbuf) + data_room(max_frame),
					RTE_MIN(POOL_CACHE, n_mbufs / 2), sizeof(priv), SOCKET_ID_ANY,
					RTE_MEMPOOL_F_NO_IOVA_CONTIG);
	if (!pool)
		return NULL;
	rte_pktmbuf_pool_init(pool, &priv);
	rc = rte_mempool_set_ops_byname(pool, "ring_mp_mc", NULL);
	if (rc == 0)
		rc = rte_mempool_populate_default(pool);
	if (rc >= 0 && pool->nb_mem_chunks != 1)
		rc = -ENOMEM;
	if (rc < 0) {
		rte_mempool_free(pool);
		rte_errno = -rc;
		return NULL;
	}
	rte_mempool_obj_iter(pool, rte_pktmbuf_init, NULL);
	return pool;
}
