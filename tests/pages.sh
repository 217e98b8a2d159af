#!/usr/bin/env bash
# The report and the demo of a smoke run, and a gallery, in headless Chromium, see pages.py.
# Usage: tests/pages.sh WORK_DIR   (python3 with playwright and axe-playwright-python on the PATH)
# Skipped where there is no Chromium, unless LIMBECK_REQUIRE names `browser`.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$1/pages
. tests/program.sh

mkdir -p "$work"
# The run writes its report itself.
limbeck reproduce mnist --preset smoke --out "$work/run" --quiet >"$work/printed"
cp "$work/run/report.html" "$work/report.html"
limbeck demo "$work/run" --out "$work/demo.html" --quiet
# A table of one's own, and beside the run results without models, as they are committed.
awk 'BEGIN { print "height,width,kind"
    for (i = 0; i < 300; i++) { a = i * 37 % 100 - 50; b = i * 53 % 100 - 50
        print a / 30 "," b / 30 "," (i % 9 ? a + b > 0 : a + b <= 0) } }' > "$work/own.csv"
printf '%s\n' '[data]' 'dataset = "csv"' 'train_table = "own.csv"' 'label_column = "kind"' 'classes = 2' \
    'holdout = 100' '[model]' 'layers = [2, 16, 2]' '[training]' 'epochs = 30' 'batch_size = 16' > "$work/own.toml"
limbeck train "$work/own.toml" --out "$work/own" --quiet >>"$work/printed"
cp "$work/own/report.html" "$work/own.html"
limbeck report "$work/run" results/temperature-standard results/mnist-standard "$work/own" \
    --out "$work/gallery.html" --quiet

code=0
python3 tests/pages.py "$work" || code=$?
if [ "$code" = 77 ] && [[ ,${LIMBECK_REQUIRE:-}, != *,browser,* ]]; then
    echo "skipped: the pages in a browser need Chromium (apt-get install chromium-headless-shell)"
    exit 0
fi
exit "$code"
