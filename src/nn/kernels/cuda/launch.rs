//! What `kernels.cu` is asked for: the arguments of every kernel, as C lays them out, and how many blocks of
//! how many threads it is launched with. The kernels trust these numbers.

use std::ptr;

use candle_core::{D, DType, Error, Tensor};

use super::{
    super::super::{error::Result, layers},
    backend::Backend,
    tensors::{Pointer, pointer},
};

/// `NORM_WIDTH` there.
pub const NORM_WIDTH: usize = 4096;
/// Most rows that there is a `gemv` for.
pub const GEMV_ROWS: usize = 4;
/// Lanes that run in step.
const WARP: usize = 32;
/// Threads of kernels that have one for each number or pack.
const THREADS: usize = 256;
/// Queries of a block of `attention` for each tile of 16 that its warps have.
const QUERIES: usize = 64;
/// Multiprocessors of a large GPU.
const PROCESSORS: usize = 132;
/// Blocks of attention of one query a row that keep them busy; `DECODE_SPLITS` there.
pub const DECODE_BLOCKS: usize = 5 * PROCESSORS;
/// Fewer slots are not worth a block.
const FEW_SLOTS: usize = 64;

/// Threads of `norm`, `swiglu` and `embed`, and of the two kinds of attention.
const ROW_THREADS: usize = 128;
/// `ARGMAX_THREADS` there.
const ARGMAX_THREADS: usize = 1024;

/// Numbers in 16 bytes, where kernels know the format.
pub fn pack(dtype: DType) -> Option<usize> {
    matches!(dtype, DType::F32 | DType::BF16).then(|| 16 / dtype.size_in_bytes())
}

fn launch<A: Copy>(
    backend: &dyn Backend,
    kernel: String,
    blocks: [usize; 3],
    threads: usize,
    args: &A,
) -> Result<()> {
    let blocks = blocks.map(u32::try_from);
    let [Ok(x), Ok(y), Ok(z)] = blocks else {
        candle_core::bail!("{kernel}: {blocks:?} blocks are too many")
    };
    // SAFETY: every function below names the kernel that takes its own struct.
    unsafe {
        backend.launch(&kernel, [x, y, z], threads as u32, (ptr::from_ref(args).cast(), size_of::<A>()))
    }
}

/// A kernel for each number format.
fn of(kernel: &str, dtype: DType) -> String {
    format!("{kernel}_{}", dtype.as_str())
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Patches {
    pub tiles: Pointer,
    pub levels: Pointer,
    pub out: Pointer,
    pub count: i32,
    pub side: i32,
    pub grid: i32,
    pub patch: i32,
}

impl Patches {
    pub fn launch(&self, backend: &dyn Backend, dtype: DType) -> Result<()> {
        let blocks = (self.count as usize).div_ceil(THREADS);
        launch(backend, of("patches", dtype), [blocks, 1, 1], THREADS, self)
    }
}

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
    /// Norms `x` into `out`; what is added first comes with the place of the sum.
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

    pub fn launch(&self, backend: &dyn Backend, dtype: DType, rows: usize) -> Result<()> {
        launch(backend, of("norm", dtype), [rows, 1, 1], ROW_THREADS, self)
    }
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Swiglu {
    pub gate_up: Pointer,
    pub out: Pointer,
    pub width: i32,
}

impl Swiglu {
    /// Of `gate_up`, `(…, 2 * width)`, into `out`, `(…, width)`.
    pub fn new(gate_up: &Tensor, out: &Tensor) -> Result<Self> {
        Ok(Self { gate_up: pointer(gate_up)?, out: pointer(out)?, width: out.dim(D::Minus1)? as i32 })
    }

    pub fn launch(&self, backend: &dyn Backend, dtype: DType, rows: usize) -> Result<()> {
        launch(backend, of("swiglu", dtype), [rows, 1, 1], ROW_THREADS, self)
    }
}

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
    pub fn launch(&self, backend: &dyn Backend, dtype: DType, rows: usize) -> Result<()> {
        launch(backend, of("rotate", dtype), [rows * self.tokens as usize, 1, 1], THREADS, self)
    }
}

