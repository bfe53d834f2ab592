#!/bin/bash
# What the machine code of the kernels on tensor cores allows at most: instructions
# of the main loop by unit, and the part of the tensor cores' peak that each unit
# leaves. Nothing runs, nothing is measured; stalls, barriers and the last blocks
# come on top. See "Reckoned from machine code" in doc/performance.md.
#
#   tests/gpu/reckon.sh FILE...   objects or cubins of cuda/attention_mma*.cu,
#                                 cuda/conv_mma*.cu and cuda/gemm_mma.cu, as
#                                 build/cuda/conv_mma.o of make CUDA=1
#
# The main loop is the innermost one with products, and what is around it in the
# loop that copies; a loop of copies alone in it counts once. What a branch passes
# over in it, without products or copies, is rare and left out: masks, sums scaled
# anew. Clocks of a warp's instruction on a
# quarter of a processor, sm_90 (sm_80): HMMA 4 (8), of which mma.sync reaches 0.62
# (1); MUFU 8; FFMA, FADD, FMUL, IMAD 1 (2); the vector units' others 2. Shared
# memory has 128 bytes a clock for all four quarters: 16 for LDSM.x4 and copies of
# 16 bytes a thread, 4 for single words.
set -u
cuobjdump=$(command -v cuobjdump || echo "${CUDA_HOME:-/usr/local/cuda}/bin/cuobjdump")
if [ $# = 0 ] || [ ! -x "$cuobjdump" ]; then
    echo "usage: $0 FILE...; cuobjdump from PATH or CUDA_HOME" >&2
    exit 1
fi

printf '%-36s %4s %4s %5s | %4s %4s %4s %4s %4s %4s | %s\n' kernel arch regs \
    spill HMMA LDSM copy MUFU FP32 all "mma shared MUFU FP32  ALU issue"
for file; do
    "$cuobjdump" -res-usage -sass "$file" || exit 1
done | awk '
/^arch = |^[ \t]*code for / { done(); match($0, /sm_[0-9]+/)
                              arch = substr($0, RSTART + 3, RLENGTH - 3) }
/^ *Function _Z.*:$/ { of = $2; sub(/:$/, "", of) }
/REG:/ { sub(/.*REG:/, ""); regs[of] = $1 }
/^[ \t]*Function : / { done(); name = $3; n = 0 }
/^ +\/\*[0-9a-f]+\*\/ / {
    sub(/^ +\/\*/, "")
    at[n] = hex(substr($0, 1, index($0, "*") - 1))
    sub(/^[0-9a-f]+\*\/ +/, "")
    sub(/^@!?U?P[0-9T]+ +/, "")
    op[n++] = $0
}
END { done() }

function hex(s,   i, x) {
    for (i = 1; i <= length(s); i++)
        x = 16 * x + index("0123456789abcdef", substr(s, i, 1)) - 1
    return x
}
# where a branch goes, or -1
function target(i) {
    if (op[i] !~ /^BRA/ || !match(op[i], /0x[0-9a-f]+ ;/))
        return -1
    return (hex(substr(op[i], RSTART + 2, RLENGTH - 4)) - at[0]) / 16
}
function has(from, to, what,   i, c) {
    for (i = from; i < to; i++)
        c += op[i] ~ what
    return c + 0
}
# the narrowest loop from low to high around from .. to with such an instruction
function loop(from, to, what,   i, t) {
    low = -1
    for (i = to; i < n; i++) {
        t = target(i)
        if (t >= 0 && t <= from && t < i && has(t, i, what) &&
            (low < 0 || i - t < high - low)) {
            low = t
            high = i
        }
    }
    return low >= 0
}
function add(o, times) {
    c["all"] += times
    if (o ~ /^HMMA/) c["hmma"] += times
    else if (o ~ /^LDSM/) { c["ldsm"] += times; c["shared"] += 16 * times }
    else if (o ~ /^(LDGSTS|STS).*128/) { c["copy"] += times; c["shared"] += 16 * times }
    else if (o ~ /^(LDS|STS|SHFL|LDGSTS)/) c["shared"] += 4 * times
    else if (o ~ /^MUFU/) c["mufu"] += times
    else if (o ~ /^(FFMA|FADD|FMUL|IMAD)/) c["fp"] += times
    else if (o !~ /^(U|LD|ST|B|NOP|DEPBAR|WARPSYNC|S2|CS2)/) c["alu"] += times
}
# from .. to, without what is rare, and without but .. but_to
function count(from, to, times, but, but_to,   i, t) {
    for (i = from; i <= to; i++) {
        if (i == but)
            i = but_to + 1
        add(op[i], times)
        t = target(i)
        if (t > i + 30 && t <= to + 1 && !has(i, t, "^(HMMA|LDGSTS)"))
            i = t - 1
    }
}
function share(clocks) {
    return clocks > 0 ? (arch == 80 ? 8 : 4) * c["hmma"] / clocks : 99
}
function done(   d, in_low, in_high, i, trips, slow) {
    if (name ~ /(attention|conv|grad|product)_mma/ && has(0, n, "^HMMA")) {
        split(name, d, /ILi|EL[ib]|E+v/)
        for (i = in_high = 0; i < n; i++)
            if (op[i] ~ /^HMMA/ && loop(i, i, "^HMMA") &&
                (!in_high || high - low < in_high - in_low))
                in_low = low + 0 * (in_high = high)
        split("", c)
        trips = 1
        if (!has(in_low, in_high, "^LDGSTS") && loop(in_low, in_high, "^LDGSTS")) {
            trips = int(has(low, high, "^LDGSTS.*128") / d[2]) # of 32 rows
            count(low, high, 1, in_low, in_high)
        }
        count(in_low, in_high, trips, -1, -1)
        slow = arch == 80 ? 2 : 1
        sub(/^_ZN.*_cu_[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]/, "", d[1])
        sub(/^(_Z)?[0-9]+/, "", d[1])
        printf "%-36s %4d %4d %5d | %4d %4d %4d %4d %4d %4d | %.2f %6.2f %.2f %.2f %.2f %.2f\n",
            d[1] "<" d[2] (d[3] ~ /^[0-9]+$/ ? "," d[3] : "") (d[4] ~ /^[0-9]+$/ ? "," d[4] : "") ">", arch, regs[name],
            has(0, n, "^(LDL|STL)"), c["hmma"], c["ldsm"], c["copy"], c["mufu"],
            c["fp"], c["all"], slow == 2 ? 1 : 0.62, share(c["shared"]),
            share(8 * c["mufu"]), share(slow * c["fp"]), share(2 * c["alu"]), share(c["all"])
    }
    name = ""
}'
