# Configurations drawn at random, the same for a seed under every bash; source
# it after train_lib.sh or cuda_lib.sh. What is drawn:
#   sets     what a result depends on
#   free     what it must not depend on (draw_free), and env, around it
# shellcheck disable=SC2154

begin_seed()
{
    state=$(($1 * 2862933555777941757 + 3037000493))
    draw 2
}

# draw N: $drawn in 0 .. N - 1. Of nothing: an error in arithmetic would leave
# the loop over seeds, with 0
draw()
{
    [ "$1" -gt 0 ] || {
        echo "not ok - random: nothing to draw from"
        exit 1
    }
    state=$((state * 6364136223846793005 + 1442695040888963407))
    drawn=$(((state >> 33 & 0x7fffffff) % $1))
}

# one_of VALUE...: $one
one_of()
{
    draw $#
    shift "$drawn"
    one=$1
}

# once_in N: true one time in N
once_in()
{
    draw "$1"
    [ "$drawn" = 0 ]
}

# some KEY VALUE...: one of the values, in sets; vary KEY VALUE...: in free
some()
{
    local key=$1
    shift
    one_of "$@"
    sets+=("$key=$one")
}
vary()
{
    local key=$1
    shift
    one_of "$@"
    free+=("$key=$one")
}

# --- networks ----------------------------------------------------------------

# width and height of pictures whose sides are multiples of a token's
draw_sides()
{
    local token=$1 least=$2 most=$3 side
    if [ "$device" = cuda ]; then
        most=$((least + 1))
        # as the shapes world paints for pretraining; convolutions of them take long
        case $family in
        flux | eps) once_in 6 && least=$(((31 + token) / token)) most=$least ;;
        esac
    fi
    draw $((most - least + 1))
    side=$((token * (least + drawn)))
    sets+=("pretrain.image_size=$side")
    height=$side width=$side
    once_in 2 || return 0
    draw $((most - least + 1))
    height=$((token * (least + drawn)))
    draw $((most - least + 1))
    width=$((token * (least + drawn)))
    sets+=("policy.height=$height" "policy.width=$width")
}

draw_clip()
{
    one_of "4 1" "6 3" "16 2" "20 5"
    read -r hidden heads <<<"$one"
    sets+=("clip.hidden=$hidden" "clip.heads=$heads")
    some clip.intermediate 1 8 30
    some clip.layers 1 1 2
    some policy.text_length 14 16 16 24
    some policy.latent_scale 1 2 0.3
}

draw_flux_sizes()
{
    local cell
    draw_clip
    sets+=("flux.pooled_dim=$hidden")
    one_of "1 8 [2,2,4]" "2 16 [4,6,6]" "3 10 [2,4,4]" "2 6 [2,2,2]" \
        "1 4 [0,2,2]"
    read -r heads dim axes <<<"$one"
    sets+=("flux.num_heads=$heads" "flux.head_dim=$dim" "flux.axes_dims=$axes")
    some flux.num_layers 0 1 1 2
    some flux.num_single_layers 0 1 1 3
    some flux.guidance_embeds false false true
    some policy.guidance 0 3.5 80
    some flux.rope_theta 10000 10000 1 50
    one_of 5 16 24
    sets+=("t5.d_model=$one" "flux.joint_attention_dim=$one")
    some t5.num_layers 1 1 2
    some t5.num_heads 1 2 3
    some t5.d_kv 4 7 8
    some t5.d_ff 1 32
    one_of 1 2 2 2 3
    cell=$one
    sets+=("flux.in_channels=$((12 * cell * cell))")
    draw_sides $((2 * cell)) $((4 / cell + 2)) $((18 / cell + 1))
}