/// Distances between rows, heads and tokens, in numbers.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Strides {
    pub row: i64,
    pub head: i64,
    pub token: i64,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Attention {
    pub q: Pointer,
    pub k: Pointer,
    pub v: Pointer,
    pub out: Pointer,
    pub starts: Pointer,
    pub q_at: Strides,
    pub k_at: Strides,
    pub v_at: Strides,
    pub heads: i32,
    pub group: i32,
    pub queries: i32,
    pub keys: i32,
    pub first: i32,
    pub scale: f32,
}

impl Attention {
    /// Sizes of a head that there is a kernel for.
    pub const SIZES: [usize; 2] = [64, 72];

    pub fn launch(&self, backend: &dyn Backend, size: usize, rows: usize) -> Result<()> {
        let blocks = |tiles| [(self.queries as usize).div_ceil(QUERIES * tiles), self.heads as usize, rows];
        // Two tiles use what is read twice; but idle processors use nothing.
        let tiles = if blocks(2).iter().product::<usize>() < PROCESSORS { 1 } else { 2 };
        launch(backend, format!("attention_{size}_{tiles}"), blocks(tiles), ROW_THREADS, self)
    }
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct DecodeAttention {
    pub q: Pointer,
    pub keys: Pointer,
    pub values: Pointer,
    pub out: Pointer,
    pub starts: Pointer,
    pub len: Pointer,
    pub parts: Pointer,
    pub done: Pointer,
    pub key_heads: i32,
    pub capacity: i32,
    pub splits: i32,
    pub scale: f32,
}

impl DecodeAttention {
    /// Sizes of a head that there is a kernel for.
    pub const SIZES: [usize; 2] = [32, 64];
    /// Most heads that share keys.
    pub const MOST_HEADS: usize = 4;

    /// Parts that `slots` slots are looked at in, by a block each, where so many blocks there are anyway.
    pub fn splits(slots: usize, blocks: usize) -> usize {
        DECODE_BLOCKS.div_ceil(blocks).min(slots.div_ceil(FEW_SLOTS)).max(1)
    }

    /// `group`: heads that share keys.
    pub fn launch(
        &self,
        backend: &dyn Backend,
        dtype: DType,
        rows: usize,
        (size, group): (usize, usize),
    ) -> Result<()> {
        let blocks = [self.splits as usize, self.key_heads as usize, rows];
        launch(backend, of(&format!("decode_attention_{size}_{group}"), dtype), blocks, ROW_THREADS, self)
    }
}

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

/// What becomes of a sum of [`Gemv`].
#[derive(Clone, Copy, Debug)]
pub enum Epilogue {
    /// It is the output.
    Keep,
    /// It is added to the output.
    Add,
    /// There are two: silu of the first times the second.
    Swiglu,
    /// It is the output, in f32.
    Scores,
}

impl Gemv {
    pub fn launch(&self, backend: &dyn Backend, dtype: DType, rows: usize, then: Epilogue) -> Result<()> {
        let kernel = match then {
            Epilogue::Keep => "gemv_keep",
            Epilogue::Add => "gemv_add",
            Epilogue::Swiglu => "gemv_swiglu",
            Epilogue::Scores => "gemv_scores",
        };
        let blocks = (self.outputs as usize).div_ceil(THREADS / WARP);
        launch(backend, of(&format!("{kernel}_{rows}"), dtype), [blocks, 1, 1], THREADS, self)
    }
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Embed {
    pub table: Pointer,
    pub ids: Pointer,
    pub out: Pointer,
    pub words: i32,
    pub width: i32,
}

impl Embed {
    pub fn launch(&self, backend: &dyn Backend, dtype: DType, rows: usize) -> Result<()> {
        launch(backend, of("embed", dtype), [rows, 1, 1], ROW_THREADS, self)
    }
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Argmax {
    pub scores: Pointer,
    pub ids: Pointer,
    pub len: Pointer,
    pub words: i32,
}

impl Argmax {
    pub fn launch(&self, backend: &dyn Backend, rows: usize) -> Result<()> {
        launch(backend, "argmax".into(), [rows, 1, 1], ARGMAX_THREADS, self)
    }
}
