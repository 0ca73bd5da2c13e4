/* SPDX-License-Identifier: BSD-3-Clause */
#include "api_listen.h"

#include "ipaddr.h"

#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define BACKLOG 64

static int fail(int error, char *err, size_t err_len, const char *what, const char *where)
{
	snprintf(err, err_len, "API %s: %s: %s", where, what, strerror(error));
	return -error;
}

/* Nobody listens on a stale socket: connecting to it is refused. */
static int remove_stale(const struct sockaddr_un *addr, char *err, size_t err_len)
{
	struct stat st;
	int fd, error;

	if (lstat(addr->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode)) {
		snprintf(err, err_len, "API %s: there is a file that is no socket", addr->sun_path);
		return -EEXIST;
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return fail(errno, err, err_len, "socket", addr->sun_path);
	error = connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0 ? errno : 0;
	close(fd);
	if (error != ECONNREFUSED) {
		snprintf(err, err_len, "API %s: another gateway is running (see: ss -xlp src %s)", addr->sun_path,
			 addr->sun_path);
		return -EADDRINUSE;
	}
	return unlink(addr->sun_path) == 0 ? 0 : fail(errno, err, err_len, "unlink", addr->sun_path);
}

static void make_directory(const char *path)
{
	char copy[sizeof(((struct sockaddr_un *)0)->sun_path)];

	snprintf(copy, sizeof(copy), "%s", path);
	/* If it fails for another reason than being there, bind() will say so. */
	mkdir(dirname(copy), 0755);
}

static int bind_unix(int fd, const struct sockaddr_un *addr, char *err, size_t err_len)
{
	int error = bind(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0 ? errno : 0;

	if (error == EADDRINUSE) {
		int stale = remove_stale(addr, err, err_len);

		if (stale < 0)
			return stale;
		error = bind(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0 ? errno : 0;
	}
	return error ? fail(error, err, err_len, "bind", addr->sun_path) : 0;
}

int api_unix_listen(const char *path, struct api_unix *out, char *err, size_t err_len)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct stat st;
	int fd, error;

	if (strlen(path) >= sizeof(addr.sun_path))
		return fail(ENAMETOOLONG, err, err_len, "socket", path);
	strcpy(addr.sun_path, path);
	make_directory(path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return fail(errno, err, err_len, "socket", path);
	error = bind_unix(fd, &addr, err, err_len);
	if (error < 0) {
		close(fd);
		return error;
	}
	/* Nobody can connect before listen(), so the mode is right from the first connection on. */
	if (chmod(path, 0660) < 0 || listen(fd, BACKLOG) < 0 || lstat(path, &st) < 0) {
		error = fail(errno, err, err_len, "listen", path);
		unlink(path);
		close(fd);
		return error;
	}
	strcpy(out->path, path);
	out->dev = st.st_dev;
	out->ino = st.st_ino;
	return fd;
}

void api_unix_unlink(const struct api_unix *socket)
{
	struct stat st;

	if (*socket->path && lstat(socket->path, &st) == 0 && st.st_dev == socket->dev && st.st_ino == socket->ino)
		unlink(socket->path);
}

static int parse_http(const char *http, struct ipaddr *addr, uint16_t *port)
{
	const char *colon = strrchr(http, ':');
	char host[INET6_ADDRSTRLEN + 2];
	char *end, *text = host;
	unsigned long n;

	if (!colon || (size_t)(colon - http) >= sizeof(host))
		return -EINVAL;
	memcpy(host, http, (size_t)(colon - http));
	host[colon - http] = '\0';
	if (*text == '[' && text[strlen(text) - 1] == ']') {
		text[strlen(text) - 1] = '\0';
		text++;
	}
	n = strtoul(colon + 1, &end, 10);
	if (colon[1] < '0' || colon[1] > '9' || *end || n > UINT16_MAX)
		return -EINVAL;
	*port = (uint16_t)n;
	return ipaddr_parse(text, addr);
}

static bool is_loopback(const struct ipaddr *addr)
{
	return ipaddr_is_v4(addr) ? addr->b[12] == 127 : memcmp(addr->b, &in6addr_loopback, 16) == 0;
}

static socklen_t to_sockaddr(const struct ipaddr *addr, uint16_t port, struct sockaddr_storage *out)
{
	struct sockaddr_in *in = (struct sockaddr_in *)out;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;

	memset(out, 0, sizeof(*out));
	if (ipaddr_is_v4(addr)) {
		*in = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
		in->sin_addr.s_addr = ipaddr_v4_be(addr);
		return sizeof(*in);
	}
	*in6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(port)};
	memcpy(&in6->sin6_addr, addr->b, 16);
	return sizeof(*in6);
}

static int bind_tcp(int fd, const struct ipaddr *addr, uint16_t *port)
{
	struct sockaddr_storage sa;
	socklen_t len = to_sockaddr(addr, *port, &sa);
	int on = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&sa, len) < 0 || listen(fd, BACKLOG) < 0 ||
	    getsockname(fd, (struct sockaddr *)&sa, &len) < 0)
		return -errno;
	/* The port stands at the same place in both families. */
	*port = ntohs(((struct sockaddr_in *)&sa)->sin_port);
	return 0;
}

int api_tcp_listen(const char *http, struct api_tcp *out, char *err, size_t err_len)
{
	struct ipaddr addr;
	char text[IPADDR_STRLEN];
	int fd, error;

	if (parse_http(http, &addr, &out->port) < 0 || !is_loopback(&addr)) {
		snprintf(err, err_len, "API %s: expected a loopback address and a port, such as 127.0.0.1:9090", http);
		return -EINVAL;
	}
	fd = socket(ipaddr_is_v4(&addr) ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return fail(errno, err, err_len, "socket", http);
	error = bind_tcp(fd, &addr, &out->port);
	if (error < 0) {
		close(fd);
		return fail(-error, err, err_len, "listen", http);
	}
	snprintf(out->address, sizeof(out->address), ipaddr_is_v4(&addr) ? "%s" : "[%s]", ipaddr_format(&addr, text));
	return fd;
}