draw_unet_sizes()
{
    local cell
    draw_clip
    sets+=("unet.cross_attention_dim=$hidden")
    one_of 1 2 2 4
    cell=$one
    sets+=("unet.in_channels=$((3 * cell * cell))")
    one_of "[8] DownBlock2D UpBlock2D" \
        "[8] CrossAttnDownBlock2D CrossAttnUpBlock2D" \
        "[8,16] DownBlock2D,CrossAttnDownBlock2D CrossAttnUpBlock2D,UpBlock2D" \
        "[8,8] CrossAttnDownBlock2D,DownBlock2D UpBlock2D,CrossAttnUpBlock2D" \
        "[8,8,16] DownBlock2D,CrossAttnDownBlock2D,DownBlock2D UpBlock2D,CrossAttnUpBlock2D,UpBlock2D"
    read -r widths down up <<<"$one"
    sets+=("unet.block_out_channels=$widths" "unet.down_block_types=$down"
        "unet.up_block_types=$up")
    some unet.layers_per_block 1 1 2
    some unet.attention_head_dim 1 2 4
    some unet.norm_num_groups 1 2 4 8
    draw_sides "$cell" $((8 / cell + 1)) $((35 / cell + 1))
}

draw_network()
{
    one_of flux flux flux eps unet unet flux_folder sd_folder
    # convolutions are slow where a GPU is emulated
    [ "$device$one" != cudasd_folder ] || one_of flux eps unet sd_folder
    family=$one
    case $family in
    flux)
        TINY=configs/tiny.cfg
        draw_flux_sizes
        some policy.prediction velocity velocity data
        some policy.draw_all true true false
        ;;
    eps)
        TINY=configs/tiny_eps.cfg
        draw_flux_sizes
        ;;
    unet)
        TINY=configs/tiny_unet.cfg
        draw_unet_sizes
        ;;
    flux_folder)
        TINY=configs/tiny_flux.cfg
        some policy.bf16_compat true false
        some policy.codec pixels vae vae
        some policy.text_length 20 24
        draw_sides 16 1 4
        ;;
    sd_folder)
        TINY=configs/tiny_sd.cfg
        draw_sides 8 3 7
        ;;
    esac
}

# --- the method --------------------------------------------------------------

draw_sampler()
{
    local most=6
    [ "$device" = cpu ] || most=3
    draw $((most - 1))
    steps=$((2 + drawn))
    sets+=("sampler.steps=$steps")
    case $family in
    eps | unet | sd_folder) some sampler.eta 1 1 0.4 ;;
    *)
        some sampler.sde dance dance flow_sde cps
        some sampler.eta 0.3 0.7 1 0.05
        some sampler.shift 3 1 0.5 0
        some sampler.cps_gaussian true false
        ;;
    esac
    some sampler.init_noise per_prompt per_sample
    some sampler.decode auto auto x0 zT
    modes=(random random first last all)
    if once_in 3; then
        draw $((steps - 1))
        sets+=("sampler.window_size=$((drawn + 1))")
        draw_window $((drawn + 1))
        modes+=(window window)
        case $family in
        eps | unet | sd_folder) ;;
        *)
            some sampler.window_solver ode dpmpp_2m
            some sampler.window_compress 0.4 0.8 1
            ;;
        esac
    fi
    some cfg.grad joint detach_uncond
    once_in 2 && some cfg.scale 1 0.5 3
    return 0
}

draw_decay()
{
    some sampler.window_decay none linear exp
    some sampler.window_every_least 1 1 2
    some sampler.window_decay_from 0 1 13
    some sampler.window_decay_rate 0.1 1
}

# of so many steps: it slides, or is drawn, both before an end or none
draw_window()
{
    local end=$((steps - 1)) most=$1
    once_in 3 && draw $((end - most + 1)) && end=$((most + drawn)) &&
        sets+=("sampler.window_end=$end")
    if once_in 2; then
        sets+=("sampler.window_move=random")
        some sampler.window_every 1 2
        most=$((end - most + 1))
    else
        some sampler.window_every 1 2 0
        [[ ${sets[*]} == *sampler.window_every=0* ]] || draw_decay
        some sampler.window_stride 1 1 2 3
        some sampler.window_wrap true true false
        most=$end
    fi
    draw "$most"
    sets+=("sampler.window_start=$drawn")
}

