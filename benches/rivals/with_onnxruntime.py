"""onnxruntime for `rivals.py`: f32, and 8-bit weights with activations quantised on the way (`quantize_dynamic`). The keys
and values go from a step's outputs to the next one's inputs without leaving onnxruntime, but its Concat copies them.
"""
import pathlib, shutil
import numpy
import work as common


def export(module, inputs, file, names, outputs, shapes):
    import torch
    # Opset 23 has attention as one operator.
    torch.onnx.export(module.eval(), inputs, file, input_names=names, output_names=outputs, dynamic_shapes=shapes,
                      dynamo=True, opset_version=23, external_data=True, verbose=False)


def prepare(work, folder):
    """Exports the two models, and quantises them for int8."""
    import torch
    from modules import Text, Vision, cache_names, example
    model, config = common.model(work["config"]), work["config"]
    side, names = config["vision"]["image_size"], cache_names(config)
    exact = folder if work["variant"] == "f32" else folder / "exact"
    exact.mkdir(exist_ok=True)
    with torch.no_grad():
        export(Vision(model), (torch.zeros(1, 3, side, side),), exact / "vision.onnx", ["pixels"], ["features"], None)
        new, past = torch.export.Dim("new", min=1, max=4096), torch.export.Dim("past", min=0, max=4095)
        shapes = dict(ids={1: new}, features={1: new}, positions={1: new}, rows=None, past=tuple({2: past} for _ in names))
        export(Text(model, reorder=False), example(config, 5, 3), exact / "text.onnx",
               ["ids", "features", "positions", "rows"] + names, ["logits"] + [f"new_{name}" for name in names], shapes)
    if work["variant"] == "int8":
        from onnxruntime.quantization import QuantType, quantize_dynamic
        # Without VNNI, sums of two products of full 8 bits may saturate; 7 bits in the weights are as fast.
        narrow = "vnni" not in pathlib.Path("/proc/cpuinfo").read_text()
        for name in ("vision.onnx", "text.onnx"):
            quantize_dynamic(exact / name, folder / name, op_types_to_quantize=["MatMul", "Gemm"], per_channel=True,
                             weight_type=QuantType.QInt8, reduce_range=narrow, use_external_data_format=False)
        shutil.rmtree(exact)


class Engine:
    def __init__(self, work, folder):
        import onnxruntime
        from modules import cache_names
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = work["threads"], 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        session = lambda name: onnxruntime.InferenceSession(str(folder / name), options, ["CPUExecutionProvider"])
        self.tower, self.text = session("vision.onnx"), session("text.onnx")
        self.value, text = onnxruntime.OrtValue.ortvalue_from_numpy, work["config"]["text"]
        self.names, self.width = cache_names(work["config"]), text["hidden_size"]
        # The exporter leaves out what the decoder does not use.
        self.inputs = {port.name for port in self.text.get_inputs()}
        self.empty = numpy.zeros((1, text["num_key_value_heads"], 0, text["head_dim"]), numpy.float32)

    def vision(self, pixels):
        return numpy.concatenate([self.tower.run(None, {"pixels": tile[None]})[0] for tile in pixels])

    def prefill(self, ids, features):
        self.length, self.cache = 0, [self.value(self.empty) for _ in self.names]
        rows = numpy.zeros((1, ids.shape[1], self.width), numpy.float32)
        rows[0, :features.shape[0] * features.shape[1]] = features.reshape(-1, self.width)
        return self.run(ids, rows)

    def step(self, token):
        return self.run(numpy.array([[token]]), numpy.zeros((1, 1, self.width), numpy.float32))

    def run(self, ids, features):
        positions = numpy.arange(self.length, self.length + ids.shape[1])[None]
        self.length += ids.shape[1]
        binding = self.text.io_binding()
        given = dict(ids=ids, features=features, positions=positions, rows=numpy.zeros(1, numpy.int32))
        for name in self.inputs & set(given):
            binding.bind_cpu_input(name, given[name])
        for name, part in zip(self.names, self.cache):
            binding.bind_ortvalue_input(name, part)
        for name in ["logits"] + [f"new_{name}" for name in self.names]:
            binding.bind_output(name)
        self.text.run_with_iobinding(binding)
        logits, *self.cache = binding.get_outputs()
        return logits.numpy()


if __name__ == "__main__":
    common.main(prepare, Engine, lambda: common.clean_versions("onnxruntime", "onnx"))
