# Shared by the check scripts of the emulated GPU; source it in place of
# train_lib.sh. $bin is then the program with its GPU side, $cpu the other.
. "$(dirname "${BASH_SOURCE[0]}")/train_lib.sh"
cpu=$bin
gpu=${DG_BUILD:-build}/emulated/dancegrpo
[ "${gpu#/}" != "$gpu" ] || gpu=$PWD/$gpu
bin=$gpu
# bytes of a GPU that a plan leaves to the driver
later=$((512 << 20))
small="sampler.steps=4 grpo.num_generations=2 grpo.micro_batch=2 report.prompts=2"

# on_gpu RANKS RUN [SET]...: in $dtype, if there is one
on_gpu()
{
    local n=$1 run=$2
    shift 2
    # shellcheck disable=SC2086
    tiny "$n" 1 "$run" run.device=cuda ${dtype:+run.dtype=$dtype} $small "$@"
}

# on_cpu RUN [SET]...
on_cpu()
{
    local run=$1
    shift
    # shellcheck disable=SC2086
    bin=$cpu tiny 1 1 "$run" $small "$@"
}

# near RUN OTHER ITERATION: weights of two runs within 1e-5 of the largest
near()
{
    "$tools/close" "$work/$1/checkpoints/iter_00000$3.h5" \
        "$work/$2/checkpoints/iter_00000$3.h5" 1e-5
}

# small_on_gpus RANKS LEVEL OFFLOAD RUN [SET]...: two short iterations at a level
# of sharding; OFFLOAD, what is the host's: false, sums, or true for all of it
small_on_gpus()
{
    local n=$1 level=$2 offload=parallel.offload_optimizer=$3 run=$4
    [ "$3" = sums ] && offload=parallel.offload_sums=true
    shift 4
    tiny "$n" 1 "$run" run.device=cuda parallel.shard="$level" \
        "$offload" sampler.steps=3 grpo.num_generations=2 \
        grpo.prompts_per_iteration=2 grpo.micro_batch=2 report.prompts=1 \
        evaluate.steps=1 run.iterations=2 trajectory.every=0 "$@"
}

# same_arrays NAME RUN WANTED [ITERATION]: weights, moments and EMA of a
# checkpoint, and their digests; $about says what the script is about
same_arrays()
{
    local file=checkpoints/iter_00000${4:-3}.h5
    expect "$about: $1, the same arrays" "$tools/same_arrays" \
        "$work/$2/$file" "$work/$3/$file"
    [ -e "$work/$2/$file" ] || tail -n 5 "$work/$2.out"
}
