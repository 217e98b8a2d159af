# The program for the scripts here, which source this: `limbeck`, and its path in $limbeck. It is
# $LIMBECK where that is built already, else that of a development build.
limbeck=${LIMBECK:-}
if [ -z "$limbeck" ]; then
    cargo build --quiet
    limbeck=$(cargo metadata --format-version 1 --no-deps |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')/debug/limbeck
fi
limbeck() { "$limbeck" "$@"; }
