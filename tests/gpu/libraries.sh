# Where the bundle's programs find their libraries on this machine, and how they
# start; sourced by run.sh, which has set $root, the bundle, and $work.
# Sets path, loader, missing, cudnn; find_libraries, then wrap_all.
path=$root/lib loader= missing=

# PyTorch brings CUDA's libraries along; its Python may be a folder's own
packages=$(timeout 20 "${PYTHON:-python3}" -c 'import sys
for p in sys.path:
    if p.endswith("-packages"):
        print(p + "/nvidia/*/lib")' 2>/dev/null)

# found NAME: its folder by a look at the whole disk, one for all names: a disk
# that nobody has read yet is slow
found()
{
    [ -e "$work/found" ] ||
        timeout 60 find / -xdev \( -path "$root" -o -path /proc -o -name stubs \) \
            -prune -o \( -name 'libcu*.so.*' -o -name 'libn[cv]*.so.*' \) \
            -print >"$work/found" 2>/dev/null
    sed -n "s,/${1//./\\.}\$,,p" "$work/found" | head -n 1
}

# library_folder NAME: where it is on this machine, if anywhere
library_folder()
{
    local f p given python='lib/python3*/*-packages/nvidia/*/lib'
    # shellcheck disable=SC2086,SC2231
    IFS=: read -ra given <<<"${LD_LIBRARY_PATH:-}"
    for f in "${CUDA_HOME:-/usr/local/cuda}"/lib*/"$1" "${given[@]/%//$1}" \
        /usr/local/cuda*/{lib64,targets/*/lib}/"$1" \
        /usr/lib/*-linux-gnu/"$1" /usr/lib64/"$1" \
        /opt/*/$python/"$1" /opt/*/{*,.[!.]*}/$python/"$1" \
        /usr/{,local/}$python/"$1"; do
        [ -e "$f" ] && dirname "$f" && return
    done
    for p in $packages; do
        [ ! -e "$p/$1" ] || { echo "$p" && return; }
    done
    found "$1"
}

# The driver's library is opened by name when the program runs: a container may
# have it where only its own LD_LIBRARY_PATH leads, or, for a loader that is not
# this machine's, where that does not look (/usr/lib64, if the cache is stale).
add_driver()
{
    local d places=(/usr/local/nvidia/lib{64,} /usr/lib/wsl/lib)
    [ -z "$loader" ] || places+=(/usr/lib/*-linux-gnu /usr/lib64)
    IFS=: read -ra d <<< "${LD_LIBRARY_PATH:-}"
    for d in "${d[@]}" "${places[@]}"; do
        [ ! -e "$d/libcuda.so.1" ] || path=$path:$d
    done
}

# cuDNN is opened by name too, by runs that ask for it, and opens the compiler of
# kernels; what is not there is said in the table.
add_cudnn()
{
    local name folder=
    cudnn=$(library_folder libcudnn.so.9)
    [ -n "$cudnn" ] || return 0
    path=$path:$cudnn
    for name in libnvrtc.so.13 libnvrtc.so.12; do
        [ -n "$folder" ] || folder=$(library_folder $name)
    done
    path=$path${folder:+:$folder}
}

# With this machine's C library, or where that is too old, or another, with the
# one that the programs were linked with; CUDA's libraries from wherever they are.
# Without NCCL one that does nothing takes its place: one GPU needs none.
find_libraries()
{
    local name list folder
    list=$(LD_LIBRARY_PATH=$path LD_TRACE_LOADED_OBJECTS=1 bin/dancegrpo 2>&1)
    if ! grep -q '=>' <<< "$list" ||
        grep -q "version .GLIBC.* not found" <<< "$list"; then
        loader=$(echo "$root"/lib/libc/ld-linux*)
        path=$root/lib/libc:$path
        list=$("$loader" --library-path "$path" --list bin/dancegrpo 2>&1)
    fi
    for name in $(sed -n 's/^\s*\(\S*\) => not found.*/\1/p' <<< "$list"); do
        folder=$(library_folder "$name")
        [ -n "$folder" ] || case $name in
        libnccl.so*) folder=$root/lib/without ;;
        *) missing="$missing $name" ;;
        esac
        path=$path${folder:+:$folder}
    done
    add_driver
    add_cudnn
}

# wrap PROGRAM: one of its name in $work/bin, which ends with its step
wrap()
{
    local start="env LD_LIBRARY_PATH='$path' '$1'"
    [ -z "$loader" ] || start="'$loader' --library-path '$path' '$1'"
    cat >"$work/bin/${1##*/}" <<END
#!/bin/bash
left=\$((\${STEP_END:-0} - \$(date +%s)))
exec timeout -k 5 \$((left > 1 ? left : 1)) $start "\$@"
END
    chmod +x "$work/bin/${1##*/}"
}

wrap_all()
{
    local f
    mkdir "$work/bin"
    for f in "$root"/bin/* "$root"/gpu/* "$root/tests/tools/close"; do wrap "$f"; done
    PATH=$work/bin:$PATH
    bin=$work/bin/dancegrpo tools=$work/bin
}
