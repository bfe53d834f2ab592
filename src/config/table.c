#include "config/option.h"

/*
 * The rows. Values of the paper and its code (DanceGRPO, arXiv:2505.07818)
 * are the defaults of sampler, grpo and optim.
 */

#define AT(f)     offsetof(Config, f)
#define TEXT(f)   AT(f), sizeof((Config *)0)->f
#define REWARD(f) offsetof(RewardConfig, f)
#define NO_LIST   NULL, 0, 0, 0
#define BIG       9e15 /* every integer up to here is exact in a double */

#define INT(key, std, lo, hi, f, flags, help)                           \
    {                                                                   \
        key, OPT_INT, std, lo, hi, AT(f), 0, NULL, help, flags, NO_LIST \
    }
#define REAL(key, std, lo, hi, f, flags, help)                           \
    {                                                                    \
        key, OPT_REAL, std, lo, hi, AT(f), 0, NULL, help, flags, NO_LIST \
    }
#define BOOL(key, std, f, flags, help)                                 \
    {                                                                  \
        key, OPT_BOOL, std, 0, 1, AT(f), 0, NULL, help, flags, NO_LIST \
    }
#define STRING(key, std, f, flags, help)                                \
    {                                                                   \
        key, OPT_STRING, std, 0, 0, TEXT(f), NULL, help, flags, NO_LIST \
    }
#define ENUM(key, std, choices, f, flags, help)                           \
    {                                                                     \
        key, OPT_ENUM, std, 0, 0, AT(f), 0, choices, help, flags, NO_LIST \
    }

enum { FREE = OPT_MAY_CHANGE };

static const Option reward_rows[] = {
    { "name", OPT_STRING, "\"\"", 0, 0, REWARD(name),
      sizeof((RewardConfig *)0)->name, NULL,
      "which reward: shapes, shapes_strict, brightness, hpsv2, clip, "
      "pickscore, aesthetic, jpeg_size, colourfulness or imagereward; or, with "
      "command or plugin, a name of your own",
      0, NO_LIST },
    { "weight", OPT_REAL, "1.0", -1e6, 1e6, REWARD(weight), 0, NULL,
      "factor of its advantage", 0, NO_LIST },
    { "threshold", OPT_REAL, "nan", -1e30, 1e30, REWARD(threshold), 0, NULL,
      "reward becomes 1 above it, else 0; left out: as scored", 0, NO_LIST },
    { "target", OPT_REAL, "nan", 0, 1, REWARD(target), 0, NULL,
      "brightness: score is minus the distance from it; left out: brightness "
      "itself",
      0, NO_LIST },
    { "path", OPT_STRING, "\"\"", 0, 0, REWARD(path),
      sizeof((RewardConfig *)0)->path, NULL,
      "hpsv2, clip, pickscore, aesthetic: weights of their CLIP, a file in "
      "OpenCLIP's layout or a Hugging Face folder; imagereward: ImageReward.pt",
      0, NO_LIST },
    { "head", OPT_STRING, "\"\"", 0, 0, REWARD(head),
      sizeof((RewardConfig *)0)->head, NULL,
      "aesthetic: file of the layers behind its CLIP, as "
      "sac+logos+ava1-l14-linearMSE.pth",
      0, NO_LIST },
    { "tokenizer", OPT_STRING, "\"\"", 0, 0, REWARD(tokenizer),
      sizeof((RewardConfig *)0)->tokenizer, NULL,
      "CLIP's tokenizer: a folder, or a list of its rules; imagereward: "
      "bert-base-uncased's folder or vocab.txt; empty: the folder of the "
      "weights",
      0, NO_LIST },
    { "model", OPT_STRING, "\"\"", 0, 0, REWARD(model),
      sizeof((RewardConfig *)0)->model, NULL,
      "sizes by OpenCLIP's name, as ViT-H-14; empty: those of a config.json or "
      "open_clip_config.json beside the weights, else the reward's own",
      0, NO_LIST },
    { "scale", OPT_ENUM, "\"cos\"", 0, 0, REWARD(scale), 0,
      "cos|logit|logit_26",
      "score: the cosine, times the weights' exp(logit_scale), or a 26th of "
      "that",
      0, NO_LIST },
    { "quantize", OPT_ENUM, "\"rint\"", 0, 0, REWARD(quantize), 0, "rint|trunc",
      "pictures to 8 bits, networks and jpeg_size: rounded or cut", 0,
      NO_LIST },
    { "plugin", OPT_STRING, "\"\"", 0, 0, REWARD(plugin),
      sizeof((RewardConfig *)0)->plugin, NULL,
      "a shared library that scores, under a name of your own: see "
      "dancegrpo/reward_plugin.h",
      0, NO_LIST },
    { "options", OPT_STRING, "\"\"", 0, 0, REWARD(options),
      sizeof((RewardConfig *)0)->options, NULL,
      "a text for the library of plugin", 0, NO_LIST },
    { "command", OPT_STRING, "\"\"", 0, 0, REWARD(command),
      sizeof((RewardConfig *)0)->command, NULL,
      "a program that scores, as a shell starts it (doc/howto.md, A reward of "
      "your own: an external program); name is then yours",
      OPT_SHELL, NO_LIST },
    { "processes", OPT_INT, "1", 1, 64, REWARD(processes), 0, NULL,
      "command: programs of a rank, so that as many threads score at once",
      FREE, NO_LIST },
    { "timeout_seconds", OPT_REAL, "300", 1e-3, 1e9, REWARD(timeout_seconds), 0,
      NULL, "command: how long a picture's score may take", FREE, NO_LIST },
    { "start_seconds", OPT_REAL, "1800", 1e-3, 1e9, REWARD(start_seconds), 0,
      NULL,
      "command: how long it may take until it is ready, and its first score",
      FREE, NO_LIST },
};

