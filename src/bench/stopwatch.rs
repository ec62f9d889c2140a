//! Measures what work costs this process: wall time, CPU time of all threads, and peak memory.

use std::{fs, time::Instant};

use anyhow::{Context, Result};

/// Measures the time since its start.
pub struct Stopwatch {
    wall: Instant,
    cpu: Option<f64>,
}

/// Times in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Elapsed {
    /// Wall time.
    pub wall: f64,
    /// CPU time of all threads. None if the Linux kernel does not count it.
    pub cpu: Option<f64>,
}

impl Stopwatch {
    pub fn start() -> Self {
        Self { cpu: cpu_seconds(), wall: Instant::now() }
    }

    /// The times since the start.
    pub fn elapsed(&self) -> Elapsed {
        let wall = self.wall.elapsed().as_secs_f64();
        Elapsed { wall, cpu: cpu_seconds().zip(self.cpu).map(|(now, then)| now - then) }
    }
}

/// CPU time of this process's threads in seconds. `schedstat` of a thread begins with its CPU time in nanoseconds
/// (Documentation/scheduler/sched-stats.rst of Linux). Threads that have ended are not counted; none ends while the
/// model works.
fn cpu_seconds() -> Option<f64> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir("/proc/self/task").ok()? {
        let stat = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        nanoseconds += stat.split(' ').next()?.parse::<u64>().ok()?;
    }
    Some(nanoseconds as f64 / 1e9)
}

/// The peak of this process's resident memory since [`reset_peak_memory`], in bytes (`VmHWM` in proc_pid_status(5)).
///
/// # Errors
/// When the file cannot be read or has no such line.
pub fn peak_memory() -> Result<usize> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<usize>()? << 10)
}

/// Makes the current resident memory the peak (`clear_refs` in proc_pid_clear_refs(5)).
///
/// # Errors
/// When the file cannot be written.
pub fn reset_peak_memory() -> Result<()> {
    Ok(fs::write("/proc/self/clear_refs", "5")?)
}
