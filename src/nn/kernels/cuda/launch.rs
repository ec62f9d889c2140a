//! The launches of the kernels of `kernels.cu`: the argument struct of every kernel in C's layout, and its numbers of
//! blocks and threads. The fields mean what the structs of `kernels.cu` say. The kernels check nothing.

use std::ptr;

use candle_core::{D, DType, Error, Tensor};

use super::{
    super::super::{error::Result, layers},
    backend::Backend,
    tensors::{Pointer, pointer},
};

/// The widest row that `norm` takes, in elements: `NORM_WIDTH` of `kernels.cu`.
pub const NORM_WIDTH: usize = 4096;
/// Most rows that `gemv` takes.
pub const GEMV_MAX_ROWS: usize = 4;
/// Threads of a warp.
const WARP: usize = 32;
/// Threads per block of `patches`, `rotate` and `gemv`.
const THREADS: usize = 256;
/// Queries per block of `attention` for each tile of 16 queries per warp: it has four warps.
const QUERIES: usize = 64;
/// Multiprocessors of a large GPU: the H100's SXM version and the H200 have 132 (NVIDIA's data sheets).
const MULTIPROCESSORS: usize = 132;
/// Blocks of `decode_attention` that keep a large GPU busy, and the most splits of a sequence: `DECODE_SPLITS` of
/// `kernels.cu`.
pub const DECODE_BLOCKS: usize = 5 * MULTIPROCESSORS;
/// Fewest slots in a split of `decode_attention`: fewer take less time than starting a block for them.
const MIN_SLOTS_PER_SPLIT: usize = 64;

/// Threads per block of `norm`, `swiglu`, `embed`, `attention` and `decode_attention`.
const ROW_THREADS: usize = 128;
/// Threads per block of `argmax`: `ARGMAX_THREADS` of `kernels.cu`.
const ARGMAX_THREADS: usize = 1024;

/// Elements in 16 bytes, which the kernels load at once. None if the kernels do not support the format.
pub fn pack_size(dtype: DType) -> Option<usize> {
    matches!(dtype, DType::F32 | DType::BF16).then(|| 16 / dtype.size_in_bytes())
}

/// Launches a kernel. `A` must be its argument struct.
fn launch<A: Copy>(
    backend: &dyn Backend,
    kernel: String,
    blocks: [usize; 3],
    threads: usize,
    args: &A,
) -> Result<()> {
    let blocks = blocks.map(u32::try_from);
    let [Ok(x), Ok(y), Ok(z)] = blocks else { candle_core::bail!("{kernel}: too many blocks ({blocks:?})") };
    // SAFETY: every caller below names the kernel that takes its struct, and fills it with addresses of live tensors.
    unsafe {
        backend.launch(&kernel, [x, y, z], threads as u32, (ptr::from_ref(args).cast(), size_of::<A>()))
    }
}

/// The name of a kernel's version for a number format.
fn typed(kernel: &str, dtype: DType) -> String {
    format!("{kernel}_{}", dtype.as_str())
}

/// Arguments of `patches`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Patches {
    pub tiles: Pointer,
    pub lut: Pointer,
    pub out: Pointer,
    pub count: i32,
    pub side: i32,
    pub grid: i32,
    pub patch: i32,
}

impl Patches {
    /// Starts the kernel.
    pub fn launch(&self, backend: &dyn Backend, dtype: DType) -> Result<()> {
        let blocks = (self.count as usize).div_ceil(THREADS);
        launch(backend, typed("patches", dtype), [blocks, 1, 1], THREADS, self)
    }
}

/// Arguments of `norm`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Norm {
    pub x: Pointer,
    pub add: Pointer,
    pub sum: Pointer,
    pub out: Pointer,
    pub weight: Pointer,
    pub shift: Pointer,
    pub width: i32,
    pub eps: f32,
}

impl Norm {
    /// Arguments that write the norm of `x`, `(…, width)`, to `out`. `add` holds a tensor to add first, and the tensor
    /// that receives the sum.
    pub fn new(
        x: &Tensor,
        add: Option<(&Tensor, &Tensor)>,
        out: &Tensor,
        norm: &layers::Norm,
    ) -> Result<Self> {
        let (add, sum) =
            add.map_or(Ok((0, 0)), |(add, sum)| Ok::<_, Error>((pointer(add)?, pointer(sum)?)))?;
        Ok(Self {
            x: pointer(x)?,
            add,
            sum,
            out: pointer(out)?,
            weight: pointer(&norm.weight)?,
            shift: norm.shift.as_ref().map_or(Ok(0), pointer)?,
            width: x.dim(D::Minus1)? as i32,
            eps: norm.eps,
        })
    }

    /// Starts the kernel.
    pub fn launch(&self, backend: &dyn Backend, dtype: DType, rows: usize) -> Result<()> {
        launch(backend, typed("norm", dtype), [rows, 1, 1], ROW_THREADS, self)
    }
}

/// Arguments of `swiglu`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Swiglu {
    pub gate_up: Pointer,
    pub out: Pointer,
    pub width: i32,
}

impl Swiglu {
    /// Arguments that read `gate_up`, `(…, 2 * width)`, and write `out`, `(…, width)`.
    pub fn new(gate_up: &Tensor, out: &Tensor) -> Result<Self> {
        Ok(Self { gate_up: pointer(gate_up)?, out: pointer(out)?, width: out.dim(D::Minus1)? as i32 })
    }

    /// Starts the kernel.
    pub fn launch(&self, backend: &dyn Backend, dtype: DType, rows: usize) -> Result<()> {
        launch(backend, typed("swiglu", dtype), [rows, 1, 1], ROW_THREADS, self)
    }
}

