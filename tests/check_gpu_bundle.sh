#!/bin/bash
# The folder that goes to a machine with a GPU, here with the GPU emulated: it
# has all libraries it needs, and its one command works where nothing else is.
. "$(dirname "$0")/lib.sh"
build=${DG_BUILD:-build}
folder=$work/bundle

# in_it COMMAND...: with nothing of this environment but what the sanitizers,
# if any, are to overlook
in_it()
{
    (cd "$work" && env -i PATH=/usr/bin:/bin OUT="$work/results" QUICK=1 \
        LIMIT=1000 PATIENCE=20 OMPI_MCA_rmaps_base_oversubscribe=1 \
        LSAN_OPTIONS="${LSAN_OPTIONS:-}" ASAN_OPTIONS="${ASAN_OPTIONS:-}" "$@")
}

# libraries that the bundle's files would take from elsewhere, but the C library's
outside()
{
    local f
    for f in "$folder"/bin/* "$folder"/gpu/* "$folder"/mpi/plugins/* \
        "$folder"/lib/*.so*; do
        LD_LIBRARY_PATH=$folder/lib ldd "$f" 2>&1
    done | grep '=>' | grep -vE "=> $folder/" |
        grep -vE '=> \S*/lib(c|m|dl|rt|pthread|resolv)\.so' | sort -u
}

expect "bundle: it is gathered" tests/gpu/bundle.sh "$folder" \
    "$build/emulated/dancegrpo" "$build/tests/tools/close" \
    "$build/tests/test_cuda_memory" "$build/tests/test_cuda_training" \
    "$build/tests/test_cuda_rewards"
expect "bundle: all libraries are inside" test -z "$(outside)"
expect_code "bundle: without a GPU one line says so" 77 "no GPU: ERROR" \
    in_it CUDA_EMULATION_DEVICES=0 "$folder/tests/gpu/run.sh"
expect "bundle: and nothing else" test "$(wc -l <"$work/out")" = 1
# a folder for runs where nothing may be written, as where there is no room
expect_code "bundle: its command, kernels, runs elsewhere than in /proc" 0 \
    "1 ok, 0 failed" in_it TMPDIR=/proc ONLY="kernels*memory" "$folder/tests/gpu/run.sh"
# whose scores need files of the tests'
for steps in "kernels*rewards" "doctor*32" "ratio*12" "two*" "beside*tiny"; do
    expect_code "bundle: its command, $steps" 0 "1 ok, 0 failed" \
        in_it ONLY="$steps" "$folder/tests/gpu/run.sh"
done
expect "bundle: what earlier tables said is kept" test "$(grep -cE \
    '^(kernels: cuda_memory|doctor: float32) .* ok ' "$work/results/before.txt")" = 2
mkdir -p "$work/order/gpu"
touch "$work/order/gpu/test_cuda_"{attention_cudnn,beside,bf16,kernels}
same "bundle: tests in the order of what depends on them" "kernels bf16 beside attention_cudnn" \
    "$(root=$work/order
    eval "$(sed -n "/^programs()/,/^}/p" tests/gpu/run.sh)"
    { programs && programs cudnn; } | sed 's/.*cuda_//' | tr '\n' ' ' | sed 's/ $//')"
expect_code "bundle: its command, an update of FLUX, in small" 0 "1 ok, 0 failed" \
    in_it STEP=small ONLY="update*" "$folder/tests/gpu/run.sh"
# where this machine has no cuDNN the table says so
expect_code "bundle: its command, cuDNN's attention" 0 " 0 failed" \
    in_it ONLY="cuDNN*1" "$folder/tests/gpu/run.sh"
expect "bundle: cuDNN's attention, or none of it" grep -qE \
    "^cuDNN: ratio, .*( ok .* 1 in 2 iter| none .* no cuDNN on)" \
    "$work/results/table.txt"
expect_code "bundle: its command, cuDNN's convolutions" 0 " 0 failed" \
    in_it ONLY="convolutions*1" "$folder/tests/gpu/run.sh"
expect "bundle: cuDNN's convolutions, or none of them" grep -qE \
    "^convolutions by cuDNN: .*( ok .* 1 in 2 iter| none .* no cuDNN on)" \
    "$work/results/table.txt"
# PyTorch's libraries, in a Python of a folder's own
mkdir -p "$work/site-packages/nvidia/none/lib"
touch "$work/site-packages/nvidia/none/lib/libnone.so.9"
printf '#!/bin/sh\necho "%s/nvidia/*/lib"\n' "$work/site-packages" >"$work/python"
chmod +x "$work/python"
expect_code "bundle: PyTorch's libraries are found" 0 \
    "$work/site-packages/nvidia/none/lib" in_it PYTHON="$work/python" bash -c \
    'eval "$(sed -n "/^packages=/,/^# The driver/p" "$0")"; library_folder libnone.so.9' \
    "$folder/tests/gpu/libraries.sh"
# a run that cannot begin for another reason than that there is no GPU
expect_code "bundle: a GPU that fails at once is no missing one" 1 \
    "a run begins" in_it CUDA_EMULATION_MEMORY=400000000 ONLY="kernels*memory" \
    "$folder/tests/gpu/run.sh"
# a GPU that fails, at a kernel that nobody names but who launches one by one
expect_code "bundle: a kernel that fails is named" 1 "FAILED" in_it \
    ONLY="kernels*training" CUDA_EMULATION_FAIL=0:60 "$folder/tests/gpu/run.sh"
expect "bundle: with the test, in its table" grep -qE \
    "^kernels: .* FAILED .* test_[a-z_]*: .*CUDA: [a-z0-9_]*kernel" \
    "$work/results/table.txt"
exit $bad
