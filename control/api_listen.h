/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The API's two listening sockets.
 */
#pragma once

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/un.h>

/* Which file is ours, so that stopping never removes another gateway's. */
struct api_unix {
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	dev_t dev;
	ino_t ino;
};

/*
 * Listens at `path`, mode 0660. A socket file left by a crash is replaced; one that somebody listens on, or a file that
 * is no socket, is refused. Returns the descriptor or -errno with a sentence in `err`.
 */
int api_unix_listen(const char *path, struct api_unix *out, char *err, size_t err_len);
/* Removes the socket file if it is still the one made above. */
void api_unix_unlink(const struct api_unix *socket);

struct api_tcp {
	char address[INET6_ADDRSTRLEN + 2]; /* as in `Host`: "127.0.0.1", "[::1]" */
	uint16_t port;                      /* host order */
};

/* Listens on "127.0.0.1:9090" or "[::1]:9090": loopback only. Returns as above. */
int api_tcp_listen(const char *http, struct api_tcp *out, char *err, size_t err_len);
