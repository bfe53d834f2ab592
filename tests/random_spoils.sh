# Input spoiled at random: source it after cuda_lib.sh, random_draw.sh and
# random_runs.sh, then spoil_beds once and check_spoils SEED. Whatever is
# wrong with a configuration, a command line or a file: it is taken, or there
# is one message, alike on all ranks; nothing crashes, hangs, or is half-written.
# shellcheck disable=SC2154

# memory that a spoiled size may ask for, KiB, and seconds; sanitizers take all
# the memory that there is, and more time
most_kib=$((6 << 20)) patience=60
[ "${SAN:-0}" = 0 ] || most_kib=unlimited patience=240

# the files to be spoiled, made once, in $beds
spoil_beds()
{
    beds=$work/beds
    mkdir -p "$beds"
    bin=$cpu tiny 1 1 beds/run >/dev/null
    cp "$work"/beds/run/checkpoints/iter_000003.h5 "$beds/checkpoint.h5"
    cp "$work"/beds/run/trajectories/iter_000002.h5 "$beds/trajectory.h5"
    "$bin" encode configs/tiny.cfg --set run.threads=1 \
        --set prompts.cache="$beds/cache.h5" >"$beds/out" 2>&1
    "$bin" pretrain configs/tiny.cfg --set run.dir="$work/beds/base" \
        --set pretrain.steps=1 --set pretrain.batch=2 --set run.threads=1 \
        --set pretrain.item_size=2 --set pretrain.eval_every=0 >"$beds/out" 2>&1
    cp "$work"/beds/base/weights.h5 "$beds/weights.h5"
    "$bin" train configs/tiny.cfg --print-config >"$beds/all.cfg"
    # lines "key allowed"; a list's choices are divided by spaces
    "$bin" config --markdown |
        sed -n 's/\\|//g; s/^| `\([a-z0-9_.]*\)` |[^|]*| \([^|]*\) |.*/\1 \2/p' \
            >"$beds/keys"
    digest_of "$beds/checkpoint.h5" >"$beds/digest"
    [ -s "$beds/keys" ] && [ -s "$beds/weights.h5" ] && [ -s "$beds/cache.h5" ]
}

digest_of() { "$bin" inspect --digest "$1" 2>/dev/null | cut -c 1-64; }

# try RANKS RUN COMMAND...: its exit code in $rc, its output in RUN.out
try()
{
    local n=$1 run=$2
    shift 2
    local front=()
    [ "$n" = 1 ] || front=(mpirun --oversubscribe -n "$n")
    (
        ulimit -v $most_kib -c 0
        exec timeout -k 5 "$patience" "${front[@]}" "$@"
    ) >"$work/$run.out" 2>&1 </dev/null
    rc=$?
}

# judge RUN WHAT: of what try left
judge()
{
    local run=$1 errors
    errors=$(grep -ac '^ERROR' "$work/$run.out")
    told=
    case $rc in
    0 | 75)
        [ "$errors" = 0 ] || fault "$2: exit code $rc with ERROR" "$work/$run.out"
        ;;
    1 | 2)
        if [ "$errors" = 1 ]; then
            one_message "$run" 1 ||
                fault "$2: crash or remains" "$work/$run.out" 20
        elif [ "$rc" = 1 ] || [ ! -s "$work/$run.out" ]; then
            fault "$2: exit code $rc, $errors messages" "$work/$run.out" 20
        fi
        ;;
    124) fault "$2: no end within $patience s" "$work/$run.out" ;;
    *) fault "$2: exit code $rc" "$work/$run.out" 20 ;;
    esac
    ! grep -aqE 'Sanitizer|runtime error:|Segmentation|panic' "$work/$run.out" ||
        fault "$2: crash" "$work/$run.out" 20
    ! grep -a '^ERROR' "$work/$run.out" | LC_ALL=C.UTF-8 grep -aqv '^[[:print:]]*$' ||
        fault "$2: a message that is no text" "$work/$run.out"
}

# tried WHAT COMMAND...: on one rank, and in a third of all cases on two
tried()
{
    local what=$1 first first_told
    shift
    try 1 spoiled "$@"
    judge spoiled "$what"
    first=$rc first_told=$told
    [ "$faults" = 0 ] || {
        printf '    %q' "$@"
        echo
    }
    if [ "${twice:-0}" = 1 ] && [ "$first" -le 2 ]; then
        rm -rf "$work/spoiled"
        [ ! -e "$work/before" ] || cp -r "$work/before" "$work/spoiled"
        try 2 spoiled "$@"
        judge spoiled "$what, two ranks"
        [ "$rc $told" = "$first $first_told" ] ||
            fault "$what: two ranks: $rc, '$told', not $first, '$first_told'"
    fi
    rc=$first told=$first_told
}

