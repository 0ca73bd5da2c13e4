/* SPDX-License-Identifier: BSD-3-Clause */
/* One scalar: from text to field, from field to text, and what to expect of it in words. */
#include "config_schema.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

struct unit {
	const char *name;
	uint64_t factor;
};

/* From the largest down: a duration names each at most once, in this order. */
static const struct unit duration_units[] = {
	{"d", 86400000000000}, {"h", 3600000000000}, {"m", 60000000000}, {"s", 1000000000},
	{"ms", 1000000},       {"us", 1000},         {NULL, 0},
};

static const struct unit size_units[] = {
	{"T", 1ull << 40}, {"G", 1ull << 30}, {"M", 1ull << 20}, {"K", 1ull << 10}, {NULL, 0},
};

static const struct unit number_units[] = {{"M", 1000000}, {"k", 1000}, {"", 1}, {NULL, 0}};

/* The end of the digits at `text`; NULL if there are none or they are too many. */
static const char *read_digits(const char *text, uint64_t *value)
{
	if (!isdigit((unsigned char)*text))
		return NULL;
	for (*value = 0; isdigit((unsigned char)*text); text++)
		if (__builtin_mul_overflow(*value, 10, value) ||
		    __builtin_add_overflow(*value, (uint64_t)(*text - '0'), value))
			return NULL;
	return text;
}

static const struct unit *find_unit(const struct unit *units, const char *name, size_t len)
{
	for (; units->name; units++)
		if (strlen(units->name) == len && strncmp(units->name, name, len) == 0)
			return units;
	return NULL;
}

/* Digits and one unit, up to `tail`, which must end the text. */
static int read_quantity(const char *text, const struct unit *units, const char *tail, uint64_t *value)
{
	const char *unit_at = read_digits(text, value);
	const struct unit *unit;
	size_t len;

	if (!unit_at)
		return -EINVAL;
	len = strlen(unit_at);
	if (len < strlen(tail) || strcmp(unit_at + len - strlen(tail), tail) != 0)
		return -EINVAL;
	unit = find_unit(units, unit_at, len - strlen(tail));
	if (!unit)
		return -EINVAL;
	return __builtin_mul_overflow(*value, unit->factor, value) ? -ERANGE : 0;
}

static int read_number(const char *text, uint64_t *value, const char **hint)
{
	return read_quantity(text, number_units, "", value);
}

static int read_rate(const char *text, uint64_t *value, const char **hint)
{
	if (read_quantity(text, number_units, "", value) == 0) {
		*hint = "the unit is missing: per second is written /s";
		return -EINVAL;
	}
	return read_quantity(text, number_units, "/s", value);
}

static int read_size(const char *text, uint64_t *value, const char **hint)
{
	const char *end = read_digits(text, value);

	if (end && *end == '\0') {
		*hint = "the unit is missing: K, M, G or T";
		return -EINVAL;
	}
	return read_quantity(text, size_units, "", value);
}

static int read_duration(const char *text, uint64_t *value, const char **hint)
{
	const struct unit *units = duration_units;
	uint64_t total = 0;

	do {
		const struct unit *unit;
		uint64_t n;
		size_t len;

		text = read_digits(text, &n);
		if (!text)
			return -EINVAL;
		if (*text == '\0')
			*hint = "the unit is missing: d, h, m, s, ms or us";
		len = strspn(text, "dhmsu");
		unit = find_unit(units, text, len);
		if (!unit)
			return -EINVAL;
		if (__builtin_mul_overflow(n, unit->factor, &n) || __builtin_add_overflow(total, n, &total))
			return -ERANGE;
		units = unit + 1;
		text += len;
	} while (*text);
	*value = total;
	return 0;
}

int config_parse_duration(const char *text, uint64_t *ns)
{
	const char *hint;

	return read_duration(text, ns, &hint);
}