draw_grpo()
{
    one_of 2 3 4
    [ "$device" = cpu ] || one_of 2 2 3
    group=$one
    one_of 1 2 3
    [ "$device" = cpu ] || one_of 1 2
    prompts=$one
    sets+=("grpo.num_generations=$group" "grpo.prompts_per_iteration=$prompts")
    some grpo.updates_per_iteration 1 1 "$prompts" $((group * prompts))
    some grpo.update_split auto samples
    some grpo.epochs 1 1 1 2
    some grpo.clip_range 1e-4 1e-3 0.2 1e-9
    some grpo.clip_range_low 0 0 0 1e-4 1
    some grpo.clip_range_high 0 0 0 1e-3 10
    some grpo.advantage_clip 5 0.4 1e9
    # a window comes to the last step, of which there is no part
    if [ "$steps" -gt 2 ] && [ "${modes[*]: -1}" != window ]; then
        some grpo.timestep_fraction 0.6 1 0.5
    else
        sets+=("grpo.timestep_fraction=1")
    fi
    some grpo.timestep_mode "${modes[@]}"
    some grpo.timestep_count floor_k ceil_t
    some grpo.timestep_scope sample group
    some grpo.timestep_weight none none std length
    some grpo.adv_agg sum per_reward reward_sum
    some grpo.adv_std group global
    some grpo.kl_beta 0 0 0.1 10
    once_in 3 && sets+=("grpo.ratio=guard" "sampler.cps_gaussian=true")
    once_in 3 || return 0
    # of whom there is one at least
    sets+=("grpo.best_of_n=true" "grpo.updates_per_iteration=$prompts")
    draw "$group"
    sets+=("grpo.keep_top=$drawn")
    draw $((group - drawn))
    sets+=("grpo.keep_bottom=$((drawn + 1))")
}

draw_rewards()
{
    local net='path="tests/golden/clip_tiny"; tokenizer="tests/golden/sd_tiny/tokenizer";'
    local names=(brightness) name
    list=
    [[ " ${sets[*]} " != *" prompts.world=none "* ]] && [ "$height" = "$width" ] && [ "$width" -ge 32 ] &&
        [ "${family%_folder}" = "$family" ] && names+=(shapes)
    names+=(hpsv2 clip pickscore imagereward aesthetic jpeg_size colourfulness mine)
    for name in "${names[@]}"; do
        [ -n "$list" ] && { once_in 3 || continue; }
        list+="${list:+, }{ name = \"$name\"; "
        one_of 1 1 0.5 -0.7 0
        list+="weight = $one; "
        case $name in
        brightness)
            once_in 4 && list+="threshold = 0.5; "
            once_in 4 && list+="target = 0.7; "
            ;;
        shapes | colourfulness) ;;
        jpeg_size | aesthetic)
            one_of rint trunc
            list+="quantize = \"$one\"; "
            [ "$name" = aesthetic ] && list+='path="tests/golden/clip_tiny"; head="tests/golden/head_tiny.pth"; '
            ;;
        mine)
            one_of "" words "missing=5" "missing=2" silent
            list+="plugin = \"${DG_BUILD:-build}/tests/plugins/good.so\"; options = \"$one\"; "
            ;;
        imagereward)
            list+='path="tests/golden/image_reward_tiny/ImageReward.pt"; tokenizer="tests/golden/bert_small"; '
            one_of rint trunc
            list+="quantize = \"$one\"; "
            ;;
        *)
            one_of cos logit logit_26
            list+="$net scale = \"$one\"; "
            one_of rint trunc
            list+="quantize = \"$one\"; "
            ;;
        esac
        list+="}"
    done
    sets+=("rewards=($list)")
}

