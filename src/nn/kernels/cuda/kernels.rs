//! The CUDA backend: our own kernels where candle's operations need more passes over memory, or more launches. Inputs
//! that the kernels do not support go to candle's operations.

use std::sync::atomic::AtomicBool;

use candle_core::{D, DType, Tensor};

use super::{
    super::{
        super::{
            decoder::Decoder,
            error::Result,
            layers::{Norm, PixelLut},
            sequence::{KvCache, SequencePositions},
        },
        candle::CandleKernels,
        traits::{DecodeLoop, Kernels, PatchSize},
    },
    backend::Backend,
    decode_loop::KernelDecodeLoop,
    launch::{self, Attention, NORM_WIDTH, Patches, Rotate, Strides, Swiglu, pack_size},
    tensors::{empty, empty_like, pointer},
};

/// Fewest queries per sequence for the `attention` kernel. With fewer, most of a block is idle.
const MIN_QUERIES: usize = 16;

/// Our own kernels on a GPU, or for tests on an emulated one.
pub struct CudaKernels {
    backend: Box<dyn Backend>,
    /// Whether decode steps may be captured as CUDA graphs. Cleared when a capture fails.
    graphs: AtomicBool,
}

impl CudaKernels {
    /// `graphs`: whether decode steps are captured as CUDA graphs and replayed, or launched kernel by kernel.
    pub fn new(backend: Box<dyn Backend>, graphs: bool) -> Self {
        Self { backend, graphs: AtomicBool::new(graphs) }
    }

    /// Whether decode steps may be captured. False once a capture has failed.
    #[cfg(feature = "cuda")]
    pub fn graphs(&self) -> bool {
        self.graphs.load(std::sync::atomic::Ordering::Relaxed)
    }
}

impl Kernels for CudaKernels {
    fn matmul(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        if let Some(bias) = bias
            && let Some(y) = self.backend.linear(x, weight, bias, false)?
        {
            return Ok(y);
        }
        CandleKernels.matmul(x, weight, bias)
    }

    fn matmul_gelu(&self, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
        match self.backend.linear(x, weight, bias, true)? {
            Some(y) => Ok(y),
            None => CandleKernels.matmul_gelu(x, weight, bias),
        }
    }

    fn norm(&self, x: &Tensor, norm: &Norm) -> Result<Tensor> {
        let (rows, width) = rows_and_width(x)?;
        if !norm_supports(x, width) {
            return CandleKernels.norm(x, norm);
        }
        let out = empty_like(x)?;
        launch::Norm::new(x, None, &out, norm)?.launch(&*self.backend, x.dtype(), rows)?;
        Ok(out)
    }

    fn add_norm(&self, x: &Tensor, y: &Tensor, norm: &Norm) -> Result<(Tensor, Tensor)> {
        let (rows, width) = rows_and_width(x)?;
        if !norm_supports(x, width)
            || !norm_supports(y, width)
            || x.dims() != y.dims()
            || x.dtype() != y.dtype()
        {
            return CandleKernels.add_norm(x, y, norm);
        }
        let (sum, out) = (empty_like(x)?, empty_like(x)?);
        launch::Norm::new(x, Some((y, &sum)), &out, norm)?.launch(&*self.backend, x.dtype(), rows)?;
        Ok((sum, out))
    }

