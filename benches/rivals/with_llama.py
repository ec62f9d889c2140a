"""llama.cpp for `rivals.py`, through llama-cpp-python and its mtmd library: both models in f32; the vision tower in f16 and
the text in q8_0, as they are usually published; both in q8_0. The vocabulary is made up: no text is read or written.
"""
import ctypes
import numpy
import work as common

FORMATS = {"f32": ("F32", "F32"), "f16-q8_0": ("F16", "Q8_0"), "q8_0": ("Q8_0", "Q8_0")}
VISION_NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
                "self_attn.out_proj": "attn_out", "layer_norm1": "ln1", "layer_norm2": "ln2", "mlp.fc1": "ffn_up",
                "mlp.fc2": "ffn_down"}
TEXT_NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
              "self_attn.o_proj": "attn_output", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
              "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
OTHERS = {"model.vision_model.embeddings.patch_embedding.weight": "v.patch_embd.weight",
          "model.vision_model.embeddings.patch_embedding.bias": "v.patch_embd.bias",
          "model.vision_model.embeddings.position_embedding.weight": "v.position_embd.weight",
          "model.vision_model.post_layernorm.weight": "v.post_ln.weight",
          "model.vision_model.post_layernorm.bias": "v.post_ln.bias",
          "model.connector.modality_projection.proj.weight": "mm.model.fc.weight",
          "model.text_model.embed_tokens.weight": "token_embd.weight",
          "model.text_model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}


def gguf_name(name):
    """A tensor's name in a GGUF file."""
    if name in OTHERS:
        return OTHERS[name]
    vision = name.startswith("model.vision_model.")
    layer, part = name.split(".layers.")[1].split(".", 1)
    part, kind = part.rsplit(".", 1)
    return f"{'v.' if vision else ''}blk.{layer}.{(VISION_NAMES if vision else TEXT_NAMES)[part]}.{kind}"


def add_tensors(writer, model, heads, wanted, form):
    """Adds the tensors whose GGUF name is `wanted`; matrices of layers, the embeddings and the head in `form`."""
    import gguf
    for name, tensor in model.state_dict().items():
        name, data = gguf_name(name), tensor.float().numpy()
        if not wanted(name):
            continue
        for part, count in heads.items():
            if name.endswith(f".{part}.weight"):  # llama.cpp rotates neighbours, the checkpoint halves
                data = data.reshape(count, 2, -1, data.shape[1]).swapaxes(1, 2).reshape(data.shape)
        plain = data.ndim != 2 or "position_embd" in name
        kind = gguf.GGMLQuantizationType["F32" if plain else form]
        writer.add_tensor(name, gguf.quants.quantize(numpy.ascontiguousarray(data), kind), raw_dtype=kind)


def write(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_text(model, config, file, form):
    import gguf
    text, writer = config["text"], gguf.GGUFWriter(file, "llama")
    writer.add_context_length(text["max_position_embeddings"])
    writer.add_embedding_length(text["hidden_size"])
    writer.add_block_count(text["num_hidden_layers"])
    writer.add_feed_forward_length(text["intermediate_size"])
    writer.add_head_count(text["num_attention_heads"])
    writer.add_head_count_kv(text["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(text["rms_norm_eps"])
    writer.add_rope_freq_base(text["rope_theta"])
    writer.add_rope_dimension_count(text["head_dim"])
    writer.add_vocab_size(text["vocab_size"])
    # The first 256 stand for bytes, written as GPT-2 does: what cannot be printed as the letters from 256 on.
    letters = iter(range(256, 512))
    words = [chr(n if 32 < n < 127 or n > 160 and n != 173 else next(letters)) for n in range(256)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(words + [f"word{n}" for n in range(256, text["vocab_size"])])
    writer.add_token_types([gguf.TokenType.NORMAL] * text["vocab_size"])
    writer.add_token_merges([f"{words[97]} {words[98]}"])
    writer.add_eos_token_id(text["vocab_size"] - 1)
    heads = dict(attn_q=text["num_attention_heads"], attn_k=text["num_key_value_heads"])
    add_tensors(writer, model, heads, lambda name: not name.startswith(("v.", "mm.")), form)
    write(writer)


def write_vision(model, config, file, form):
    import gguf
    vision, writer = config["vision"], gguf.GGUFWriter(file, "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "idefics3")
    writer.add_bool("clip.use_gelu", True)
    for key, value in dict(embedding_length=vision["hidden_size"], feed_forward_length=vision["intermediate_size"],
                           block_count=vision["num_hidden_layers"], projection_dim=config["text"]["hidden_size"],
                           image_size=vision["image_size"], preproc_image_size=vision["image_size"],
                           patch_size=vision["patch_size"]).items():
        writer.add_uint32(f"clip.vision.{key}", value)
    writer.add_uint32("clip.vision.attention.head_count", vision["num_attention_heads"])
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", vision["layer_norm_eps"])
    writer.add_uint32("clip.vision.projector.scale_factor", config["scale_factor"])
    writer.add_array("clip.vision.image_mean", [0.5] * 3)
    writer.add_array("clip.vision.image_std", [0.5] * 3)
    add_tensors(writer, model, {}, lambda name: name.startswith(("v.", "mm.")), form)
    write(writer)


def prepare(work, folder):
    model = common.model(work["config"])
    vision, text = FORMATS[work["variant"]]
    write_vision(model, work["config"], folder / "vision.gguf", vision)
    write_text(model, work["config"], folder / "text.gguf", text)


class Engine:
    def __init__(self, work, folder):
        import llama_cpp
        from llama_cpp import mtmd_cpp
        self.c, self.m = llama_cpp, mtmd_cpp
        self.tokens, self.width = common.tokens_per_frame(work["config"]), work["config"]["text"]["hidden_size"]
        self.words, self.image = work["config"]["text"]["vocab_size"], work["config"]["image_token_id"]
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(str(folder / "text.gguf").encode(),
                                                          llama_cpp.llama_model_default_params())
        options = llama_cpp.llama_context_default_params()
        options.n_ctx, options.n_batch, options.n_ubatch = work["prompt_tokens"] + work["new_tokens"] + 8, 2048, 512
        options.n_threads = options.n_threads_batch = work["threads"]
        exact = work["variant"] == "f32"
        if exact:  # Its flash attention rounds to f16.
            options.type_k = options.type_v = llama_cpp.GGML_TYPE_F32
            options.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.context = llama_cpp.llama_init_from_model(self.model, options)
        options = mtmd_cpp.mtmd_context_params_default()
        options.use_gpu, options.n_threads = False, work["threads"]
        if exact:
            options.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.tower = mtmd_cpp.mtmd_init_from_file(str(folder / "vision.gguf").encode(), self.model, options)
        if not (self.context and self.tower):
            raise RuntimeError("llama.cpp did not load the models")

    def pictures(self, work):
        """Each frame as llama.cpp's own preprocessing leaves it. It makes an overview and, of so small a picture, one
        slice that is the same again: only the first counts."""
        m, found = self.m, []
        text = m.mtmd_input_text(m.mtmd_default_marker(), len(m.mtmd_default_marker()), False, True)
        for frame in common.frames(work):
            data = (ctypes.c_uint8 * frame.size).from_buffer_copy(frame.tobytes())
            bitmap, chunks = m.mtmd_bitmap_init(frame.shape[1], frame.shape[0], data), m.mtmd_input_chunks_init()
            bitmaps = (m.mtmd_bitmap_p_ctypes * 1)(bitmap)
            if m.mtmd_tokenize(self.tower, chunks, ctypes.byref(text), bitmaps, 1):
                raise RuntimeError("llama.cpp did not take the picture")
            parts = [m.mtmd_input_chunks_get(chunks, n) for n in range(m.mtmd_input_chunks_size(chunks))]
            found.append(next(p for p in parts if m.mtmd_input_chunk_get_type(p) == m.MTMD_INPUT_CHUNK_TYPE_IMAGE))
            if m.mtmd_input_chunk_get_n_tokens(found[-1]) != self.tokens:
                raise RuntimeError("llama.cpp cuts the picture in another way than camscribe")
        return found

    def vision(self, pictures):
        rows = []
        for picture in pictures:
            if self.m.mtmd_encode_chunk(self.tower, picture):
                raise RuntimeError("llama.cpp did not encode the picture")
            out = self.m.mtmd_get_output_embd(self.tower)
            rows.append(numpy.ctypeslib.as_array(out, (self.tokens, self.width)).copy())
        return numpy.concatenate(rows)

    def prefill(self, ids, features):
        """The image rows in one batch, then the text: a batch of llama.cpp is of one kind."""
        self.c.llama_memory_clear(self.c.llama_get_memory(self.context), True)
        self.length = 0
        self.decode(len(features), embd=features, last=False)
        rest = ids[0][len(features):]
        return self.decode(len(rest), token=rest)

    def step(self, token):
        return self.decode(1, token=[token])

    def decode(self, count, token=None, embd=None, last=True):
        batch = self.c.llama_batch_init(count, self.width if token is None else 0, 1)
        batch.n_tokens = count
        if token is None:
            ctypes.memmove(batch.embd, numpy.ascontiguousarray(embd).ctypes.data, 4 * count * self.width)
        for n in range(count):
            if token is not None:
                batch.token[n] = int(token[n])
            batch.pos[n], batch.n_seq_id[n], batch.seq_id[n][0] = self.length + n, 1, 0
            batch.logits[n] = last and n == count - 1
        failed = self.c.llama_decode(self.context, batch)
        self.c.llama_batch_free(batch)
        if failed:
            raise RuntimeError(f"llama_decode: {failed}")
        self.length += count
        if last:
            return numpy.ctypeslib.as_array(self.c.llama_get_logits_ith(self.context, -1), (self.words,))


if __name__ == "__main__":
    common.main(prepare, Engine, lambda: common.clean_versions("llama-cpp-python", "gguf"))