/* Percent, with up to four places behind the point. */
static int read_share(const char *text, uint64_t *value, const char **hint)
{
	const char *end = read_digits(text, value);
	uint64_t scale = 10000;

	if (!end || *value > 1000000)
		return end ? -ERANGE : -EINVAL;
	*value *= scale;
	if (*end == '.' && isdigit((unsigned char)end[1]))
		for (end++; isdigit((unsigned char)*end) && scale > 1; end++) {
			scale /= 10;
			*value += (uint64_t)(*end - '0') * scale;
		}
	if (*end == '\0')
		*hint = "the unit is missing: a share is written in percent, 20%";
	return strcmp(end, "%") == 0 ? 0 : -EINVAL;
}

static void write_number(uint64_t value, char out[static CONFIG_TEXT_MAX])
{
	snprintf(out, CONFIG_TEXT_MAX, "%ju", (uintmax_t)value);
}

static void write_rate(uint64_t value, char out[static CONFIG_TEXT_MAX])
{
	snprintf(out, CONFIG_TEXT_MAX, "%ju/s", (uintmax_t)value);
}

static void write_size(uint64_t value, char out[static CONFIG_TEXT_MAX])
{
	const struct unit *unit = size_units;

	while (unit[1].name && (value == 0 || value % unit->factor))
		unit++;
	snprintf(out, CONFIG_TEXT_MAX, "%ju%s", (uintmax_t)(value / unit->factor), unit->name);
}

static void write_duration(uint64_t value, char out[static CONFIG_TEXT_MAX])
{
	size_t len = 0;

	for (const struct unit *unit = duration_units; unit->name; unit++) {
		if (value < unit->factor || (unit->factor == 86400000000000 && value % unit->factor))
			continue;
		len += snprintf(out + len, CONFIG_TEXT_MAX - len, "%ju%s", (uintmax_t)(value / unit->factor),
				unit->name);
		value %= unit->factor;
	}
	if (len == 0)
		snprintf(out, CONFIG_TEXT_MAX, "0s");
}

static void write_share(uint64_t value, char out[static CONFIG_TEXT_MAX])
{
	unsigned fraction = value % 10000, digits = 4;

	while (fraction && fraction % 10 == 0) {
		fraction /= 10;
		digits--;
	}
	if (fraction)
		snprintf(out, CONFIG_TEXT_MAX, "%ju.%0*u%%", (uintmax_t)(value / 10000), (int)digits, fraction);
	else
		snprintf(out, CONFIG_TEXT_MAX, "%ju%%", (uintmax_t)(value / 10000));
}

struct number_type {
	int (*read)(const char *text, uint64_t *value, const char **hint);
	void (*write)(uint64_t value, char out[static CONFIG_TEXT_MAX]);
};

static const struct number_type number_types[CONFIG_TYPES] = {
	[TYPE_NUMBER] = {read_number, write_number}, [TYPE_DURATION] = {read_duration, write_duration},
	[TYPE_RATE] = {read_rate, write_rate},       [TYPE_SHARE] = {read_share, write_share},
	[TYPE_SIZE] = {read_size, write_size},       [TYPE_PORT] = {read_number, write_number},
};

static void store_number(const struct config_key *key, uint64_t value, void *field)
{
	if (key->type == TYPE_PORT)
		*(uint16_t *)field = htons(value);
	else if (key->size == sizeof(uint32_t))
		*(uint32_t *)field = value;
	else
		*(uint64_t *)field = value;
}

static uint64_t fetch_number(const struct config_key *key, const void *field)
{
	if (key->type == TYPE_PORT)
		return ntohs(*(const uint16_t *)field);
	return key->size == sizeof(uint32_t) ? *(const uint32_t *)field : *(const uint64_t *)field;
}

static int parse_number(const struct config_key *key, const char *text, void *field, const char **hint)
{
	uint64_t value;
	int err = number_types[key->type].read(text, &value, hint);

	if (err)
		return err;
	if (value < key->min || value > key->max)
		return -ERANGE;
	store_number(key, value, field);
	return 0;
}

