#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
#
# Instructions per established packet, counted by callgrind, against baseline.txt. More than 5 % above fails: make it
# less, or change the figure there and say why in the commit. More than 5 % below asks for the lower figure.
#
#   check.sh PROGRAM [--print]      --print: the lines for baseline.txt, nothing compared
set -eu

program=$1
here=$(dirname "$0")
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM

if ! valgrind --tool=callgrind --collect-atstart=no --compress-strings=no --callgrind-out-file="$dir/out" "$program" \
	>"$dir/log" 2>&1; then
	cat "$dir/log" >&2
	exit 1
fi

# A dump says "desc: Trigger: Client Request: KIND PACKETS" and "summary: INSTRUCTIONS".
figures() {
	awk '/^desc: Trigger: Client Request: / { kind = $(NF - 1); packets = $NF; next }
	     /^(summary|totals): / && kind != "" { printf "%s %.1f\n", kind, $2 / packets; kind = "" }' "$dir"/out* | sort
}

figures >"$dir/figures"
if [ "${2:-}" = --print ]; then
	cat "$dir/figures"
	exit 0
fi
awk 'NR == FNR { if ($0 !~ /^#/ && NF) allowed[$1] = $2; next }
     { found[$1] = 1; change = 100 * ($2 / allowed[$1] - 1)
       printf "%-10s %7.1f instructions per packet, baseline %7.1f (%+.1f %%)\n", $1, $2, allowed[$1], change
       if (!($1 in allowed) || change > 5) bad = 1
       if (change < -5) printf "       lower than the baseline by more than 5 %%: put the new figure there\n" }
     END { for (kind in allowed) if (!(kind in found)) { print kind ": not counted"; bad = 1 }
	   exit bad }' "$here/baseline.txt" "$dir/figures"
