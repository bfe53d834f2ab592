/* ImageReward against transformers' BlipVisionModel and BlipTextModel, of
 * minute networks: tests/golden/make_image_reward_fixture.py. */
#include "image_reward_bed.h"

#include "base/log.h"
#include "manifest_golden.h"
#include "reward/picture.h"
#include "weights/load.h"

static void test_ids_as_transformers(void **state)
{
    float want[IR_TOKENS];
    IrBed b;

    (void)state;
    ir_open(&b, dg_backend_cpu(), IR_KEYS);
    for (int p = 0; p < IR_PROMPTS; p++) {
        clip_golden_of(IR_FOLDER, want, IR_TOKENS, "ids", p);
        assert_memory_equal(b.features[p], want, sizeof want);
    }
    ir_close(&b);
}

static void test_scores_as_transformers(void **state)
{
    (void)state;
    ir_check_scores(dg_backend_cpu());
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_ids_as_transformers),
    cmocka_unit_test(test_scores_as_transformers),
};

TINY_MAIN(tests)
