/* SPDX-License-Identifier: BSD-3-Clause */
#include "api.h"

#include "api_docs.h"
#include "api_events.h"
#include "api_listen.h"
#include "view.h"

#include <microhttpd.h>

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Per listener, so that whoever fills loopback TCP cannot keep the operator off the Unix socket. Together 64. */
#define MAX_CONNECTIONS 32
#define REQUEST_BYTES   (16 * 1024)
#define TIMEOUT_S       10
#define STACK_BYTES     (512 * 1024)
/* Answers of LARGE_BYTES and more that are on their way, all together, however slowly their readers take them. */
#define SENDING_BYTES   (64u << 20)
#define LARGE_BYTES     (64u << 10)

enum listener_kind {
	LISTENER_UNIX,
	LISTENER_TCP,
	LISTENERS,
};

struct listener {
	struct api *api;
	struct MHD_Daemon *daemon;
	enum listener_kind kind;
};

/* A command is its waiter's, but for the time from take to done, when it is decide's; `state` is under api->lock. */
struct pending {
	struct api_command command; /* first: decide gives back its address */
	enum { PENDING_QUEUED, PENDING_TAKEN, PENDING_DONE, PENDING_ABANDONED } state;
	struct pending *next;
};

struct api {
	struct api_source source;
	char *version;
	int notify_fd;
	unsigned timeout_s;
	struct api_unix unix_socket;
	struct api_tcp tcp;
	struct listener listeners[LISTENERS];
	struct api_streams streams;

	pthread_mutex_t lock; /* of all below */
	pthread_cond_t changed;
	bool stopping;
	struct pending *queue; /* oldest first */
	char *config_text;
	size_t sending; /* bytes of large answers on their way */

	pthread_mutex_t making; /* held for a document that may be large: one at a time is in the making */
};

/* One per request: from the request line until the answer is sent. */
struct request {
	bool seen_headers;
	char query[]; /* raw, without '?' */
};

struct answer {
	unsigned status;
	struct MHD_Response *stream; /* instead of a body */
	char *body;                  /* from malloc */
	size_t len;
	const char *type;
	const char *allow; /* of a 405 */
	bool counted;      /* in api->sending */
};

/* What is to be given back when an answer was sent. */
struct sending {
	struct api *api;
	char *body;
	size_t counted;
};

/* --- answers --- */

static void answer_json(struct answer *a, unsigned status, json_t *doc)
{
	a->status = doc ? status : 500;
	a->type = "application/json";
	a->body = doc ? json_dumps(doc, JSON_COMPACT) : NULL;
	a->len = a->body ? strlen(a->body) : 0;
	json_decref(doc);
}

static void answer_error(struct answer *a, unsigned status, const char *error)
{
	char clean[API_QUERY_ERR + 64];
	size_t n = 0;

	/* The sentence may quote the request; bytes that are not plain text would not be JSON either. */
	for (; error[n] && n < sizeof(clean) - 1; n++)
		clean[n] = error[n] >= ' ' && error[n] < 0x7f ? error[n] : '?';
	clean[n] = '\0';
	answer_json(a, status, json_pack("{s:s}", "error", clean));
}

/* A single one may be larger than all together may be: it is the only one then. False: too many are on their way. */
static bool sending_begin(struct api *api, struct answer *a)
{
	bool room;

	if (a->len < LARGE_BYTES)
		return true;
	pthread_mutex_lock(&api->lock);
	room = !api->sending || api->sending + a->len <= SENDING_BYTES;
	if (room)
		api->sending += a->len;
	pthread_mutex_unlock(&api->lock);
	a->counted = room;
	return room;
}

static void answer_drop(const struct sending *s)
{
	pthread_mutex_lock(&s->api->lock);
	s->api->sending -= s->counted;
	pthread_mutex_unlock(&s->api->lock);
	free(s->body);
}

static void sending_end(void *arg)
{
	answer_drop(arg);
	free(arg);
}

static struct MHD_Response *response_of(struct api *api, struct answer *a)
{
	const struct sending now = {api, a->body, a->counted ? a->len : 0};
	struct sending *s = malloc(sizeof(*s));
	struct MHD_Response *response;

	if (!s) {
		answer_drop(&now);
		return NULL;
	}
	*s = now;
	if (!a->body)
		a->len = 0;
	response =
		MHD_create_response_from_buffer_with_free_callback_cls(a->len, a->body ? a->body : "", sending_end, s);
	if (!response)
		sending_end(s);
	return response;
}

static enum MHD_Result answer_send(struct api *api, struct MHD_Connection *connection, struct answer *a)
{
	struct MHD_Response *response = a->stream ? a->stream : response_of(api, a);
	enum MHD_Result result;

	if (!response)
		return MHD_NO;
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, a->type);
	MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
	if (a->allow)
		MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, a->allow);
	result = MHD_queue_response(connection, a->status, response);
	MHD_destroy_response(response);
	return result;
}

/* --- commands --- */

static void queue_append(struct api *api, struct pending *p)
{
	struct pending **end = &api->queue;

	while (*end)
		end = &(*end)->next;
	*end = p;
}

static void queue_remove(struct api *api, struct pending *p)
{
	struct pending **at = &api->queue;

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
}

static void pending_free(struct pending *p)
{
	json_decref(p->command.answer);
	free(p);
}

struct api_command *api_command_take(struct api *api)
{
	struct pending *p;

	pthread_mutex_lock(&api->lock);
	p = api->queue;
	if (p) {
		api->queue = p->next;
		p->state = PENDING_TAKEN;
	}
	pthread_mutex_unlock(&api->lock);
	return p ? &p->command : NULL;
}

void api_command_done(struct api *api, struct api_command *command)
{
	struct pending *p = (struct pending *)command;

	pthread_mutex_lock(&api->lock);
	if (p->state == PENDING_ABANDONED) {
		pending_free(p);
	} else {
		p->state = PENDING_DONE;
		pthread_cond_broadcast(&api->changed);
	}
	pthread_mutex_unlock(&api->lock);
}

