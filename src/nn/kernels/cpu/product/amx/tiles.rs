//! The tiles of AMX: what the processor has of it, and how tiles are set up.

use std::{
    arch::{
        asm,
        x86_64::{__cpuid, __cpuid_count},
    },
    cell::Cell,
    ptr,
    sync::LazyLock,
};

/// Rows of a tile.
pub const TILE_ROWS: usize = 16;
/// Words in a row of a tile.
pub const TILE_WORDS: usize = 16;
/// Outputs of a panel: two tiles.
pub const OUTPUTS: usize = 32;
/// The feature that multiplies bf16 numbers, in `edx` of leaf 7.
pub const BF16: u32 = 1 << 22;
/// The feature that multiplies 8-bit integers, in the same place.
pub const INT8: u32 = 1 << 25;

/// The features of this processor that the system lets this process use. It is asked once: tiles are large, so that a
/// process has to ask for them.
static FEATURES: LazyLock<u32> = LazyLock::new(|| {
    const TILE: u32 = 1 << 24;
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    let features = if __cpuid(0).eax >= 7 { __cpuid_count(7, 0).edx } else { 0 };
    // SAFETY: the call takes two numbers and touches no memory of ours.
    let permitted =
        || unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 };
    if is_x86_feature_detected!("avx512f") && features & TILE != 0 && permitted() { features } else { 0 }
});

/// Whether tiles of these numbers can be multiplied.
pub fn supports(numbers: u32) -> bool {
    *FEATURES & numbers != 0
}

/// What `ldtilecfg` reads.
#[repr(C, align(64))]
pub struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes_per_row: [u16; 16],
    rows: [u8; 16],
}

impl TileConfig {
    /// Eight tiles of so many rows.
    pub const fn new(rows: [usize; 8]) -> Self {
        let mut config =
            Self { palette: 1, start_row: 0, reserved: [0; 14], bytes_per_row: [0; 16], rows: [0; 16] };
        let mut tile = 0;
        while tile < rows.len() {
            config.bytes_per_row[tile] = 4 * TILE_WORDS as u16;
            config.rows[tile] = rows[tile] as u8;
            tile += 1;
        }
        config
    }
}

thread_local! {
    /// How this thread's tiles are set up: doing that anew for every product takes a tenth of its time.
    static CURRENT: Cell<*const TileConfig> = const { Cell::new(ptr::null()) };
}

/// Sets up this thread's tiles.
///
/// # Safety
/// The processor has tiles.
#[inline(always)]
pub unsafe fn set_up(config: &'static TileConfig) {
    CURRENT.with(|current| {
        if !ptr::eq(current.get(), config) {
            // SAFETY: the caller's; nothing else in this process uses tiles.
            unsafe { asm!("ldtilecfg [{}]", in(reg) config, options(nostack)) };
            current.set(config);
        }
    });
}
