#!/bin/bash
# Form and order of the sources, one line "ok - what" or "not ok - what" each.
# A tool that is not there leaves its check out with a word about it.
set -u
cd "$(dirname "$0")/.." || exit 1
bin=${DG_BIN:-bin/dancegrpo}
bad=0
headers=$(find include -name '*.h')
sources=$(find src cuda examples -name '*.[ch]' -o -name '*.cu')
tests=$(find tests -name '*.[ch]' -o -name '*.cc')

# name, complaints ("" is good)
verdict()
{
    if [ -z "$2" ]; then
        echo "ok - $1"
    else
        echo "not ok - $1"
        echo "$2" | head -n 30 | sed 's/^/    /'
        bad=1
    fi
}

check_format()
{
    local out
    # shellcheck disable=SC2086
    out=$(clang-format --dry-run -Werror $headers $sources $tests 2>&1 |
        grep 'error:' | cut -d: -f1 | sort | uniq -c)
    verdict "lint: clang-format" "$out"
}

check_cppcheck()
{
    local out
    out=$(cppcheck --quiet --std=c11 --language=c -Iinclude -j2 \
        --enable=warning,portability --inline-suppr \
        --suppress=missingInclude --suppress=missingIncludeSystem \
        --suppress=nullPointerRedundantCheck --suppress=normalCheckLevelMaxBranches \
        --suppress=internalAstError --suppress=arrayIndexThenCheck --suppress=compareBoolExpressionWithInt \
        --suppress=checkersReport --suppress=unmatchedSuppression \
        --template='{file}:{line}: {severity}: {message} [{id}]' \
        --max-configs=2 src examples 2>&1)
    verdict "lint: cppcheck" "$out"
}

# what, pattern of its names, the only files that may use it (extended regex)
check_local()
{
    local out
    # shellcheck disable=SC2086
    out=$(grep -nE "$2" $headers $sources | grep -vE "^($3)" |
        grep -vE ':[0-9]+: *(/?\*|//)' | head -n 20)
    verdict "lint: $1 only where it belongs" "$out"
}

check_apis()
{
    check_local MPI '\bMPI_[A-Z][A-Za-z_]*\b|[<"]mpi\.h' \
        'src/parallel/|include/parallel/comm_mpi\.h'
    check_local oneDNN '\bdnnl_|dnnl\.h' 'src/cpu/'
    check_local HDF5 '\bH5[ADEFGILOPSTZ][a-z_0-9]+\(|\bhid_t\b|[<"]hdf5\.h' \
        'src/store/'
    check_local libconfig '\bconfig_(setting|lookup|init|destroy|read)|libconfig\.h' \
        'src/config/'
    check_local CUDA '\bcuda[A-Z][A-Za-z]*\(|\bcublas[A-Z]|cuda_runtime|cublasLt\.h' \
        'cuda/'
    check_local cuDNN '\bcudnn[A-Z]|CUDNN_(ATTR|BACKEND|TYPE)|cudnn_backend\.h' 'cuda/cudnn_'
    check_local NCCL '\bnccl[A-Z]|nccl\.h' 'cuda/'
    check_local libjpeg '\bjpeg_[a-z]+\(|jpeglib\.h' 'src/store/jpeg\.c'
    check_local dlopen '\bdl(open|sym|close|error)\(|dlfcn\.h' \
        'src/reward/plugin\.c|cuda/cudnn_library\.cu'
    check_local OpenSSL '\bEVP_|openssl/' 'src/base/sha256\.c'
}

# floors of doc/architecture.md: a file includes its own floor or lower ones
floor_of()
{
    case $1 in
    base) echo 1 ;;
    tensor | text | config | world) echo 2 ;;
    nn | diffusion | cpu | cuda) echo 3 ;;
    weights | parallel) echo 4 ;;
    models | grpo | optim | store) echo 5 ;;
    policy | reward | report) echo 6 ;;
    train) echo 7 ;;
    cli) echo 8 ;;
    *) echo 0 ;;
    esac
}

# a file of cuda, and its header, stand on the floor of the twin they have in
# src, but not below the kernels' own
floor_of_file()
{
    local twin floor
    case $1 in
    cuda/* | include/cuda/*)
        floor=$(floor_of cuda)
        for twin in src/*/"$(basename "${1%.*}").c"; do
            [ "$(floor_of "$(echo "$twin" | cut -d/ -f2)")" -gt "$floor" ] &&
                floor=$(floor_of "$(echo "$twin" | cut -d/ -f2)")
        done
        echo "$floor"
        ;;
    *) floor_of "$(echo "$1" | cut -d/ -f2)" ;;
    esac
}

check_floors()
{
    local out= file mine folder line
    while IFS=: read -r file line folder; do
        mine=$(floor_of_file "$file")
        folder=$(echo "$folder" | sed -E 's/.*"([a-z]+)\/.*/\1/')
        if [ "$(floor_of "$folder")" -gt "$mine" ]; then
            out="$out$file:$line includes $folder
"
        fi
    done < <(grep -nE '^ *#include "[a-z]+/' -r src include cuda)
    verdict "lint: floors" "$out"
}