/* Queues `p` and waits for its end. Afterwards `p` belongs to the caller if true, and to decide if not. */
static bool command_wait(struct api *api, struct pending *p, struct answer *a)
{
	static const uint64_t one = 1;
	struct timespec until;
	bool mine = true;
	int late = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += api->timeout_s;
	pthread_mutex_lock(&api->lock);
	queue_append(api, p);
	/* An eventfd refuses a write only when it is full, and then decide has been told already. */
	if (write(api->notify_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		late = errno;
	while (p->state != PENDING_DONE && !api->stopping && !late)
		late = pthread_cond_timedwait(&api->changed, &api->lock, &until);
	if (p->state == PENDING_QUEUED) {
		queue_remove(api, p);
		answer_error(a, api->stopping ? 503 : 504, "the gateway did not take up the command: nothing was done");
	} else if (p->state == PENDING_TAKEN) {
		p->state = PENDING_ABANDONED;
		mine = false;
		answer_error(a, api->stopping ? 503 : 504, "the command is still under way: its outcome is not known");
	}
	pthread_mutex_unlock(&api->lock);
	return mine;
}

static void answer_command(struct api *api, const char *path, const char *query, uint32_t uid, struct answer *a)
{
	struct pending *p = calloc(1, sizeof(*p));

	if (!p) {
		answer_error(a, 503, "out of memory");
		return;
	}
	snprintf(p->command.path, sizeof(p->command.path), "%s", path);
	snprintf(p->command.query, sizeof(p->command.query), "%s", query);
	p->command.uid = uid;
	p->command.status = 500;
	if (!command_wait(api, p, a))
		return;
	if (p->state == PENDING_DONE)
		answer_json(a, (unsigned)p->command.status, json_incref(p->command.answer));
	pending_free(p);
}

/* --- routes --- */

/* Fills in body and type; no body: there is none yet. `accept`: the header, or NULL. */
typedef void text_fn(struct api *api, const struct view *view, const char *accept, struct answer *a);

static void config_text(struct api *api, const struct view *view, const char *accept, struct answer *a)
{
	pthread_mutex_lock(&api->lock);
	a->body = api->config_text ? strdup(api->config_text) : NULL;
	pthread_mutex_unlock(&api->lock);
	a->len = a->body ? strlen(a->body) : 0;
	a->type = "text/yaml; charset=utf-8";
}

static void metrics_text(struct api *api, const struct view *view, const char *accept, struct answer *a)
{
	enum metrics_format format = api_metrics_format(accept);

	a->body = api_metrics(&api->source, view, format, &a->len);
	a->type = api_metrics_type(format);
}

#define FLOW_PARAMS (PARAM_ADDRESS | PARAM_PORT | PARAM_SERVICE | PARAM_BACKEND | PARAM_LIMIT | PARAM_CURSOR)

/* Neither `doc` nor `text`: a command (POST) for decide. */
static const struct route {
	const char *path;
	unsigned params;
	api_doc_fn *doc;
	text_fn *text;
	bool large; /* grows with the configuration */
} routes[] = {
	{"/v1/status", 0, .doc = api_doc_status},
	{"/v1/ready", 0, .doc = api_doc_ready},
	{"/v1/config", 0, .text = config_text, .large = true},
	{"/v1/services", 0, .doc = api_doc_services, .large = true},
	{"/v1/backends", PARAM_LIMIT | PARAM_CURSOR, .doc = api_doc_backends, .large = true},
	{"/v1/flows", FLOW_PARAMS, .doc = api_doc_flows},
	{"/v1/paths", PARAM_ADDRESS | PARAM_LIMIT | PARAM_CURSOR, .doc = api_doc_paths},
	{"/v1/names", 0, .doc = api_doc_names, .large = true},
	{"/v1/ledger", 0, .doc = api_doc_ledger},
	{"/v1/clients", PARAM_ADDRESS | PARAM_LIMIT | PARAM_CURSOR, .doc = api_doc_clients},
	{"/v1/events", PARAM_SINCE | PARAM_LIMIT | PARAM_FOLLOW, .doc = api_doc_events},
	{"/v1/explain", PARAM_ADDRESS | PARAM_PORT, .doc = api_doc_explain},
	{"/metrics", 0, .text = metrics_text, .large = true},
	{"/v1/reload", 0},
	{"/v1/cure", PARAM_CURE | PARAM_MODE},
	{"/v1/breaker", PARAM_BACKEND | PARAM_FORCE},
	{"/v1/limiter", PARAM_BACKEND | PARAM_RESET},
	{"/v1/drain", PARAM_SERVICE | PARAM_BACKEND | PARAM_SET | PARAM_DEADLINE},
};

static const struct route *find_route(const char *path)
{
	for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++)
		if (strcmp(routes[i].path, path) == 0)
			return &routes[i];
	return NULL;
}

static void answer_read(struct api *api, const struct route *route, const struct api_query *query, const char *accept,
			struct answer *a)
{
	char err[API_QUERY_ERR] = "out of memory";
	const struct view *view;
	json_t *doc = NULL;

	if (route->large)
		pthread_mutex_lock(&api->making);
	view = view_get();
	if (route->doc) {
		unsigned status = route->doc(&api->source, view, query, &doc, err);

		if (doc)
			answer_json(a, status, doc);
		else
			answer_error(a, status == 200 ? 500 : status, err);
	} else {
		a->status = 200;
		route->text(api, view, accept, a);
		if (!a->body)
			answer_error(a, 503, "not there yet");
	}
	if (!sending_begin(api, a)) {
		free(a->body);
		answer_error(a, 503, "other large answers are on their way: try again");
	}
	view_put(view);
	if (route->large)
		pthread_mutex_unlock(&api->making);
}

static bool host_is(const char *host, const char *name, uint16_t port)
{
	char want[INET6_ADDRSTRLEN + 16];

	snprintf(want, sizeof(want), "%s:%u", name, port);
	return strcasecmp(host, want) == 0 || (port == 80 && strcasecmp(host, name) == 0);
}

/* A web page that points a name of its own at 127.0.0.1 (DNS rebinding) sends that name here. */
static bool host_allowed(const struct api *api, const char *host)
{
	return host && (host_is(host, "localhost", api->tcp.port) || host_is(host, "127.0.0.1", api->tcp.port) ||
			host_is(host, "[::1]", api->tcp.port) || host_is(host, api->tcp.address, api->tcp.port));
}

static const char *header(struct MHD_Connection *connection, const char *name)
{
	return MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
}

static bool has_body(struct MHD_Connection *connection)
{
	const char *length = header(connection, MHD_HTTP_HEADER_CONTENT_LENGTH);

	return header(connection, MHD_HTTP_HEADER_TRANSFER_ENCODING) || (length && strcmp(length, "0") != 0);
}

static uint32_t peer_uid(struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct ucred cred = {.uid = UINT32_MAX};
	socklen_t len = sizeof(cred);

	if (!info || getsockopt(info->connect_fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return UINT32_MAX;
	return cred.uid;
}

static bool is_read(const char *method)
{
	return strcmp(method, MHD_HTTP_METHOD_GET) == 0 || strcmp(method, MHD_HTTP_METHOD_HEAD) == 0;
}

/* Path and method; NULL with the refusal in `a`. */
static const struct route *check_route(const struct listener *l, const char *path, const char *method, struct answer *a)
{
	const struct route *route = find_route(path);
	bool command = route && !route->doc && !route->text;

	if (!route) {
		answer_error(a, 404, "no such path");
		return NULL;
	}
	if (command ? strcmp(method, MHD_HTTP_METHOD_POST) != 0 : !is_read(method)) {
		a->allow = command ? "POST" : "GET, HEAD";
		answer_error(a, 405, command ? "this path takes POST" : "this path takes GET and HEAD");
		return NULL;
	}
	if (command && l->kind != LISTENER_UNIX) {
		answer_error(a, 403, "commands are taken on the Unix socket only");
		return NULL;
	}
	return route;
}

/* A client that reads nothing for so long is cut off: it holds one of few streams. */
#define STREAM_TIMEOUT_S 30u

static void answer_stream(struct api *api, struct MHD_Connection *connection, const struct api_query *query,
			  struct answer *a)
{
	a->stream = api_events_stream(&api->streams, api->source.events, query);
	if (!a->stream) {
		answer_error(a, 503, "too many streams: 8 at a time");
		return;
	}
	a->status = 200;
	a->type = "application/jsonl";
	MHD_set_connection_option(connection, MHD_CONNECTION_OPTION_TIMEOUT, STREAM_TIMEOUT_S);
}

static_assert(API_STREAMS_MAX == 8, "the text says so");

static void answer_request(const struct listener *l, struct MHD_Connection *connection, const char *path,
			   const char *method, const char *query_text, struct answer *a)
{
	const struct route *route = check_route(l, path, method, a);
	char err[API_QUERY_ERR];
	struct api_query query;

	if (!route)
		return;
	if (api_query_parse(query_text, route->params, &query, err) < 0)
		answer_error(a, 400, err);
	else if (query.follow)
		answer_stream(l->api, connection, &query, a);
	else if (route->doc || route->text)
		answer_read(l->api, route, &query, header(connection, MHD_HTTP_HEADER_ACCEPT), a);
	else
		answer_command(l->api, path, query_text, peer_uid(connection), a);
}

/* --- libmicrohttpd --- */

/* The request line, before anything of it is parsed. */
static void *request_begin(void *cls, const char *uri, struct MHD_Connection *connection)
{
	const char *mark = strchr(uri, '?');
	const char *query = mark ? mark + 1 : "";
	struct request *r = calloc(1, sizeof(*r) + strlen(query) + 1);

	if (r)
		strcpy(r->query, query);
	return r;
}

static void request_end(void *cls, struct MHD_Connection *connection, void **con_cls,
			enum MHD_RequestTerminationCode code)
{
	free(*con_cls);
	*con_cls = NULL;
}

static enum MHD_Result request_handle(void *cls, struct MHD_Connection *connection, const char *url, const char *method,
				      const char *version, const char *upload_data, size_t *upload_data_size,
				      void **con_cls)
{
	const struct listener *l = cls;
	struct request *r = *con_cls;
	struct answer a = {0};

	if (!r)
		return MHD_NO;
	if (!r->seen_headers) {
		r->seen_headers = true;
		if (l->kind == LISTENER_TCP && !host_allowed(l->api, header(connection, MHD_HTTP_HEADER_HOST)))
			answer_error(&a, 421, "unexpected Host: use localhost, 127.0.0.1 or [::1] with the port");
		else if (has_body(connection))
			answer_error(&a, 413, "no request here has a body");
		/* An answer from here closes the connection, so that nothing of a body is taken for a request. */
		return a.status ? answer_send(l->api, connection, &a) : MHD_YES;
	}
	*upload_data_size = 0;
	answer_request(l, connection, url, method, r->query, &a);
	return answer_send(l->api, connection, &a);
}

static struct MHD_Daemon *daemon_start(struct listener *l, int fd)
{
	/*
	 * A thread per connection: a command waits for decide and a page of flows for workers, and neither may hold up
	 * a scrape.
	 */
	return MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION | MHD_USE_POLL |
					MHD_USE_ITC,
				0, NULL, NULL, request_handle, l, MHD_OPTION_LISTEN_SOCKET, (MHD_socket)fd,
				MHD_OPTION_CONNECTION_LIMIT, (unsigned)MAX_CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT,
				l->api->timeout_s, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)REQUEST_BYTES,
				MHD_OPTION_THREAD_STACK_SIZE, (size_t)STACK_BYTES, MHD_OPTION_URI_LOG_CALLBACK,
				request_begin, NULL, MHD_OPTION_NOTIFY_COMPLETED, request_end, NULL, MHD_OPTION_END);
}

/* Takes `fd`, which may be a negative errno. */
static int listener_start(struct api *api, enum listener_kind kind, int fd, char *err, size_t err_len)
{
	struct listener *l = &api->listeners[kind];

	if (fd < 0)
		return fd;
	*l = (struct listener){.api = api, .kind = kind};
	l->daemon = daemon_start(l, fd);
	if (!l->daemon) {
		snprintf(err, err_len, "API: the HTTP server does not start");
		close(fd);
		return -EIO;
	}
	return 0;
}

static struct api *api_create(const struct api_config *config, struct dataplane *dp)
{
	struct api *api = calloc(1, sizeof(*api));
	pthread_condattr_t attr;

	if (!api)
		return NULL;
	api->version = strdup(config->version);
	if (!api->version) {
		free(api);
		return NULL;
	}
	api->source = (struct api_source){
		dp, api->version, config->started_ns, config->events, config->owners, config->shedding};
	api->notify_fd = config->notify_fd;
	api->timeout_s = config->timeout_s ? config->timeout_s : TIMEOUT_S;
	pthread_mutex_init(&api->lock, NULL);
	pthread_mutex_init(&api->making, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&api->changed, &attr);
	pthread_condattr_destroy(&attr);
	return api;
}

struct api *api_start(const struct api_config *config, struct dataplane *dp, char *err, size_t err_len)
{
	struct api *api = api_create(config, dp);
	int error = 0;

	if (!api) {
		snprintf(err, err_len, "API: out of memory");
		errno = ENOMEM;
		return NULL;
	}
	if (*config->socket_path)
		error = listener_start(api, LISTENER_UNIX,
				       api_unix_listen(config->socket_path, &api->unix_socket, err, err_len), err,
				       err_len);
	if (!error && *config->http)
		error = listener_start(api, LISTENER_TCP, api_tcp_listen(config->http, &api->tcp, err, err_len), err,
				       err_len);
	if (error) {
		api_stop(api);
		errno = -error;
		return NULL;
	}
	return api;
}

void api_stop(struct api *api)
{
	if (!api)
		return;
	pthread_mutex_lock(&api->lock);
	api->stopping = true;
	pthread_cond_broadcast(&api->changed);
	pthread_mutex_unlock(&api->lock);
	api_streams_end(&api->streams);
	api_unix_unlink(&api->unix_socket);
	for (int i = 0; i < LISTENERS; i++)
		if (api->listeners[i].daemon)
			MHD_stop_daemon(api->listeners[i].daemon);
	pthread_cond_destroy(&api->changed);
	pthread_mutex_destroy(&api->lock);
	pthread_mutex_destroy(&api->making);
	free(api->config_text);
	free(api->version);
	free(api);
}

uint16_t api_http_port(const struct api *api)
{
	return api->listeners[LISTENER_TCP].daemon ? api->tcp.port : 0;
}

void api_set_config_text(struct api *api, const char *yaml)
{
	char *text = strdup(yaml);

	pthread_mutex_lock(&api->lock);
	free(api->config_text);
	api->config_text = text;
	pthread_mutex_unlock(&api->lock);
}