# --- keys --------------------------------------------------------------------

draw_key()
{
    local num
    num=$(wc -l <"$beds/keys")
    draw "$num"
    read -r key allowed < <(sed -n $((drawn + 1))p "$beds/keys")
}

# what is allowed, to its ends, and just beyond
draw_end()
{
    local ends choices
    case $allowed in
    *integer* | number*)
        ends=${allowed##*[}
        one_of "${ends%,*}" "${ends%,*}" "${ends#*, }" 1 2 3 5 17
        one=${one%]}
        ;;
    "true or"*) one_of true false ;;
    "one of"*)
        read -r -a choices <<<"${allowed#one of }"
        one_of "${choices[@]}"
        ;;
    *) draw_value ;;
    esac
}

draw_value()
{
    one_of -1 0 1 2 3 7 1000000 1e308 1e309 -1e308 nan inf -inf 1e-300 1e-400 \
        9223372036854775807 9223372036854775808 -9223372036854775808 4294967296 \
        2147483648 0x7fffffffffffffff 1.5 0.1 '"abc"' abc '""' '' ' ' true \
        false '[1,2]' '[]' '()' '({})' '{}' '[1,2' '"' "$(printf 'x%.0s' \
            {1..700})" "$(printf '\377\376')" '1;2' 'none' 'cuda' 'bfloat16' \
        ode all '*' '**' '/' "$work" '%s%n' '"\u0000"' '1e5' '0.5' '4096' '64' \
        '65' '(({a=1;}))' '[""]' '[1.5,"a"]' 'auto' 'vae' 'epsilon' 'data'
}

spoil_keys()
{
    local num i set=() what=
    one_of 1 2 3 5
    num=$one
    for ((i = 0; i < num; i++)); do
        draw_key
        if once_in 3; then draw_value; else draw_end; fi
        [ "$key" = run.dir ] && continue
        set+=(--set "$key=$one")
        what+="$key=${one:0:40} "
    done
    one_of train train train plan evaluate sample encode pretrain
    local kind=$one extra=()
    case $kind in
    evaluate | sample) extra=(--set policy.weights="$beds/weights.h5") ;;
    encode) extra=(--set prompts.cache="$work/never.h5") ;;
    esac
    [ "$kind" != sample ] || extra+=(--out "$work/never.png")
    one_of configs/tiny.cfg configs/tiny_unet.cfg configs/tiny_eps.cfg \
        configs/tiny_flux.cfg configs/tiny_sd.cfg
    local base=$one
    [ "${#extra[@]}" = 0 ] || base=configs/tiny.cfg
    tried "$kind --dry-run $base, $what" "$bin" "$kind" "$base" \
        --set run.dir="$work/spoiled" --set run.threads=1 "${extra[@]}" \
        "${set[@]}" --dry-run
    { [ "$rc" = 0 ] && [ "$kind" = train ]; } || return 0
    # what a dry run takes, a run takes
    try 1 spoiled "$bin" train "$base" --set run.dir="$work/spoiled" \
        --set run.threads=1 --set run.max_seconds=1 "${set[@]}"
    [ "$rc" != 124 ] || return 0 # long, but not wrong
    judge spoiled "train $base, $what"
    [ "$rc" != 1 ] || [[ $told == "ERROR iteration"* ]] ||
        fault "train, not --dry-run: $what: $told"
}

# --- bytes -------------------------------------------------------------------

# spoil_bytes FILE: some of them, in place
spoil_bytes()
{
    local file=$1 size i at
    size=$(stat -c %s "$file")
    [ "$size" -gt 0 ] || return 0
    one_of flip flip flip cut zero text
    how=$one
    draw "$size"
    at=$drawn
    # heads say most
    once_in 2 && at=$((at % 4096))
    case $how in
    flip)
        draw 8
        for ((i = drawn; i >= 0; i--)); do
            draw 256
            printf "\\x$(printf %02x "$drawn")" |
                dd of="$file" bs=1 seek="$at" conv=notrunc status=none
            draw "$size"
            at=$(((at + drawn % 40) % size))
        done
        ;;
    cut) truncate -s "$at" "$file" ;;
    zero)
        draw 600
        head -c $((drawn + 1)) /dev/zero |
            dd of="$file" bs=1 seek="$at" conv=notrunc status=none
        ;;
    text)
        one_of '{' '}' '[' '"' '999999999999' '-1' '\' $'\n' 'null' ',,' '1e999'
        printf %s "$one" |
            dd of="$file" bs=1 seek="$at" conv=notrunc status=none
        ;;
    esac
}

