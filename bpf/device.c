// SPDX-License-Identifier: BSD-3-Clause
#include "device.h"

#include "gate.h"
#include "sentence.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cap-ng.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/bpf.h>
#include <linux/ethtool.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define VLAN_TAG_LEN 4

/* An ioctl on a device by name. Returns 0 or -errno. */
static int device_ioctl(const char *device, unsigned long request, struct ifreq *ifr)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int rc;

	if (fd < 0)
		return -errno;
	snprintf(ifr->ifr_name, sizeof(ifr->ifr_name), "%s", device);
	rc = ioctl(fd, request, ifr) ? -errno : 0;
	close(fd);
	return rc;
}

static int take_rx_queues(const struct nlattr *attr, void *data)
{
	if (mnl_attr_get_type(attr) == IFLA_NUM_RX_QUEUES && !mnl_attr_validate(attr, MNL_TYPE_U32))
		*(int *)data = mnl_attr_get_u32(attr);
	return MNL_CB_OK;
}

static int take_link(const struct nlmsghdr *msg, void *data)
{
	return mnl_attr_parse(msg, sizeof(struct ifinfomsg), take_rx_queues, data);
}

static int ask_link(struct mnl_socket *nl, unsigned ifindex)
{
	/* Room for a link with many attributes (virtual functions): a truncated answer would be refused. */
	static const size_t ANSWER_LEN = 64 * 1024;
	char *buf = calloc(1, ANSWER_LEN);
	struct nlmsghdr *msg;
	struct ifinfomsg *link;
	int n_queues = -ENODATA;
	ssize_t len = -1;

	if (!buf)
		return -ENOMEM;
	msg = mnl_nlmsg_put_header(buf);
	msg->nlmsg_type = RTM_GETLINK;
	msg->nlmsg_flags = NLM_F_REQUEST;
	link = mnl_nlmsg_put_extra_header(msg, sizeof(*link));
	link->ifi_index = ifindex;
	if (mnl_socket_sendto(nl, msg, msg->nlmsg_len) > 0)
		len = mnl_socket_recvfrom(nl, buf, ANSWER_LEN);
	if (len < 0 || mnl_cb_run(buf, len, 0, mnl_socket_get_portid(nl), take_link, &n_queues) < 0)
		n_queues = -errno;
	free(buf);
	return n_queues;
}

/* What the device was made with: never less than what it uses. */
static int queues_by_netlink(const char *device)
{
	struct mnl_socket *nl = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
	int rc = -EIO;

	if (!nl)
		return -errno;
	if (!mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID))
		rc = ask_link(nl, if_nametoindex(device));
	mnl_socket_close(nl);
	return rc;
}

/* ethtool, because sysfs may show another network namespace; netlink for drivers without channels. */
int gate_device_queues(const char *device)
{
	struct ethtool_channels channels = {.cmd = ETHTOOL_GCHANNELS};
	struct ifreq ifr = {.ifr_data = (void *)&channels};
	int rc;

	if (!if_nametoindex(device))
		return -ENODEV;
	rc = device_ioctl(device, SIOCETHTOOL, &ifr);
	if (!rc && channels.rx_count + channels.combined_count)
		return channels.rx_count + channels.combined_count;
	if (!rc || rc == -EOPNOTSUPP)
		return queues_by_netlink(device);
	return rc;
}

bool gate_device_is_veth(const char *device)
{
	struct ethtool_drvinfo info = {.cmd = ETHTOOL_GDRVINFO};
	struct ifreq ifr = {.ifr_data = (void *)&info};

	return device_ioctl(device, SIOCETHTOOL, &ifr) == 0 && strcmp(info.driver, "veth") == 0;
}

int device_missing(const char *device, char *err, size_t err_len)
{
	return sentence(err, err_len, ENODEV,
			"there is no network device \"%s\": \"ip link show\" lists those there are", device);
}

/*
 * CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON, as in the kernel. CAP_PERFMON, because without it the verifier
 * refuses a packet pointer moved by a length that was read from the packet (IPv4 options, IPv6 extension headers).
 */
static int check_rights(char *err, size_t err_len)
{
	static const struct {
		unsigned capability;
		bool in_sys_admin;
		const char *name;
	} needed[] = {
		{CAP_NET_ADMIN, false, "CAP_NET_ADMIN"},
		{CAP_NET_RAW, false, "CAP_NET_RAW"},
		{CAP_BPF, true, "CAP_BPF"},
		{CAP_PERFMON, true, "CAP_PERFMON"},
	};

	if (capng_get_caps_process())
		return sentence(err, err_len, EPERM, "the process' capabilities cannot be read");
	for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++) {
		if (capng_have_capability(CAPNG_EFFECTIVE, needed[i].capability))
			continue;
		if (needed[i].in_sys_admin && capng_have_capability(CAPNG_EFFECTIVE, CAP_SYS_ADMIN))
			continue;
		return sentence(err, err_len, EPERM,
				"%s is missing: run as root, or give \"AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW "
				"CAP_BPF CAP_PERFMON CAP_IPC_LOCK\"",
				needed[i].name);
	}
	return 0;
}

