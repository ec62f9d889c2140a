"""SmolVLM2 as two plain torch modules that export well: the vision tower with its connector, and the text decoder with an
explicit key-value cache. They hold transformers' own layers; `rivals.py --check` compares them with transformers.
"""
import torch
from torch.nn.functional import scaled_dot_product_attention


class Vision(torch.nn.Module):
    """pixels (frames, 3, side, side) -> features (frames, tokens, text width)"""

    def __init__(self, model):
        super().__init__()
        self.tower, self.connector = model.model.vision_model, model.model.connector
        config = model.config.vision_config
        self.heads, self.side = config.num_attention_heads, config.image_size // config.patch_size
        self.factor = model.config.scale_factor

    def attention(self, block, x):
        split = lambda y: y.reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)
        y = scaled_dot_product_attention(split(block.q_proj(x)), split(block.k_proj(x)), split(block.v_proj(x)))
        return block.out_proj(y.transpose(1, 2).reshape(x.shape))

    def forward(self, pixels):
        x = self.tower.embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
        x = x + self.tower.embeddings.position_embedding.weight
        for layer in self.tower.encoder.layers:
            x = x + self.attention(layer.self_attn, layer.layer_norm1(x))
            x = x + layer.mlp(layer.layer_norm2(x))
        x = self.tower.post_layernorm(x)
        f, small, width = self.factor, self.side // self.factor, x.shape[-1]
        x = x.reshape(x.shape[0], small, f, small, f, width).permute(0, 1, 3, 2, 4, 5)
        return self.connector.modality_projection.proj(x.reshape(x.shape[0], small * small, f * f * width))


class Text(torch.nn.Module):
    """ids (1, n), features (1, n, width), the cache's rows to go on with, and keys and values (1, kv heads, past, 64) of
    every layer -> logits of the last token, and the longer keys and values. Where an id is an image token, its row of the
    features replaces the embedding."""

    def __init__(self, model, reorder):
        super().__init__()
        config = model.config.text_config
        self.text, self.head, self.image = model.model.text_model, model.lm_head, model.config.image_token_id
        self.heads, self.kv, self.size = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        self.reorder = reorder
        rope = getattr(config, "rope_parameters", None) or dict(rope_theta=config.rope_theta)
        exponents = torch.arange(0, self.size, 2).float() / self.size
        angles = torch.outer(torch.arange(config.max_position_embeddings).float(), rope["rope_theta"] ** -exponents)
        angles = torch.cat([angles, angles], -1)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def rotate(self, x, cos, sin):
        half = self.size // 2
        return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin

    def forward(self, ids, features, positions, rows, *past):
        x = self.text.embed_tokens(ids)
        x = torch.where((ids == self.image)[..., None], features, x)
        cos, sin = self.cos[positions][:, None], self.sin[positions][:, None]
        total = torch.arange(past[0].shape[2] + ids.shape[1], device=ids.device)
        mask = torch.where(total[None, :] <= positions[0][:, None], 0.0, -65504.0)[None, None]
        cache = []
        for number, layer in enumerate(self.text.layers):
            block, y = layer.self_attn, layer.input_layernorm(x)
            split = lambda z, heads: z.reshape(1, -1, heads, self.size).transpose(1, 2)
            query = self.rotate(split(block.q_proj(y), self.heads), cos, sin)
            new = self.rotate(split(block.k_proj(y), self.kv), cos, sin), split(block.v_proj(y), self.kv)
            old = past[2 * number:2 * number + 2]
            if self.reorder:
                old = [part.index_select(0, rows) for part in old]
            key, val = (torch.cat(pair, 2) for pair in zip(old, new))
            cache += [key, val]
            y = scaled_dot_product_attention(query, self.repeat(key), self.repeat(val), mask)
            x = x + block.o_proj(y.transpose(1, 2).reshape(1, -1, self.heads * self.size))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        logits = self.head(self.text.norm(x[:, -1:]))
        return (logits, *cache)

    def repeat(self, x):
        """Every head of the keys and values for each query head of its group."""
        group = self.heads // self.kv
        return x[:, :, None].expand(1, self.kv, group, x.shape[2], self.size).reshape(1, self.heads, -1, self.size)


def example(config, past, count):
    """Inputs to export the text decoder with: `past` tokens in the cache, `count` new ones."""
    text = config["text"]
    cache = [torch.zeros(1, text["num_key_value_heads"], past, text["head_dim"]) for _ in range(2 * text["num_hidden_layers"])]
    return (torch.full((1, count), 1000), torch.zeros(1, count, text["hidden_size"]),
            torch.arange(past, past + count)[None], torch.zeros(1, dtype=torch.int32), *cache)


def cache_names(config):
    """Names of the cache's inputs; an output has the same name with `new_` in front."""
    return [f"{kind}_{layer}" for layer in range(config["text"]["num_hidden_layers"]) for kind in ("key", "value")]