spoil_config_file()
{
    cp "$beds/all.cfg" "$work/spoiled.cfg"
    spoil_bytes "$work/spoiled.cfg"
    tried "configuration, $how" "$bin" train "$work/spoiled.cfg" \
        --set run.dir="$work/spoiled" --set run.threads=1 --dry-run
}

# spoil_h5: a file of this program; what is taken has the weights it had
spoil_h5()
{
    local file=$work/spoiled.h5 command
    one_of checkpoint weights trajectory cache
    local kind=$one
    cp "$beds/$kind.h5" "$file"
    spoil_bytes "$file"
    tried "inspect of a $kind, $how" "$bin" inspect "$file"
    case $kind in
    trajectory)
        command=("$bin" replay --threads 1 "$file")
        ;;
    cache)
        command=("$bin" train configs/tiny.cfg --set run.dir="$work/spoiled"
            --set run.threads=1 --set prompts.cache="$file"
            --set trajectory.every=0 --set checkpoint.every=0)
        ;;
    *)
        local set=(--set run.threads=1 --set policy.weights="$file")
        one_of sample sample evaluate convert
        case $one in
        sample)
            command=("$bin" sample configs/tiny.cfg "${set[@]}"
                --out "$work/spoiled.png" --num 1)
            ;;
        evaluate)
            command=("$bin" evaluate configs/tiny.cfg "${set[@]}"
                --set evaluate.num_prompts=2)
            ;;
        convert) command=("$bin" convert "$file" --to "$work/spoiled") ;;
        esac
        ;;
    esac
    tried "$kind, $how" "${command[@]}"
    [ "$rc" = 0 ] || return 0
    case $kind in
    cache) same_as_bed spoiled "$kind, $how" ;;
    checkpoint | weights)
        same_digests "$file" "$beds/$kind.h5" ||
            same_outcome "$beds/$kind.h5" "${command[@]}" ||
            fault "$kind, $how: taken"
        ;;
    esac
}

same_digests() { [ "$(digest_of "$1")" = "$(digest_of "$2")" ]; }

