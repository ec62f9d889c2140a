#!/usr/bin/env python3
"""How far number formats are from f32 with trained text weights, beside the reference's own bf16.

  accuracy.py LOGPROBS MODEL_FOLDER

LOGPROBS is the program of src/bin/logprobs.rs, MODEL_FOLDER what make_checkpoint.py made. The texts are this project's own
documents. For each format: perplexity, the share of next tokens that are f32's, and the mean divergence from f32
(Kullback-Leibler, nats a token). f32 is transformers'.

Then the same with outliers: in every layer's norms, 8 of the channels are multiplied by a power of two, and the weights that
read them divided by it. In f32 and bf16 that changes nothing. Activations get channels that are so many times as large as the
others, as trained models have them (Dettmers et al. 2022, "LLM.int8()"; Xiao et al. 2023, "SmoothQuant"); that the weights
are so much smaller is harder than what those papers describe.
"""
import argparse, json, os, pathlib, shutil, subprocess, tempfile

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

from check import ROOT, reference

TEXTS = ["README.md", "docs/design/kernels.md", "docs/design/batching.md", "docs/guide/service.md"]
TOKENS = 384
FORMATS = {
    "camscribe f32": ("f32", None),
    "camscribe q8": ("q8", None),
    "camscribe q8, 8-bit inputs": ("q8", "portable"),
}


def logprobs(program, model, tokens, dtype, instructions):
    with tempfile.NamedTemporaryFile() as out:
        env = os.environ | ({"CAMSCRIBE_INSTRUCTIONS": instructions} if instructions else {})
        subprocess.run([program, model, tokens, out.name, dtype], check=True, env=env)
        return torch.from_numpy(np.fromfile(out.name, np.float32))


def in_bf16(model):
    """The model as transformers loads it in bf16: weights in bf16, the frequencies of the rotary embedding in f32."""
    rotary = model.model.rotary_emb
    kept = {name: buffer.clone() for name, buffer in rotary.named_buffers()}
    model = model.bfloat16()
    for name, buffer in kept.items():
        setattr(rotary, name, buffer)
    return model


@torch.no_grad()
def of_reference(model, texts):
    return torch.cat([model(torch.tensor([ids])).logits[0].float().log_softmax(-1) for ids in texts])


def plant(folder, factor, to):
    """A copy of the model with outliers."""
    shutil.copytree(folder, to)
    weights = load_file(folder / "model.safetensors")
    channels = torch.randperm(weights["model.text_model.norm.weight"].numel(), generator=torch.Generator().manual_seed(1))[:8]
    for name, weight in weights.items():
        readers = {"input_layernorm": ("q_proj", "k_proj", "v_proj"), "post_attention_layernorm": ("gate_proj", "up_proj")}
        if not name.startswith("model.text_model.layers."):
            continue
        if name.split(".")[-2] in readers:
            weight[channels] *= factor
        elif any(name.split(".")[-2] in names for names in readers.values()):
            weight[:, channels] /= factor
    save_file(weights, to / "model.safetensors")


def row(name, found, exact, targets):
    divergence = (exact.exp() * (exact - found)).sum(-1).mean()
    perplexity = (-found[targets[:, 0], targets[:, 1]].mean()).exp()
    agree = (found.argmax(-1) == exact.argmax(-1)).double().mean()
    print(f"| {name} | {perplexity:.3f} | {100 * agree:.1f} % | {divergence:.2g} | {(found - exact).abs().mean():.2g} |", flush=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("program", type=pathlib.Path)
    ap.add_argument("model", type=pathlib.Path)
    args = ap.parse_args()
    tokenizer = transformers.AutoTokenizer.from_pretrained(args.model)
    texts = [tokenizer((ROOT / text).read_text())["input_ids"][:TOKENS] for text in TEXTS]
    starts = np.cumsum([0] + [len(ids) for ids in texts])
    targets = torch.tensor([(start + i, token) for start, ids in zip(starts, texts) for i, token in enumerate(ids[1:])])
    with tempfile.TemporaryDirectory() as folder:
        tokens = pathlib.Path(folder, "tokens.json")
        tokens.write_text(json.dumps(texts))
        for factor in (1, 16, 64):
            model = args.model
            if factor > 1:
                model = pathlib.Path(folder, f"outliers-{factor}")
                plant(args.model, factor, model)
            print(f"\n{len(targets)} tokens{f', outliers of {factor} times' if factor > 1 else ''}\n")
            print("| | perplexity | next tokens as f32's | divergence | logarithms off, on average |\n|---|---|---|---|---|")
            exact = of_reference(reference(model), texts)
            row("transformers f32", exact, exact, targets)
            row("transformers bf16", of_reference(in_bf16(reference(model)), texts), exact, targets)
            for name, (dtype, instructions) in FORMATS.items():
                found = logprobs(args.program, model, tokens, dtype, instructions).reshape(exact.shape)
                row(name, found, exact, targets)


if __name__ == "__main__":
    main()