static int parse_enum(const struct config_key *key, const char *text, void *field, const char **hint)
{
	for (unsigned i = 0; key->choices[i]; i++)
		if (strcmp(key->choices[i], text) == 0) {
			*(unsigned *)field = i;
			return 0;
		}
	return -EINVAL;
}

static int parse_switch(const struct config_key *key, const char *text, void *field, const char **hint)
{
	if (strcmp(text, "on") == 0 || strcmp(text, "true") == 0)
		*(bool *)field = true;
	else if (strcmp(text, "off") == 0 || strcmp(text, "false") == 0)
		*(bool *)field = false;
	else
		return -EINVAL;
	return 0;
}

/* Why no packet on a wire goes to this address; NULL if one may. */
static const char *address_fault(const struct ipaddr *a)
{
	if (ipaddr_is_v4(a)) {
		uint32_t host = ntohl(ipaddr_v4_be(a));

		if (host >> 24 == 0)
			return "this is no host's address (0.0.0.0/8)";
		if (host >> 24 == 127)
			return "this is a loopback address";
		return host >= 0xe0000000 ? "this is a multicast, reserved or broadcast address" : NULL;
	}
	if (IN6_IS_ADDR_UNSPECIFIED((const struct in6_addr *)a->b))
		return "this is the unspecified address";
	if (IN6_IS_ADDR_LOOPBACK((const struct in6_addr *)a->b))
		return "this is a loopback address";
	if (IN6_IS_ADDR_LINKLOCAL((const struct in6_addr *)a->b))
		return "this is a link-local address";
	return a->b[0] == 0xff ? "this is a multicast address" : NULL;
}

static int read_address(const char *text, struct ipaddr *out, const char **hint)
{
	struct ipaddr addr;

	if (ipaddr_parse(text, &addr) < 0) {
		if (strchr(text, '/'))
			*hint = "without a prefix length";
		return -EINVAL;
	}
	if (ipaddr_is_v4(&addr) && strchr(text, ':')) {
		*hint = "an IPv4 address is written a.b.c.d";
		return -EINVAL;
	}
	*out = addr;
	return 0;
}

static int parse_address(const struct config_key *key, const char *text, void *field, const char **hint)
{
	struct ipaddr addr;
	int err = read_address(text, &addr, hint);

	if (err)
		return err;
	*hint = address_fault(&addr);
	if (*hint)
		return -EINVAL;
	memcpy(field, &addr, sizeof(addr));
	return 0;
}

/* The port behind the last colon of "a.b.c.d:port" or "[v6]:port"; without one, `default_port` unless that is 0. */
static int read_endpoint(const char *text, uint16_t default_port, struct ipaddr *addr, uint16_t *port_be,
			 const char **hint)
{
	char host[IPADDR_STRLEN + 2];
	const char *colon = strrchr(text, ':'), *bracket = strrchr(text, ']');
	bool bare_v6 = *text != '[' && colon && strchr(text, ':') != colon;
	bool has_port = colon && colon > bracket && !bare_v6;
	size_t len = has_port ? (size_t)(colon - text) : strlen(text);
	uint64_t port = default_port;

	if (bare_v6 && !default_port)
		*hint = "an IPv6 address stands in brackets before its port: [2001:db8::1]:80";
	if (len == 0 || len >= sizeof(host) || (!has_port && !default_port) || (bare_v6 && !default_port))
		return -EINVAL;
	memcpy(host, text, len);
	host[len] = '\0';
	if (has_port && (read_number(colon + 1, &port, hint) < 0 || !isdigit((unsigned char)colon[strlen(colon) - 1])))
		return -EINVAL;
	if (port == 0 || port > 65535) {
		*hint = "ports go from 1 to 65535";
		return -EINVAL;
	}
	*port_be = htons(port);
	if (*host != '[')
		return read_address(host, addr, hint);
	if (host[len - 1] != ']')
		return -EINVAL;
	host[len - 1] = '\0';
	return strchr(host, ':') ? read_address(host + 1, addr, hint) : -EINVAL;
}

