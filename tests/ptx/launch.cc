/*
 * Launches of tests/cuda_emulation that run compiled PTX: CUDA_EMULATION_PTX in
 * the environment names its folder. A kernel's entry is found by the name that
 * its address has in this program, which g++ and nvcc make alike.
 */
#include "../cuda_emulation/cuda_runtime.h"
#include "ptx.h"

#include <elf.h>
#include <glob.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <mutex>

namespace ptx
{

namespace
{

std::mutex lock;
std::map<std::string, Kernel> kernels; /* by normal name */
std::map<const void *, Kernel *> by_address;
std::multimap<uintptr_t, std::string> names; /* of this program's functions */

/* Names of what has no linkage: g++ says _GLOBAL__N_1, nvcc a name per file. */
std::string normal(const std::string &name)
{
    static const char own[] = "12_GLOBAL__N_1";
    const size_t at = name.find("_GLOBAL__N_");
    size_t from = at;

    if (at == name.npos)
        return name;
    while (from > 0 && name[from - 1] >= '0' && name[from - 1] <= '9')
        --from;
    const size_t length = (size_t)atoi(name.c_str() + from);
    return name.substr(0, from) + own + name.substr(at + length);
}

int first_object(dl_phdr_info *info, size_t, void *base)
{
    *(uintptr_t *)base = info->dlpi_addr;
    return 1;
}

void read_symbols(const std::string &elf, uintptr_t base)
{
    const Elf64_Ehdr *head = (const Elf64_Ehdr *)elf.data();
    const Elf64_Shdr *sections = (const Elf64_Shdr *)&elf[head->e_shoff];

    for (int i = 0; i < head->e_shnum; ++i) {
        const Elf64_Shdr &s = sections[i];
        if (s.sh_type != SHT_SYMTAB)
            continue;
        const Elf64_Sym *symbols = (const Elf64_Sym *)&elf[s.sh_offset];
        const char *text = &elf[sections[s.sh_link].sh_offset];
        for (size_t n = 0; n < s.sh_size / sizeof *symbols; ++n)
            if (ELF64_ST_TYPE(symbols[n].st_info) == STT_FUNC)
                names.insert({ base + symbols[n].st_value,
                               normal(text + symbols[n].st_name) });
    }
}

void read_own_names(void)
{
    FILE *f = fopen("/proc/self/exe", "rb");
    char piece[65536];
    std::string elf;
    uintptr_t base = 0;
    size_t n;

    if (f == nullptr)
        fault_text("/proc/self/exe", "cannot be read");
    while ((n = fread(piece, 1, sizeof piece, f)) > 0)
        elf.append(piece, n);
    fclose(f);
    dl_iterate_phdr(first_object, &base);
    read_symbols(elf, base);
}

/* "ptxas -v": Compiling entry function 'name' for 'sm_90' .. Used 40
 * registers, .. 8192 bytes smem */
void read_needs(const char *path)
{
    FILE *f = fopen(path, "r");
    char line[8192], name[4096];
    Kernel *k = nullptr;
    Needs needs;

    while (f != nullptr && fgets(line, sizeof line, f) != nullptr) {
        const char *entry = strstr(line, "entry function '");
        const char *used = strstr(line, "Used ");
        if (entry != nullptr &&
            sscanf(entry, "entry function '%4095[^']' for 'sm_%d", name,
                   &needs.sm) == 2) {
            const auto at = kernels.find(normal(name));
            k = at == kernels.end() ? nullptr : &at->second;
        } else if (used != nullptr && k != nullptr) {
            const char *smem = strstr(line, " bytes smem");
            needs.registers = atoi(used + 5);
            while (smem != nullptr && smem[-1] != ' ')
                --smem;
            needs.shared = smem == nullptr ? 0 : atoi(smem);
            k->needs.push_back(needs);
            k = nullptr;
        }
    }
    if (f != nullptr)
        fclose(f);
}

void read_folder(const std::string &folder)
{
    std::vector<Kernel> found;
    glob_t paths;

    if (glob((folder + "/*.ptx").c_str(), 0, nullptr, &paths) != 0)
        fault_text(folder, "has no *.ptx");
    for (size_t i = 0; i < paths.gl_pathc; ++i)
        module_scan(paths.gl_pathv[i], &found);
    globfree(&paths);
    for (const Kernel &k : found) {
        const std::string name = normal(k.name);
        if (!kernels.emplace(name, k).second && name != k.name)
            fault_text(name, "two files have such a kernel without linkage");
    }
    if (glob((folder + "/*.needs").c_str(), 0, nullptr, &paths) != 0)
        return;
    for (size_t i = 0; i < paths.gl_pathc; ++i)
        read_needs(paths.gl_pathv[i]);
    globfree(&paths);
}

Kernel *find(const void *address, const char *folder)
{
    const std::lock_guard<std::mutex> held(lock);
    const auto known = by_address.find(address);

    if (known != by_address.end())
        return known->second;
    if (kernels.empty()) {
        read_folder(folder);
        read_own_names();
    }
    const auto range = names.equal_range((uintptr_t)address);
    for (auto at = range.first; at != range.second; ++at) {
        const auto k = kernels.find(at->second);
        if (k == kernels.end())
            continue;
        if (!k->second.parsed)
            kernel_parse(&k->second);
        return by_address[address] = &k->second;
    }
    fault_text(range.first == range.second ? "a kernel without a name"
                                           : range.first->second,
               "is not in %s", folder);
}

/* the arguments as the device gets them */
std::vector<unsigned char> pack(const Kernel &k,
                                const CudaEmulationKernel &call)
{
    std::vector<unsigned char> all(k.param_bytes + 16, 0xff);

    if (k.params.size() != call.count)
        fault_text(k.name, "%zu arguments, the host gives %zu", k.params.size(),
                   call.count);
    for (size_t i = 0; i < call.count; ++i) {
        if (k.params[i].bytes != call.sizes[i])
            fault_text(k.name, "argument %zu has %u bytes, the host's has %zu",
                       i, k.params[i].bytes, call.sizes[i]);
        memcpy(&all[k.params[i].at], call.args[i], call.sizes[i]);
    }
    return all;
}

/* A block's registers are given out by 256 a warp, 65536 there are; shared
 * memory beyond 48 KB, with what is static, has to be asked for. */
void check_needs(const Kernel &k, unsigned threads, size_t shared, size_t limit)
{
    if (k.most_threads != 0 && threads > k.most_threads)
        fault_text(k.name, "%u threads, __launch_bounds__ says %u", threads,
                   k.most_threads);
    for (const Needs &n : k.needs) {
        const int warp = (n.registers * LANES + 255) / 256 * 256;
        const size_t most = n.sm == 80 ? 163 * 1024 : 227 * 1024;
        const size_t fixed = (size_t)n.shared, plain = 48 * 1024;
        if (warp * (int)((threads + 31) / 32) > 65536)
            fault_text(k.name, "sm_%d: %u threads of %d registers are too many",
                       n.sm, threads, n.registers);
        if (fixed + shared > most || (fixed + shared > plain && shared > limit))
            fault_text(k.name,
                       "sm_%d: %zu and %zu bytes of shared memory, %zu asked "
                       "for, %zu there",
                       n.sm, fixed, shared, limit, most);
    }
}

void add_range(void *block, const void *p, size_t bytes)
{
    ((Block *)block)
        ->ranges.push_back(
            Range { (const char *)p, (const char *)p + bytes, nullptr });
}

bool asked(const char *name)
{
    const char *text = getenv(name);

    return text != nullptr && strcmp(text, "1") == 0;
}

/* CUDA_EMULATION_PTX_ROUGH=1: products and powers as coarse as a device's;
 * _EARLY=1: copies to shared memory are done at once; _LANES=0: races between
 * the lanes of a warp are let pass; _WRITTEN=1: shared memory that is read must
 * have been written (else it is NaN: what is read in vain may be); _GLOBAL=1: races in global
 * memory are looked for too */
void set_block(Block *b, dim3 grid, dim3 block)
{
    const char *lanes = getenv("CUDA_EMULATION_PTX_LANES");

    b->rough = asked("CUDA_EMULATION_PTX_ROUGH");
    b->early = asked("CUDA_EMULATION_PTX_EARLY");
    b->written = asked("CUDA_EMULATION_PTX_WRITTEN");
    b->global = asked("CUDA_EMULATION_PTX_GLOBAL");
    b->strict = lanes == nullptr || strcmp(lanes, "0") != 0;
    memcpy(b->grid, &grid, sizeof b->grid);
    memcpy(b->threads, &block, sizeof b->threads);
    b->ranges.clear();
    b->last = Range {};
    cuda_emulation_each_memory(add_range, b);
    std::sort(b->ranges.begin(), b->ranges.end(),
              [](const Range &x, const Range &y) { return x.from < y.from; });
    if (b->global)
        global_begin(b);
}

} // namespace

} // namespace ptx

int cuda_emulation_ptx(const CudaEmulationKernel &call, dim3 grid, dim3 block,
                       size_t shared, size_t shared_limit, int reversed)
{
    static thread_local ptx::Block own; /* its memory is kept */
    static const char *folder = getenv("CUDA_EMULATION_PTX");
    const uint64_t blocks = (uint64_t)grid.x * grid.y * grid.z;

    if (folder == nullptr || folder[0] == 0)
        return 0;
    ptx::Kernel *k = ptx::find(call.kernel, folder);
    const std::vector<unsigned char> params = ptx::pack(*k, call);
    ptx::check_needs(*k, block.x * block.y * block.z, shared, shared_limit);
    ptx::Block *b = &own;
    ptx::set_block(b, grid, block);
    ptx::block_prepare(*b, k, (uint32_t)shared);
    b->params = params.data();
    for (uint64_t n = 0; n < blocks; ++n) {
        const uint64_t i = reversed ? blocks - 1 - n : n;
        b->index[0] = (unsigned)(i % grid.x);
        b->index[1] = (unsigned)(i / grid.x % grid.y);
        b->index[2] = (unsigned)(i / grid.x / grid.y);
        ptx::run_block(*b, reversed != 0);
    }
    return 1;
}