# what a command of spoil_h5 has made of its file
outcome()
{
    cat "$work/spoiled.png" "$work"/spoiled/* 2>/dev/null
    grep '^weighted sum' "$work/spoiled.out"
}

# same_outcome INTACT COMMAND...: it reads a part of its file alone, and makes of the
# intact one what it has made of the spoiled one, whose digest nobody can tell
same_outcome()
{
    local intact=$1 made rc
    shift
    [ -z "$(digest_of "$file")" ] || return 1
    made=$(outcome | sha256sum)
    rm -rf "$work/spoiled.png" "$work/spoiled"
    cp "$intact" "$file"
    try 1 spoiled "$@"
    [ "$rc" = 0 ] && [ "$(outcome | sha256sum)" = "$made" ]
}

# same_as_bed RUN WHAT: its last checkpoint has the bits of the bed's
same_as_bed()
{
    [ "$(digest_of "$work/$1/checkpoints/iter_000003.h5")" = \
        "$(cat "$beds/digest")" ] || fault "$2: other weights, silently"
}

# a run whose newest files are spoiled goes on with older ones, or is refused
spoil_run()
{
    local file
    cp -r "$beds/run" "$work/spoiled"
    one_of checkpoints/iter_000003.h5 checkpoints/iter_000002.h5 metrics.jsonl \
        config.cfg log.txt trajectories/iter_000003.h5 pictures/prompts.json
    file=$one
    [ "$file" = checkpoints/iter_000002.h5 ] &&
        rm "$work/spoiled/checkpoints/iter_000003.h5"
    spoil_bytes "$work/spoiled/$file"
    cp -r "$work/spoiled" "$work/before"
    tried "run with $file, $how" "$bin" train configs/tiny.cfg \
        --set run.dir="$work/spoiled" --set run.threads=1
    [ "$rc" = 0 ] && same_as_bed spoiled "run with $file, $how"
    rm -rf "$work/before" && cp -r "$work/spoiled" "$work/before"
    [ "$rc" != 0 ] || tried "report of $file, $how" "$bin" report "$work/spoiled"
}

# folders of others' making
spoil_folder()
{
    local files file base set=() args=()
    one_of flux_tiny sd_tiny clip_tiny image_reward_tiny
    local kind=$one
    cp -r "tests/golden/$kind" "$work/folder"
    mapfile -t files < <(cd "$work/folder" && find . -type f ! -name '*.txt' | sort)
    draw ${#files[@]}
    file=${files[drawn]#./}
    if once_in 8; then
        how=gone
        rm "$work/folder/$file"
    else
        spoil_bytes "$work/folder/$file"
    fi
    case $kind in
    flux_tiny) base=configs/tiny_flux.cfg set=(policy.codec=vae) ;;
    sd_tiny) base=configs/tiny_sd.cfg ;;
    clip_tiny)
        base=configs/tiny.cfg
        set=("rewards=({name=\"hpsv2\"; path=\"$work/folder\"; tokenizer=\"tests/golden/sd_tiny/tokenizer\";})")
        ;;
    image_reward_tiny)
        base=configs/tiny.cfg
        set=("rewards=({name=\"imagereward\"; path=\"$work/folder/ImageReward.pt\"; tokenizer=\"tests/golden/bert_small\";})")
        ;;
    esac
    [[ $kind = clip_tiny || $kind = image_reward_tiny ]] || set+=("policy.path=$work/folder")
    set+=("run.dir=$work/spoiled" run.threads=1 run.iterations=1 sampler.steps=2
        grpo.num_generations=2 grpo.prompts_per_iteration=1 grpo.timestep_fraction=1
        grpo.updates_per_iteration=1 pretrain.image_size=32 report.prompts=1)
    for one in "${set[@]}"; do args+=(--set "$one"); done
    once_in 2 && args+=(--dry-run)
    tried "$kind/$file, $how" "$bin" train "$base" "${args[@]}"
}

# --- places and lines ----------------------------------------------------------

spoil_places()
{
    local place key
    mkdir -p "$work/places/folder"
    : >"$work/places/empty"
    ln -sfn "$work/places/loop" "$work/places/loop"
    ln -sfn "$work/places/nowhere" "$work/places/broken"
    [ -p "$work/places/pipe" ] || mkfifo "$work/places/pipe"
    one_of folder empty loop broken pipe /dev/null /dev/zero /dev/full / . \
        "$(printf 'y%.0s' {1..300})" none/none
    place=$one
    [ "${place#/}" != "$place" ] || place=$work/places/$place
    one_of prompts.file prompts.eval_file prompts.cache policy.weights \
        policy.path run.dir evaluate.file lora.base
    key=$one
    tried "train $key=$place" "$bin" train configs/tiny.cfg \
        --set run.dir="$work/spoiled" --set run.threads=1 --set "$key=$place"
    one_of inspect replay report convert train evaluate sample
    # a configuration may come through a pipe, and is waited for
    case $one$place in
    train*/pipe | evaluate*/pipe | sample*/pipe) return ;;
    esac
    tried "$one $place" "$bin" "$one" "$place"
}

spoil_line()
{
    local words=() i
    one_of train sample evaluate plan inspect replay report convert config \
        encode pretrain bench nonsense ""
    words=("$one")
    draw 4
    for ((i = drawn; i >= 0; i--)); do
        one_of --set --set= --set=run.seed=1 run.seed=1 --dry-run --ranks 0 -1 \
            1000000000 --gpus 1,,2 --gpus= --json --help -h -- - \
            configs/tiny.cfg --threads 99999 --out --seeds 0 --num --ema \
            "$beds/weights.h5" "$beds/trajectory.h5" --digest --variant "a b" \
            --base --merge --shard-size 1x --print-config --markdown ""
        words+=("$one")
    done
    # lines that are right may take their time, and write where they like
    (
        mkdir -p "$work/here"
        cd "$work/here" && ln -sfn "$OLDPWD/configs" configs &&
            ln -sfn "$OLDPWD/tests" tests
    )
    patience=20 try 1 spoiled env -C "$work/here" "$bin" "${words[@]}"
    [ "$rc" = 124 ] || judge spoiled "$(printf '%q ' "${words[@]}")"
}

check_spoils()
{
    seed=$1 faults=0
    begin_seed "$seed"
    twice=0
    once_in 3 && twice=1
    one_of keys keys keys config_file h5 h5 run folder folder places line
    local what=$one
    TINY=configs/tiny.cfg sets=("$what") free=() env=(env) threads=1
    device=cpu
    "spoil_$what"
    if [ "$faults" = 0 ]; then
        echo "ok - random: spoiled seed $seed, $what${told:+: ${told:0:150}}"
    else
        echo "    again: SPOILED=$seed bash tests/long_random.sh"
    fi
    tidy
}