static int parse_listen(const struct config_key *key, const char *text, void *field, const char **hint)
{
	struct config_listen *listen = field;
	const char *slash = strrchr(text, '/');
	struct ipaddr addr;
	uint16_t port_be;
	char endpoint[IPADDR_PORT_STRLEN];
	int err;

	if (!slash || (strcmp(slash, "/tcp") != 0 && strcmp(slash, "/udp") != 0)) {
		*hint = "the protocol is missing: /tcp or /udp at the end";
		return -EINVAL;
	}
	if ((size_t)(slash - text) >= sizeof(endpoint))
		return -EINVAL;
	memcpy(endpoint, text, slash - text);
	endpoint[slash - text] = '\0';
	err = read_endpoint(endpoint, 0, &addr, &port_be, hint);
	if (err)
		return err;
	*hint = address_fault(&addr);
	if (*hint)
		return -EINVAL;
	listen->addr = addr;
	listen->port_be = port_be;
	listen->proto = slash[1] == 't' ? PROTO_TCP : PROTO_UDP;
	return 0;
}

static bool is_loopback(const struct ipaddr *a)
{
	return ipaddr_is_v4(a) ? a->b[12] == 127 : IN6_IS_ADDR_LOOPBACK((const struct in6_addr *)a->b);
}

static int parse_endpoint(const struct config_key *key, const char *text, void *field, const char **hint)
{
	struct ipaddr addr;
	uint16_t port_be;
	char canonical[IPADDR_PORT_STRLEN];
	int err = read_endpoint(text, key->default_port, &addr, &port_be, hint);

	if (err)
		return err;
	if ((key->flags & KEY_LOOPBACK) && !is_loopback(&addr)) {
		*hint = "only a loopback address: there is no authentication";
		return -EINVAL;
	}
	snprintf(field, key->size, "%s", ipaddr_port_format(&addr, port_be, canonical));
	return 0;
}

static int parse_name(const struct config_key *key, const char *text, void *field, const char **hint)
{
	size_t len = strlen(text);

	if (len == 0 || strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != len)
		return -EINVAL;
	if (!isalnum((unsigned char)*text))
		return -EINVAL;
	if (len >= key->size)
		return -ERANGE;
	memcpy(field, text, len + 1);
	return 0;
}

static bool is_pci_address(const char *text)
{
	const char *shape = strlen(text) == strlen("0000:00:00.0") ? "xxxx:xx:xx.o" : "xx:xx.o";

	for (; *shape && *text; shape++, text++) {
		bool fits = *shape == 'x'   ? isxdigit((unsigned char)*text)
			    : *shape == 'o' ? *text >= '0' && *text <= '7'
					    : *text == *shape;
		if (!fits)
			return false;
	}
	return *shape == *text;
}

static int parse_device(const struct config_key *key, const char *text, void *field, const char **hint)
{
	size_t len = strlen(text);

	for (size_t i = 0; i < len; i++)
		if (!isgraph((unsigned char)text[i]))
			return -EINVAL;
	if (strncmp(text, "vdev:", 5) == 0) {
		if (strncmp(text + 5, "net_", 4) != 0 || len <= strlen("vdev:net_")) {
			*hint = "a DPDK network device begins with vdev:net_";
			return -EINVAL;
		}
	} else if (!is_pci_address(text)) {
		if (len == 0 || strchr(text, '/') || strchr(text, ':') || *text == '.')
			return -EINVAL;
		if (len > 15) {
			*hint = "the name of a netdev has at most 15 characters";
			return -EINVAL;
		}
	}
	if (len >= key->size)
		return -ERANGE;
	memcpy(field, text, len + 1);
	return 0;
}

