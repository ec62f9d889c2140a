//! What the system knows of this process, from proc(5).

use std::{fs, time::Duration};

/// CPU time and start of this process.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// CPU time, of user and system.
    pub cpu: Duration,
    /// The start, since 1970.
    pub started: Duration,
}

/// Resident memory of this process, in bytes: `VmRSS` of proc_pid_status(5), which counts in kB.
pub fn resident() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<usize>().ok()?.checked_mul(1024)
}

/// CPU time and start of this process: fields 14, 15 and 22 of proc_pid_stat(5), in clock ticks, the start since
/// the boot.
pub fn times() -> Option<Times> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field, the name, may hold anything. What is behind it begins with field 3.
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    let seconds = |ticks: u64| Duration::from_secs_f64(ticks as f64 / per_second);
    let system = fs::read_to_string("/proc/stat").ok()?;
    let boot = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(Times {
        cpu: seconds(ticks(14)? + ticks(15)?),
        started: Duration::from_secs(boot) + seconds(ticks(22)?),
    })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn this_process_has_memory_and_began_a_while_ago() {
        let Times { started, .. } = times().unwrap();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        // The clock may have been set since the boot, but hardly by a day.
        assert!(started.abs_diff(now) < Duration::from_secs(86_400), "{started:?} {now:?}");
        assert!(resident().unwrap() > 1_000_000);
    }
}