/// Arguments of `rotate`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Rotate {
    pub qkv: Pointer,
    pub q: Pointer,
    pub keys: Pointer,
    pub values: Pointer,
    pub cos: Pointer,
    pub sin: Pointer,
    pub starts: Pointer,
    pub len: Pointer,
    pub first: i32,
    pub tokens: i32,
    pub heads: i32,
    pub key_heads: i32,
    pub size: i32,
    pub capacity: i32,
    pub positions: i32,
}

impl Rotate {
    /// Starts the kernel.
    pub fn launch(&self, backend: &dyn Backend, dtype: DType, sequences: usize) -> Result<()> {
        launch(backend, typed("rotate", dtype), [sequences * self.tokens as usize, 1, 1], THREADS, self)
    }
}

/// Strides of a tensor `(sequences, heads, tokens, head size)` with contiguous heads, in elements.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Strides {
    pub sequence: i64,
    pub head: i64,
    pub token: i64,
}

/// Arguments of `attention`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Attention {
    pub q: Pointer,
    pub k: Pointer,
    pub v: Pointer,
    pub out: Pointer,
    pub starts: Pointer,
    pub q_strides: Strides,
    pub k_strides: Strides,
    pub v_strides: Strides,
    pub heads: i32,
    pub group: i32,
    pub queries: i32,
    pub keys: i32,
    pub first: i32,
    pub scale: f32,
}

impl Attention {
    /// Head sizes that the kernel supports.
    pub const SIZES: [usize; 2] = [64, 72];

    /// Starts the kernel.
    pub fn launch(&self, backend: &dyn Backend, size: usize, sequences: usize) -> Result<()> {
        let blocks =
            |tiles| [(self.queries as usize).div_ceil(QUERIES * tiles), self.heads as usize, sequences];
        // Two tiles per warp use each loaded key twice. One tile gives enough blocks for all multiprocessors.
        let tiles = if blocks(2).iter().product::<usize>() < MULTIPROCESSORS { 1 } else { 2 };
        launch(backend, format!("attention_{size}_{tiles}"), blocks(tiles), ROW_THREADS, self)
    }
}

/// Arguments of `decode_attention`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct DecodeAttention {
    pub q: Pointer,
    pub keys: Pointer,
    pub values: Pointer,
    pub out: Pointer,
    pub starts: Pointer,
    pub len: Pointer,
    pub partials: Pointer,
    pub finished: Pointer,
    pub key_heads: i32,
    pub capacity: i32,
    pub splits: i32,
    pub scale: f32,
}

impl DecodeAttention {
    /// Head sizes that the kernel supports.
    pub const SIZES: [usize; 2] = [32, 64];
    /// Most query heads per key head.
    pub const MAX_GROUP: usize = 4;

    /// The number of splits of `slots` slots, each with a block of its own, if one split would give `blocks` blocks.
    pub fn splits(slots: usize, blocks: usize) -> usize {
        DECODE_BLOCKS.div_ceil(blocks).min(slots.div_ceil(MIN_SLOTS_PER_SPLIT)).max(1)
    }

    /// Starts the kernel. `size` is the head size, `group` the number of query heads per key head.
    pub fn launch(
        &self,
        backend: &dyn Backend,
        dtype: DType,
        sequences: usize,
        (size, group): (usize, usize),
    ) -> Result<()> {
        let blocks = [self.splits as usize, self.key_heads as usize, sequences];
        launch(backend, typed(&format!("decode_attention_{size}_{group}"), dtype), blocks, ROW_THREADS, self)
    }
}

/// Arguments of `gemv`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Gemv {
    pub x: Pointer,
    pub norm: Pointer,
    pub weight: Pointer,
    pub out: Pointer,
    pub inputs: i32,
    pub outputs: i32,
    pub eps: f32,
}

/// What [`Gemv`] does with a dot product.
#[derive(Clone, Copy, Debug)]
pub enum Epilogue {
    /// Stores it.
    Keep,
    /// Adds it to the output.
    Add,
    /// There are two: stores silu of the first times the second.
    Swiglu,
    /// Stores it in f32.
    Logits,
}

impl Gemv {
    /// Starts the kernel.
    pub fn launch(&self, backend: &dyn Backend, dtype: DType, rows: usize, epilogue: Epilogue) -> Result<()> {
        let kernel = match epilogue {
            Epilogue::Keep => "gemv_keep",
            Epilogue::Add => "gemv_add",
            Epilogue::Swiglu => "gemv_swiglu",
            Epilogue::Logits => "gemv_logits",
        };
        let blocks = (self.outputs as usize).div_ceil(THREADS / WARP);
        launch(backend, typed(&format!("{kernel}_{rows}"), dtype), [blocks, 1, 1], THREADS, self)
    }
}

/// Arguments of `embed`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Embed {
    pub table: Pointer,
    pub ids: Pointer,
    pub out: Pointer,
    pub vocab: i32,
    pub width: i32,
}

impl Embed {
    /// Starts the kernel.
    pub fn launch(&self, backend: &dyn Backend, dtype: DType, sequences: usize) -> Result<()> {
        launch(backend, typed("embed", dtype), [sequences, 1, 1], ROW_THREADS, self)
    }
}

/// Arguments of `argmax`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Argmax {
    pub scores: Pointer,
    pub ids: Pointer,
    pub len: Pointer,
    pub vocab: i32,
}

impl Argmax {
    /// Starts the kernel.
    pub fn launch(&self, backend: &dyn Backend, sequences: usize) -> Result<()> {
        launch(backend, "argmax".into(), [sequences, 1, 1], ARGMAX_THREADS, self)
    }
}
