#!/usr/bin/env python3
"""What questions about a clip cost in camscribe, beside the same as separate calls to the reference (transformers, SDPA).

    cargo bench --bench questions --no-run
    python benches/questions.py PROGRAM [ROUNDS]

PROGRAM is what the first line has built. It and the reference run in turns, each in a process of its own. The reference
gets a model of the same sizes with random weights, prompts of as many tokens, and a call for the description and for each
question: vision tower, prefill, and the tokens of the description. Prints Markdown: medians, and ratios that are above 1
if one request of camscribe is faster. Needs what reference.py needs.
"""
import json, pathlib, statistics, subprocess, sys, time

import reference

THREADS = 2


def call(model, work, tokens, new_tokens):
    """Runs one call of the reference on tiles that are ready. Returns its seconds."""
    import torch
    config = model.config
    side = config.vision_config.image_size
    start = time.perf_counter()
    pixels = torch.rand(1, work["frames"], 3, side, side) * 2 - 1
    mask = torch.ones(1, work["frames"], side, side, dtype=torch.bool)
    features = torch.cat(list(model.get_image_features(pixels, mask).pooler_output))
    images = work["frames"] * (side // config.vision_config.patch_size // config.scale_factor) ** 2
    ids = torch.tensor([[config.image_token_id] * images + [1000] * (tokens - images)])
    vectors = model.get_input_embeddings()(ids)
    vectors = vectors.masked_scatter((ids == config.image_token_id)[..., None], features)
    out = model(inputs_embeds=vectors, use_cache=new_tokens > 1, logits_to_keep=1)
    for _ in range(new_tokens - 1):
        token = out.logits[:, -1].argmax(-1, keepdim=True)
        out = model(input_ids=token, past_key_values=out.past_key_values, use_cache=True)
    out.logits.log_softmax(-1)
    return time.perf_counter() - start


def run_reference(work):
    """Times the reference in this process and prints one line of JSON."""
    import torch, transformers
    torch.set_num_threads(THREADS)
    torch.manual_seed(1)
    model = reference.build(work["config"], torch.float32, "cpu")
    with torch.no_grad():
        call(model, work, work["ask_tokens"], 1)
        describe = call(model, work, work["describe_tokens"], work["new_tokens"])
        each = [call(model, work, work["ask_tokens"], 1) for _ in range(work["questions"])]
    print(json.dumps(dict(describe=describe, each=each,
                          versions=f"transformers {transformers.__version__}, torch {torch.__version__}")))


def main():
    if sys.argv[1:] == ["--reference"]:
        return run_reference(json.load(sys.stdin))
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    program, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 3
    found, others = {}, []
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
        out, busy = reference.run([program, "--bench"], THREADS, stdout=subprocess.PIPE)
        ours = json.loads(out.splitlines()[-1])
        work = ours["work"] | dict(questions=max(row["questions"] for row in ours["rows"]))
        out, busy_too = reference.run([sys.executable, __file__, "--reference"], THREADS, input=json.dumps(work),
                                      stdout=subprocess.PIPE)
        theirs = json.loads(out.splitlines()[-1])
        others += [busy, busy_too]
        for row in ours["rows"]:
            seconds = row["describe"] * theirs["describe"] + sum(theirs["each"][:row["questions"]])
            found.setdefault((row["describe"], row["questions"]), []).append(
                (row["together_s"], row["apart_s"], seconds))
    clip = statistics.median(row[0] for row in found[True, 0])
    print("| description | questions | one request, s | of a clip with a description | a request each, s | ratio "
          "| transformers, s | ratio |\n|---|---|---|---|---|---|---|---|")
    for (describe, questions), rows in found.items():
        together, apart, seconds = (statistics.median(column) for column in zip(*rows))
        print(f"| {'yes' if describe else 'no'} | {questions} | {together:.2f} | {together / clip:.2f} | {apart:.2f} "
              f"| {apart / together:.2f} | {seconds:.2f} | {seconds / together:.2f} |")
    print(f"\n{theirs['versions']}; meanwhile other programs took {100 * min(others):.0f} to {100 * max(others):.0f} % "
          "of the CPU time of the machine")


main()
