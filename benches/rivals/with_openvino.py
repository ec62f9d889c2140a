"""OpenVINO for `rivals.py`: f32, 8 bits with calibrated activations (vision tower), 8-bit weights. The text decoder is a
stateful model, so the keys and values stay inside OpenVINO, where its attention kernel appends to them in place.
"""
import numpy
import work as common


def convert_vision(model, work):
    import openvino, torch
    from modules import Vision
    side = work["config"]["vision"]["image_size"]
    return openvino.convert_model(Vision(model), example_input=torch.zeros(2, 3, side, side),
                                  input=openvino.PartialShape([-1, 3, side, side]))


def convert_text(model, work):
    import openvino
    from modules import Text, cache_names, example
    from openvino._offline_transformations import apply_make_stateful_transformation
    config = work["config"]
    graph = openvino.convert_model(Text(model, reorder=True), example_input=example(config, 5, 3))
    names = ["ids", "features", "positions", "rows"] + cache_names(config)
    outputs = ["logits"] + [f"new_{name}" for name in cache_names(config)]
    width, heads, size = (config["text"][key] for key in ("hidden_size", "num_key_value_heads", "head_dim"))
    shapes = [[-1, -1], [-1, -1, width], [-1, -1], [-1]] + [[-1, heads, -1, size]] * len(cache_names(config))
    for port, name, shape in zip(graph.inputs, names, shapes):
        port.get_tensor().set_names({name})
        port.get_node().set_partial_shape(openvino.PartialShape(shape))
    for port, name in zip(graph.outputs, outputs):
        port.get_tensor().set_names({name})
    graph.validate_nodes_and_infer_types()
    apply_make_stateful_transformation(graph, {name: f"new_{name}" for name in cache_names(config)})
    start_empty(graph)
    return graph


def start_empty(graph):
    """Gives every state a first value without tokens, the way Optimum does: OpenVINO's attention kernel wants one."""
    import openvino.opset13 as ops
    batch = ops.gather(ops.shape_of(graph.input("ids")), ops.constant([0]), ops.constant(0))
    for state in [op for op in graph.get_ops() if op.get_type_name() == "ReadValue"]:
        _, heads, _, size = (dim.min_length for dim in state.get_output_partial_shape(0))
        shape = ops.concat([batch, ops.constant([heads]), ops.constant([0]), ops.constant([size])], axis=0)
        state.set_arguments([ops.broadcast(ops.constant(0.0, dtype=numpy.float32), shape)])
    graph.validate_nodes_and_infer_types()


def calibration(work):
    """A few pictures for the static quantisation: gradients and noise."""
    random, side = numpy.random.default_rng(common.SEED), work["config"]["vision"]["image_size"]
    slope = numpy.linspace(0, 255, side)
    for number in range(6):
        base = slope[:, None, None] * random.random(3) + slope[None, :, None] * random.random(3)
        noise = random.normal(0, 20 * number, (side, side, 3))
        yield common.pixels(numpy.clip(base / 2 + noise + 30, 0, 255).astype(numpy.uint8)[None])


def prepare(work, folder):
    """Writes the two models of this variant."""
    import nncf, openvino
    from nncf.parameters import ModelType
    model, variant = common.model(work["config"]), work["variant"]
    vision, text = convert_vision(model, work), convert_text(model, work)
    del model
    if variant == "int8-static":
        vision = nncf.quantize(vision, nncf.Dataset(list(calibration(work))), model_type=ModelType.TRANSFORMER,
                               preset=nncf.QuantizationPreset.MIXED, subset_size=6)
    if variant == "int8-dynamic":
        vision = nncf.compress_weights(vision, mode=nncf.CompressWeightsMode.INT8_SYM)
    if variant != "f32":
        text = nncf.compress_weights(text, mode=nncf.CompressWeightsMode.INT8_SYM)
    openvino.save_model(vision, folder / "vision.xml", compress_to_fp16=False)
    openvino.save_model(text, folder / "text.xml", compress_to_fp16=False)


class Engine:
    def __init__(self, work, folder):
        import openvino
        core = openvino.Core()
        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": work["threads"], "NUM_STREAMS": 1,
                   "INFERENCE_PRECISION_HINT": "f32"}
        if work["variant"] == "f32":
            options["KV_CACHE_PRECISION"] = "f32"
        else:
            options["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = 32
        vision = core.read_model(folder / "vision.xml")
        # One tile at a time: fixed shapes, and the values between layers stay in the cache.
        vision.reshape([1, *vision.input(0).partial_shape[1:]])
        self.tower = core.compile_model(vision, "CPU", options).create_infer_request()
        self.text = core.compile_model(core.read_model(folder / "text.xml"), "CPU", options).create_infer_request()
        self.width, self.length = work["config"]["text"]["hidden_size"], 0

    def vision(self, pixels):
        return numpy.concatenate([self.tower.infer([tile[None]])[0] for tile in pixels])

    def prefill(self, ids, features):
        self.text.reset_state()
        self.length = 0
        rows = numpy.zeros((1, ids.shape[1], self.width), numpy.float32)
        rows[0, :features.shape[0] * features.shape[1]] = features.reshape(-1, self.width)
        return self.run(ids, rows)

    def step(self, token):
        return self.run(numpy.array([[token]]), numpy.zeros((1, 1, self.width), numpy.float32))

    def run(self, ids, features):
        positions = numpy.arange(self.length, self.length + ids.shape[1])[None]
        self.length += ids.shape[1]
        result = self.text.infer(dict(ids=ids, features=features, positions=positions, rows=numpy.zeros(1, numpy.int32)))
        return result["logits"]


if __name__ == "__main__":
    common.main(prepare, Engine, lambda: common.clean_versions("openvino", "nncf"))
