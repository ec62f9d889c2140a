#!/bin/sh
# Everything that is to be measured on a GPU, in one go: golden cases, the benchmark, and transformers
# on the same work; golden cases and the first shape also without CUDA graphs, and with candle's operations
# in place of our own kernels, which shows what these are worth. Needs CUDA's driver and libraries (cuBLAS,
# cuBLASLt, cuRAND), for the comparison a Python with torch, torchvision, transformers (5 or later), numpy
# and pillow, and two programs that need no GStreamer:
#
#   make gpu-bench      # elsewhere, with nvcc: target/HOST/release/bench and target/HOST/release/golden
#   sh gpu.sh --bench FILE [--golden FILE --data DIR] [--out DIR] [--python PYTHON] [--device cuda|cpu]
#             [--shapes 256M,500M,2.2B] [--batches 1,2,4] [--frames 8] [--new-tokens 64] [--repeat 3]
#             [--periods 3]
#
# Carry this file and reference.py, side by side. DIR of --data holds golden/ and ckpt/. A step that
# fails or cannot run is said to be so, and the next one begins. Writes into DIR of --out (default:
# results): results.md with all of it, and bench.json and reference.json. A rehearsal on two cores:
#
#   sh gpu.sh --device cpu --bench FILE --shapes 256M --batches 1,2 --frames 1 --new-tokens 4 --repeat 1
set -u
bench='' golden='' data='' out=results python=python3 device=cuda first=256M options=''
while [ $# -gt 0 ]; do
    [ $# -gt 1 ] || { echo "$1 needs a value" >&2; exit 2; }
    case $1 in
        --bench) bench=$2 ;;
        --golden) golden=$2 ;;
        --data) data=$2 ;;
        --out) out=$2 ;;
        --python) python=$2 ;;
        --device) device=$2 ;;
        --shapes) first=${2%%,*} options="$options $1 $2" ;;
        --batches | --frames | --new-tokens | --repeat | --periods) options="$options $1 $2" ;;
        *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
    shift 2
done
case $bench in */*) ;; *) bench=./$bench ;; esac
case $golden in */* | '') ;; *) golden=./$golden ;; esac
[ -f "$bench" ] && [ -x "$bench" ] || { echo "--bench: $bench is no program" >&2; exit 2; }
here=$(dirname "$0")
mkdir -p "$out" || exit 1
results=$out/results.md
failed=0

# torch brings CUDA libraries of its own: they serve where the environment names no others.
brought=$("$python" -c 'import glob, importlib.util, os
torch = os.path.dirname(importlib.util.find_spec("torch").origin)
print(":".join(glob.glob(os.path.join(os.path.dirname(torch), "nvidia", "*", "lib"))))' 2>/dev/null)
[ -z "$brought" ] || export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$brought"

# step TITLE COMMAND…: its output goes to the terminal and, under the title, into the results.
step() {
    printf '\n## %s\n\n' "$1" | tee -a "$results"
    shift
    { "$@" 2>"$out/stderr"; echo $? >"$out/status"; } | tee -a "$results"
    read -r status <"$out/status"
    if [ "$status" -ne 0 ]; then
        failed=1
        { printf '\nFAILED (exit code %s):\n\n' "$status"; tail -n 5 "$out/stderr"; } | tee -a "$results"
    fi
}

not_run() {
    printf '\n## %s\n\nnot run: %s\n' "$1" "$2" | tee -a "$results"
}

printf '# Measured on %s\n' "$(date -u +%Y-%m-%dT%H:%MZ)" | tee "$results"
if command -v nvidia-smi >/dev/null; then
    step "The GPU" nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv
else
    not_run "The GPU" "there is no nvidia-smi"
fi

dtypes=f32
others=candle # what else there is than the default: graphs are for GPUs
[ "$device" = cpu ] || { dtypes='f32 bf16' others='own candle'; }
for dtype in $dtypes; do
    for kernels in graphs $others; do
        title="Golden cases, $dtype, kernels: $kernels"
        if [ -x "$golden" ] && [ -d "$data/golden" ]; then
            step "$title" "$golden" --device "$device" --dtype "$dtype" --kernels "$kernels" "$data"
        else
            not_run "$title" "--golden or --data is missing"
        fi
    done
done

# Where our own kernels do not run, what does is measured.
rm -f "$out/bench.json"
for kernels in graphs $others; do
    # shellcheck disable=SC2086  # options are words
    step "camscribe, kernels: $kernels" "$bench" --device "$device" --json "$out/bench.json" $options \
        --kernels "$kernels"
    [ ! -s "$out/bench.json" ] || break
done

# What the kernels are worth: the first shape without graphs, and with candle's operations.
for kernels in $others; do
    # shellcheck disable=SC2086  # the last of an option counts
    step "camscribe $first, kernels: $kernels" "$bench" --device "$device" $options --shapes "$first" --periods 0 \
        --kernels "$kernels"
done

if ! [ -s "$out/bench.json" ]; then
    not_run "Beside transformers" "there is nothing to compare with"
elif ! "$python" -c 'import numpy, torch, torchvision, transformers, PIL
raise SystemExit(int(transformers.__version__.split(".")[0]) < 5)' 2>/dev/null; then
    not_run "Beside transformers" "$python lacks torch, torchvision, transformers (5 or later), numpy or pillow"
else
    step "Beside transformers" "$python" "$here/reference.py" --ours "$out/bench.json" --json "$out/reference.json"
fi
rm -f "$out/status" "$out/stderr"
echo
echo "results are in $out"
exit $failed
