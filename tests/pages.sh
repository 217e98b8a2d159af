#!/usr/bin/env bash
# The report and the demo of a smoke run in headless Chromium, see pages.py.
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
# Beside it results without models, as they are committed.
limbeck report "$work/run" results/mnist-standard --out "$work/compared.html" --quiet

code=0
python3 tests/pages.py "$work" || code=$?
if [ "$code" = 77 ] && [[ ,${LIMBECK_REQUIRE:-}, != *,browser,* ]]; then
    echo "skipped: the pages in a browser need Chromium (apt-get install chromium-headless-shell)"
    exit 0
fi
exit "$code"