/* RFC 1123 2.1: labels of letters, digits and inner hyphens; the last one not all digits, or it was an address. */
static int parse_hostname(const struct config_key *key, const char *text, void *field, const char **hint)
{
	char name[256];
	size_t len = strlen(text), label = 0;
	bool digits_only = true;
	struct ipaddr addr;

	if (ipaddr_parse(text, &addr) == 0) {
		*hint = "this is an address: write `address:` instead of `dns:`";
		return -EINVAL;
	}
	if (len && text[len - 1] == '.')
		len--;
	if (len == 0 || len > 253)
		return -EINVAL;
	for (size_t i = 0; i < len; i++) {
		char c = tolower((unsigned char)text[i]);

		if (c == '.' ? label == 0 || text[i - 1] == '-' : (c != '-' && !isalnum((unsigned char)c)))
			return -EINVAL;
		if (c == '-' && label == 0)
			return -EINVAL;
		digits_only = c == '.' ? true : digits_only && isdigit((unsigned char)c);
		label = c == '.' ? 0 : label + 1;
		if (label > 63)
			return -EINVAL;
		name[i] = c;
	}
	if (digits_only || name[len - 1] == '-')
		return -EINVAL;
	name[len] = '\0';
	memcpy(field, name, len + 1);
	return 0;
}

static int parse_path(const struct config_key *key, const char *text, void *field, const char **hint)
{
	size_t len = strlen(text);

	if (len < 2 || *text != '/')
		return -EINVAL;
	for (size_t i = 0; i < len; i++)
		if (iscntrl((unsigned char)text[i]))
			return -EINVAL;
	if (len >= key->size)
		return -ERANGE;
	memcpy(field, text, len + 1);
	return 0;
}

static int parse_ports(const struct config_key *key, const char *text, void *field, const char **hint)
{
	struct port_range *range = field;
	uint64_t first, last;

	text = read_digits(text, &first);
	if (!text || *text != '-')
		return -EINVAL;
	text = read_digits(text + 1, &last);
	if (!text || *text)
		return -EINVAL;
	if (first < key->min || last > key->max)
		return -ERANGE;
	if (first > last) {
		*hint = "the lower port stands first";
		return -EINVAL;
	}
	*range = (struct port_range){first, last};
	return 0;
}

struct value_type {
	const char *words; /* in messages */
	const char *noun;  /* in the example */
	int (*parse)(const struct config_key *key, const char *text, void *field, const char **hint);
};

static const struct value_type types[CONFIG_TYPES] = {
	[TYPE_NUMBER] = {"a whole number", "number", parse_number},
	[TYPE_DURATION] = {"a duration such as 30s, 2h4m or 900ms", "duration", parse_number},
	[TYPE_RATE] = {"a rate such as 5000/s", "rate", parse_number},
	[TYPE_SHARE] = {"a share such as 20%", "share", parse_number},
	[TYPE_SIZE] = {"a size such as 512M or 2G", "size", parse_number},
	[TYPE_PORT] = {"a port number", "port", parse_number},
	[TYPE_ENUM] = {"one of", "", parse_enum},
	[TYPE_SWITCH] = {"on or off", "on or off", parse_switch},
	[TYPE_ADDRESS] = {"an IPv4 or IPv6 address", "address", parse_address},
	[TYPE_LISTEN] = {"address:port/protocol, such as 198.18.100.1:80/tcp or [2001:db8:100::1]:53/udp",
			 "address:port/tcp or /udp", parse_listen},
	[TYPE_ENDPOINT] = {"address:port", "address:port", parse_endpoint},
	[TYPE_NAME] = {"a name of letters, digits, '-', '_' and '.', beginning with a letter or digit", "name",
		       parse_name},
	[TYPE_DEVICE] = {"a netdev, a PCI address or vdev:net_...", "device", parse_device},
	[TYPE_HOSTNAME] = {"a host name (RFC 1123)", "host name", parse_hostname},
	[TYPE_PATH] = {"an absolute path", "absolute path", parse_path},
	[TYPE_PORTS] = {"a range of ports within 1024-65535, such as 20000-29999", "ports", parse_ports},
};

