/* Instructions and what they work on: section "Instruction Operands". */
#include "parse.h"

#include <stdlib.h>
#include <string.h>

namespace ptx
{

namespace
{

bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* --- operands ---------------------------------------------------------------- */

bool find_register(const Parser &p, const std::string &name, Register *r)
{
    size_t digits = name.size();

    while (digits > 0 && is_digit(name[digits - 1]))
        --digits;
    for (size_t i = p.scopes.size(); i-- > 0;) {
        const auto one = p.scopes[i].find(name);
        if (one != p.scopes[i].end()) {
            *r = one->second;
            return true;
        }
        const auto family = p.families[i].find(name.substr(0, digits));
        if (family != p.families[i].end() && digits < name.size()) {
            const uint32_t n = (uint32_t)atoi(name.c_str() + digits);
            *r = family->second;
            r->slot += n * (r->bytes == 8 ? 2 : 1);
            return true;
        }
    }
    return false;
}

uint32_t constant(Parser *p, uint8_t bytes, uint64_t value)
{
    const auto key = std::make_pair((int)bytes, value);
    const auto at = p->constants.find(key);

    if (at != p->constants.end())
        return at->second;
    const uint32_t slot = take_slots(p, bytes, 1);
    p->k->constants.push_back(Constant { slot, bytes, value });
    return p->constants[key] = slot;
}

/* -12, 0x1F, 0f3F800000, 0d3FF0000000000000 */
uint64_t number(const Parser &p, const std::string &s)
{
    const char *text = s.c_str();
    char *end;
    uint64_t value;

    if (s.size() > 2 && s[0] == '0' && strchr("fFdD", s[1]) != nullptr)
        value = strtoull(text + 2, &end, 16);
    else if (s[0] == '-')
        value = (uint64_t)strtoll(text, &end, 0);
    else
        value = strtoull(text, &end, 0);
    if (end == text || (*end != 0 && strcmp(end, "U") != 0))
        wrong(p, "no number: " + s);
    return value;
}

bool special(Parser *p, const std::string &s, Register *r)
{
    static const std::map<std::string, SpecialName> names = {
        { "%tid", TID },       { "%ctaid", CTAID },   { "%ntid", NTID },
        { "%nctaid", NCTAID }, { "%laneid", LANEID },
    };
    const size_t dot = s.find('.');
    const auto at = names.find(s.substr(0, dot));

    if (at == names.end())
        return false;
    const uint8_t axis = dot == s.npos ? 0 : (uint8_t)(s[dot + 1] - 'x');
    for (const Special &known : p->k->specials)
        if (known.name == at->second && known.axis == axis) {
            *r = Register { known.slot, 4 };
            return true;
        }
    *r = Register { take_slots(p, 4, 1), 4 };
    p->k->specials.push_back(Special { r->slot, at->second, axis });
    return true;
}

/* A symbol's address is a constant. */
bool symbol(Parser *p, const std::string &s, uint8_t bytes, Register *r)
{
    const auto param = p->params.find(s);
    auto variable = p->shared.find(s);
    const uint8_t width = bytes == ANY ? 8 : bytes;

    if (param != p->params.end()) {
        *r = { constant(p, width, PARAM_BASE + param->second), width };
        return true;
    }
    if (p->locals.count(s) != 0) {
        *r = { constant(p, width, LOCAL_BASE + p->locals[s]), width };
        return true;
    }
    if (variable == p->shared.end())
        return false;
    if (!variable->second.dynamic) {
        *r = { constant(p, width, shared_address(p, &variable->second)),
               width };
        return true;
    }
    /* where it begins is known once all is read */
    const uint32_t slot = take_slots(p, width, 1);
    p->dynamic.push_back({ p->k->constants.size(), variable->second.align });
    p->k->constants.push_back(Constant { slot, width, 0 });
    *r = { slot, width };
    return true;
}

/* "cvt" takes a register that is wider than its type says: the lower part of
 * it, here by an instruction before. */
Register narrowed(Parser *p, Register wide)
{
    const Register low = { take_slots(p, 4, 1), 4 };
    Op op = {};

    op.run = table_find("cvt.u32.u64").run;
    op.kind = PLAIN;
    op.line = p->line;
    op.guard = -1;
    op.num_to = op.num_from = 1;
    op.to[0] = low.slot;
    op.from[0] = wide.slot;
    p->k->ops.push_back(op);
    return low;
}

/* bytes: what the shape wants, ANY takes what there is, 'plain' for numbers */
uint32_t resolve(Parser *p, const std::string &s, uint8_t bytes, uint8_t plain,
                 uint8_t *found)
{
    Register r;

    if (!find_register(*p, s, &r) && !special(p, s, &r) &&
        !symbol(p, s, bytes, &r)) {
        const uint8_t width = bytes >= WORD ? plain : bytes;
        r = { constant(p, width, number(*p, s)), width };
    }
    if (bytes == 4 && r.bytes == 8 && p->narrows)
        r = narrowed(p, r);
    const bool fits = bytes == ANY || r.bytes == bytes ||
                      (bytes == WORD && (r.bytes == 2 || r.bytes == 4));
    if (!fits)
        wrong(*p, s + " has another width than the instruction");
    *found = r.bytes;
    return r.slot;
}

/* the flat list of operands: vectors taken apart, "d|p" too */
std::vector<Operand> operands_of(const Parser &p, const std::string &s)
{
    std::vector<Operand> all;

    for (const std::string &part : split(s, ',')) {
        if (part[0] == '{') {
            for (const Operand &o :
                 operands_of(p, part.substr(1, part.size() - 2)))
                all.push_back(o);
        } else if (part[0] == '[') {
            const size_t plus = part.find('+');
            const size_t end = plus == part.npos ? part.size() - 1 : plus;
            const int64_t offset =
                plus == part.npos ? 0 : strtoll(&part[plus + 1], nullptr, 0);
            all.push_back({ true, part.substr(1, end - 1), offset });
        } else {
            for (const std::string &one : split(part, '|'))
                all.push_back({ false, one, 0 });
        }
    }
    return all;
}

/* --- instructions -------------------------------------------------------------- */

/* How many operands are written: the shape's, but for vectors and "d|p". */
int count_to(const Shape &shape)
{
    int n = 0;

    while (n < MAX_TO && shape.to[n] != 0)
        ++n;
    return n;
}

void fill_operands(Parser *p, Op *op, const Shape &shape,
                   const std::vector<Operand> &all, int num_to)
{
    int addresses = 0;
    uint8_t found = 0;

    for (size_t i = 0; i < all.size(); ++i) {
        const bool to = (int)i < num_to;
        const int n = to ? (int)i : (int)i - num_to;
        if (n >= (to ? MAX_TO : MAX_FROM))
            wrong(*p, "too many operands");
        const uint8_t bytes = to ? shape.to[n] : shape.from[n];
        if (bytes == 0)
            wrong(*p, "more operands than the opcode has");
        if (all[i].address && addresses > 1)
            wrong(*p, "too many addresses");
        if (all[i].address)
            op->offset[addresses++] = all[i].offset;
        const uint8_t plain = all[i].address  ? 8
                              : op->bytes < 4 ? 4
                                              : op->bytes;
        (to ? op->to : op->from)[n] =
            resolve(p, all[i].base, bytes, plain, &found);
        if (all[i].address && addresses == 1)
            op->wide = found == 8;
        if (i == 0)
            op->to_bytes = found;
    }
    op->num_to = (uint8_t)num_to;
    op->num_from = (uint8_t)(all.size() - (size_t)num_to);
}

/* moves between a register and the parts of it that a vector names */
void run_pack(Warp &w, const Op &op, uint32_t lanes)
{
    const int bits = op.bytes * 8 / op.num_from;
    uint64_t d[LANES] = { 0 };
    uint32_t low[LANES];

    for (int n = 0; n < op.num_from; ++n)
        for (int i = 0; i < LANES; ++i)
            d[i] |= (uint64_t)w.words(op.from[n])[i] << n * bits;
    for (int i = 0; i < LANES; ++i)
        low[i] = (uint32_t)d[i];
    if (op.bytes == 8)
        put_longs(w, op.to[0], d, lanes);
    else
        put_words(w, op.to[0], low, lanes);
}

void run_unpack(Warp &w, const Op &op, uint32_t lanes)
{
    const int bits = op.bytes * 8 / op.num_to;
    const uint64_t mask = ((uint64_t)1 << bits) - 1;

    uint32_t d[MAX_TO][LANES];

    for (int n = 0; n < op.num_to; ++n)
        for (int i = 0; i < LANES; ++i) {
            const uint64_t x =
                op.bytes == 8 ? w.longs(op.from[0])[i] : w.words(op.from[0])[i];
            d[n][i] = (uint32_t)(x >> n * bits & mask);
        }
    for (int n = 0; n < op.num_to; ++n)
        put_words(w, op.to[n], d[n], lanes);
}

/* mov with a vector; false: it has none */
bool form_pack(const std::string &opcode, const std::string &rest, Op *op,
               Shape *shape, int *num_to)
{
    const size_t open = rest.find('{'), comma = rest.find(',');

    if (opcode.compare(0, 4, "mov.") != 0 || open == rest.npos)
        return false;
    const bool packs = open > comma;
    const int parts =
        (int)split(rest.substr(open + 1, rest.find('}') - open - 1), ',')
            .size();
    *shape = Shape {};
    shape->kind = PLAIN;
    shape->run = packs ? run_pack : run_unpack;
    op->bytes = opcode == "mov.b64" ? 8 : 4;
    (packs ? shape->to : shape->from)[0] = op->bytes;
    for (int i = 0; i < parts; ++i)
        (packs ? shape->from : shape->to)[i] = (uint8_t)(op->bytes / parts);
    *num_to = packs ? 1 : parts;
    return true;
}

void read_guard(Parser *p, std::string *s, Op *op)
{
    uint8_t found;

    op->guard = -1;
    if ((*s)[0] != '@')
        return;
    const size_t end = s->find_first_of(" \t");
    op->unless = (*s)[1] == '!';
    const size_t name = op->unless ? 2 : 1;
    op->guard = (int32_t)resolve(p, s->substr(name, end - name), 1, 1, &found);
    *s = s->substr(s->find_first_not_of(" \t", end));
}

} // namespace

void read_instruction(Parser *p, std::string s)
{
    Op op = {};
    Shape shape = {};
    int num_to;

    op.line = p->line;
    op.source_file = p->source[0];
    op.source_line = p->source[1];
    op.used = p->used;
    p->used = 0;
    read_guard(p, &s, &op);
    const size_t end = s.find_first_of(" \t\n{");
    const std::string opcode = s.substr(0, end);
    const std::string rest = end == s.npos ? "" : s.substr(end);
    p->narrows = opcode.compare(0, 4, "cvt.") == 0;
    op.mode = opcode.find(".ftz") != opcode.npos;
    if (opcode == "bra" || opcode == "bra.uni") {
        op.kind = BRANCH;
        p->branches.push_back({ p->k->ops.size(), split(rest, ',').at(0) });
    } else if (opcode == "ret" || opcode == "exit") {
        op.kind = EXIT;
    } else {
        if (!form_pack(opcode, rest, &op, &shape, &num_to)) {
            shape = table_find(opcode);
            if (shape.run == nullptr)
                shape = form_find(split(opcode, '.'), &op);
            if (shape.run == nullptr)
                wrong(*p, "tests/ptx has no row for " + opcode);
            num_to = count_to(shape);
        }
        const std::vector<Operand> all = operands_of(*p, rest);
        /* a shuffle's predicate may be left out */
        if (opcode.compare(0, 5, "shfl.") == 0 && all.size() == 5)
            num_to = 1;
        op.run = shape.run;
        op.kind = shape.kind;
        fill_operands(p, &op, shape, all, num_to);
    }
    p->k->ops.push_back(op);
}

} // namespace ptx
