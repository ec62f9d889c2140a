//! The backend for GPUs: own kernels where candle's operations take more passes over memory than needed, or more
//! launches. What these kernels cannot take goes to candle's operations.

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
    launch::{self, Attention, NORM_WIDTH, Patches, Rotate, Strides, Swiglu, pack},
    tensors::{empty, empty_like, pointer},
};

/// Fewer queries than these leave most of a block of `attention` idle.
const FEW_QUERIES: usize = 16;

/// Our own operations on a GPU, or for tests on the CPU.
pub struct CudaKernels {
    backend: Box<dyn Backend>,
    /// Whether steps are captured and replayed, or launched kernel by kernel.
    graphs: AtomicBool,
}

impl CudaKernels {
    /// `graphs`: whether steps are to be captured and replayed.
    pub fn new(backend: Box<dyn Backend>, graphs: bool) -> Self {
        Self { backend, graphs: AtomicBool::new(graphs) }
    }

    /// Whether steps are captured: not any more where that failed.
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
        let (rows, width) = rows_of(x)?;
        if !norms(x, width) {
            return CandleKernels.norm(x, norm);
        }
        let out = empty_like(x)?;
        launch::Norm::new(x, None, &out, norm)?.launch(&*self.backend, x.dtype(), rows)?;
        Ok(out)
    }

    fn add_norm(&self, x: &Tensor, y: &Tensor, norm: &Norm) -> Result<(Tensor, Tensor)> {
        let (rows, width) = rows_of(x)?;
        if !norms(x, width) || !norms(y, width) || x.dims() != y.dims() || x.dtype() != y.dtype() {
            return CandleKernels.add_norm(x, y, norm);
        }
        let (sum, out) = (empty_like(x)?, empty_like(x)?);
        launch::Norm::new(x, Some((y, &sum)), &out, norm)?.launch(&*self.backend, x.dtype(), rows)?;
        Ok((sum, out))
    }

    fn swiglu(&self, gate_up: &Tensor) -> Result<Tensor> {
        let (rows, both) = rows_of(gate_up)?;
        let width = both / 2;
        if !packed(gate_up, width) {
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

    fn rotate(&self, qkv: &Tensor, kv: &(Tensor, Tensor), positions: &SequencePositions) -> Result<Tensor> {
        let (rows, tokens, all, size) = qkv.dims4()?;
        let (_, key_heads, capacity, _) = kv.0.dims4()?;
        let heads = all - 2 * key_heads;
        if pack(qkv.dtype()).is_none() || !qkv.is_contiguous() {
            return CandleKernels.rotate(qkv, kv, positions);
        }
        if positions.first + tokens > capacity {
            candle_core::bail!(
                "a cache of {capacity} slots has no room for {tokens} after {}",
                positions.first
            );
        }
        let q = empty(&[rows, tokens, heads, size], qkv.dtype(), qkv)?;
        let args = Rotate {
            qkv: pointer(qkv)?,
            q: pointer(&q)?,
            keys: pointer(&kv.0)?,
            values: pointer(&kv.1)?,
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
        args.launch(&*self.backend, qkv.dtype(), rows)?;
        q.transpose(1, 2)
    }

    fn attention(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        positions: Option<&SequencePositions>,
    ) -> Result<Tensor> {
        let (rows, heads, queries, size) = q.dims4()?;
        let (_, key_heads, keys, _) = k.dims4()?;
        let takes = q.dtype() == DType::BF16 && Attention::SIZES.contains(&size) && queries >= FEW_QUERIES;
        let strides = || Some((strides(q)?, strides(k)?, strides(v)?));
        let (true, Some((q_at, k_at, v_at))) = (takes, strides()) else {
            return CandleKernels.attention(q, k, v, positions);
        };
        let out = empty(&[rows, queries, heads * size], q.dtype(), q)?;
        let args = Attention {
            q: pointer(q)?,
            k: pointer(k)?,
            v: pointer(v)?,
            out: pointer(&out)?,
            starts: positions.map_or(Ok(0), |positions| pointer(positions.starts_tensor()?))?,
            q_at,
            k_at,
            v_at,
            heads: heads as i32,
            group: (heads / key_heads) as i32,
            queries: queries as i32,
            keys: keys as i32,
            first: positions.map_or(0, |positions| positions.first) as i32,
            scale: 1. / (size as f32).sqrt(),
        };
        args.launch(&*self.backend, size, rows)?;
        Ok(out)
    }

    fn patches(&self, tiles: &[u8], lut: &PixelLut, size: PatchSize) -> Result<Tensor> {
        let (PatchSize { side, patch }, grid) = (size, size.grid());
        let width = 3 * patch * patch;
        let tiles_there = tiles.len() / (3 * side * side);
        let count = i32::try_from(tiles_there * grid * grid * width);
        let (Some(_), Ok(count)) = (pack(lut.dtype), count) else {
            return CandleKernels.patches(tiles, lut, size);
        };
        let tiles = self.backend.upload(tiles)?;
        let values = Tensor::from_slice(&lut.values, lut.values.len(), &lut.device)?;
        let out = empty(&[tiles_there, grid * grid, width], lut.dtype, &tiles)?;
        let args = Patches {
            tiles: pointer(&tiles)?,
            levels: pointer(&values)?,
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

/// Vectors in the last dimension: how many, and how wide.
fn rows_of(x: &Tensor) -> Result<(usize, usize)> {
    let width = x.dim(D::Minus1)?;
    Ok((x.elem_count() / width.max(1), width))
}

/// Whether the kernel norms such vectors.
fn norms(x: &Tensor, width: usize) -> bool {
    packed(x, width) && width <= NORM_WIDTH
}

/// Whether vectors of this width can be read 16 bytes at a time.
fn packed(x: &Tensor, width: usize) -> bool {
    x.is_contiguous()
        && pack(x.dtype())
            .is_some_and(|pack| width.is_multiple_of(pack) && x.layout().start_offset().is_multiple_of(pack))
}

/// Distances in a tensor `(rows, heads, tokens, head size)` whose heads can be read 16 bytes at a time.
fn strides(x: &Tensor) -> Option<Strides> {
    let pack = pack(x.dtype())?;
    let [row, head, token, 1] = *x.stride() else { return None };
    let at = [row, head, token, x.layout().start_offset()];
    at.iter().all(|at| at.is_multiple_of(pack)).then_some(Strides {
        row: row as i64,
        head: head as i64,
        token: token as i64,
    })
}
