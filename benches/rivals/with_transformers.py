"""transformers with torch's attention for `rivals.py`, in f32 and bf16. Its f32 outputs are what `--check` holds the others'
against. This is the engine of reference.py, with its stages called one by one.
"""
import numpy
import work as common


def prepare(work, folder):
    """Nothing: the model is made when it is loaded."""


class Engine:
    def __init__(self, work, folder):
        import torch
        torch.set_num_threads(work["threads"])
        torch.set_grad_enabled(False)
        self.torch = torch
        self.model = common.model(work["config"], {"f32": "float32", "bf16": "bfloat16"}[work["variant"]])

    def vision(self, pixels):
        pixels = self.torch.from_numpy(pixels)[None].to(self.model.dtype)
        mask = self.torch.ones(*pixels.shape[:2], *pixels.shape[-2:], dtype=self.torch.bool)
        return self.torch.cat(list(self.model.get_image_features(pixels, mask).pooler_output)).float()

    def prefill(self, ids, features):
        ids = self.torch.from_numpy(ids)
        vectors = self.model.get_input_embeddings()(ids)
        images = (ids == self.model.config.image_token_id)[..., None]
        vectors = vectors.masked_scatter(images, features.to(vectors.dtype))
        return self.keep(self.model(inputs_embeds=vectors, use_cache=True, logits_to_keep=1))

    def step(self, token):
        ids = self.torch.tensor([[token]])
        return self.keep(self.model(input_ids=ids, past_key_values=self.cache, use_cache=True))

    def keep(self, out):
        self.cache = out.past_key_values
        return out.logits[0, -1].float().numpy()


if __name__ == "__main__":
    common.main(prepare, Engine, lambda: common.clean_versions("transformers", "torch"))
