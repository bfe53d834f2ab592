#ifndef DG_DIFFUSION_GUIDANCE_H
#define DG_DIFFUSION_GUIDANCE_H
/*
 * Classifier-free guidance: the prediction with the prompt, pushed away from
 * the one with an empty prompt,
 *   u = uncond + w (cond - uncond).
 * u is linear in both, so with g = d loss / d u
 *   d loss / d cond = w g,   d loss / d uncond = (1 - w) g.
 * Source: Ho and Salimans, arXiv:2207.12598, in the form of diffusers'
 * pipelines; DanceGRPO trains both branches (its SD and SkyReels trainers).
 * Arithmetic per element is float, without contraction. Not collective.
 */
#include <stdint.h>

/**
 * Combines two predictions. w = 1 gives cond and w = 0 uncond, bit for bit.
 * u             [num] f32 out; may alias uncond or cond
 * uncond, cond  [num] f32
 */
void dg_guidance_combine(float *u, const float *uncond, const float *cond,
                         double w, int64_t num);

#endif
