#!/usr/bin/env python3
"""How likely the reference implementation finds the labels of a question, for the tests of other implementations.

  make_decisions.py CHECKPOINT OUT.json

A case is a conversation and `labels`. It is run alone, as by ../requests/make_requests.py, which has the pictures and
says what the options are: float32, SDPA, one thread of the CPU. The answer position is right after the prompt, whose
last words are "Assistant:". All logarithms are natural.

What the reference says begins with a space, because nothing follows the colon of the prompt: the tokens of a label are
those of " Yes", not of "Yes". They are the same whether the label is tokenized alone or at the end of the whole prompt
(the script checks that). A label can be several tokens, and labels can begin with the same one: SmolVLM2's tokenizer
makes every digit a token of its own, so " 1" to " 5" all begin with the token of the space, and only whole labels tell
scores apart.

  n_tokens          tokens of the prompt
  n_image_tokens    how many of them are of images
  prompt_sha256     of the prompt's token ids, written in decimal and joined by single spaces
  log_softmax       of the whole vocabulary at the answer position, by token id
  labels            in the order of the case, each with
    label           without the space
    ids             its tokens
    first           log-probability of the first of them at the answer position
    whole           log-probability of all of them, one after the other: a sum
    ended           `whole`, and then that of the token that ends an answer
    unspaced        log-probability of the first token of the label without a space at the answer position, for
                    comparison
  shares            softmax of `whole` over the labels, in their order
  winner            the index of the most likely label

Needs Python 3.11 and what models/shapes/train/requirements.txt names.
"""
import argparse, hashlib, json, pathlib, sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "requests"))

import torch

from make_requests import CLIP2, CLIP8, LANDSCAPE, PORTRAIT, load, message, prepare, sha256_of_weights, user, write

DIGITS = 6
CAMERA = message("system", "You are a camera.\n")
YES_NO, SCORES = ["Yes", "No"], ["1", "2", "3", "4", "5"]


def case(name, *messages, labels, **options):
    return {"name": name, "messages": list(messages), "options": options, "labels": labels}


# Neighbours with the same beginning could share it. `choice` and `choice_swapped` ask the same in two orders.
CASES = [
    case("text_yes_no", user("Is the scene empty? Answer yes or no."), labels=YES_NO),
    case("text_score", user("How many shapes are there? Answer from 1 to 5."), labels=SCORES),
    case("system_conversation", CAMERA, user("What happens?"), message("assistant", "A red circle moves up."),
         user("Is there a red circle? Answer yes or no."), labels=YES_NO),
    case("image_yes_no", user(LANDSCAPE, "Is there a red triangle? Answer yes or no."), labels=YES_NO),
    case("image_no_yes", user(LANDSCAPE, "Is the background white? Answer yes or no."), labels=["No", "Yes"]),
    case("image_choice", user(LANDSCAPE, "Which colour is it?\nA. red\nB. green\nC. blue\nAnswer with the letter."),
         labels=["A", "B", "C"]),
    case("image_choice_swapped", user(LANDSCAPE, "Which colour is it?\nA. blue\nB. green\nC. red\nAnswer with the letter."),
         labels=["A", "B", "C"]),
    case("image_whole_score", user(PORTRAIT, "How many shapes are there? Answer from 1 to 5."), labels=SCORES, split=False),
    case("two_images_choice", user(LANDSCAPE, PORTRAIT, "Which one is empty? Answer First, Second or Neither."),
         labels=["First", "Second", "Neither"], longest_edge=128),
    case("video_yes_no", user(CLIP8, "Is anything moving? Answer yes or no."), labels=YES_NO),
    case("video_words", user(CLIP8, "What happens?"),
         labels=["A red triangle stays still", "A red triangle moves down", "Nothing is there", "A red triangle"]),
    case("video_many", user(CLIP2, "Which one is it?"), labels=[chr(ord("A") + i) for i in range(10)]),
    case("image_conversation", user(PORTRAIT, "What happens?"), message("assistant", "A red circle moves up."),
         user("Is that true? Answer yes, no or unclear."), labels=["Yes", "No", "Unclear"]),
]


@torch.no_grad()
def log_softmax(model, inputs, appended=()):
    """Of the vocabulary, after the prompt and after each of the appended tokens: `(1 + appended, vocabulary)`."""
    more = torch.tensor([list(appended)], dtype=torch.long)
    ids = torch.cat([inputs["input_ids"], more], 1)
    inputs = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return model(**inputs, logits_to_keep=1 + len(appended)).logits[0].log_softmax(-1)


def decide(model, processor, inputs, labels):
    """The results of one case."""
    tokenize = lambda text: processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    prompt = inputs["input_ids"][0].tolist()
    text = processor.tokenizer.decode(prompt)
    end = model.generation_config.eos_token_id
    start, found = log_softmax(model, inputs)[0], []
    for label in labels:
        ids = tokenize(" " + label)
        assert tokenize(text + " " + label) == prompt + ids, label
        steps = log_softmax(model, inputs, ids)
        # A pass without the label's tokens says the same.
        assert torch.allclose(steps[0], start, atol=1e-4)
        whole = sum(float(row[id]) for row, id in zip(steps, ids))
        found.append({"label": label, "ids": ids, "first": float(start[ids[0]]), "whole": whole,
                      "ended": whole + float(steps[-1][end]), "unspaced": float(start[tokenize(label)[0]])})
    shares = torch.tensor([it["whole"] for it in found], dtype=torch.float64).softmax(0).tolist()
    rounded = lambda it: {k: round(v, DIGITS) if isinstance(v, float) else v for k, v in it.items()}
    return {"n_tokens": len(prompt), "n_image_tokens": prompt.count(processor.image_token_id),
            "prompt_sha256": hashlib.sha256(" ".join(map(str, prompt)).encode()).hexdigest(),
            "labels": [rounded(it) for it in found], "shares": [round(x, DIGITS) for x in shares],
            "winner": max(range(len(shares)), key=shares.__getitem__),
            "log_softmax": [round(x, 4) for x in start.tolist()]}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("checkpoint", type=pathlib.Path)
    ap.add_argument("out", type=pathlib.Path)
    args = ap.parse_args()
    model, processor, video_edge = load(args.checkpoint)
    done = []
    for it in CASES:
        result = decide(model, processor, prepare(processor, video_edge, it), it["labels"])
        done.append(it | result)
        print(f"{it['name']}: {result['n_tokens']} tokens, "
              + ", ".join(f"{x['label']} {x['first']:.2f} {x['whole']:.2f} {x['ended']:.2f} ({x['unspaced']:.2f})"
                          for x in result["labels"]), flush=True)
    write(args.out, sha256_of_weights(args.checkpoint), done)


if __name__ == "__main__":
    main()