draw_optim()
{
    some optim.lr 1e-3 1e-4 1e-2 0
    some optim.weight_decay 1e-4 0 0.1
    some optim.beta1 0.9 0
    some optim.beta2 0.999 0.9 0
    some optim.eps 1e-8 1e-4
    some optim.moments float32 float32 int8
    some optim.max_grad_norm 1 0.005 0 1e-6
    some optim.warmup 0 0 1 5
    some optim.schedule constant linear cosine
    some optim.ema_decay 0 0.9 0.5
    some optim.ema_every 1 2
    some optim.ema_ramp false true
    some run.on_nan skip skip skip stop
    once_in 12 && sets+=("optim.lr=1" "optim.weight_decay=10")
    once_in 12 && sets+=("parallel.exact_sum=false")
    once_in 8 && draw_extreme
    return 0
}

# a key at an end of what is allowed
draw_extreme()
{
    one_of cfg.scale=100 cfg.scale=0 policy.latent_scale=1000 \
        policy.latent_scale=0.001 sampler.eta=1e-6 sampler.shift=100 \
        grpo.kl_beta=1000 grpo.clip_range=1 grpo.advantage_clip=0.001 \
        grpo.timestep_fraction=1e-6 optim.lr=1 optim.weight_decay=10 optim.eps=1 \
        optim.beta1=0.999999 optim.ema_decay=0.9999999 optim.warmup=1000000000 \
        optim.ema_every=1000000 run.seed=9000000000000000 pretrain.logit_std=10 \
        pretrain.logit_mean=-10 policy.guidance=100 run.witness_every=1
    sets+=("$one")
}

# adapters on weights that a run of one iteration makes, or the folder's
draw_adapters()
{
    rank=0
    once_in 3 || return 0
    one_of 1 2 5
    rank=$one
    sets+=("lora.rank=$rank")
    some lora.alpha 1 8 256
    some lora.init uniform normal
    case $family in
    unet | sd_folder)
        some lora.targets to_q,to_v 'to_q,to_k,to_v,to_out.0' '*' \
            'attn2.*'
        ;;
    *)
        some lora.targets to_q,to_v 'to_q,to_k,to_v,to_out.0' '*' \
            'single_transformer_blocks.*' 'proj_out,net.2'
        ;;
    esac
}

draw_prompts()
{
    some run.seed 0 1 42 9000000000000000
    some prompts.shuffle true false
    one_of all all few text
    case $one in
    few)
        draw 4
        head -n $((drawn + 1)) configs/prompts/shapes_train.jsonl \
            >"$work/few.jsonl"
        sets+=("prompts.file=$work/few.jsonl")
        ;;
    text)
        printf 'a red circle\n\n  two blue squares \na red circle\n' \
            >"$work/few.txt"
        sets+=("prompts.file=$work/few.txt")
        ;;
    esac
    one_of 1 1 1 0
    if [ "$one" = 1 ]; then
        sets+=("prompts.eval_file=configs/prompts/shapes_heldout.jsonl")
        some evaluate.every 0 1 2
        once_in 4 && sets+=("evaluate.file=configs/prompts/shapes_train.jsonl")
    fi
    # without a world there are no scores of shapes, and of prompts a file
    once_in 8 && sets+=(prompts.world=none)
    some report.prompts 1 3
    some evaluate.num_prompts 1 2 3
    some evaluate.seeds 1 2
    some evaluate.steps 1 3
    some evaluate.shift 3 0 1
    sets+=("evaluate.bootstrap=50")
}

# a base of its own is made by pretraining, of square pictures
draw_pretraining()
{
    kind=train teacher=0
    [ "$height" = "$width" ] && [ "$width" -ge 32 ] &&
        [ "${family%_folder}" = "$family" ] && once_in 2 || return 0
    kind=pretrain rank=0
    sets+=("pretrain.steps=$iterations" "lora.rank=0")
    one_of "2 1" "4 2" "6 2" "3 3" "5 5"
    sets+=("pretrain.batch=${one% *}" "pretrain.item_size=${one#* }")
    some pretrain.world_seed 1 77
    some pretrain.logit_mean 0 -1
    some pretrain.logit_std 1 0.5
    some pretrain.eval_every 0 1
    some pretrain.prompt_swap 0 0.3
    some pretrain.prompt_drop 0 0.3
    some pretrain.faded 0 0.5
    some pretrain.blurred 0 0.5
    [ "$family" = flux ] || some pretrain.loss_power 0 0.5 1
    once_in 3 && teacher=1
    return 0
}

