#ifndef TESTS_PTX_PARSE_H
#define TESTS_PTX_PARSE_H
/* A kernel's text being read: parse.cc has declarations and statements,
 * operand.cc what an instruction works on. */
#include "ptx.h"

namespace ptx
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
    std::map<std::string, uint32_t> params, locals;
    std::map<std::string, int32_t> labels;
    std::vector<std::pair<size_t, std::string>> branches;
    std::map<std::pair<int, uint64_t>, uint32_t> constants;
    std::vector<std::pair<size_t, int64_t>> dynamic; /* constants behind it */
    int line;
    bool narrows;  /* the instruction is a cvt */
    uint8_t used;  /* Op.used of the next one */
    int source[2]; /* file and line */
};

/** Ends the program, with the line. */
[[noreturn]] void wrong(const Parser &p, const std::string &what);
/** The parts without blanks; what is in braces or brackets is one. */
std::vector<std::string> split(const std::string &s, char by);
uint32_t take_slots(Parser *p, uint8_t bytes, uint32_t count);
/** Of a shared variable, as a device sees it. */
uint32_t shared_address(Parser *p, Variable *v);
void read_instruction(Parser *p, std::string s);

} // namespace ptx

#endif
