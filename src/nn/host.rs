//! What Linux reports about the machine.

use std::{fs, path::Path};

/// The processor's name from `/proc/cpuinfo`.
pub fn processor() -> Option<String> {
    let info = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().into())
}

/// Bytes that this process may still take before the machine runs short of memory or the limit of a control group
/// is reached (proc_meminfo(5); memory.max and memory.stat of the kernel's cgroup v2).
pub fn available_memory() -> Option<usize> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let free = line.trim().strip_suffix(" kB")?.parse::<usize>().ok()? * 1024;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let root = Path::new("/sys/fs/cgroup");
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).map(|group| root.join(group));
    // The groups above it may have limits, too.
    let above = own.iter().flat_map(|group| group.ancestors()).take_while(|group| group.starts_with(root));
    Some(above.filter_map(left_of_limit).fold(free, usize::min))
}

/// Bytes that the group may still take. None if it has no limit.
fn left_of_limit(group: &Path) -> Option<usize> {
    let read = |name: &str| fs::read_to_string(group.join(name)).ok();
    let bytes = |name: &str| read(name)?.trim().parse::<usize>().ok();
    let (most, taken) = (bytes("memory.max")?, bytes("memory.current")?);
    let stat = read("memory.stat")?;
    let of = |name: &str| stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<usize>().ok());
    // The page cache is freed when memory is needed, except for files that exist in memory only.
    let files = of("file ")?.saturating_sub(of("shmem ")?);
    Some((most + files).saturating_sub(taken))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_respects_the_limit_of_the_control_group() {
        assert!(available_memory() > Some(1 << 20));
        let group = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(group.path().join(name), text).unwrap();
        write("memory.max", "max\n");
        write("memory.current", "700\n");
        write("memory.stat", "anon 400\nfile 300\nshmem 50\nfile_mapped 9\n");
        assert_eq!(left_of_limit(group.path()), None);
        write("memory.max", "1000\n");
        assert_eq!(left_of_limit(group.path()), Some(550));
    }
}
