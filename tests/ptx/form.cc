/* What the words of an opcode say, for those that are not in the table of
 * arithmetic. */
#include "ptx.h"

#include <algorithm>
#include <string.h>

namespace ptx
{

namespace
{

using Words = std::vector<std::string>;

bool has(const Words &words, const char *word)
{
    return std::find(words.begin(), words.end(), word) != words.end();
}

/* the type, the last word: u32, f64, .. */
bool type_of(const Words &words, Op *op)
{
    const std::string &t = words.back();

    op->bytes = (uint8_t)(atoi(t.c_str() + 1) / 8);
    op->extends = t[0] == 's';
    return strchr("busf", t[0]) != nullptr && op->bytes > 0 && op->bytes <= 8;
}

/* all words but first and last are known ones */
bool only(const Words &words, std::initializer_list<const char *> known)
{
    for (size_t i = 1; i + 1 < words.size(); ++i)
        if (std::none_of(known.begin(), known.end(),
                         [&](const char *k) { return words[i] == k; }))
            return false;
    return true;
}

Space space_of(const Words &words)
{
    return has(words, "global")   ? GLOBAL
           : has(words, "shared") ? SHARED
           : has(words, "param")  ? PARAM
           : has(words, "local")  ? LOCAL
                                  : GENERIC;
}

/* ld.global.v4.f32 d.., [a]   st.shared.u32 [a], b.. */
Shape form_memory(const Words &words, Op *op)
{
    const bool loads = words[0] == "ld";
    const int count = has(words, "v4") ? 4 : has(words, "v2") ? 2 : 1;
    Shape s = {};

    if (!only(words,
              { "global", "shared", "param", "local", "nc", "v2", "v4" }) ||
        !type_of(words, op))
        return s;
    op->space = space_of(words);
    s.run = loads ? run_load : run_store;
    s.kind = PLAIN;
    s.from[0] = ANY;
    for (int i = 0; i < count; ++i)
        if (loads)
            s.to[i] = ANY; /* may be wider than what is loaded */
        else
            s.from[1 + i] = op->bytes < 4 ? (uint8_t)WORD : op->bytes;
    return s;
}

Shape form_atom(const Words &words, Op *op)
{
    Shape s = {};

    if (words.size() != 4 || words[2] != "min" || words[3] != "u64" ||
        words[1] != "global")
        return s;
    op->space = GLOBAL;
    op->bytes = 8;
    return Shape { run_least, PLAIN, { 8 }, { 8, 8 } };
}

/* cp.async.cg.shared.global [a], [b], 16, size   cp.async.wait_all */
Shape form_copy(const Words &words, Op *op)
{
    if (words.size() == 3 && words[2] == "wait_all") {
        op->mode = 1;
        return Shape { run_wait, PLAIN, {}, {} };
    }
    if (words.size() == 3 && words[2] == "wait_group")
        return Shape { run_wait, PLAIN, {}, { 4 } };
    if (words.size() == 3 && words[2] == "commit_group")
        return Shape { run_commit, PLAIN, {}, {} };
    if (words.size() != 5 || words[3] != "shared" || words[4] != "global" ||
        (words[2] != "cg" && words[2] != "ca"))
        return Shape {};
    op->mode = words[2] == "cg" ? 16 : 0; /* .cg is of 16 bytes alone */
    return Shape { run_copy, PLAIN, {}, { ANY, 8, 4, 4 } };
}

/* shfl.sync.bfly.b32 d|p, a, b, c, members */
Shape form_shuffle(const Words &words, Op *op)
{
    static const char *const modes[] = { "up", "down", "bfly", "idx" };

    if (words.size() != 4 || words[1] != "sync" || words[3] != "b32")
        return Shape {};
    for (uint8_t m = 0; m < 4; ++m)
        if (words[2] == modes[m]) {
            op->mode = m;
            return Shape { run_shuffle, TOGETHER, { 4, 1 }, { 4, 4, 4, 4 } };
        }
    return Shape {};
}

/* vote.sync.any.pred p, q, members */
Shape form_vote(const Words &words, Op *op)
{
    if (words.size() != 4 || words[1] != "sync" || words[3] != "pred" ||
        (words[2] != "any" && words[2] != "all"))
        return Shape {};
    op->mode = words[2] == "all";
    return Shape { run_vote, TOGETHER, { 1 }, { 1, 4 } };
}

/* ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {d..}, [a] */
Shape form_tiles(const Words &words, Op *op)
{
    if (!only(words, { "sync", "aligned", "m8n8", "x4", "trans", "shared" }) ||
        !has(words, "x4") || !has(words, "shared") || words.back() != "b16")
        return Shape {};
    op->aligned = true;
    op->mode = has(words, "trans");
    return Shape { run_tiles, TOGETHER, { 4, 4, 4, 4 }, { ANY } };
}

Shape form_product(const Words &words, Op *op)
{
    static const Words known = { "mma", "sync", "aligned", "m16n8k16", "row",
                                 "col", "f32",  "bf16",    "bf16",     "f32" };

    if (words != known)
        return Shape {};
    op->aligned = true;
    return Shape {
        run_product, TOGETHER, { 4, 4, 4, 4 }, { 4, 4, 4, 4, 4, 4, 4, 4, 4, 4 }
    };
}

/* "bar.sync" is barrier.cta.sync.aligned; bar.warp.sync members */
Shape form_barrier(const Words &words, Op *op)
{
    if (words.size() == 3 && words[1] == "warp" && words[2] == "sync")
        return Shape { run_fence, TOGETHER, {}, { 4 } };
    if (words.size() != 2 || words[1] != "sync")
        return Shape {};
    op->aligned = true;
    return Shape { run_fence, BARRIER, {}, { 4 } };
}

} // namespace

Shape form_find(const Words &words, Op *op)
{
    static const std::map<std::string, Shape (*)(const Words &, Op *)> forms = {
        { "ld", form_memory },      { "st", form_memory },
        { "atom", form_atom },      { "cp", form_copy },
        { "shfl", form_shuffle },   { "vote", form_vote },
        { "ldmatrix", form_tiles }, { "mma", form_product },
        { "bar", form_barrier },
    };
    const auto at = forms.find(words[0]);

    return at == forms.end() ? Shape {} : at->second(words, op);
}

} // namespace ptx