/* clang-format off: a table reads by its columns */
static const Option rows[] = {
    STRING("run.dir", "\"runs/run\"", run.dir, FREE,
           "folder that the run writes all its files into"),
    INT("run.seed", "42", 0, BIG, run.seed, 0, "seed of every random number"),
    INT("run.iterations", "100", 0, 1e9, run.iterations, FREE,
        "iterations of training (fixed for a continued run when optim.schedule "
        "is not constant)"),
    INT("run.threads", "0", 0, 4096, run.threads, FREE,
        "threads per rank; 0: cores of the node shared among its ranks"),
    REAL(
        "run.max_seconds", "0", 0, 1e9, run.max_seconds, FREE,
        "stop with a checkpoint after this time in s (exit code 75); 0: never"),
    REAL("run.wait_seconds", "60", 0, 1e9, run.wait_seconds, FREE,
         "how long to wait for another run that still writes in run.dir; then "
         "the exit code is 75: try again later"),
    ENUM("run.device", "\"cpu\"", "cpu|cuda", run.device, FREE,
         "where the networks run"),
    ENUM("run.dtype", "\"float32\"", "float32|bfloat16", run.dtype, 0,
         "how the networks' weights and activations are stored. bfloat16 needs "
         "run.device = \"cuda\"; sums and the masters of trained weights stay "
         "float32"),
    ENUM("run.attention", "\"own\"", "own|cudnn", run.attention, FREE,
         "attention of networks stored as bfloat16 on a GPU: the program's own "
         "kernels, or cuDNN's (9.19 or later) where it supports a sample's "
         "shape, with other last bits"),
    ENUM("run.convolution", "\"own\"", "own|cudnn", run.convolution, FREE,
         "convolutions of more than one tap, of networks stored as bfloat16 on "
         "a GPU: the program's own kernels, or cuDNN's (9.19 or later) where "
         "it has a plan for a sample's shape, with other last bits"),
    ENUM("run.on_nan", "\"skip\"", "skip|stop", run.on_nan, FREE,
         "after a NaN or Inf: set the sample aside and go on, or stop"),
    INT("run.witness_every", "10", 0, 1e9, run.witness_every, FREE,
        "every so many iterations each rank computes a step of another rank's "
        "sample again; if a bit differs, by a faulty device or changed "
        "weights, the run ends; 0: never"),

    ENUM("policy.kind", "\"flux\"", "flux|sd", policy.kind, 0,
         "family of the generator: FLUX or Stable Diffusion 1.x, with the "
         "weights and sizes of the folder policy.path or with the sizes below"),
    STRING("policy.path", "\"\"", policy.path, 0,
           "folder of a FLUX.1 or Stable Diffusion 1.x pipeline as Hugging "
           "Face has it: sizes, tokenizers and weights"),
    ENUM("policy.prediction", "\"velocity\"", "velocity|epsilon|data",
         policy.prediction, 0,
         "what the network predicts: velocity, as FLUX.1 does; epsilon, the "
         "noise of a DDIM schedule; or data, the clean latent, which is easier "
         "for small networks whose tokens have many values"),
    STRING("policy.weights", "\"\"", policy.weights, 0,
           "weights to start from, a weights file or checkpoint of this "
           "program; empty: those of policy.path, or random ones"),
    INT("policy.text_length", "0", 0, 4096, policy.text_length, 0,
        "tokens per prompt that T5 reads (FLUX of a folder), or that a small "
        "network's encoders read; 0: 512 for a folder, else 32"),
    INT("policy.height", "0", 0, 4096, policy.height, 0,
        "height of pictures in pixels; 0: pretrain.image_size"),
    INT("policy.width", "0", 0, 4096, policy.width, 0,
        "width of pictures in pixels; 0: pretrain.image_size"),
    REAL("policy.latent_scale", "1", 1e-3, 1e3, policy.latent_scale, 0,
         "without an auto-encoder, latents are pixels: this times (2 x pixel - "
         "1)"),
    REAL("policy.guidance", "3.5", 0, 100, policy.guidance, 0,
         "guidance scale that is given to the network, where it takes one "
         "(FLUX.1-dev)"),
    ENUM("policy.codec", "\"pixels\"", "pixels|vae", policy.codec, 0,
         "how FLUX's latents become pixels: pixels, by space-to-depth; or vae, "
         "the VAE of policy.path (1/8 of the size, 16 channels, packed 2 x 2)"),
    BOOL("policy.draw_all", "false", policy.draw_all, 0,
         "random weights: none starts as zero. By default gates and the last "
         "layer do, which is good to train from, but then the first update "
         "changes hardly anything else. For trials of large networks"),
    BOOL("policy.bf16_compat", "false", policy.bf16_compat, 0,
         "FLUX: round times and guidance as training code in bfloat16 does: "
         "time trunc(1000 sigma) / 1000, and both to bfloat16 before and after "
         "the factor 1000. false: sigma as it is"),

    INT("lora.rank", "0", 0, 4096, lora.rank, 0,
        "rank of the adapters that are trained; 0: no adapters, all weights "
        "are trained"),
    REAL("lora.alpha", "256", 1e-6, 1e6, lora.alpha, 0,
         "adapters are scaled by alpha / rank"),
    ENUM("lora.init", "\"uniform\"", "uniform|normal", lora.init, 0,
         "how an adapter's A is drawn, B being 0: uniform, within +- 1 / "
         "sqrt(inputs); normal, with standard deviation 1 / rank"),
    { "lora.targets", OPT_TEXTS, "[\"to_q\", \"to_k\", \"to_v\", \"to_out.0\"]",
      0, 0, AT(lora.targets.text), DG_CONFIG_TEXTS, NULL,
      "linear layers that get an adapter: ends of their dotted names, in which "
      "* stands for any text; a list, or one text with commas",
      0, NULL, 0, DG_CONFIG_TEXT, 0 },
    STRING("lora.base", "\"\"", lora.base, FREE,
           "file of the weights below a checkpoint's adapters, if they are not "
           "where the checkpoint says"),

    INT("flux.num_layers", "2", 0, 200, flux.num_layers, 0,
        "double-stream blocks"),
    INT("flux.num_single_layers", "4", 0, 200, flux.num_single_layers, 0,
        "single-stream blocks"),
    INT("flux.num_heads", "4", 1, 256, flux.num_heads, 0, "attention heads"),
    INT("flux.head_dim", "32", 2, 1024, flux.head_dim, 0, "width of a head"),
    { "flux.axes_dims", OPT_INTS, "[8, 12, 12]", 0, 1024, AT(flux.axes_dims),
      DG_CONFIG_AXES, NULL,
      "rotary width per axis (text, row, column); even, sum = flux.head_dim", 0,
      NO_LIST },
    INT("flux.joint_attention_dim", "128", 1, 65536, flux.joint_attention_dim,
        0, "width of the T5 states = t5.d_model"),
    INT("flux.pooled_dim", "128", 1, 65536, flux.pooled_dim, 0,
        "width of the pooled CLIP state = clip.hidden"),
    INT("flux.in_channels", "48", 1, 65536, flux.in_channels, 0,
        "values of one packed latent token"),
    REAL("flux.rope_theta", "10000", 1, 1e9, flux.rope_theta, 0,
         "base of the rotary frequencies; 10000 in FLUX.1"),
    BOOL("flux.guidance_embeds", "false", flux.guidance_embeds, 0,
         "network takes a guidance scale"),

    INT("unet.in_channels", "12", 1, 65536, unet.in_channels, 0,
        "values per position of a latent, in and out: 3 cell^2 (3, 12, 27, 48, "
        "...)"),
    { "unet.block_out_channels", OPT_INTS, "[]", 1, 65536,
      AT(unet.block_out_channels), DG_CONFIG_LEVELS, NULL,
      "channels of each level, the finest first; empty: the network is "
      "policy.path's",
      0, NULL, 0, 0, AT(unet.num_levels) },
    STRING("unet.down_block_types", "\"\"", unet.down_block_types, 0,
           "DownBlock2D or CrossAttnDownBlock2D for each level, with commas "
           "between"),
    STRING("unet.up_block_types", "\"\"", unet.up_block_types, 0,
           "UpBlock2D or CrossAttnUpBlock2D for each level, the coarsest "
           "first, with commas between"),
    INT("unet.layers_per_block", "2", 1, 64, unet.layers_per_block, 0,
        "residual blocks per level on the way down; on the way up there is one "
        "more"),
    INT("unet.attention_head_dim", "8", 1, 1024, unet.attention_head_dim, 0,
        "number of attention heads, in spite of its name, as in diffusers"),
    INT("unet.cross_attention_dim", "128", 1, 65536, unet.cross_attention_dim,
        0, "width of the text states = clip.hidden"),
    INT("unet.norm_num_groups", "32", 1, 65536, unet.norm_num_groups, 0,
        "groups of channels of the group norms"),

    INT("t5.d_model", "128", 1, 65536, t5.d_model, 0, "T5 encoder: width"),
    INT("t5.d_ff", "256", 1, 262144, t5.d_ff, 0,
        "T5 encoder: width of the feed-forward layer"),
    INT("t5.num_layers", "2", 1, 200, t5.num_layers, 0, "T5 encoder: blocks"),
    INT("t5.num_heads", "4", 1, 256, t5.num_heads, 0, "T5 encoder: heads"),
    INT("t5.d_kv", "32", 1, 1024, t5.d_kv, 0, "T5 encoder: width of a head"),
    INT("t5.vocab_size", "0", 0, 10000000, t5.vocab_size, 0,
        "T5 encoder: tokens; 0: the world's words (others: plan only)"),

    INT("clip.hidden", "128", 1, 65536, clip.hidden, 0,
        "CLIP text encoder: width"),
    INT("clip.intermediate", "256", 1, 262144, clip.intermediate, 0,
        "CLIP text encoder: width of the feed-forward layer"),
    INT("clip.layers", "2", 1, 200, clip.layers, 0,
        "CLIP text encoder: blocks"),
    INT("clip.heads", "4", 1, 256, clip.heads, 0, "CLIP text encoder: heads"),
    INT("clip.vocab_size", "0", 0, 10000000, clip.vocab_size, 0,
        "CLIP text encoder: tokens; 0: the world's words (others: plan only)"),
    INT("clip.positions", "0", 0, 4096, clip.positions, 0,
        "CLIP text encoder: tokens per prompt; 0: policy.text_length"),

    STRING("prompts.file", "\"\"", prompts.file, 0,
           "training prompts: .jsonl (an object per line) or .txt (a prompt "
           "per line); empty: drawn from prompts.world"),
    STRING("prompts.eval_file", "\"\"", prompts.eval_file, FREE,
           "held-out prompts, for evaluations and the report's pictures"),
    STRING("prompts.cache", "\"\"", prompts.cache, FREE,
           "file of encoded prompts: encode writes it, and train and evaluate "
           "then read all conditions from it; empty: prompts are encoded as "
           "needed"),
    ENUM("prompts.cache_dtype", "\"run\"", "run|float32|bfloat16",
         prompts.cache_dtype, 0,
         "how encode stores them, and a float32 run has to find them; run: as "
         "run.dtype (networks in bfloat16 round them before use, whatever the "
         "file has: the same bits); bfloat16: half the size, for a float32 run "
         "other bits"),
    ENUM("prompts.world", "\"shapes\"", "none|shapes", prompts.world, 0,
         "procedural world: it gives prompts where there is no file, and reads "
         "the metadata of prompts"),
    BOOL("prompts.shuffle", "true", prompts.shuffle, 0,
         "draw a new order of the prompts for every pass over the file"),

    ENUM("sampler.sde", "\"dance\"", "ode|dance|flow_sde|cps|ddim", sampler.sde,
         0,
         "kind of the rollout's steps: dance, DanceGRPO's SDE of a rectified "
         "flow; flow_sde, Flow-GRPO's; cps, coefficients-preserving sampling; "
         "ddim, for epsilon; ode, without noise, which cannot be trained"),
    REAL("sampler.eta", "0.3", 0, 2, sampler.eta, 0,
         "noise level of the SDE: eps of dance, a of flow_sde and cps (<= 1), "
         "eta of ddim; 0: ODE"),
    INT("sampler.steps", "16", 2, 1000, sampler.steps, 0, "sampling steps T"),
    REAL("sampler.shift", "3.0", 0, 100, sampler.shift, 0,
         "shift of the flow schedule, sigma = k l / (1 + (k - 1) l); 0: as "
         "policy.path's scheduler, in FLUX.1-dev by the picture's size, "
         "ln k = 0.5 at 256 tokens, 1.15 at 4096"),
    ENUM("sampler.init_noise", "\"per_prompt\"", "per_prompt|per_sample",
         sampler.init_noise, 0,
         "which samples start from the same noise: all of a prompt, or none"),
    INT("sampler.window_start", "0", 0, 999, sampler.window_start, 0,
        "first step of the window, in which steps are SDE steps; steps outside "
        "of it are ODE steps"),
    INT("sampler.window_size", "0", 0, 1000, sampler.window_size, 0,
        "number of SDE steps in the window; 0: no window, all steps are SDE "
        "steps"),
    INT("sampler.window_every", "0", 0, 1e9, sampler.window_every, 0,
        "iterations after which the window moves; 0: never"),
    ENUM("sampler.window_move", "\"slide\"", "slide|random",
         sampler.window_move, 0,
         "how the window moves: slide, by window_stride steps towards the last "
         "one; or random, to a place from window_start on that is drawn for "
         "all samples"),
    INT("sampler.window_end", "0", 0, 999, sampler.window_end, 0,
        "the window ends before this step; 0: before the last step"),
    INT("sampler.window_stride", "1", 1, 999, sampler.window_stride, 0,
        "slide: steps by which the window moves"),
    BOOL("sampler.window_wrap", "true", sampler.window_wrap, 0,
         "slide: from its last place the window moves to step 0; false: it "
         "stays there"),
    ENUM("sampler.window_decay", "\"none\"", "none|linear|exp",
         sampler.window_decay, 0,
         "slide: iterations that the window stays where it begins with step t: "
         "none, window_every; linear, from window_every at step 0 to "
         "window_every_least at window_end; exp, window_every exp(-rate (t - "
         "from)) behind a step, rounded up"),
    INT("sampler.window_every_least", "1", 1, 1e9, sampler.window_every_least,
        0, "linear: what window_every comes down to"),
    INT("sampler.window_decay_from", "13", 0, 999, sampler.window_decay_from, 0,
        "exp: the step up to which the window stays for window_every"),
    REAL("sampler.window_decay_rate", "0.1", 0, 100, sampler.window_decay_rate,
         0, "exp: the rate, for each step behind window_decay_from"),
    ENUM("sampler.window_solver", "\"ode\"", "ode|dpmpp_2m",
         sampler.window_solver, 0,
         "how the rollout takes the steps behind the window, which are not "
         "trained: ode, Euler steps, as before the window; dpmpp_2m, fewer "
         "steps "
         "of DPM-Solver++ (2M), of second order (MixGRPO-Flash)"),
    REAL("sampler.window_compress", "0.4", 1e-3, 1, sampler.window_compress, 0,
         "dpmpp_2m: the fraction of the steps behind the window that is taken, "
         "rounded down, at least one"),
    ENUM(
        "sampler.decode", "\"auto\"", "auto|x0|zT", sampler.decode, 0,
        "what is decoded to the picture: the predicted x0 of the last step, or "
        "the noisy last latent zT; auto: x0 with velocity, zT with epsilon"),
    BOOL("sampler.cps_gaussian", "true", sampler.cps_gaussian, 0,
         "cps: use the Gaussian log-density; false: -(z' - mu)^2, as its first "
         "code does"),

    REAL("cfg.scale", "1", 0, 100, cfg.scale, 0,
         "scale w of classifier-free guidance, u + w (c - u) of the "
         "predictions without (u) and with (c) the prompt; 1: no guidance"),
    ENUM("cfg.grad", "\"joint\"", "joint|detach_uncond", cfg.grad, 0,
         "guided training: the gradient goes through both predictions, or "
         "through c alone"),

    INT("grpo.num_generations", "12", 2, 4096, grpo.num_generations, 0,
        "group size G: samples per prompt"),
    INT("grpo.prompts_per_iteration", "8", 1, 1048575,
        grpo.prompts_per_iteration, 0, "groups per iteration"),
    INT("grpo.updates_per_iteration", "1", 1, 1024, grpo.updates_per_iteration,
        0, "optimizer updates per iteration, in each of grpo.epochs"),
    INT("grpo.epochs", "1", 1, 1024, grpo.epochs, 0,
        "passes over an iteration's samples, each with the same updates; from "
        "the second pass on no ratio is 1"),
    ENUM("grpo.update_split", "\"auto\"", "auto|groups|samples",
         grpo.update_split, 0,
         "what an update gets: whole groups, or a part of each group's "
         "samples; auto: whole groups where they divide evenly"),
    ENUM("grpo.ratio", "\"plain\"", "plain|guard", grpo.ratio, 0,
         "the ratio that is clipped and trained: plain, of the probabilities; "
         "or guard, GRPO-Guard's, which is without the drift of the step's "
         "mean and scaled by the step's noise. guard needs another clip_range"),
    REAL("grpo.clip_range", "1e-4", 1e-9, 1, grpo.clip_range, 0,
         "ratio is clipped to 1 +- this"),
    REAL("grpo.clip_range_low", "0", 0, 1, grpo.clip_range_low, 0,
         "with a negative advantage: to 1 - this; 0: clip_range"),
    REAL("grpo.clip_range_high", "0", 0, 1e3, grpo.clip_range_high, 0,
         "with a positive advantage: to 1 + this; 0: clip_range"),
    REAL("grpo.advantage_clip", "5.0", 1e-3, 1e9, grpo.advantage_clip, 0,
         "advantages are clipped to +- this"),
    REAL("grpo.timestep_fraction", "0.6", 1e-6, 1, grpo.timestep_fraction, 0,
         "fraction tau of the steps that is trained"),
    ENUM("grpo.timestep_mode", "\"random\"", "random|first|last|all|window",
         grpo.timestep_mode, 0,
         "which steps are trained: drawn at random, the first or last ones, "
         "all, or those of the window"),
    ENUM("grpo.timestep_count", "\"floor_k\"", "floor_k|ceil_t",
         grpo.timestep_count, 0,
         "how many steps are trained: floor(tau (T - 1)), or ceil(tau T) but "
         "at most T - 1"),
    ENUM("grpo.timestep_scope", "\"sample\"", "sample|group",
         grpo.timestep_scope, 0,
         "random steps are drawn for each sample, or once for each group"),
    ENUM("grpo.timestep_weight", "\"none\"", "none|std|length",
         grpo.timestep_weight, 0,
         "factor of a step's advantages: none, 1; std, the standard deviation "
         "of its noise; length, 1 / its length in sigma; these divided by "
         "their mean over all steps that may be trained"),
    ENUM("grpo.adv_agg", "\"sum\"", "sum|per_reward|reward_sum", grpo.adv_agg,
         0,
         "with several rewards: sum, one loss of the summed advantages; "
         "per_reward, one loss for each; reward_sum, one loss of the advantage "
         "of the summed rewards, which a sample without one of them has not, "
         "unless its weight is 0"),
    ENUM("grpo.adv_std", "\"group\"", "group|global", grpo.adv_std, 0,
         "standard deviation that advantages are divided by: that of the "
         "group, or of all samples"),
    REAL("grpo.kl_beta", "0", 0, 1e3, grpo.kl_beta, 0,
         "weight of the KL divergence from the start weights, with adapters "
         "from the base below them; 0: none"),
    BOOL("grpo.best_of_n", "false", grpo.best_of_n, 0,
         "train only the best and worst of each group"),
    INT("grpo.keep_top", "4", 0, 4096, grpo.keep_top, 0,
        "best-of-n: best samples kept"),
    INT("grpo.keep_bottom", "4", 0, 4096, grpo.keep_bottom, 0,
        "best-of-n: worst samples kept"),
    INT("grpo.micro_batch", "1", 1, 4096, grpo.micro_batch, FREE,
        "samples in one forward pass; the result does not depend on it"),

    { "rewards", OPT_LIST, "()", 0, 0, AT(rewards), DG_CONFIG_REWARDS, NULL,
      "rewards and their weights", 0, reward_rows,
      sizeof reward_rows / sizeof *reward_rows, sizeof(RewardConfig),
      AT(num_rewards) },

    REAL("optim.lr", "1e-5", 0, 1, optim.lr, 0, "learning rate of AdamW"),
    REAL("optim.weight_decay", "1e-4", 0, 10, optim.weight_decay, 0,
         "decoupled weight decay"),
    REAL("optim.beta1", "0.9", 0, 0.999999, optim.beta1, 0,
         "decay of the first moment"),
    REAL("optim.beta2", "0.999", 0, 0.9999999, optim.beta2, 0,
         "decay of the second moment"),
    REAL("optim.eps", "1e-8", 1e-20, 1, optim.eps, 0,
         "added to the root of the second moment"),
    ENUM("optim.moments", "\"float32\"", "float32|int8", optim.moments, 0,
         "how AdamW's moments are stored; int8: codes of 8 bits with a scale "
         "for each 256, 2.03 bytes per parameter in place of 8"),
    REAL("optim.max_grad_norm", "1.0", 0, 1e9, optim.max_grad_norm, 0,
         "the global gradient norm is clipped to this; 0: no clipping"),
    INT("optim.warmup", "0", 0, 1e9, optim.warmup, 0,
        "updates of linear warm-up of the learning rate"),
    ENUM("optim.schedule", "\"constant\"", "constant|linear|cosine",
         optim.schedule, 0,
         "learning rate after the warm-up; linear and cosine end at 0"),
    REAL("optim.ema_decay", "0", 0, 0.9999999, optim.ema_decay, 0,
         "decay of the averaged weights (EMA); 0: no average is kept"),
    INT("optim.ema_every", "1", 1, 1e6, optim.ema_every, 0,
        "iterations (in pretraining: updates) between two steps of the "
        "average"),
    BOOL("optim.ema_ramp", "false", optim.ema_ramp, 0,
         "after n updates the decay is at most (1 + n) / (10 + n), so that the "
         "average follows fast at first"),

    INT("pretrain.steps", "2000", 0, 1e9, pretrain.steps, FREE,
        "updates of pretraining (fixed as run.iterations is)"),
    INT("pretrain.batch", "64", 1, 1048576, pretrain.batch, 0,
        "pictures per update"),
    INT("pretrain.item_size", "8", 1, 4096, pretrain.item_size, 0,
        "pictures of one work item"),
    INT("pretrain.world_seed", "1", 0, BIG, pretrain.world_seed, 0,
        "seed of the pictures"),
    INT("pretrain.image_size", "32", 8, 4096, pretrain.image_size, 0,
        "height and width of pictures in pixels, in training by rewards and "
        "evaluation too; see policy.height"),
    REAL("pretrain.logit_mean", "0", -10, 10, pretrain.logit_mean, 0,
         "mean of the logit-normal times"),
    REAL("pretrain.logit_std", "1", 0.01, 10, pretrain.logit_std, 0,
         "spread of the logit-normal times"),
    INT("pretrain.eval_every", "500", 0, 1e9, pretrain.eval_every, FREE,
        "updates between evaluations; 0: at the end only"),
    REAL("pretrain.loss_power", "0", 0, 1, pretrain.loss_power, 0,
         "epsilon: each picture's loss is multiplied by alpha_bar^-this. 0 "
         "weighs as the noise's error does, 1 as that of SD 2's v, with more "
         "weight at high noise"),
    REAL("pretrain.prompt_swap", "0", 0, 1, pretrain.prompt_swap, 0,
         "fraction of the pictures shown with the prompt of another picture, "
         "as captions from the web may be wrong"),
    REAL("pretrain.faded", "0", 0, 1, pretrain.faded, 0,
         "fraction of the pictures shown washed out, with 0.15 to 0.5 of their "
         "contrast"),
    REAL("pretrain.blurred", "0", 0, 1, pretrain.blurred, 0,
         "fraction of the pictures shown out of focus, blurred by 1.4 to 2.8 "
         "pixels"),
    REAL("pretrain.prompt_drop", "0", 0, 1, pretrain.prompt_drop, 0,
         "fraction of the pictures shown with an empty prompt, which cfg.scale "
         "needs"),
    REAL("pretrain.distill_cfg", "1", 0, 100, pretrain.distill_cfg, 0,
         "other than 1: learn what policy.weights predicts with this guidance "
         "scale in place of the pictures, so that one prediction does the work "
         "of two"),

    STRING("evaluate.file", "\"\"", evaluate.file, FREE,
           "prompts that evaluate scores; empty: prompts.eval_file"),
    INT("evaluate.seeds", "4", 1, 4096, evaluate.seeds, FREE,
        "pictures per prompt"),
    INT("evaluate.steps", "25", 1, 1000, evaluate.steps, FREE,
        "steps of the ODE sampler"),
    REAL("evaluate.shift", "3.0", 0, 100, evaluate.shift, FREE,
         "shift of the flow schedule; 0: as in sampler.shift"),
    INT("evaluate.num_prompts", "0", 0, 1e9, evaluate.num_prompts, FREE,
        "how many prompts of the file, from its first; 0: all"),
    INT("evaluate.bootstrap", "1000", 1, 1e6, evaluate.bootstrap, FREE,
        "resamplings of the bootstrap that gives the 95 % intervals"),
    INT("evaluate.every", "0", 0, 1e9, evaluate.every, FREE,
        "iterations between evaluations during training, as evaluate makes "
        "them, with one before the first iteration and one after the last; 0: "
        "none"),

    INT("checkpoint.every", "10", 0, 1e9, checkpoint.every, FREE,
        "iterations between checkpoints; 0: at the end only"),
    INT("checkpoint.keep", "3", 0, 1e6, checkpoint.keep, FREE,
        "newest checkpoints kept; 0: all"),
    INT("trajectory.every", "0", 0, 1e9, trajectory.every, FREE,
        "iterations between trajectory files; 0: none"),

    INT("report.every", "0", 0, 1e9, report.every, FREE,
        "iterations between picture strips; 0: first and last only"),
    INT("report.prompts", "8", 1, 64, report.prompts, FREE,
        "prompts in a picture strip, the same in each"),

    BOOL("parallel.exact_sum", "true", parallel.exact_sum, 0,
         "sum gradients as 64-bit integers, which gives the same bits for any "
         "number of ranks"),
    BOOL("parallel.recompute", "false", parallel.recompute, FREE,
         "compute the activations of a block again in the backward pass: less "
         "memory, same bits"),
    REAL("parallel.timeout_seconds", "600", 1e-3, 1e9, parallel.timeout_seconds,
         FREE,
         "how long a GPU's rank waits for the others in a sum before the run "
         "ends"),
    REAL("parallel.host_timeout_seconds", "0", 0, 1e9,
         parallel.host_timeout_seconds, FREE,
         "how long a rank waits for the others in MPI before the run ends; "
         "must be longer than an iteration; 0: for ever"),
    BOOL("parallel.graphs", "true", parallel.graphs, FREE,
         "on a GPU: replay passes as CUDA graphs; same bits"),
    BOOL("parallel.overlap", "true", parallel.overlap, FREE,
         "on GPUs: send gradient sums while the backward pass still runs; same "
         "bits"),
    BOOL("parallel.ahead", "true", parallel.ahead, FREE,
         "on GPUs with parallel.shard = \"parameters\": fetch a block's "
         "weights while the block before it runs, and send its gradients while "
         "the next one does; takes room for two blocks, same bits"),
    INT("parallel.bucket_size", "4194304", 1, 1e9, parallel.bucket_size, FREE,
        "parameters whose gradient sums are sent at once"),
    BOOL("parallel.write_beside", "true", parallel.write_beside, FREE,
         "write trajectory files and checkpoints in a thread of their own, "
         "while the next iteration's rollout or the next pretraining step "
         "runs; same files"),
    ENUM("parallel.shard", "\"none\"", "none|optimizer|gradients|parameters",
         parallel.shard, FREE,
         "what is divided among the ranks, each holding its range only: none; "
         "optimizer, moments and EMA; gradients, the gradient sums too; "
         "parameters, the weights too; same bits"),
    ENUM("parallel.passes", "\"auto\"", "auto|apart|together", parallel.passes,
         FREE,
         "with parallel.shard = \"gradients\", how a sample's trained steps go "
         "back: apart, one after the other with the whole gradient; together, "
         "block by block with the gradients of at most two blocks; auto, what "
         "takes less memory; same bits"),
    BOOL("parallel.offload_optimizer", "false", parallel.offload_optimizer,
         FREE,
         "with run.device = \"cuda\": gradient sums, moments and EMA are in "
         "the host's memory, and AdamW runs on the host; same bits"),
    BOOL("parallel.offload_sums", "false", parallel.offload_sums, FREE,
         "with run.device = \"cuda\": only the gradient sums are in the host's "
         "memory; AdamW on the GPU fetches them piece by piece, and those of a "
         "block travel while the backward pass still runs; same bits"),
    BOOL("parallel.offload_ema", "false", parallel.offload_ema, FREE,
         "with run.device = \"cuda\": the EMA is in the host's memory, where "
         "it follows the weights once per iteration; same bits"),

    ENUM("log.level", "\"info\"", "info|warn", log.level, FREE,
         "what is shown on the screen: info, everything; warn, warnings and "
         "errors"),
    BOOL("log.progress", "true", log.progress, FREE,
         "show a progress bar, on a terminal"),
};
/* clang-format on */

const Option *dg_option_table(int *num)
{
    *num = sizeof rows / sizeof *rows;
    return rows;
}
