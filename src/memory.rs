//! The C library's allocator. By default it gives each new thread an arena of its own, up to eight a core, and keeps the
//! peak of each: cameras that come and go, with their decoders' threads, would make the process grow for days.

/// How many arenas all threads share.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 2;

/// Limits how many arenas there are. To be called before there are threads. `MALLOC_ARENA_MAX` in the environment goes
/// before it.
pub fn limit_arenas() {
    #[cfg(target_env = "gnu")]
    if std::env::var_os("MALLOC_ARENA_MAX").is_none() {
        // SAFETY: it sets a number inside the allocator, under the allocator's own lock.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) };
    }
}

/// Gives memory that is free back to the system: for after something large has ended.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it returns free pages, under the allocator's own locks.
    unsafe {
        libc::malloc_trim(0)
    };
}