check_lengths()
{
    local out
    # shellcheck disable=SC2086
    out=$(wc -l $headers $sources $tests |
        awk '$2 != "total" && $1 > 600 { print $2 ": " $1 " lines" }')
    verdict "lint: files of at most 600 lines" "$out"
    command -v ctags >/dev/null || return
    # shellcheck disable=SC2086
    out=$(ctags -x --map-C++=+.cu --kinds-c=f --kinds-c++=f --_xformat='%n %e %F %N' $sources $tests |
        awk '$2 - $1 + 1 > 60 { print $3 ":" $1 ": " $4 ": " $2 - $1 + 1 \
             " lines" }')
    verdict "lint: functions of at most 60 lines" "$out"
}

check_index()
{
    local out= folder file
    for folder in src/*/ cuda/ configs/ jobs/ examples/; do
        for file in "$folder"*.c "$folder"*.cu "$folder"*.cfg "$folder"*.sh \
            "$folder"train.*; do
            [ -e "$file" ] || continue
            grep -qs "^$(basename "$file")[ 	]" "${folder}INDEX" ||
                out="$out${folder}INDEX lacks $(basename "$file")
"
        done
        [ -e "${folder}INDEX" ] || continue
        while read -r file _; do
            [ -e "$folder$file" ] || out="$out${folder}INDEX names $file
"
        done <"${folder}INDEX"
    done
    verdict "lint: INDEX of every folder" "$out"
}

# what editors and merges leave
check_leftovers()
{
    verdict "lint: no leftovers" "$(find README.md Makefile configs cuda doc examples include \
        jobs src tests -name '*.orig' -o -name '*.rej' -o -name '*~')"
}

check_words()
{
    local out
    # shellcheck disable=SC2086
    out=$(grep -nE '\b(TODO|FIXME|XXX)\b|//[^"]*\bstub\b' $headers $sources)
    verdict "lint: nothing left to do" "$out"
}

# gcc 12 was seen to fuse products and sums of pairs in spite of
# -ffp-contract=off (the vectoriser of straight-line code); bits would be the
# compiler's then
check_fused()
{
    [ -x "$bin" ] || return
    verdict "lint: no fused pairs in the machine code" \
        "$(objdump -d --no-show-raw-insn "$bin" | grep -E 'vfm(addsub|subadd)')"
}

check_doc()
{
    local out
    [ -x "$bin" ] || return
    out=$("$bin" config --markdown 2>&1 | diff - doc/config.md 2>&1)
    [ -z "$out" ] || out="$out
run: make doc"
    verdict "lint: doc/config.md is up to date" "$out"
    out=$("$bin" --man 2>&1 | diff - doc/dancegrpo.1 2>&1)
    [ -z "$out" ] || out="$out
run: make doc"
    verdict "lint: doc/dancegrpo.1 is up to date" "$out"
}

# what a formatter of manual pages has to say of ours
check_man()
{
    if command -v mandoc >/dev/null; then
        verdict "lint: doc/dancegrpo.1, by mandoc" \
            "$(mandoc -T lint -W warning doc/dancegrpo.1 2>&1)"
    elif command -v groff >/dev/null; then
        verdict "lint: doc/dancegrpo.1, by groff" \
            "$(groff -ww -man -Tutf8 doc/dancegrpo.1 2>&1 >/dev/null)"
    else
        echo "no mandoc and no groff: the manual page's check is left out"
    fi
}

# a function of a header that nobody calls, not even a test; calls are indented,
# or in macros, while declarations and definitions are not
check_called()
{
    local declared called
    # shellcheck disable=SC2086
    declared=$(grep -hE '^[a-z]' $headers | grep -oE '\bdg_[a-z0-9_]+\(' |
        tr -d '(' | sort -u)
    # shellcheck disable=SC2086
    called=$(grep -hE '^([[:space:]]|#|[A-Z_]+\()' $headers $sources $tests |
        grep -vE '^ \*' | grep -oE '\bdg_[a-z0-9_]+' | sort -u)
    verdict "lint: functions of headers are called" \
        "$(comm -23 <(echo "$declared") <(echo "$called"))"
}

# functions and files that the documents name
check_named()
{
    local out= page name
    for page in README.md doc/*.md; do
        for name in $(grep -oE 'dg_[a-z0-9_]+\(\)' "$page" | tr -d '()' | sort -u); do
            grep -rqw "$name" include src cuda || out="$out$page: $name()
"
        done
        for name in $(grep -oE '\b(src|include|cuda|tests|jobs|examples)/[A-Za-z0-9_./]+\b' \
            "$page" | sort -u); do
            [ -e "$name" ] || [ "$name" = tests/test_x.c ] ||
                out="$out$page: $name
"
        done
    done
    verdict "lint: what the documents name is there" "$out"
}

if command -v clang-format >/dev/null; then
    check_format
else
    echo "no clang-format: its check is left out"
fi
if command -v cppcheck >/dev/null; then
    check_cppcheck
else
    echo "no cppcheck: its check is left out"
fi
check_apis
check_floors
check_lengths
check_index
check_leftovers
check_words
check_called
if command -v objdump >/dev/null; then
    check_fused
else
    echo "no objdump: its check is left out"
fi
check_doc
check_man
check_named
exit $bad
