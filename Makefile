# dancegrpo: GNU make. `make help` lists the targets.
# CC, CFLAGS, LDFLAGS, PREFIX, DESTDIR are the user's; ours are kept apart.

CC       = gcc
CFLAGS  ?= -O3
ARCH    ?= native
PREFIX  ?= /usr/local
NP      ?= 1 2 3
PKG      = pkg-config

# a sanitized or debugging build lives in a folder of its own
ifneq ($(filter 1,$(SAN)),)
BUILD   ?= build/san
else ifneq ($(filter 1,$(DEBUG)),)
BUILD   ?= build/debug
endif
BUILD   ?= build
ifeq ($(BUILD),build)
BINARY   = bin/dancegrpo
else
BINARY   = $(BUILD)/bin/dancegrpo
endif

ifneq ($(filter-out 0,$(CUDA)),)
$(error CUDA=$(CUDA): this version has no GPU side yet; build with CUDA=0)
endif

PACKAGES = ompi-c hdf5-mpi libconfig libpng libcjson libutf8proc libpcre2-8 \
           libcrypto
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
ALL_CFLAGS += $(SANITIZE)
SAN_OBJECT  = $(BUILD)/tests/san_dlclose.o
endif
ALL_LIBS = $(DEP_LIBS) -fopenmp -lm

SOURCES := $(filter-out src/cli/main.c,$(wildcard src/*/*.c))
OBJECTS := $(SOURCES:%.c=$(BUILD)/%.o)
REFS    := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/ref_*.c))
LIB      = $(BUILD)/libdancegrpo.a
TESTS   := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/test_*.c))
TOOLS   := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/tools/*.c))

all: $(BINARY)

$(BINARY): $(BUILD)/src/cli/main.o $(SAN_OBJECT) $(LIB)
	@mkdir -p $(@D)
	$(CC) $(SANITIZE) $(LDFLAGS) -o $@ $^ $(ALL_LIBS)

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
#   build/fuzz/fuzz_x -max_total_time=300 CORPUS tests/fuzz/corpus/x
# CORPUS is a folder that new inputs are put into
FUZZERS := $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZED  := $(filter src/base/% src/text/% src/config/% src/world/% \
             src/tensor/% src/weights/% src/store/%,$(SOURCES))
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
	    $(DEP_LIBS) -lm

# rewritten only when the commit differs, so that nothing is built in vain
$(BUILD)/src/base/version.o: $(BUILD)/generated/commit.h
$(BUILD)/generated/commit.h: FORCE
	@mkdir -p $(@D)
	@commit=`git rev-parse --short=12 HEAD 2>/dev/null || echo unknown`; \
	test "$$commit" = unknown || git diff-index --quiet HEAD 2>/dev/null \
	    || commit=$$commit-dirty; \
	echo "#define DG_GIT_COMMIT \"$$commit\"" > $@.new; \
	cmp -s $@.new $@ && rm $@.new || mv $@.new $@

tests: $(TESTS) $(TOOLS)

deps:
	@./deps.sh build

check: check-deps
	@$(MAKE) --no-print-directory BUILD=$(BUILD) $(BINARY) tests
	@DG_BIN=$(BINARY) NP="$(NP)" SAN="$(SAN)" tests/run.sh $(BUILD)

check-long: check-deps
	@$(MAKE) --no-print-directory BUILD=$(BUILD) $(BINARY) tests
	@DG_BIN=$(BINARY) NP="$(NP)" SAN="$(SAN)" LONG=1 tests/run.sh $(BUILD)

check-deps:
	@./deps.sh check

demo: deps
	@$(MAKE) --no-print-directory BUILD=$(BUILD) $(BINARY)
	@DG_BIN=$(BINARY) jobs/demo.sh

lint: $(BINARY)
	@DG_BIN=$(BINARY) tests/lint.sh

format:
	clang-format -i include/*/*.h src/*/*.[ch] tests/*.[ch] tests/*/*.c

doc: $(BINARY)
	$(BINARY) config --markdown > doc/config.md

# the prompt lists of the shapes world, again: the same bytes
prompts: $(BUILD)/tests/tools/world_prompts
	$< configs/prompts/shapes_train.jsonl configs/prompts/shapes_heldout.jsonl

install: $(BINARY)
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(BINARY) $(DESTDIR)$(PREFIX)/bin/dancegrpo
	install -d $(DESTDIR)$(PREFIX)/share/dancegrpo
	install -m 644 README.md LICENSE $(DESTDIR)$(PREFIX)/share/dancegrpo
	for d in configs jobs doc; do \
	    test -d $$d || continue; \
	    cp -R $$d $(DESTDIR)$(PREFIX)/share/dancegrpo/; \
	done

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/dancegrpo
	rm -rf $(DESTDIR)$(PREFIX)/share/dancegrpo

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
	@echo "make tests lint format doc"
	@echo "make fuzz       fuzz targets of tests/fuzz, needs clang"
	@echo "make install uninstall      PREFIX=$(PREFIX) DESTDIR="
	@echo "make clean distclean"
	@echo "Variables: CC CFLAGS LDFLAGS ARCH=$(ARCH) NP=\"$(NP)\" DEBUG=1"
	@echo "           SAN=1 (address and undefined behaviour) CUDA=0"

-include $(OBJECTS:.o=.d) $(BUILD)/src/cli/main.d $(TESTS:=.d) $(TOOLS:=.d) $(REFS:.o=.d) \
         $(FUZZED:%.c=$(BUILD)/fuzz/%.d) $(FUZZERS:=.d)
.PHONY: all tests fuzz deps check check-long check-deps demo lint format doc \
        prompts install uninstall clean distclean help FORCE
.SECONDARY:
