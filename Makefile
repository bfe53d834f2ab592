# dancegrpo: GNU make. `make help` lists the targets.
# CC, CFLAGS, PREFIX, DESTDIR are the user's; ours are kept apart.

CC       = gcc
CFLAGS  ?= -O3
ARCH    ?= native
PREFIX  ?= /usr/local
BUILD   ?= build
PKG      = pkg-config

PACKAGES = ompi-c hdf5-mpi libconfig libpng libcjson libutf8proc libpcre2-8 libcrypto
DEP_CFLAGS := $(shell $(PKG) --cflags $(PACKAGES) 2>/dev/null)
DEP_LIBS   := $(shell $(PKG) --libs $(PACKAGES) 2>/dev/null) -ldnnl -ljpeg

ALL_CFLAGS = -std=gnu11 -Iinclude $(DEP_CFLAGS) $(CFLAGS) -march=$(ARCH) \
             -fopenmp -ffp-contract=off -fno-math-errno -Wall -Wextra -Wpedantic \
             -Wno-unknown-pragmas -MMD -MP
ifdef DEBUG
ALL_CFLAGS += -O0 -g -DDG_DEBUG=1
endif
ifdef SAN
ALL_CFLAGS += -g -fsanitize=address,undefined -fno-omit-frame-pointer
LDFLAGS    += -fsanitize=address,undefined
endif
ALL_LIBS = $(DEP_LIBS) -fopenmp -lm

SOURCES := $(filter-out src/cli/main.c,$(wildcard src/*/*.c))
OBJECTS := $(SOURCES:%.c=$(BUILD)/%.o)
LIB      = $(BUILD)/libdancegrpo.a
TESTS   := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/test_*.c))

all: bin/dancegrpo

bin/dancegrpo: $(BUILD)/src/cli/main.o $(LIB)
	@mkdir -p bin
	$(CC) $(LDFLAGS) -o $@ $^ $(ALL_LIBS)

$(LIB): $(OBJECTS)
	@rm -f $@
	ar rcs $@ $^

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -c -o $@ $<

$(BUILD)/tests/%: tests/%.c $(LIB)
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -Itests $(LDFLAGS) -o $@ $< $(wildcard tests/ref_*.c) $(LIB) -lcmocka $(ALL_LIBS)

tests: $(TESTS)

clean:
	rm -rf $(BUILD) bin

-include $(OBJECTS:.o=.d)
.PHONY: all tests clean
