/* PTX text to instructions: sections "Syntax", "State Spaces" and
 * "Instruction Operands". */
#include "ptx.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

namespace ptx
{

namespace
{

struct Register {
    uint32_t slot;
    uint8_t bytes;
};

/* an operand as it stands */
struct Operand {
    bool address;
    std::string base; /* register, symbol or number; "" is no base */
    int64_t offset;
};

struct Parser {
    Kernel *k;
    const std::string *text;
    size_t at;
    std::vector<std::map<std::string, Register>> scopes, families;
    std::map<std::string, Variable> shared;
    std::map<std::string, uint32_t> params;
    std::map<std::string, int32_t> labels;
    std::vector<std::pair<size_t, std::string>> branches;
    std::map<std::pair<int, uint64_t>, uint32_t> constants;
    std::vector<std::pair<size_t, int64_t>> dynamic; /* constants behind it */
    int line;
    bool narrows; /* the instruction is a cvt */
    uint8_t used; /* Op.used of the next one */
};

[[noreturn]] void wrong(const Parser &p, const std::string &what)
{
    fault_text(place_of(*p.k, p.line), "%s", what.c_str());
}

int line_at(const std::string &text, size_t at)
{
    int line = 1;

    for (size_t i = 0; i < at; ++i)
        line += text[i] == '\n';
    return line;
}

std::vector<std::string> split(const std::string &s, char by)
{
    std::vector<std::string> parts;
    std::string part;
    int depth = 0;

    for (const char c : s) {
        depth += (c == '{' || c == '[') - (c == '}' || c == ']');
        if (c == by && depth == 0) {
            parts.push_back(part);
            part.clear();
        } else if (c != ' ' && c != '\t' && c != '\n') {
            part += c;
        }
    }
    if (!part.empty())
        parts.push_back(part);
    return parts;
}

bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

uint8_t type_bytes(const Parser &p, const std::string &type)
{
    static const std::map<std::string, uint8_t> all = {
        { "pred", 1 }, { "b8", 1 },  { "u8", 1 },  { "b16", 2 }, { "u16", 2 },
        { "s16", 2 },  { "b32", 4 }, { "u32", 4 }, { "s32", 4 }, { "f32", 4 },
        { "b64", 8 },  { "u64", 8 }, { "s64", 8 }, { "f64", 8 }
    };
    const auto at = all.find(type);

    if (at == all.end())
        wrong(p, "no such type: " + type);
    return at->second;
}

uint32_t take_slots(Parser *p, uint8_t bytes, uint32_t count)
{
    const uint32_t first = p->k->num_slots;

    p->k->num_slots += count * (bytes == 8 ? 2 : 1);
    return first;
}

/* --- declarations ------------------------------------------------------------ */

/* .reg .b32 %r<7>;   .reg .b64 %tmp; */
void declare_registers(Parser *p, const std::string &s)
{
    const size_t dot = s.find('.', 4), name = s.find_first_of(" \t", dot);
    const uint8_t bytes = type_bytes(*p, s.substr(dot + 1, name - dot - 1));

    for (const std::string &n : split(s.substr(name), ',')) {
        const size_t many = n.find('<');
        const uint32_t count =
            many == n.npos ? 1 : (uint32_t)atoi(n.c_str() + many + 1);
        const Register r = { take_slots(p, bytes, count), bytes };
        (many == n.npos ? p->scopes : p->families).back()[n.substr(0, many)] =
            r;
    }
}

/* .shared .align 8 .b8 name[128]; .extern: the end is open */
Variable shared_variable(const std::string &s, std::string *name)
{
    const size_t align = s.find(".align"), open = s.find('[');
    const size_t begin = s.find_last_of(" \t", open) + 1;

    if (align == s.npos || open == s.npos || s.find(".b8") == s.npos)
        fault_text("shared memory", "not understood: %s", s.c_str());
    *name = s.substr(begin, open - begin);
    return Variable { (uint32_t)atoi(s.c_str() + open + 1),
                      (uint32_t)atoi(s.c_str() + align + 6), 0,
                      s[open + 1] == ']', false };
}

/* Static variables stand first, what is dynamic behind them. */
uint32_t shared_address(Parser *p, Variable *v)
{
    Kernel *k = p->k;

    if (!v->placed && !v->dynamic) {
        v->at = (k->static_shared + v->align - 1) / v->align * v->align;
        k->static_shared = v->at + v->bytes;
        v->placed = true;
    }
    return SHARED_BASE + v->at;
}

/* .param .align 8 .b8 name[48]   .param .u64 name */
void declare_param(Parser *p, std::string s)
{
    s.resize(s.find_last_not_of(" \t\n") + 1);
    const size_t open = s.find('['), end = open == s.npos ? s.size() : open;
    const size_t begin = s.find_last_of(" \t", end) + 1;
    const size_t align_at = s.find(".align"), type = s.rfind('.', begin);
    const uint8_t unit = type_bytes(
        *p, s.substr(type + 1, s.find_first_of(" \t", type) - type - 1));
    const uint32_t bytes =
        unit * (open == s.npos ? 1 : (uint32_t)atoi(s.c_str() + open + 1));
    const uint32_t align =
        align_at == s.npos ? unit : (uint32_t)atoi(s.c_str() + align_at + 6);
    Kernel *k = p->k;
    const uint32_t at = (k->param_bytes + align - 1) / align * align;

    k->params.push_back(Param { at, bytes });
    k->param_bytes = at + bytes;
    p->params[s.substr(begin, end - begin)] = at;
}

/* "name(params) .maxntid 256, 1, 1 .." up to the body's brace */
void read_head(Parser *p)
{
    const std::string &t = *p->text;
    const size_t open = t.find('(', p->at), close = t.find(')', open);
    const size_t body = t.find('{', close);
    const std::string list = t.substr(open + 1, close - open - 1);
    const std::string tail = t.substr(close, body - close);
    const size_t most = tail.find(".maxntid");
    size_t from = 0;

    for (size_t to; from < list.size(); from = to + 1) {
        to = list.find(',', from);
        to = to == list.npos ? list.size() : to;
        if (list.find(".param", from) < to)
            declare_param(p, list.substr(from, to - from));
    }
    if (most != tail.npos) {
        unsigned x = 1, y = 1, z = 1;
        sscanf(tail.c_str() + most, ".maxntid %u, %u, %u", &x, &y, &z);
        p->k->most_threads = x * y * z;
    }
    p->at = body + 1;
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
        const uint8_t width = bytes == ANY ? plain : bytes;
        r = { constant(p, width, number(*p, s)), width };
    }
    if (bytes == 4 && r.bytes == 8 && p->narrows)
        r = narrowed(p, r);
    if (bytes != ANY && r.bytes != bytes)
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

void read_instruction(Parser *p, std::string s)
{
    Op op = {};
    Shape shape = {};
    int num_to;

    op.line = p->line;
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

/* --- the body ---------------------------------------------------------------- */

void skip_blank(Parser *p)
{
    const std::string &t = *p->text;

    for (;;) {
        while (strchr(" \t\n", t[p->at]) != nullptr) {
            p->line += t[p->at] == '\n';
            ++p->at;
        }
        if (t.compare(p->at, 2, "//") != 0)
            return;
        p->at = t.find('\n', p->at);
    }
}

/* a label's name, "" if none stands here */
std::string label_here(const Parser &p)
{
    const std::string &t = *p.text;
    size_t end = p.at;

    while (isalnum(t[end]) || t[end] == '$' || t[end] == '_')
        ++end;
    return end > p.at && t[end] == ':' ? t.substr(p.at, end - p.at) : "";
}

/* "used_bytes_mask": of what the next instruction loads some bytes were added
 * by the compiler, and nobody uses them */
void read_pragma(Parser *p, const std::string &s)
{
    const size_t at = s.find("used_bytes_mask");
    unsigned mask;

    if (at == s.npos)
        return;
    mask = (unsigned)strtoul(s.c_str() + at + 15, nullptr, 0);
    while ((mask >> p->used & 1) != 0)
        ++p->used;
    if (mask >> p->used != 0 || p->used == 0)
        wrong(*p, "not understood: " + s);
}

void read_statement(Parser *p)
{
    const std::string &t = *p->text;
    const std::string label = label_here(*p);

    if (!label.empty()) {
        p->labels[label] = (int32_t)p->k->ops.size();
        p->at += label.size() + 1;
        return;
    }
    if (t.compare(p->at, 5, ".loc\t") == 0 ||
        t.compare(p->at, 5, ".loc ") == 0) {
        p->at = t.find('\n', p->at);
        return;
    }
    const size_t end = t.find(';', p->at);
    const std::string s = t.substr(p->at, end - p->at);
    std::string name;
    if (s.compare(0, 4, ".reg") == 0) {
        declare_registers(p, s);
    } else if (s.compare(0, 7, ".shared") == 0) {
        const Variable v = shared_variable(s, &name);
        p->shared[name] = v;
        shared_address(p, &p->shared[name]);
    } else if (s.compare(0, 7, ".pragma") == 0) {
        read_pragma(p, s);
    } else if (s[0] == '.') {
        wrong(*p, "not understood: " + s);
    } else {
        read_instruction(p, s);
    }
    for (const char c : s)
        p->line += c == '\n';
    p->at = end + 1;
}

void finish(Parser *p)
{
    Kernel *k = p->k;

    for (const auto &[n, label] : p->branches) {
        const auto at = p->labels.find(label);
        if (at == p->labels.end())
            wrong(*p, "no such label: " + label);
        k->ops[n].target = at->second;
    }
    for (const auto &[n, align] : p->dynamic)
        k->constants[n].value =
            (SHARED_BASE + k->static_shared + (uint64_t)align - 1) /
            (uint64_t)align * (uint64_t)align;
    if (k->ops.empty() ||
        (k->ops.back().kind != EXIT && k->ops.back().kind != BRANCH))
        wrong(*p, "a kernel without an end");
}

} // namespace

void kernel_parse(Kernel *k)
{
    Parser p = {};

    p.k = k;
    p.text = &k->module->text;
    p.at = k->begin;
    p.shared = k->module->shared;
    p.scopes.resize(1);
    p.families.resize(1);
    read_head(&p);
    p.line = line_at(*p.text, p.at);
    for (;;) {
        skip_blank(&p);
        const char c = (*p.text)[p.at];
        if (c == '{') {
            p.scopes.push_back({});
            p.families.push_back({});
            ++p.at;
        } else if (c == '}') {
            ++p.at;
            if (p.scopes.size() == 1)
                break;
            p.scopes.pop_back();
            p.families.pop_back();
        } else {
            read_statement(&p);
        }
    }
    finish(&p);
    k->parsed = true;
}

std::string place_of(const Kernel &k, int line)
{
    const std::string &t = k.module->text;
    size_t at = 0;

    for (int i = 1; i < line && at != t.npos; ++i)
        at = t.find('\n', at) + 1;
    const size_t begin = t.find_first_not_of(" \t", at);
    return k.name + ", " + k.module->path + ":" + std::to_string(line) + ": " +
           t.substr(begin, t.find('\n', begin) - begin);
}

void module_scan(const char *path, std::vector<Kernel> *kernels)
{
    Module *m = new Module; /* as long as the program */
    FILE *f = fopen(path, "rb");
    char piece[65536];
    size_t n;

    if (f == nullptr)
        fault_text(path, "cannot be read");
    m->path = path;
    while ((n = fread(piece, 1, sizeof piece, f)) > 0)
        m->text.append(piece, n);
    fclose(f);
    const std::string &t = m->text;
    size_t first = t.find(".entry ");
    for (size_t at = first; at != t.npos; at = t.find(".entry ", at + 1)) {
        Kernel k = {};
        k.name = t.substr(at + 7, t.find('(', at) - at - 7);
        k.module = m;
        k.begin = at;
        kernels->push_back(k);
    }
    /* variables stand before, or between kernels, at the line's beginning */
    for (const char *word : { "\n.shared ", "\n.extern .shared " })
        for (size_t at = t.find(word); at != t.npos;
             at = t.find(word, at + 1)) {
            std::string name;
            const Variable v =
                shared_variable(t.substr(at, t.find(';', at) - at), &name);
            m->shared[name] = v;
        }
}

} // namespace ptx
