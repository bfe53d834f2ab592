# dancegrpo: GNU make. `make help` lists the targets.
# CC, CFLAGS, LDFLAGS, PREFIX, DESTDIR are the user's; ours are kept apart.

CC       = gcc
CXX      = g++
CFLAGS  ?= -O3
ARCH    ?= native
PREFIX  ?= /usr/local
NP      ?= 1 2 3
PKG      = pkg-config

# a sanitized or debugging build lives in a folder of its own
ifneq ($(filter 1,$(SAN)),)
BUILD   ?= build/san
else ifneq ($(filter thread,$(SAN)),)
BUILD   ?= build/san-thread
else ifneq ($(filter 1,$(DEBUG)),)
BUILD   ?= build/debug
endif
BUILD   ?= build
ifeq ($(BUILD),build)
BINARY   = bin/dancegrpo
else
BINARY   = $(BUILD)/bin/dancegrpo
endif

# the GPU side, CUDA=1: nvcc and libraries under CUDA_HOME
CUDA      ?= 0
CUDA_HOME ?= /usr/local/cuda
# cuDNN beside the toolkit, or below CUDNN_HOME. Its header is built with, its
# library opened by name when a run asks for it: a program needs none. Headers
# of before 9.19 do not know all that is asked.
CUDNN_HOME ?= $(CUDA_HOME)
CUDNN_DIR := $(patsubst %/,%,$(dir $(firstword $(wildcard $(CUDNN_HOME)/include/cudnn_backend.h \
             /usr/include/cudnn_backend.h /usr/include/*-linux-gnu/cudnn_backend.h))))
CUDNN_LIB := $(firstword $(wildcard $(foreach d,$(CUDNN_HOME)/lib64 $(CUDNN_HOME)/lib \
             $(CUDNN_HOME)/targets/*/lib /usr/lib/*-linux-gnu,$(d)/libcudnn.so.9)))
CUDNN_AGE := $(if $(CUDNN_DIR),$(shell awk '/define CUDNN_M(AJ|IN)OR/ { v = 100 * v + $$3 } \
             END { print (v >= 919) }' $(CUDNN_DIR)/cudnn_version.h 2>/dev/null))
CUDNN := $(if $(CUDNN_LIB),$(if $(filter 1,$(CUDNN_AGE)),1,0),0)
CUDA_ARCH ?= 80 90 100
NVCC      ?= $(CUDA_HOME)/bin/nvcc
ifneq ($(filter-out 0 1,$(CUDA)),)
$(error CUDA=$(CUDA): 1 builds the GPU side, 0 leaves it out)
endif

# what pkg-config calls MPI and the HDF5 built with it; none where CC knows them,
# as compilers of clusters do (CC=mpicc or CC=cc)
MPI_PC   ?= ompi-c
HDF5_PC  ?= hdf5-mpi
PACKAGES = $(MPI_PC) $(HDF5_PC) libconfig libpng libcjson libutf8proc libcrypto
DEP_CFLAGS := $(shell $(PKG) --cflags $(PACKAGES) 2>/dev/null)
DEP_LIBS   := $(shell $(PKG) --libs $(PACKAGES) 2>/dev/null) -ldnnl -ljpeg

ALL_CFLAGS = -std=gnu11 -Iinclude -I$(BUILD) $(DEP_CFLAGS) $(CFLAGS) \
             -march=$(ARCH) -fopenmp -ffp-contract=off -fno-math-errno \
             -Wall -Wextra -Wpedantic -Wno-unknown-pragmas -MMD -MP
ifneq ($(filter 1,$(DEBUG)),)
ALL_CFLAGS += -O0 -g -DDG_DEBUG=1
endif
ifneq ($(filter 1,$(SAN)),)
SANITIZE    = -g -fsanitize=address,undefined -fno-omit-frame-pointer \
              -fno-sanitize-recover=undefined
# gcc thinks that the address of a thread_local such as threadIdx may be NULL
SANITIZE_KERNELS = $(SANITIZE) -fno-sanitize=null
ALL_CFLAGS += $(SANITIZE)
SAN_OBJECT  = $(BUILD)/tests/san_dlclose.o
endif
# gcc's OpenMP is told to ThreadSanitizer by san_openmp.c
ifneq ($(filter thread,$(SAN)),)
SANITIZE    = -g -fsanitize=thread -fno-omit-frame-pointer
SANITIZE_KERNELS = $(SANITIZE)
ALL_CFLAGS += $(SANITIZE)
SAN_OBJECT  = $(BUILD)/tests/san_dlclose.o $(BUILD)/tests/san_openmp.o
$(BUILD)/tests/san_openmp.o: SANITIZE = -g
endif
ALL_LIBS = $(DEP_LIBS) -fopenmp -lm -ldl

SOURCES := $(filter-out src/cli/main.c,$(wildcard src/*/*.c))
OBJECTS := $(SOURCES:%.c=$(BUILD)/%.o)
REFS    := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/ref_*.c))
LIB      = $(BUILD)/libdancegrpo.a
TESTS   := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/test_*.c))
TOOLS   := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/tools/*.c))

# cuda/*.cu twice: as plain C++ against tests/cuda_emulation for the tests,
# and by nvcc for the GPU. Neither contracts multiply and add; gcc does it even
# so where it vectorises statements of alternating sign (vfmaddsub).
KERNELS   := $(wildcard cuda/*.cu)
EMULATION := $(wildcard tests/cuda_emulation/*.cc tests/ptx/*.cc)
EMULATED  := $(KERNELS:%.cu=$(BUILD)/tests/%.o) $(EMULATION:%.cc=$(BUILD)/%.o)
EMULATED_LIB = $(BUILD)/tests/libcuda_emulated.a
# tiles of convolutions and planes of packs are small, so that the tests' maps
# and rows have several, and so are grids, that kernels go on by; few blocks are
# enough for attention's tall ones, and cuDNN's room has not dS of all heads
SMALL_LIMITS = -DDG_CONV_TILE_FLOATS=8192 -DDG_PLANE_PACKS=1000 \
             -DDG_ATTENTION_TALL_BLOCKS=3 -DDG_CONV_MANY_TILES=3 -DDG_PRODUCT_LARGE_TILES=2 \
             -DDG_LINK_LAUNCHES=40 -DDG_MOST_BLOCKS=3 -DDG_MOST_SIDE=2 -DDG_DELTA_FLOATS=200
CXX_FLAGS  = -std=gnu++17 -Itests/cuda_emulation -Iinclude -O2 $(SMALL_LIMITS) \
             -DDG_NCCL=1 -DDG_CUDNN=1 -DDG_CUDNN_ROOM=300000ul $(DEP_CFLAGS) \
             -march=$(ARCH) -ffp-contract=off -fno-tree-slp-vectorize \
             -fno-exceptions -fno-rtti -fno-extern-tls-init -Wall -Wextra -Wno-unknown-pragmas \
             -MMD -MP
# what nvcc makes of cuda/ without a GPU: PTX, which tests/ptx runs, and what
# ptxas says of registers and shared memory for each architecture
PTX_ARCH  ?= 90
PTX       := $(KERNELS:cuda/%.cu=$(BUILD)/ptx/%.ptx)
PTX_NEEDS := $(foreach a,$(CUDA_ARCH),$(KERNELS:cuda/%.cu=$(BUILD)/ptx/%.sm_$(a).needs))
PTX_FLAGS  = -std=c++17 -O3 -fmad=false -Iinclude -ccbin $(CXX) -DDG_NCCL=0 \
             $(SMALL_LIMITS)
ifeq ($(CUDA),1)
CUDA_LIB   = $(BUILD)/libdgcuda.a
CUDA_OBJECTS := $(KERNELS:%.cu=$(BUILD)/%.o)
# the static runtime if there is one; cuBLASLt as it is found
CUDA_DIRS := $(wildcard $(CUDA_HOME)/lib64 $(CUDA_HOME)/lib \
             $(CUDA_HOME)/targets/*/lib)
