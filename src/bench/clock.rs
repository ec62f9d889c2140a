//! What a stretch of work took: wall time, time of all threads on the CPU, memory.

use std::{fs, time::Instant};

use anyhow::{Context, Result};

/// Started before the work, asked after it.
pub struct Clock {
    wall: Instant,
    cpu: Option<f64>,
}

/// What was spent, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// On the wall.
    pub wall: f64,
    /// By all threads on the CPU; nothing where the kernel does not count it.
    pub cpu: Option<f64>,
}

impl Clock {
    pub fn start() -> Self {
        Self { cpu: cpu_seconds(), wall: Instant::now() }
    }

    /// What was spent since the start.
    pub fn spent(&self) -> Spent {
        let wall = self.wall.elapsed().as_secs_f64();
        Spent { wall, cpu: cpu_seconds().zip(self.cpu).map(|(now, then)| now - then) }
    }
}

/// Time that this process's threads have spent on the CPU (`schedstat`: nanoseconds come first).
/// No thread ends while the model works.
fn cpu_seconds() -> Option<f64> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir("/proc/self/task").ok()? {
        let stat = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        nanoseconds += stat.split(' ').next()?.parse::<u64>().ok()?;
    }
    Some(nanoseconds as f64 / 1e9)
}

/// Bytes of the most memory that this process has held (`VmHWM`) since [`forget_peak`].
pub fn peak_memory() -> Result<usize> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<usize>()? << 10)
}

/// Makes the peak what is held now (`clear_refs` in proc(5)).
pub fn forget_peak() -> Result<()> {
    Ok(fs::write("/proc/self/clear_refs", "5")?)
}