int config_value_parse(const struct config_key *key, const char *text, void *field, const char **hint)
{
	*hint = NULL;
	if (key->zero_word && strcmp(text, key->zero_word) == 0) {
		memset(field, 0, number_types[key->type].read ? key->size : 1);
		return 0;
	}
	return types[key->type].parse(key, text, field, hint);
}

void config_value_format(const struct config_key *key, const void *field, char out[static CONFIG_TEXT_MAX])
{
	const struct config_listen *listen = field;
	const struct port_range *range = field;
	char text[IPADDR_PORT_STRLEN];

	if (number_types[key->type].write) {
		if (key->zero_word && fetch_number(key, field) == 0)
			snprintf(out, CONFIG_TEXT_MAX, "%s", key->zero_word);
		else
			number_types[key->type].write(fetch_number(key, field), out);
		return;
	}
	switch (key->type) {
	case TYPE_ENUM:
		snprintf(out, CONFIG_TEXT_MAX, "%s", key->choices[*(const unsigned *)field]);
		break;
	case TYPE_SWITCH:
		snprintf(out, CONFIG_TEXT_MAX, "%s", *(const bool *)field ? "on" : "off");
		break;
	case TYPE_ADDRESS:
		snprintf(out, CONFIG_TEXT_MAX, "%s", ipaddr_format(field, text));
		break;
	case TYPE_LISTEN:
		snprintf(out, CONFIG_TEXT_MAX, "%s/%s", ipaddr_port_format(&listen->addr, listen->port_be, text),
			 listen->proto == PROTO_TCP ? "tcp" : "udp");
		break;
	case TYPE_PORTS:
		snprintf(out, CONFIG_TEXT_MAX, "%u-%u", range->first, range->last);
		break;
	default:
		snprintf(out, CONFIG_TEXT_MAX, "%s", *(const char *)field ? (const char *)field : key->zero_word);
	}
}

static size_t describe_range(const struct config_key *key, char *out, size_t room)
{
	char min[CONFIG_TEXT_MAX], max[CONFIG_TEXT_MAX];

	number_types[key->type].write(key->min, min);
	number_types[key->type].write(key->max, max);
	return snprintf(out, room, " from %.32s to %.32s", min, max);
}

void config_value_describe(const struct config_key *key, char out[static CONFIG_TEXT_MAX])
{
	size_t len = snprintf(out, CONFIG_TEXT_MAX, "%s", types[key->type].words);

	if (key->type == TYPE_ENUM)
		for (unsigned i = 0; key->choices[i]; i++)
			len += snprintf(out + len, CONFIG_TEXT_MAX - len, "%s%s", i ? ", " : " ", key->choices[i]);
	else if (number_types[key->type].write)
		len += describe_range(key, out + len, CONFIG_TEXT_MAX - len);
	else if (key->type == TYPE_NAME || key->type == TYPE_PATH)
		len += snprintf(out + len, CONFIG_TEXT_MAX - len, ", at most %zu characters", key->size - 1);
	if (key->zero_word)
		snprintf(out + len, CONFIG_TEXT_MAX - len, ", or %s", key->zero_word);
}

void config_value_brief(const struct config_key *key, char out[static CONFIG_TEXT_MAX])
{
	size_t len = snprintf(out, CONFIG_TEXT_MAX, "%s", types[key->type].noun);

	if (key->type == TYPE_ENUM)
		for (unsigned i = 0; key->choices[i]; i++)
			len += snprintf(out + len, CONFIG_TEXT_MAX - len, "%s%s", i ? ", " : "", key->choices[i]);
	else if (number_types[key->type].write)
		len += describe_range(key, out + len, CONFIG_TEXT_MAX - len);
	if (key->zero_word)
		snprintf(out + len, CONFIG_TEXT_MAX - len, ", or %s", key->zero_word);
}