static int check_mtu(const struct gate_config *config, char *err, size_t err_len)
{
	struct ifreq ifr = {0};
	uint32_t overhead = ETH_HLEN + VLAN_TAG_LEN;
	int rc = device_ioctl(config->device, SIOCGIFMTU, &ifr);

	if (rc)
		return sentence(err, err_len, -rc, "device %s: its MTU cannot be read: %s", config->device,
				strerror(-rc));
	if (ifr.ifr_mtu + overhead <= config->max_frame)
		return 0;
	return sentence(err, err_len, EMSGSIZE,
			"device %s has MTU %d, its sockets carry at most %u: \"ip link set dev %s mtu %u\"",
			config->device, ifr.ifr_mtu, config->max_frame - overhead, config->device,
			config->max_frame - overhead);
}

static int check_queues(const struct gate_config *config, char *err, size_t err_len)
{
	int n_queues = gate_device_queues(config->device);

	if (n_queues < 0)
		return sentence(err, err_len, -n_queues, "device %s: its receive queues cannot be counted: %s",
				config->device, strerror(-n_queues));
	if ((unsigned)n_queues > config->n_queues)
		return sentence(err, err_len, E2BIG,
				"device %s has %d receive queues, %u are served: \"ethtool -L %s rx %u\" "
				"(or \"combined %u\"), or serve more with the port's \"queues\" key",
				config->device, n_queues, config->n_queues, config->device, config->n_queues,
				config->n_queues);
	if ((unsigned)n_queues < config->n_queues)
		return sentence(err, err_len, EINVAL,
				"device %s has %d receive queues, %u are asked for: \"ethtool -L %s rx %u\" "
				"(or \"combined %u\"), or ask for fewer with the port's \"queues\" key",
				config->device, n_queues, config->n_queues, config->device, config->n_queues,
				config->n_queues);
	return 0;
}

/* Id of the link that holds a program, which "ip link" cannot take off; 0 if none does. */
static uint32_t link_of_program(uint32_t prog_id)
{
	uint32_t id = 0;

	while (!bpf_link_get_next_id(id, &id)) {
		struct bpf_link_info info = {0};
		uint32_t len = sizeof(info);
		int fd = bpf_link_get_fd_by_id(id);
		int rc;

		if (fd < 0)
			continue;
		rc = bpf_obj_get_info_by_fd(fd, &info, &len);
		close(fd);
		if (!rc && info.type == BPF_LINK_TYPE_XDP && info.prog_id == prog_id)
			return id;
	}
	return 0;
}

static int check_foreign_program(const struct gate_config *config, char *err, size_t err_len)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, query);
	int rc = bpf_xdp_query(if_nametoindex(config->device), 0, &query);
	uint32_t prog_id = query.prog_id;
	uint32_t link_id;

	if (rc)
		return sentence(err, err_len, -rc, "device %s: its XDP state cannot be read: %s", config->device,
				strerror(-rc));
	if (query.attach_mode == XDP_ATTACHED_NONE)
		return 0;
	if (!prog_id)
		prog_id = query.drv_prog_id ? query.drv_prog_id : query.skb_prog_id;
	link_id = link_of_program(prog_id);
	if (link_id)
		return sentence(err, err_len, EBUSY,
				"device %s carries XDP program %u, held by another process (a second gateway?): stop "
				"that, or \"bpftool link detach id %u\"",
				config->device, prog_id, link_id);
	return sentence(err, err_len, EBUSY,
			"device %s carries XDP program %u, which is not ours: \"ip link set dev %s xdp off\"",
			config->device, prog_id, config->device);
}

int gate_check_device(const struct gate_config *config, char *err, size_t err_len)
{
	static int (*const checks[])(const struct gate_config *config, char *err, size_t err_len) = {
		check_mtu,
		check_queues,
		check_foreign_program,
	};
	int rc;

	if (!if_nametoindex(config->device))
		return device_missing(config->device, err, err_len);
	rc = check_rights(err, err_len);
	for (size_t i = 0; !rc && i < sizeof(checks) / sizeof(checks[0]); i++)
		rc = checks[i](config, err, err_len);
	return rc;
}
