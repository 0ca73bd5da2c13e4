/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The one list of verdicts. Every packet that a worker takes in ends with exactly one of them; the counters, the
 * ledger, the API and the manual are made from this list, so a new reason needs no second edit to be seen.
 *
 * The law that the ledger keeps, per worker and at the end of each burst:
 *
 *   rx + taken_over = forwarded + answered + shed + absorbed + punted + dropped{reason} + handed_over + inside
 */
#pragma once

#include <stdint.h>

/* Which term of the ledger a verdict belongs to. */
enum verdict_class {
	CLASS_FORWARDED,   /* left through a port, translated */
	CLASS_ANSWERED,    /* turned into its own answer, which left through a port */
	CLASS_SHED,        /* refused on purpose by a cure */
	CLASS_ABSORBED,    /* consumed: the gateway itself was its true receiver */
	CLASS_PUNTED,      /* given to the kernel */
	CLASS_DROPPED,     /* could not be served; the verdict is the reason */
	CLASS_HANDED_OVER, /* given to the worker that owns its flow */
};

/* Which of the five cures a refusal belongs to, or the gateway itself. */
enum cause {
	CAUSE_NONE,
	CAUSE_GATEWAY,
	CAUSE_WALL,
	CAUSE_NAMES,
	CAUSE_SILENCE,
	CAUSE_PATH,
	CAUSE_STORM,
};

/* VERDICT(name, class, cause, what an operator should read) */
#define VERDICT_LIST(V)                                                                                                   \
	V(forwarded, FORWARDED, NONE, "translated and sent on")                                                           \
	V(forwarded_fragments, FORWARDED, NONE,                                                                           \
	  "translated, longer than the egress MTU and without DF: sent on in fragments")                                  \
	V(handed_over, HANDED_OVER, NONE, "given to the worker that owns the flow")                                       \
	/* answered */                                                                                                    \
	V(answer_stray_rst, ANSWERED, SILENCE, "mid-flow TCP packet of an unknown flow, answered with RST")               \
	V(answer_reset_again, ANSWERED, SILENCE,                                                                          \
	  "packet of a connection that the gateway just reset, answered with RST again")                                  \
	V(answer_service_down, ANSWERED, NAMES, "SYN to a service without a usable backend, answered with RST")           \
	V(answer_table_full, ANSWERED, GATEWAY,                                                                           \
	  "SYN that found the flow table full, answered with RST: gateway.flows is too small for what comes")             \
	V(answer_table_pressed, ANSWERED, GATEWAY,                                                                        \
	  "SYN of a client without a success in the last minute, answered with RST, as the flow table is nearly full: "   \
	  "raise gateway.flows, or see which clients fill it")                                                            \
	V(answer_ports_exhausted, ANSWERED, GATEWAY,                                                                      \
	  "SYN that found no free SNAT port towards its backend, answered with RST")                                      \
	V(answer_echo, ANSWERED, NONE, "echo request to a VIP or a SNAT address, answered")                               \
	V(answer_ttl_exceeded, ANSWERED, NONE, "TTL or hop limit ran out, answered with time exceeded")                   \
	V(answer_unreachable, ANSWERED, NAMES,                                                                            \
	  "UDP to a service without a usable backend, answered with port unreachable")                                    \
	V(answer_too_big, ANSWERED, PATH, "longer than the egress MTU, answered with the MTU that fits")                  \
	V(answer_storm_client, ANSWERED, STORM, "SYN beyond its client's cap on new flows, answered with RST")            \
	V(answer_storm_prefix, ANSWERED, STORM, "SYN beyond its prefix's cap on new flows, answered with RST")            \
	V(answer_storm_service, ANSWERED, STORM, "SYN beyond the service's cap on new flows, answered with RST")          \
	V(answer_storm_limit, ANSWERED, STORM, "SYN beyond what its backends bear now, answered with RST")                \
	V(answer_storm_hard_max, ANSWERED, STORM,                                                                         \
	  "SYN beyond what its backends may have under way (storm.hard_max), answered with RST")                          \
	V(answer_storm_backend, ANSWERED, STORM,                                                                          \
	  "SYN beyond the new connections that its backends are given (storm.backend_rate), answered with RST")           \
	V(answer_storm_retry, ANSWERED, STORM, "SYN of a retry beyond the service's retry budget, answered with RST")     \
	V(answer_wall_open, ANSWERED, WALL,                                                                               \
	  "SYN to a service whose backends' breakers are all open, answered with RST")                                    \
	V(answer_wall_unreachable, ANSWERED, WALL,                                                                        \
	  "UDP to a service whose backends' breakers are all open, answered with port unreachable")                       \
	V(answer_ghost, ANSWERED, WALL,                                                                                   \
	  "SYN-ACK of a backend whose SYN had been given to another one meanwhile, answered with RST")                    \
	V(answer_probe, ANSWERED, WALL,                                                                                   \
	  "answer to the gateway's own SYN, answered with RST: the application never sees it")                            \
	/* absorbed */                                                                                                    \
	V(absorb_refusal, ABSORBED, WALL, "RST to a SYN that was given to another backend instead")                       \
	V(absorb_unreachable, ABSORBED, WALL, "ICMP error about a SYN that was given to another backend instead")         \
	V(absorb_probe, ABSORBED, WALL, "RST or ICMP error to the gateway's own SYN")                                     \
	V(absorb_time_wait, ABSORBED, GATEWAY,                                                                            \
	  "acknowledgement of an earlier connection's end, in answer to a SYN: settled with RST, and the SYN sent again") \
	V(absorb_probe_answer, ABSORBED, SILENCE, "answer to a probe of the gateway's own, and nothing more")             \
	V(absorb_syn, ABSORBED, SILENCE,                                                                                  \
	  "SYN in the middle of a connection: its client was asked by ACK, then or up to half a second before")           \
	/* shed: silent refusals */                                                                                       \
	V(shed_stray_limit, SHED, SILENCE, "mid-flow packet of an unknown flow, over the RST limits")                     \
	V(shed_reset_again, SHED, SILENCE,                                                                                \
	  "packet of a connection that the gateway just reset: said often enough, or over the RST limits")                \
	V(shed_backend_rst, SHED, WALL,                                                                                   \
	  "answer of a backend to a SYN that was withdrawn or the gateway's own, over the RST limits: it comes again")    \
	V(shed_refused_limit, SHED, GATEWAY, "SYN that could not be served, over the RST limits")                         \
	V(shed_icmp_limit, SHED, PATH, "answer suppressed by the limits on ICMP that the gateway makes")                  \
	V(shed_storm_client, SHED, STORM, "new flow beyond its client's cap: UDP, or a SYN over the RST limits")          \
	V(shed_storm_prefix, SHED, STORM, "new flow beyond its prefix's cap: UDP, or a SYN over the RST limits")          \
	V(shed_storm_service, SHED, STORM, "new flow beyond the service's cap: UDP, or a SYN over the RST limits")        \
	V(shed_storm_limit, SHED, STORM, "SYN beyond what its backends bear now, over the RST limits")                    \
	V(shed_storm_hard_max, SHED, STORM,                                                                               \
	  "SYN beyond what its backends may have under way (storm.hard_max), over the RST limits")                        \
	V(shed_storm_backend, SHED, STORM,                                                                                \
	  "SYN beyond the new connections that its backends are given (storm.backend_rate), over the RST limits")         \
	V(shed_storm_retry, SHED, STORM, "SYN of a retry beyond the service's retry budget, over the RST limits")         \
	/* absorbed */                                                                                                    \
	V(absorb_held, ABSORBED, STORM, "SYN of a connection that is held already")                                       \
	/* dropped: malformed, in the order in which the bytes are read */                                                \
	V(drop_truncated, DROPPED, GATEWAY, "shorter than its headers or its length fields say")                          \
	V(drop_not_ip, DROPPED, GATEWAY, "neither IPv4 nor IPv6")                                                         \
	V(drop_vlan, DROPPED, GATEWAY, "on a VLAN: the ports carry none")                                                 \
	V(drop_ip_version, DROPPED, GATEWAY, "version field does not match the EtherType")                                \
	V(drop_ip_header, DROPPED, GATEWAY, "IP header length impossible")                                                \
	V(drop_ip_checksum, DROPPED, GATEWAY, "IPv4 header checksum wrong")                                               \
	V(drop_ip_source, DROPPED, GATEWAY, "source address that no host may have, or one of ours")                       \
	V(drop_source_route, DROPPED, GATEWAY, "source-routed: LSRR, SSRR or a routing header with a way to go")          \
	V(drop_ip_options, DROPPED, GATEWAY, "malformed IPv4 options or too many IPv6 extension headers")                 \
	V(drop_fragment, DROPPED, GATEWAY, "IP fragment: the gateway translates whole packets")                           \
	V(drop_protocol, DROPPED, GATEWAY, "transport protocol that the gateway does not translate")                      \
	V(drop_l4_header, DROPPED, GATEWAY, "TCP, UDP or ICMP header impossible or cut off")                              \
	V(drop_tcp_flags, DROPPED, GATEWAY, "TCP flags that no stack sends together")                                     \
	V(drop_udp6_zero_checksum, DROPPED, GATEWAY, "UDP over IPv6 without checksum (RFC 8200 8.1)")                     \
	/* dropped: meaningless here */                                                                                   \
	V(drop_not_ours, DROPPED, GATEWAY, "for no listener and no SNAT address")                                         \
	V(drop_stray_rst, DROPPED, SILENCE,                                                                               \
	  "RST of an unknown flow, or of one that the gateway just reset: never answered")                                \
	V(drop_rst_window, DROPPED, SILENCE,                                                                              \
	  "RST outside of the window: forged or late, its receiver would not take it")                                    \
	V(drop_stray_udp, DROPPED, GATEWAY, "UDP to a SNAT address that belongs to no flow")                              \
	V(drop_snat_syn, DROPPED, GATEWAY, "SYN towards a SNAT address: upstreams do not open towards the gateway")       \
	V(drop_icmp_unwanted, DROPPED, GATEWAY, "ICMP that the gateway does not use")                                     \
	V(drop_icmp_checksum, DROPPED, GATEWAY, "ICMP checksum wrong")                                                    \
	V(drop_icmp_quote, DROPPED, GATEWAY, "ICMP error whose quote is cut short, malformed or contradicts itself")      \
	V(drop_icmp_no_flow, DROPPED, GATEWAY, "ICMP error about a packet of no flow")                                    \
	V(drop_icmp_sequence, DROPPED, GATEWAY, "ICMP error that quotes data which is not under way: forged or late")     \
	V(drop_ptb_held, DROPPED, PATH,                                                                                   \
	  "\"packet too big\" less than what its connection had acknowledged: believed if it comes again")                \
	V(drop_ghost, DROPPED, WALL, "late packet of a backend whose SYN had been given to another one meanwhile")        \
	/* dropped: no way to serve */                                                                                    \
	V(drop_unanswerable, DROPPED, GATEWAY,                                                                            \
	  "could not be served, and such a packet is not to be answered (multicast, ICMP errors)")                        \
	V(drop_table_full, DROPPED, GATEWAY, "flow table full (UDP)")                                                     \
	V(drop_table_pressed, DROPPED, GATEWAY,                                                                           \
	  "UDP of a client without an answer in the last minute, as the flow table is nearly full: raise gateway.flows")  \
	V(drop_ports_exhausted, DROPPED, GATEWAY, "no free SNAT port towards that backend (UDP)")                         \
	V(drop_no_route, DROPPED, GATEWAY, "no route to the next address")                                                \
	V(drop_route_blackhole, DROPPED, GATEWAY, "the route says blackhole, unreachable or prohibit")                    \
	V(drop_neighbour, DROPPED, GATEWAY, "next hop not resolved yet or failed")                                        \
	V(drop_link_down, DROPPED, GATEWAY, "egress link is down")                                                        \
	V(drop_too_big, DROPPED, PATH,                                                                                    \
	  "longer than the egress MTU: an answer or an error, or in more than 16 fragments")                              \
	V(drop_handover_full, DROPPED, GATEWAY, "ring to the owning worker full")                                         \
	V(drop_no_buffer, DROPPED, GATEWAY, "no packet buffer was free, for what was held or for fragments")              \
	V(drop_stopped, DROPPED, GATEWAY, "held when the worker ended")

enum verdict {
#define V(name, class, cause, help) VERDICT_##name,
	VERDICT_LIST(V)
#undef V
		VERDICT_COUNT,
	/* Never counted: taken in, to end with a verdict later; its packet is gone, and it counts as `inside` until
	   then. */
	VERDICT_INSIDE = 0xfe,
	/* Never counted: not yet decided. */
	VERDICT_NONE = 0xff,
};

struct verdict_info {
	const char *name; /* "drop_truncated" */
	const char *help;
	enum verdict_class class;
	enum cause cause;
};

/* Indexed by enum verdict. */
extern const struct verdict_info verdict_info[VERDICT_COUNT];

/* "gateway", "wall", …; "none" for CAUSE_NONE. */
const char *cause_name(enum cause cause);

/* "forwarded", "answered", … */
const char *verdict_class_name(enum verdict_class class);
