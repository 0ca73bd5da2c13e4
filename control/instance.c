/* SPDX-License-Identifier: BSD-3-Clause */
#include "instance.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static const struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "\0spillway-gateway"};

/* Who listens on the name; pid 0 if that cannot be told. Nobody accepts: each question takes a place in the backlog. */
static struct ucred holder(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct ucred cred = {0};
	socklen_t len = sizeof(cred);

	if (fd < 0)
		return cred;
	if (connect(fd, (const struct sockaddr *)&name, sizeof(name)) ||
	    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len))
		cred = (struct ucred){0};
	close(fd);
	return cred;
}

int instance_claim(char *err, size_t err_len)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), error = 0;

	if (fd < 0 || bind(fd, (const struct sockaddr *)&name, sizeof(name)) || listen(fd, SOMAXCONN))
		error = errno;
	if (error == EADDRINUSE) {
		struct ucred other = holder();

		/* Abstract names have no permissions: a squatter without privileges must not keep a gateway from
		 * running. */
		if (!other.pid || (other.uid != 0 && other.uid != geteuid()))
			return fd;
		snprintf(err, err_len,
			 "another gateway (process %d) runs in this network namespace: stop it, or run this one in a "
			 "namespace of its own",
			 (int)other.pid);
		error = EBUSY;
	} else if (error) {
		snprintf(err, err_len, "cannot claim the network namespace: %s", strerror(error));
	}
	if (!error)
		return fd;
	if (fd >= 0)
		close(fd);
	return -error;
}