# draw_config: family, kind, sets, iterations; $device if it is given
draw_config()
{
    sets=()
    one_of cpu cpu cpu cuda
    device=${DEVICE:-$one}
    draw_network
    draw_sampler
    draw_grpo
    draw_rewards
    draw_optim
    draw_adapters
    draw_prompts
    draw 2
    iterations=$((2 + drawn))
    sets+=("run.iterations=$iterations")
    draw_pretraining
    one=float32
    [ "$device" = cpu ] || some run.dtype float32 bfloat16
    # to a float32 run a file in bfloat16 is not what it would encode
    case $one in
    bfloat16)
        some prompts.cache_dtype run float32 bfloat16
        some run.attention own own cudnn
        some run.convolution own own cudnn
        ;;
    *) some prompts.cache_dtype run float32 ;;
    esac
    sets+=("run.device=$device" "checkpoint.keep=0")
    once_in 3 && draw_own_reward
    return 0
}

# a program of the user's beside those in $list
draw_own_reward()
{
    local how=strict own
    # whatever happens at a prompt happens on all ranks alike
    once_in 3 && one_of missing nan huge stricter other noise exit &&
        how="strict,$one,at=a" && one_of a two three && how=${how%=*}=$one
    own="name = \"own\"; command = \"'$tools/scorer' '$how'\"; "
    one_of 1 1 2
    own+="processes = $one; "
    one_of rint trunc
    own+="quantize = \"$one\"; "
    one_of "" "threshold = 0.5; " "timeout_seconds = 100.0; start_seconds = 200.0; "
    sets+=("rewards=($list, { $own$one})")
}

# draw_ranks: $ranks, in long runs more than there are samples, too
draw_ranks()
{
    one_of 1 2 3
    [ "${WIDE:-0}$device" != 1cpu ] || one_of 1 2 3 3 4 5 7
    ranks=$one
}

# draw_free: threads, free and env, in which a run is free
draw_free()
{
    free=() env=(env)
    vary parallel.shard none none optimizer gradients parameters
    local level=$one
    vary parallel.passes auto auto apart together
    one_of 1 1 2 3
    threads=$one
    # what these want, and are refused without
    [ "$device" = cpu ] &&
        case $level$one in
        parameters* | gradientstogether) threads=1 ;;
        esac
    [ "$level" = parameters ] && threads=1
    [[ " ${free[*]}" == *"passes=together"* ]] && threads=1
    vary grpo.micro_batch 1 2 3 5 64
    vary parallel.recompute true false
    vary parallel.write_beside true false
    vary parallel.bucket_size 1 777 4097 4194304
    vary run.witness_every 0 1 2 10
    vary run.wait_seconds 60 0 600
    vary parallel.host_timeout_seconds 0 0 250
    vary parallel.timeout_seconds 600 250
    vary log.progress true false
    vary checkpoint.every 0 1 2
    vary checkpoint.keep 0 0 1 2
    vary trajectory.every 0 1 2
    vary report.every 0 1
    vary log.level info info warn
    [ -e "$work/cache.h5" ] && vary prompts.cache "" "$work/cache.h5"
    once_in 8 && env+=(DANCEGRPO_MPI_THREADS=funneled)
    [ "$device" = cuda ] || return 0
    vary parallel.graphs true false
    vary parallel.overlap true false
    vary parallel.ahead true false
    vary parallel.offload_optimizer false false true
    vary parallel.offload_sums false false true
    vary parallel.offload_ema false false true
    once_in 4 && env+=(CUDA_EMULATION_DEVICES=1)
    once_in 3 && env+=(CUDA_EMULATION_STREAMS=early)
    return 0
}
