//! What a stretch of work took: wall time, time of all threads on the CPU, memory.

use std::{fs, time::Instant};

use anyhow::{Context, Result};

/// Started before the work, asked after it.
pub struct Clock {
    wall: Instant,
    cpu: f64,
}

/// What was spent, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// On the wall.
    pub wall: f64,
    /// By all threads on the CPU.
    pub cpu: f64,
}

impl Clock {
    pub fn start() -> Result<Self> {
        Ok(Self { cpu: cpu_seconds()?, wall: Instant::now() })
    }

    /// What was spent since the start.
    pub fn spent(&self) -> Result<Spent> {
        Ok(Spent { wall: self.wall.elapsed().as_secs_f64(), cpu: cpu_seconds()? - self.cpu })
    }
}

/// Time that this process's threads have spent on the CPU (`schedstat`: nanoseconds come first).
/// No thread ends while the model works.
fn cpu_seconds() -> Result<f64> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir("/proc/self/task")? {
        let stat = fs::read_to_string(thread?.path().join("schedstat"))?;
        nanoseconds += stat.split(' ').next().context("an empty schedstat")?.parse::<u64>()?;
    }
    Ok(nanoseconds as f64 / 1e9)
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
