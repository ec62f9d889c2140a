#!/bin/sh
# Measures everything on a GPU: golden cases, the benchmark, and transformers on the same work. Golden cases and the
# first shape also run without CUDA graphs, and with candle's operations instead of our own kernels, which shows what
# the kernels gain. Needs CUDA's driver and libraries (cuBLAS, cuBLASLt, cuRAND), for the comparison a Python with
# torch, torchvision, transformers (5 or later), numpy and pillow, and two programs that do not need GStreamer:
#
#   make gpu-bench      # elsewhere, with nvcc: target/HOST/release/bench and target/HOST/release/golden
#   sh gpu.sh --bench FILE [--golden FILE --data DIR] [--out DIR] [--python PYTHON] [--device cuda|cpu]
#             [--shapes 256M,500M,2.2B] [--batches 1,2,4] [--frames 8] [--new-tokens 64] [--repeat 3]
#             [--periods 3]
#
# Copy this file and reference.py to the machine, into one folder. DIR of --data holds golden/ and ckpt/. If a step
# fails or cannot run, the script reports that and continues. It writes results.md with all results, bench.json and
# reference.json into DIR of --out (default: results). A rehearsal on two cores:
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
[ -f "$bench" ] && [ -x "$bench" ] || { echo "--bench: $bench is not a program" >&2; exit 2; }
here=$(dirname "$0")
mkdir -p "$out" || exit 1
results=$out/results.md
failed=0

# torch comes with its own CUDA libraries. They are used after those that LD_LIBRARY_PATH names.
torch_libs=$("$python" -c 'import glob, importlib.util, os
torch = os.path.dirname(importlib.util.find_spec("torch").origin)
print(":".join(glob.glob(os.path.join(os.path.dirname(torch), "nvidia", "*", "lib"))))' 2>/dev/null)
[ -z "$torch_libs" ] || export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$torch_libs"

# step TITLE COMMAND…: writes the command's output to the terminal and, under the title, to the results.
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

skip() {
    printf '\n## %s\n\nskipped: %s\n' "$1" "$2" | tee -a "$results"
}

printf '# Measured on %s\n' "$(date -u +%Y-%m-%dT%H:%MZ)" | tee "$results"
if command -v nvidia-smi >/dev/null; then
    step "The GPU" nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv
else
    skip "The GPU" "there is no nvidia-smi"
fi

dtypes=f32
others=candle # kernels besides the default; graphs exist on GPUs only
[ "$device" = cpu ] || { dtypes='f32 bf16' others='own candle'; }
for dtype in $dtypes; do
    for kernels in graphs $others; do
        title="Golden cases, $dtype, kernels: $kernels"
        if [ -x "$golden" ] && [ -d "$data/golden" ]; then
            step "$title" "$golden" --device "$device" --dtype "$dtype" --kernels "$kernels" "$data"
        else
            skip "$title" "--golden or --data is missing"
        fi
    done
done

# If our own kernels do not run, measures those that do.
rm -f "$out/bench.json"
for kernels in graphs $others; do
    # shellcheck disable=SC2086  # options are words
    step "camscribe, kernels: $kernels" "$bench" --device "$device" --json "$out/bench.json" $options \
        --kernels "$kernels"
    [ ! -s "$out/bench.json" ] || break
done

# The first shape without graphs, and with candle's operations.
for kernels in $others; do
    # shellcheck disable=SC2086  # options are words; the last --shapes counts
    step "camscribe $first, kernels: $kernels" "$bench" --device "$device" $options --shapes "$first" --periods 0 \
        --kernels "$kernels"
done

if ! [ -s "$out/bench.json" ]; then
    skip "Beside transformers" "there is nothing to compare with"
elif ! "$python" -c 'import numpy, torch, torchvision, transformers, PIL
raise SystemExit(int(transformers.__version__.split(".")[0]) < 5)' 2>/dev/null; then
    skip "Beside transformers" "$python lacks torch, torchvision, transformers (5 or later), numpy or pillow"
else
    step "Beside transformers" "$python" "$here/reference.py" --ours "$out/bench.json" --json "$out/reference.json"
fi
rm -f "$out/status" "$out/stderr"
echo
echo "results are in $out"
exit $failed
