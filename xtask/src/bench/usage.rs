//! What the operating system accounts to a process: CPU time and memory.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};

/// Processes whose usage is one target's.
#[derive(Clone, Debug)]
pub(crate) struct Processes(Vec<u32>);

impl Processes {
    /// One process.
    pub(crate) fn of(pid: u32) -> Processes {
        Processes(vec![pid])
    }

    /// The processes that are in the process group `group` now.
    ///
    /// # Errors
    /// There is no /proc, or nobody is in the group.
    pub(crate) fn of_group(group: u32) -> Result<Processes> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").context("cannot read /proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            // It may have ended since it was listed.
            let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            if group_of(&stat) == Some(group) {
                found.push(pid);
            }
        }
        ensure!(!found.is_empty(), "process {group} has ended");
        Ok(Processes(found))
    }

    /// The time that they have been on a core, over all their threads.
    ///
    /// # Errors
    /// One of them has ended.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        let mut nanoseconds = 0;
        for pid in &self.0 {
            let folder = format!("/proc/{pid}/task");
            for thread in fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))? {
                // A thread may have ended since it was listed.
                let text = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
                nanoseconds += on_core(&text).unwrap_or_default();
            }
        }
        ensure!(nanoseconds > 0, "the kernel does not say what threads cost: no schedstat");
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// Their resident memory, in KiB.
    ///
    /// # Errors
    /// One of them has ended.
    pub(crate) fn resident_kib(&self) -> Result<u64> {
        self.status("VmRSS:")
    }

    /// What of it is in no file, in KiB: without the pages of the program itself,
    /// which come as they are used and go as the machine likes.
    ///
    /// # Errors
    /// One of them has ended.
    pub(crate) fn anonymous_kib(&self) -> Result<u64> {
        self.status("RssAnon:")
    }

    fn status(&self, key: &str) -> Result<u64> {
        let mut sum = 0;
        for pid in &self.0 {
            let file = format!("/proc/{pid}/status");
            let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
            sum += value(&text, key).with_context(|| format!("no {key} in {file}"))?;
        }
        Ok(sum)
    }

    /// How many descriptors they have open.
    ///
    /// # Errors
    /// One of them has ended.
    pub(crate) fn descriptors(&self) -> Result<usize> {
        self.entries("fd")
    }

    /// How many threads they have.
    ///
    /// # Errors
    /// One of them has ended.
    pub(crate) fn threads(&self) -> Result<usize> {
        self.entries("task")
    }

    /// How much is in a folder that each has.
    fn entries(&self, name: &str) -> Result<usize> {
        let mut sum = 0;
        for pid in &self.0 {
            let folder = format!("/proc/{pid}/{name}");
            let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))?;
            sum += entries.count();
        }
        Ok(sum)
    }
}

/// The process group in the text of /proc/PID/stat. The name before it may
/// contain anything, parentheses and blanks too.
fn group_of(stat: &str) -> Option<u32> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(2)?.parse().ok()
}

/// Nanoseconds on a core, in the text of /proc/PID/task/TID/schedstat.
fn on_core(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

/// The figure behind a key, in the text of /proc/PID/status.
fn value(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_found_behind_any_name() {
        assert_eq!(group_of("12 (nginx) S 1 77 77 0 -1 4194560"), Some(77));
        assert_eq!(group_of("12 (a) R 9 (b c) S 1 78 77"), Some(78));
        assert_eq!(group_of("12 (cut"), None);
    }

    #[test]
    fn time_and_memory_are_read() {
        assert_eq!(on_core("22074792 23354973 66\n"), Some(22_074_792));
        assert_eq!(on_core(""), None);
        assert_eq!(value("Name:\tlb\nVmHWM:\t 9 kB\nVmRSS:\t    4104 kB\n", "VmRSS:"), Some(4104));
        assert_eq!(value("Name:\tkthreadd\n", "VmRSS:"), None);
    }

    #[test]
    fn this_process_uses_both() {
        let this = Processes(vec![std::process::id()]);
        assert!(this.cpu_time().unwrap() > Duration::ZERO);
        assert!(this.resident_kib().unwrap() > 0);
        assert!(this.descriptors().unwrap() > 2 && this.threads().unwrap() > 0);
    }
}
