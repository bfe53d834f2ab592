#!/bin/sh
# Makes the pictures of this folder from the run that `make demo` left, and from two
# more that it starts.
set -eu
cd "$(dirname "$0")/../.."
bin=${DG_BIN:-bin/dancegrpo}
last=$(ls runs/demo/checkpoints/iter_*.h5 | tail -n 1)
"$bin" sample configs/demo.cfg --num 7 --seeds 4 \
    --out doc/figures/demo_before.png
"$bin" sample configs/demo.cfg \
    --set policy.weights=configs/weights/shapes_flux_clean.h5 --num 7 --seeds 4 \
    --out doc/figures/base_clean.png
"$bin" sample configs/demo.cfg --set "policy.weights=$last" --num 7 --seeds 4 \
    --out doc/figures/demo_after.png
# what rewards that look at the picture alone make of the base (doc/results.md)
"$bin" sample configs/demo.cfg --num 4 --seeds 3 \
    --out doc/figures/rewards_base.png
for reward in '"jpeg_size"; weight=-1.0' '"colourfulness"; weight=1.0'; do
    name=$(echo "$reward" | cut -d '"' -f 2)
    mpirun --bind-to none -n 2 "$bin" train configs/demo.cfg \
        --set run.dir="runs/$name" --set run.iterations=12 \
        --set "rewards=({name=$reward;})"
    "$bin" sample configs/demo.cfg --num 4 --seeds 3 \
        --set policy.weights="runs/$name/checkpoints/iter_000012.h5" \
        --out "doc/figures/rewards_$name.png"
done
# the report's first screens, by a browser if there is one
"$bin" report runs/demo
if command -v chromium >/dev/null; then
    chromium --headless --no-sandbox --disable-gpu --hide-scrollbars \
        --window-size=1200,1500 --screenshot=doc/figures/report.png \
        "file://$PWD/runs/demo/report.html" 2>/dev/null
fi