    fn swiglu(&self, gate_up: &Tensor) -> Result<Tensor> {
        let (rows, double_width) = rows_and_width(gate_up)?;
        let width = double_width / 2;
        if !is_packed(gate_up, width) {
            return CandleKernels.swiglu(gate_up);
        }
        let mut shape = gate_up.dims().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = width;
        }
        let out = empty(&shape, gate_up.dtype(), gate_up)?;
        Swiglu::new(gate_up, &out)?.launch(&*self.backend, gate_up.dtype(), rows)?;
        Ok(out)
    }

    fn rotate(
        &self,
        qkv: &Tensor,
        cache: &(Tensor, Tensor),
        positions: &SequencePositions,
    ) -> Result<Tensor> {
        let (sequences, tokens, all_heads, size) = qkv.dims4()?;
        let (_, key_heads, capacity, _) = cache.0.dims4()?;
        let heads = all_heads - 2 * key_heads;
        if pack_size(qkv.dtype()).is_none() || !qkv.is_contiguous() {
            return CandleKernels.rotate(qkv, cache, positions);
        }
        if positions.first + tokens > capacity {
            candle_core::bail!(
                "{tokens} tokens from slot {} on do not fit into a cache of {capacity} slots",
                positions.first
            );
        }
        let q = empty(&[sequences, tokens, heads, size], qkv.dtype(), qkv)?;
        let args = Rotate {
            qkv: pointer(qkv)?,
            q: pointer(&q)?,
            keys: pointer(&cache.0)?,
            values: pointer(&cache.1)?,
            cos: pointer(&positions.rotary_table.0)?,
            sin: pointer(&positions.rotary_table.1)?,
            starts: pointer(positions.starts_tensor()?)?,
            len: 0,
            first: positions.first as i32,
            tokens: tokens as i32,
            heads: heads as i32,
            key_heads: key_heads as i32,
            size: size as i32,
            capacity: capacity as i32,
            positions: positions.rotary_table.0.dim(0)? as i32,
        };
        args.launch(&*self.backend, qkv.dtype(), sequences)?;
        q.transpose(1, 2)
    }

    fn attention(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        positions: Option<&SequencePositions>,
    ) -> Result<Tensor> {
        let (sequences, heads, queries, size) = q.dims4()?;
        let (_, key_heads, keys, _) = k.dims4()?;
        let supported =
            q.dtype() == DType::BF16 && Attention::SIZES.contains(&size) && queries >= MIN_QUERIES;
        let strides = || Some((strides(q)?, strides(k)?, strides(v)?));
        let (true, Some((q_strides, k_strides, v_strides))) = (supported, strides()) else {
            return CandleKernels.attention(q, k, v, positions);
        };
        let out = empty(&[sequences, queries, heads * size], q.dtype(), q)?;
        let args = Attention {
            q: pointer(q)?,
            k: pointer(k)?,
            v: pointer(v)?,
            out: pointer(&out)?,
            starts: positions.map_or(Ok(0), |positions| pointer(positions.starts_tensor()?))?,
            q_strides,
            k_strides,
            v_strides,
            heads: heads as i32,
            group: (heads / key_heads) as i32,
            queries: queries as i32,
            keys: keys as i32,
            first: positions.map_or(0, |positions| positions.first) as i32,
            scale: 1. / (size as f32).sqrt(),
        };
        args.launch(&*self.backend, size, sequences)?;
        Ok(out)
    }

    fn patches(&self, tiles: &[u8], lut: &PixelLut, size: PatchSize) -> Result<Tensor> {
        let (PatchSize { side, patch }, grid) = (size, size.grid());
        let width = 3 * patch * patch;
        let tile_count = tiles.len() / (3 * side * side);
        let count = i32::try_from(tile_count * grid * grid * width);
        let (Some(_), Ok(count)) = (pack_size(lut.dtype), count) else {
            return CandleKernels.patches(tiles, lut, size);
        };
        let tiles = self.backend.upload(tiles)?;
        let values = Tensor::from_slice(&lut.values, lut.values.len(), &lut.device)?;
        let out = empty(&[tile_count, grid * grid, width], lut.dtype, &tiles)?;
        let args = Patches {
            tiles: pointer(&tiles)?,
            lut: pointer(&values)?,
            out: pointer(&out)?,
            count,
            side: side as i32,
            grid: grid as i32,
            patch: patch as i32,
        };
        args.launch(&*self.backend, lut.dtype)?;
        Ok(out)
    }

    fn decode_loop<'a>(
        &'a self,
        decoder: &'a Decoder,
        cache: &KvCache,
    ) -> Result<Option<Box<dyn DecodeLoop + 'a>>> {
        let decode = KernelDecodeLoop::new(&*self.backend, &self.graphs, decoder, cache)?;
        Ok(decode.map(|decode| Box::new(decode) as Box<dyn DecodeLoop + 'a>))
    }
}

/// The number of rows of `x`, and their width: all dimensions but the last, and the last.
fn rows_and_width(x: &Tensor) -> Result<(usize, usize)> {
    let width = x.dim(D::Minus1)?;
    Ok((x.elem_count() / width.max(1), width))
}

/// Whether the `norm` kernel supports `x`, whose rows are `width` wide.
fn norm_supports(x: &Tensor, width: usize) -> bool {
    is_packed(x, width) && width <= NORM_WIDTH
}

/// Whether rows of `x` that are `width` wide can be loaded 16 bytes at a time.
fn is_packed(x: &Tensor, width: usize) -> bool {
    x.is_contiguous()
        && pack_size(x.dtype())
            .is_some_and(|pack| width.is_multiple_of(pack) && x.layout().start_offset().is_multiple_of(pack))
}

/// The strides of `x`, `(sequences, heads, tokens, head size)`. None if its heads cannot be loaded 16 bytes at a time.
fn strides(x: &Tensor) -> Option<Strides> {
    let pack = pack_size(x.dtype())?;
    let [sequence, head, token, 1] = *x.stride() else { return None };
    let offsets = [sequence, head, token, x.layout().start_offset()];
    offsets.iter().all(|offset| offset.is_multiple_of(pack)).then_some(Strides {
        sequence: sequence as i64,
        head: head as i64,
        token: token as i64,
    })
}