find_cuda  = $(firstword $(wildcard $(foreach d,$(CUDA_DIRS),$(1:%=$(d)/%))))
CUDA_RUNTIME := $(call find_cuda,libcudart_static.a libcudart.so)
CUDA_LT      := $(call find_cuda,libcublasLt.so libcublasLt_static.a)
# NCCL beside the toolkit, or below NCCL_HOME; without it sums between ranks go
# through the host
NCCL_HOME ?= $(CUDA_HOME)
NCCL_HEADER := $(firstword $(wildcard $(NCCL_HOME)/include/nccl.h /usr/include/nccl.h))
NCCL_LIB := $(firstword $(wildcard $(foreach d,$(NCCL_HOME)/lib64 $(NCCL_HOME)/lib \
            $(NCCL_HOME)/targets/*/lib /usr/lib/*-linux-gnu,$(d)/libnccl.so)))
NCCL := $(if $(NCCL_HEADER),$(if $(NCCL_LIB),1,0),0)
ifeq ($(NCCL),1)
NCCL_LINK  = $(NCCL_LIB) -Wl,-rpath,$(dir $(NCCL_LIB))
endif
ifeq ($(CUDNN),1)
CUDNN_PATH = -Wl,-rpath,$(dir $(CUDNN_LIB))
endif
CUDA_LIBS  = $(NCCL_LINK) $(CUDNN_PATH) $(CUDA_LT) $(call find_cuda,$(if $(filter %.a,$(CUDA_LT)),libculibos.a)) \
             $(CUDA_RUNTIME) $(CUDA_LT:%.so=-Wl,-rpath,$(dir $(CUDA_LT))) \
             -lstdc++ -ldl -lrt -lpthread
NVCC_FLAGS = -std=c++17 -O3 -fmad=false -Iinclude -ccbin $(CXX) \
             -DDG_NCCL=$(NCCL) $(NCCL_HEADER:%/nccl.h=-I%) \
             -DDG_CUDNN=$(CUDNN) $(CUDNN_DIR:%=-I%) \
             -Xcompiler -Wall,-Wextra,-Wno-unknown-pragmas \
             $(foreach a,$(CUDA_ARCH),-gencode arch=compute_$(a),code=sm_$(a)) \
             -gencode arch=compute_$(lastword $(CUDA_ARCH)),code=compute_$(lastword $(CUDA_ARCH))
endif

all: $(BINARY)

$(BINARY): $(BUILD)/src/cli/main.o $(SAN_OBJECT) $(LIB) $(CUDA_LIB)
	@mkdir -p $(@D)
	$(CC) $(SANITIZE) $(LDFLAGS) -o $@ $(filter-out $(CUDA_LIB),$^) \
	    $(CUDA_LIB:%=-Wl,--whole-archive % -Wl,--no-whole-archive $(LIB)) \
	    $(ALL_LIBS) $(CUDA_LIBS)

$(CUDA_LIB): $(CUDA_OBJECTS)
	@rm -f $@
	@ar rcs $@ $^

$(CUDA_OBJECTS): | check-cuda
$(BUILD)/cuda/%.o: cuda/%.cu
	@mkdir -p $(@D)
	$(NVCC) $(NVCC_FLAGS) -MD -MP -MF $(@:.o=.d) -c -o $@ $<

check-cuda:
	@test -x "$(NVCC)" || { echo "CUDA=1: no nvcc at $(NVCC): set CUDA_HOME" \
	    "to the CUDA toolkit (12.8 or later), or build with CUDA=0" >&2; exit 1; }
	@test -n "$(CUDA_RUNTIME)" || { echo "CUDA=1: no libcudart below" \
	    "$(CUDA_HOME)" >&2; exit 1; }
	@test "$(NCCL)" = 1 || echo "CUDA=1: no NCCL (nccl.h and libnccl.so) below" \
	    "NCCL_HOME=$(NCCL_HOME): sums between ranks go through the host" >&2
	@test "$(CUDNN)" = 1 || echo "CUDA=1: no cuDNN of 9.19 or later (cudnn_backend.h" \
	    "and libcudnn.so.9) below CUDNN_HOME=$(CUDNN_HOME): all has own" \
	    "kernels alone" >&2
	@test -n "$(CUDA_LT)" || { echo "CUDA=1: no libcublasLt below" \
	    "$(CUDA_HOME): it comes with the toolkit's cuBLAS" >&2; exit 1; }

$(EMULATED_LIB): $(EMULATED)
	@rm -f $@
	@ar rcs $@ $^

$(BUILD)/tests/cuda/%.o: cuda/%.cu
	@mkdir -p $(@D)
	$(CXX) $(CXX_FLAGS) $(SANITIZE_KERNELS) -x c++ -c -o $@ $<

# its products are loops over columns, which -O2 leaves as they are
$(BUILD)/tests/cuda_emulation/blas.o $(BUILD)/tests/cuda_emulation/mma.o: CXX_FLAGS += -O3

$(BUILD)/tests/cuda_emulation/%.o: tests/cuda_emulation/%.cc
	@mkdir -p $(@D)
	$(CXX) $(CXX_FLAGS) -c -o $@ $<

$(BUILD)/tests/ptx/%.o: tests/ptx/%.cc
	@mkdir -p $(@D)
	$(CXX) $(CXX_FLAGS) -std=gnu++20 -O3 -c -o $@ $<

$(BUILD)/tests/test_cuda_%: $(BUILD)/tests/test_cuda_%.o $(REFS) $(SAN_OBJECT) $(EMULATED_LIB) $(LIB)
	$(CC) $(SANITIZE) $(LDFLAGS) -o $@ $< $(REFS) $(SAN_OBJECT) $(EMULATED_LIB) $(LIB) -lcmocka $(ALL_LIBS) -lstdc++

# What a GPU's test programs meet and the emulation's do not: limits of sizes that
# are the kernels' own, and tests that ask for more where there is no emulation,
# which they know by its symbols. (cuDNN's ask for sizes that take hours here.)
AS_GPU     := $(patsubst tests/%.c,$(BUILD)/tests/as_gpu/%,\
              $(filter-out %_cudnn.c,$(wildcard tests/test_cuda_*.c)))
AS_GPU_LIB  = $(BUILD)/tests/as_gpu/libcuda.a
$(AS_GPU_LIB): $(KERNELS:cuda/%.cu=$(BUILD)/tests/as_gpu/%.o) $(EMULATION:%.cc=$(BUILD)/%.o)
	@rm -f $@
	@ar rcs $@ $^

$(BUILD)/tests/as_gpu/%.o: cuda/%.cu
	@mkdir -p $(@D)
	$(CXX) $(filter-out $(SMALL_LIMITS),$(CXX_FLAGS)) $(SANITIZE_KERNELS) -x c++ -c -o $@ $<

$(AS_GPU): $(BUILD)/tests/as_gpu/%: $(BUILD)/tests/%.o $(REFS) $(SAN_OBJECT) $(AS_GPU_LIB) $(LIB)
	objcopy --redefine-sym cuda_emulation_order=on_a_gpu \
	    --redefine-sym cuda_emulation_graphs=on_a_gpu_too $< $@.o
	$(CC) $(SANITIZE) $(LDFLAGS) -o $@ $@.o $(filter-out $<,$^) -lcmocka $(ALL_LIBS) -lstdc++

MPI_EMULATED := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/test_mpi_cuda*.c))
$(MPI_EMULATED): %: %.o $(REFS) $(SAN_OBJECT) $(EMULATED_LIB) $(LIB)
	$(CC) $(SANITIZE) $(LDFLAGS) -o $@ $^ -lcmocka $(ALL_LIBS) -lstdc++

# the program with its GPU side emulated: run.device = "cuda" on any machine
EMULATED_BIN = $(BUILD)/emulated/dancegrpo
$(EMULATED_BIN): $(BUILD)/src/cli/main.o $(BUILD)/emulated/session.o $(SAN_OBJECT) $(EMULATED_LIB) $(LIB)
	$(CC) $(SANITIZE) $(LDFLAGS) -o $@ $^ $(ALL_LIBS) -lstdc++

$(BUILD)/emulated/session.o: src/cli/session.c
	@mkdir -p $(@D)/generated
	@echo "#define DG_CUDA 1" > $(@D)/generated/features.h
	$(CC) -I$(@D) $(ALL_CFLAGS) -c -o $@ $<

# What the real cuDNN says of the plans that are asked of it, without a GPU:
# tests/cudnn_driver.c is a driver that has none.
CUDNN_TESTS = $(patsubst %,$(BUILD)/tests/%,test_cudnn_plans test_cudnn_conv_plans)
CUDNN_OBJECTS = $(patsubst %,$(BUILD)/tests/real/cudnn_%.o,plan attention conv library)
CUDNN_DRIVER = $(BUILD)/tests/cudnn_driver.so
$(CUDNN_TESTS:=.o): ALL_CFLAGS += -DDG_CUDNN=$(CUDNN)
$(CUDNN_TESTS): %: %.o $(CUDNN_OBJECTS) $(SAN_OBJECT) $(LIB) $(CUDNN_DRIVER)
	$(CC) $(SANITIZE) $(LDFLAGS) -o $@ $(filter-out %.so,$^) $(CUDNN_PATH_OF_TEST) -lcmocka $(ALL_LIBS) -ldl
ifeq ($(CUDNN),1)
CUDNN_PATH_OF_TEST = -Wl,-rpath,$(dir $(CUDNN_LIB)) -Wl,-rpath,$(CUDA_HOME)/lib64
endif

$(BUILD)/tests/real/%.o: cuda/%.cu
	@mkdir -p $(@D)
	$(CXX) $(filter-out -Itests/cuda_emulation -DDG_CUDNN=1,$(CXX_FLAGS)) $(SANITIZE_KERNELS) -DDG_CUDNN=$(CUDNN) \
	    $(CUDNN_DIR:%=-I%) -I$(CUDA_HOME)/include -x c++ -c -o $@ $<

# and what a program says that is built without cuDNN's header
CUDNN_MISSING = $(patsubst %,$(BUILD)/tests/missing/%.o,attention_cudnn conv_cudnn cudnn_stream)
$(BUILD)/tests/test_cudnn_missing: %: %.o $(CUDNN_MISSING) $(SAN_OBJECT) $(LIB)
	$(CC) $(SANITIZE) $(LDFLAGS) -o $@ $^ -lcmocka $(ALL_LIBS) -lstdc++

$(BUILD)/tests/missing/%.o: cuda/%.cu
	@mkdir -p $(@D)
	$(CXX) $(filter-out -DDG_CUDNN=1,$(CXX_FLAGS)) $(SANITIZE_KERNELS) -x c++ -c -o $@ $<

$(CUDNN_DRIVER): tests/cudnn_driver.c
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -O2 -Wall -Wextra -fPIC -shared -Wl,-soname,libcuda.so.1 -o $@ $<

# the same tests on a real GPU
GPU_TESTS := $(patsubst tests/%.c,$(BUILD)/gpu/%,$(wildcard tests/test_cuda_*.c))
$(BUILD)/gpu/%: $(BUILD)/tests/%.o $(REFS) $(CUDA_LIB) $(LIB)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $< $(REFS) $(CUDA_LIB) $(LIB) -lcmocka $(ALL_LIBS) $(CUDA_LIBS)

ptx: $(PTX)
ptx-needs: $(PTX_NEEDS)

# rewritten only when PTX_ARCH= differs
$(BUILD)/ptx/arch: FORCE
	@mkdir -p $(@D)
	@echo $(PTX_ARCH) > $@.new; cmp -s $@.new $@ && rm $@.new || mv $@.new $@

$(BUILD)/ptx/%.ptx: cuda/%.cu $(BUILD)/ptx/arch
	@mkdir -p $(@D)
	$(NVCC) $(PTX_FLAGS) -lineinfo -arch=compute_$(PTX_ARCH) -MD -MP -MF $(@:.ptx=.d) -ptx -o $@ $<

define ptx_needs
$(BUILD)/ptx/%.sm_$(1).needs: cuda/%.cu
	@mkdir -p $$(@D)
	$(NVCC) $(PTX_FLAGS) -Xptxas -v -arch=sm_$(1) -MD -MP -MF $$@.d -cubin -o $$@.cubin $$< 2>$$@ || { cat $$@; rm $$@; exit 1; }
	@rm $$@.cubin
endef
$(foreach a,$(CUDA_ARCH),$(eval $(call ptx_needs,$(a))))

$(LIB): $(OBJECTS)
	@rm -f $@
	@ar rcs $@ $^

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -c -o $@ $<

$(BUILD)/tests/%.o: tests/%.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -Itests -c -o $@ $<

$(BUILD)/tests/%: $(BUILD)/tests/%.o $(REFS) $(SAN_OBJECT) $(LIB)
	$(CC) $(SANITIZE) $(LDFLAGS) -o $@ $< $(REFS) $(SAN_OBJECT) $(LIB) -lcmocka $(ALL_LIBS)

# fuzz targets, by clang's libFuzzer, with address and undefined behaviour:
#   LSAN_OPTIONS=suppressions=tests/fuzz/lsan.supp \
#       build/fuzz/fuzz_x -max_total_time=300 CORPUS tests/fuzz/corpus/x
# CORPUS is a folder that new inputs are put into
FUZZERS := $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZED  := $(filter src/base/% src/text/% src/config/% src/world/% \
             src/tensor/% src/weights/% src/store/% src/parallel/% \
             src/report/% src/reward/dialogue.c src/reward/program.c,$(SOURCES))
FUZZ_CFLAGS = -std=gnu11 -Iinclude -I$(BUILD) $(DEP_CFLAGS) -g -O1 \
              -ffp-contract=off -Wno-unknown-pragmas -MMD -MP \
              -fsanitize=address,undefined -fno-sanitize-recover=undefined

fuzz: $(FUZZERS)

$(BUILD)/fuzz/src/%.o: src/%.c | $(BUILD)/generated/commit.h
	@mkdir -p $(@D)
	clang $(FUZZ_CFLAGS) -fsanitize=fuzzer-no-link -c -o $@ $<

$(BUILD)/fuzz/lib.a: $(FUZZED:%.c=$(BUILD)/fuzz/%.o)
	@rm -f $@
	@ar rcs $@ $^

$(BUILD)/fuzz/fuzz_%: tests/fuzz/fuzz_%.c $(BUILD)/fuzz/lib.a
	clang $(FUZZ_CFLAGS) -fsanitize=fuzzer -o $@ $< $(BUILD)/fuzz/lib.a \
	    $(DEP_LIBS) -lgomp -lm

# rewritten only when CUDA= differs: only what asks for it is built again
$(BUILD)/src/cli/session.o: $(BUILD)/generated/features.h
$(BUILD)/generated/features.h: FORCE
	@mkdir -p $(@D)
	@echo "#define DG_CUDA $(CUDA)" > $@.new; \
	cmp -s $@.new $@ && rm $@.new || mv $@.new $@

# rewritten only when the commit differs, so that nothing is built in vain
$(BUILD)/src/base/version.o: $(BUILD)/generated/commit.h
$(BUILD)/generated/commit.h: FORCE
	@mkdir -p $(@D)
	@commit=`git rev-parse --short=12 HEAD 2>/dev/null || echo unknown`; \
	test "$$commit" = unknown || git diff-index --quiet HEAD 2>/dev/null \
	    || commit=$$commit-dirty; \
	echo "#define DG_GIT_COMMIT \"$$commit\"" > $@.new; \
	cmp -s $@.new $@ && rm $@.new || mv $@.new $@

# preloaded by tests, so without a sanitizer
PRELOADED = $(BUILD)/tests/slow_disk.so $(BUILD)/tests/fail_calls.so
$(PRELOADED): $(BUILD)/tests/%.so: tests/%.c
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -O2 -Wall -Wextra $(DEP_CFLAGS) -fPIC -shared -o $@ $<

FAULTY = $(BUILD)/tests/faulty.so
$(FAULTY): tests/faulty.c
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -O2 -Wall -Wextra -fno-optimize-sibling-calls -fPIC -shared -o $@ $<

# users' rewards, good and bad ones; without a sanitizer, as users build them
PLUGINS = $(patsubst %,$(BUILD)/tests/plugins/%.so,good threads upward abi flags score null symbol)
$(BUILD)/tests/plugins/%.so: tests/reward_plugin.c include/dancegrpo/reward_plugin.h
	@mkdir -p $(@D)
	$(CC) -std=c11 -D_GNU_SOURCE -O2 -Wall -Wextra -Iinclude -DPLUGIN_$* -fPIC -shared -o $@ $<

# with nvcc, what it makes of the kernels is tested too
tests: $(TESTS) $(AS_GPU) $(TOOLS) $(EMULATED_BIN) $(PRELOADED) $(FAULTY) $(PLUGINS) $(if $(wildcard $(NVCC)),$(PTX))

deps:
	@./deps.sh build && echo "deps: all that the program needs is there"

check: check-deps
	@$(MAKE) --no-print-directory BUILD=$(BUILD) $(BINARY) tests
	@DG_BIN=$(BINARY) NP="$(NP)" SAN="$(SAN)" tests/run.sh $(BUILD)

check-long: check-deps
	@$(MAKE) --no-print-directory BUILD=$(BUILD) $(BINARY) tests
	@DG_BIN=$(BINARY) NP="$(NP)" SAN="$(SAN)" LONG=1 tests/run.sh $(BUILD)

# the kernels' tests on compiled PTX, all of them, and by sm what a device has
check-ptx: check-deps
	@test -x "$(NVCC)" || { echo "make check-ptx wants nvcc: CUDA_HOME" >&2; exit 1; }
	@$(MAKE) --no-print-directory BUILD=$(BUILD) tests ptx-needs
	@LONG=1 DG_BUILD=$(BUILD) bash tests/check_ptx.sh

# a folder for a machine that has a GPU and no more: tests/gpu/run.sh in it is
# all that is to be started there. Its processor may be another than this one.
BUNDLE      ?= build/gpu-bundle
BUNDLE_ARCH ?= x86-64-v3
# its test programs have much in common, further apart than tar.gz looks back
BUNDLE_XZ   ?= xz -6 --lzma2=preset=6,dict=192MiB

gpu-bundle: want-cuda
	@$(MAKE) --no-print-directory BUILD=build/bundle ARCH=$(BUNDLE_ARCH) \
	    BUNDLE=$(BUNDLE) gpu-gathered
	@tar -I '$(BUNDLE_XZ)' -cf $(BUNDLE).tar.xz -C $(dir $(BUNDLE)) $(notdir $(BUNDLE))
	@du -sh $(BUNDLE) $(BUNDLE).tar.xz

gpu-gathered: $(BINARY) $(GPU_TESTS) $(BUILD)/tests/tools/close
	@tests/gpu/bundle.sh $(BUNDLE) $(BINARY) $(BUILD)/tests/tools/close $(GPU_TESTS)

check-gpu: want-cuda
	@$(MAKE) --no-print-directory BUILD=$(BUILD) BUNDLE=$(BUILD)/gpu-here gpu-gathered
	@$(BUILD)/gpu-here/tests/gpu/run.sh

want-cuda:
	@test "$(CUDA)" = 1 || { echo "make check-gpu and gpu-bundle want CUDA=1" >&2; exit 1; }

gpu-tests: $(GPU_TESTS)

check-deps:
	@./deps.sh check

demo: deps
	@$(MAKE) --no-print-directory BUILD=$(BUILD) $(BINARY)
	@DG_BIN=$(BINARY) jobs/demo.sh

lint: $(BINARY)
	@DG_BIN=$(BINARY) tests/lint.sh

format:
	clang-format -i include/*/*.h src/*/*.[ch] examples/*.c tests/*.[ch] tests/*/*.c \
	    cuda/*.cu cuda/*.h tests/cuda_emulation/* tests/ptx/*.h tests/ptx/*.cc

doc: $(BINARY)
	$(BINARY) config --markdown > doc/config.md
	$(BINARY) --man > doc/dancegrpo.1

# the prompt lists of the shapes world, again: the same bytes
prompts: $(BUILD)/tests/tools/world_prompts
	$< configs/prompts/shapes_train.jsonl configs/prompts/shapes_heldout.jsonl

# in quotes, which hide ~ from the shell: a folder may have a blank in its name
INTO = "$(DESTDIR)$(PREFIX:~/%=$(HOME)/%)"

install: $(BINARY)
	install -d $(INTO)/bin
	install -m 755 $(BINARY) $(INTO)/bin/dancegrpo
	install -d $(INTO)/share/dancegrpo
	install -m 644 README.md LICENSE $(INTO)/share/dancegrpo
	install -d $(INTO)/include/dancegrpo
	install -m 644 include/dancegrpo/reward_plugin.h \
	    $(INTO)/include/dancegrpo
	install -d $(INTO)/share/bash-completion/completions
	install -m 644 src/cli/completion.bash \
	    $(INTO)/share/bash-completion/completions/dancegrpo
	install -d $(INTO)/share/man/man1
	install -m 644 doc/dancegrpo.1 $(INTO)/share/man/man1
	cp -R configs jobs doc examples $(INTO)/share/dancegrpo
	install -d $(INTO)/share/dancegrpo/tests/golden
	cp -R tests/golden/flux_tiny tests/golden/sd_tiny \
	    $(INTO)/share/dancegrpo/tests/golden

uninstall:
	rm -f $(INTO)/bin/dancegrpo
	rm -rf $(INTO)/share/dancegrpo $(INTO)/include/dancegrpo
	rm -f $(INTO)/share/bash-completion/completions/dancegrpo
	rm -f $(INTO)/share/man/man1/dancegrpo.1

clean:
	rm -rf $(BUILD)

distclean:
	rm -rf build bin compile_commands.json

help:
	@echo "make            build $(BINARY)"
	@echo "make demo       install what is missing, tune the demo, report"
	@echo "make check      install what is missing, run lint and all tests"
	@echo "make check-long the same with the long tests"
	@echo "make deps       look for libraries, install what is missing"
	@echo "make check-ptx  the kernels' tests on the PTX that nvcc makes, no GPU"
	@echo "make tests lint format doc"
	@echo "make fuzz       fuzz targets of tests/fuzz, needs clang"
	@echo "make install uninstall      PREFIX=$(PREFIX) DESTDIR="
	@echo "make clean distclean"
	@echo "Variables: CC CFLAGS LDFLAGS ARCH=$(ARCH) NP=\"$(NP)\" DEBUG=1"
	@echo "           SAN=1 (address and undefined behaviour) SAN=thread (races)"
	@echo "           MPI_PC=$(MPI_PC) HDF5_PC=$(HDF5_PC) (pkg-config's names)"
	@echo "           CUDA=1 CUDA_HOME=$(CUDA_HOME) CUDA_ARCH=\"$(CUDA_ARCH)\""
	@echo "           NCCL_HOME=CUDA_HOME CUDNN_HOME=CUDA_HOME"
	@echo "make check-gpu CUDA=1      what only a real GPU can show, in a table"
	@echo "make gpu-bundle CUDA=1     a folder to do that on another machine"

-include $(PTX:.ptx=.d) $(PTX_NEEDS:=.d) $(OBJECTS:.o=.d) $(BUILD)/src/cli/main.d $(TESTS:=.d) $(TOOLS:=.d) $(REFS:.o=.d) \
    $(KERNELS:cuda/%.cu=$(BUILD)/tests/as_gpu/%.d) \
         $(FUZZED:%.c=$(BUILD)/fuzz/%.d) $(FUZZERS:=.d) \
         $(EMULATED:.o=.d) $(CUDNN_OBJECTS:.o=.d) $(CUDNN_MISSING:.o=.d) $(CUDA_OBJECTS:.o=.d) $(BUILD)/emulated/session.d
.PHONY: all tests fuzz deps check check-long check-deps demo lint format doc \
        prompts check-cuda check-gpu gpu-bundle gpu-gathered gpu-tests \
        want-cuda install uninstall clean \
        distclean help FORCE
.SECONDARY:
