//! The model's arithmetic on a GPU where candle's takes more passes over memory than it needs, or more
//! launches. What is computed is said in `ops`; what these kernels cannot take goes there, too.

use std::{ffi::c_void, sync::atomic::AtomicBool};

use candle_core::{CpuStorage, D, DType, Storage, Tensor};

use self::{
    kernels::{Attention, NORM_WIDTH, Patches, Pointer, Rotate, Strides, Swiglu, pack},
    steps::KernelSteps,
};
use super::{
    Result,
    ops::{Levels, Norm, Ops, Places, Plain, Steps},
    text::{Cache, Decoder},
};

#[cfg(test)]
mod emulated;
#[cfg(feature = "cuda")]
mod gpu;
mod kernels;
mod steps;
#[cfg(test)]
mod tests;

#[cfg(feature = "cuda")]
pub use gpu::Gpu;

/// Fewer queries than these leave most of a block of `attention` idle.
const FEW_QUERIES: usize = 16;

/// Where kernels run: a GPU, or for tests the CPU.
pub trait Backend: Send + Sync {
    /// Starts a kernel of `kernels.cu`. `args`: its struct, and that one's size in bytes.
    ///
    /// # Safety
    /// The struct must be the kernel's, and what it points to there, large enough and not freed before
    /// the kernel is through.
    unsafe fn launch(
        &self,
        kernel: &str,
        blocks: [u32; 3],
        threads: u32,
        args: (*const c_void, usize),
    ) -> Result<()>;

    /// `out = x W^T`, where `out` is of the same format or f32.
    fn multiply(&self, out: &Tensor, x: &Tensor, weight: &Tensor) -> Result<()>;

    /// `x W^T + b`, then GELU if that is wanted, where there is a faster way than candle's.
    fn linear(&self, x: &Tensor, weight: &Tensor, bias: &Tensor, gelu: bool) -> Result<Option<Tensor>>;

    /// Bytes that are on their way there when this returns.
    fn upload(&self, bytes: &[u8]) -> Result<Tensor>;

    /// What `work` launches, not run but captured, to be run as often as wanted with one call; nothing
    /// where there is no such thing.
    fn capture(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Option<Box<dyn Graph>>>;
}

/// Launches that were captured.
pub trait Graph {
    /// Runs them.
    ///
    /// # Safety
    /// What they read and write must still be there.
    unsafe fn replay(&self) -> Result<()>;
}

/// Our own operations.
pub struct Kernels {
    backend: Box<dyn Backend>,
    /// Whether steps are captured and replayed, or launched kernel by kernel.
    graphs: AtomicBool,
}

impl Kernels {
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

impl Ops for Kernels {
    fn linear(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        if let Some(bias) = bias
            && let Some(y) = self.backend.linear(x, weight, bias, false)?
        {
            return Ok(y);
        }
        Plain.linear(x, weight, bias)
    }

    fn linear_gelu(&self, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
        match self.backend.linear(x, weight, bias, true)? {
            Some(y) => Ok(y),
            None => Plain.linear_gelu(x, weight, bias),
        }
    }

    fn norm(&self, x: &Tensor, norm: &Norm) -> Result<Tensor> {
        let (rows, width) = rows_of(x)?;
        if !norms(x, width) {
            return Plain.norm(x, norm);
        }
        let out = empty_like(x)?;
        kernels::Norm::new(x, None, &out, norm)?.launch(&*self.backend, x.dtype(), rows)?;
        Ok(out)
    }

    fn add_norm(&self, x: &Tensor, y: &Tensor, norm: &Norm) -> Result<(Tensor, Tensor)> {
        let (rows, width) = rows_of(x)?;
        if !norms(x, width) || !norms(y, width) || x.dims() != y.dims() || x.dtype() != y.dtype() {
            return Plain.add_norm(x, y, norm);
        }
        let (sum, out) = (empty_like(x)?, empty_like(x)?);
        kernels::Norm::new(x, Some((y, &sum)), &out, norm)?.launch(&*self.backend, x.dtype(), rows)?;
        Ok((sum, out))
    }

    fn swiglu(&self, gate_up: &Tensor) -> Result<Tensor> {
        let (rows, both) = rows_of(gate_up)?;
        let width = both / 2;
        if !packed(gate_up, width) {
            return Plain.swiglu(gate_up);
        }
        let mut shape = gate_up.dims().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = width;
        }
        let out = empty(&shape, gate_up.dtype(), gate_up)?;
        Swiglu::new(gate_up, &out)?.launch(&*self.backend, gate_up.dtype(), rows)?;
        Ok(out)
    }

    fn rotate(&self, qkv: &Tensor, kv: &(Tensor, Tensor), places: &Places) -> Result<Tensor> {
        let (rows, tokens, all, size) = qkv.dims4()?;
        let (_, key_heads, capacity, _) = kv.0.dims4()?;
        let heads = all - 2 * key_heads;
        if pack(qkv.dtype()).is_none() || !qkv.is_contiguous() {
            return Plain.rotate(qkv, kv, places);
        }
        if places.first + tokens > capacity {
            candle_core::bail!("a cache of {capacity} slots has no room for {tokens} after {}", places.first);
        }
        let q = empty(&[rows, tokens, heads, size], qkv.dtype(), qkv)?;
        let args = Rotate {
            qkv: pointer(qkv)?,
            q: pointer(&q)?,
            keys: pointer(&kv.0)?,
            values: pointer(&kv.1)?,
            cos: pointer(&places.table.0)?,
            sin: pointer(&places.table.1)?,
            starts: pointer(places.starts_there()?)?,
            len: 0,
            first: places.first as i32,
            tokens: tokens as i32,
            heads: heads as i32,
            key_heads: key_heads as i32,
            size: size as i32,
            capacity: capacity as i32,
            positions: places.table.0.dim(0)? as i32,
        };
        args.launch(&*self.backend, qkv.dtype(), rows)?;
        q.transpose(1, 2)
    }

    fn attention(&self, q: &Tensor, k: &Tensor, v: &Tensor, places: Option<&Places>) -> Result<Tensor> {
        let (rows, heads, queries, size) = q.dims4()?;
        let (_, key_heads, keys, _) = k.dims4()?;
        let takes = q.dtype() == DType::BF16 && Attention::SIZES.contains(&size) && queries >= FEW_QUERIES;
        let strides = || Some((strides(q)?, strides(k)?, strides(v)?));
        let (true, Some((q_at, k_at, v_at))) = (takes, strides()) else {
            return Plain.attention(q, k, v, places);
        };
        let out = empty(&[rows, queries, heads * size], q.dtype(), q)?;
        let args = Attention {
            q: pointer(q)?,
            k: pointer(k)?,
            v: pointer(v)?,
            out: pointer(&out)?,
            starts: places.map_or(Ok(0), |places| pointer(places.starts_there()?))?,
            q_at,
            k_at,
            v_at,
            heads: heads as i32,
            group: (heads / key_heads) as i32,
            queries: queries as i32,
            keys: keys as i32,
            first: places.map_or(0, |places| places.first) as i32,
            scale: 1. / (size as f32).sqrt(),
        };
        args.launch(&*self.backend, size, rows)?;
        Ok(out)
    }

    fn patches(&self, tiles: &[u8], levels: &Levels, (side, patch): (usize, usize)) -> Result<Tensor> {
        let (grid, width) = (side / patch, 3 * patch * patch);
        let tiles_there = tiles.len() / (3 * side * side);
        let count = i32::try_from(tiles_there * grid * grid * width);
        let (Some(_), Ok(count)) = (pack(levels.dtype), count) else {
            return Plain.patches(tiles, levels, (side, patch));
        };
        let tiles = self.backend.upload(tiles)?;
        let values = Tensor::from_slice(&levels.of, levels.of.len(), &levels.device)?;
        let out = empty(&[tiles_there, grid * grid, width], levels.dtype, &tiles)?;
        let args = Patches {
            tiles: pointer(&tiles)?,
            levels: pointer(&values)?,
            out: pointer(&out)?,
            count,
            side: side as i32,
            grid: grid as i32,
            patch: patch as i32,
        };
        args.launch(&*self.backend, levels.dtype)?;
        Ok(out)
    }

    fn steps<'a>(&'a self, decoder: &'a Decoder, cache: &Cache) -> Result<Option<Box<dyn Steps + 'a>>> {
        let steps = KernelSteps::new(&*self.backend, &self.graphs, decoder, cache)?;
        Ok(steps.map(|steps| Box::new(steps) as Box<dyn Steps + 'a>))
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

/// A tensor that a kernel is going to fill.
fn empty(shape: &[usize], dtype: DType, beside: &Tensor) -> Result<Tensor> {
    // SAFETY: whoever asks launches a kernel that writes all of it.
    unsafe { Tensor::empty(shape, dtype, beside.device()) }
}

fn empty_like(x: &Tensor) -> Result<Tensor> {
    empty(x.dims(), x.dtype(), x)
}

/// Where a contiguous part of a tensor, or a view of one, begins.
fn pointer(x: &Tensor) -> Result<Pointer> {
    let (storage, layout) = x.storage_and_layout();
    let first = match &*storage {
        #[cfg(feature = "cuda")]
        Storage::Cuda(storage) => gpu::start(storage)?,
        Storage::Cpu(CpuStorage::F32(numbers)) => numbers.as_ptr() as Pointer,
        Storage::Cpu(CpuStorage::BF16(numbers)) => numbers.as_ptr() as Pointer,
        Storage::Cpu(CpuStorage::U32(numbers)) => numbers.as_ptr() as Pointer,
        Storage::Cpu(CpuStorage::U8(numbers)) => numbers.as_ptr() as Pointer,
        _ => candle_core::bail!("kernels take no {}", x.dtype().as_str()),
    };
    Ok(first + (layout.start_offset() * x.dtype().size_in_bytes()) as Pointer)
}
