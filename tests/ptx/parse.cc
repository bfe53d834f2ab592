/* PTX text to kernels: sections "Syntax" and "State Spaces". */
#include "parse.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

namespace ptx
{

void wrong(const Parser &p, const std::string &what)
{
    fault_text(place_of(*p.k, p.line), "%s", what.c_str());
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

uint32_t take_slots(Parser *p, uint8_t bytes, uint32_t count)
{
    const uint32_t first = p->k->num_slots;

    p->k->num_slots += count * (bytes == 8 ? 2 : 1);
    return first;
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

namespace
{

int line_at(const std::string &text, size_t at)
{
    int line = 1;

    for (size_t i = 0; i < at; ++i)
        line += text[i] == '\n';
    return line;
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

/* .param .align 8 .b8 name[48]   .param .u64 name */
void declare_param(Parser *p, std::string s)
{
    const size_t points = s.find(".ptr"); /* at what, is said by some nvcc */

    s.resize(s.find_last_not_of(" \t\n") + 1);
    if (points != s.npos)
        s.erase(points, s.find_last_of(" \t") - points);
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
    if (t.compare(p->at, 4, ".loc") == 0 && strchr(" \t", t[p->at + 4])) {
        /* nvcc -lineinfo: file, line, column, where it was inlined */
        sscanf(&t[p->at], ".loc %d %d", &p->source[0], &p->source[1]);
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
    } else if (s.compare(0, 6, ".local") == 0) {
        const Variable v = shared_variable(s, &name);
        p->locals[name] = p->k->local_bytes;
        p->k->local_bytes += (v.bytes + 15) / 16 * 16;
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

/* "file:line: " of the source; "" where nvcc has not said */
std::string source_of(const Kernel &k, const Op &op)
{
    const std::string &t = k.module->text;
    const std::string head =
        "\t.file\t" + std::to_string(op.source_file) + " \"";
    const size_t at = op.source_line > 0 ? t.find(head) : t.npos;

    if (at == t.npos)
        return "";
    const size_t begin = at + head.size();
    return t.substr(begin, t.find('"', begin) - begin) + ":" +
           std::to_string(op.source_line) + ": ";
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
