#!/bin/sh
# Fuzz both decoders, each for SECONDS (60): coverage-guided by atheris, with the extensions built for ASan and UBSan.
# The one of the gateway's messages is `target`, that of the stream protocol's frames `frames_target`.
#
# Needs clang (Debian: apt-get install clang libclang-rt-dev) and a Python that atheris has wheels for (3.11-3.13).
# What it finds on its way goes to build/fuzz/corpus and frames_corpus; an input that breaks an invariant is left in build/fuzz as crash-*.
set -eu
seconds=${1:-60}
cd "$(dirname "$0")/.."
build=build/fuzz
python=$build/venv/bin/python
mkdir -p "$build/corpus" "$build/frames_corpus"

clang=${CLANG:-$(command -v clang || ls /usr/bin/clang-[0-9]* 2>/dev/null | head -n 1)}
if [ -z "$clang" ]; then
    echo "fuzz/run.sh: no clang found; install it or set CLANG" >&2
    exit 2
fi
[ -x "$python" ] || "${PYTHON:-python3}" -m venv "$build/venv"
# The package imports all that it depends on, and the sanitized copy of it is not installed: so a list from its metadata.
"$python" - pyproject.toml >"$build/requirements.txt" <<'EOF'
import sys, tomllib
with open(sys.argv[1], "rb") as file:
    metadata = tomllib.load(file)
print(*metadata["build-system"]["requires"], *metadata["project"]["dependencies"], "atheris", sep="\n")
EOF
"$python" -m pip install --quiet --disable-pip-version-check -r "$build/requirements.txt"

# A copy, since the normal build keeps its C files and modules beside the sources.
export CC="$clang" LDSHARED="$clang -shared"
export CFLAGS="-g -O1 -fno-omit-frame-pointer -fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=undefined"
rm -rf "$build/source"
mkdir -p "$build/source"
cp -r pyproject.toml setup.py ibfast tests fuzz "$build/source"
cd "$build/source"
find ibfast -name '_*.c' -delete -o -name '_*.so' -delete
"../venv/bin/python" setup.py --quiet build_ext --inplace --force

# Python's own allocator would hide small objects from ASan; its memory at exit is no leak.
site=$(../venv/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["platlib"])')
cd ../../..
export PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONPATH="$build/source"
fuzz() { # target, corpus, longest input
    LD_PRELOAD="$site/asan_with_fuzzer.so" "$python" "$build/source/fuzz/atheris_main.py" "$1" \
        -max_total_time="$seconds" -max_len="$3" -artifact_prefix="$build/" -print_final_stats=1 \
        "$build/$2" "fuzz/$2"
}
fuzz target corpus 4096
fuzz frames_target frames_corpus 16384
