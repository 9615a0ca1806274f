//! What a run cost: CPU time of server, client and everything else, and the server's peak memory.
//!
//! All of it comes from procfs, in clock ticks of 10 ms. A server is the processes named on the
//! command line with all their descendants, whose time also counts after they have ended and been
//! waited for.

use std::collections::HashMap;
use std::fs;

/// Ticks a second in procfs: fixed in Linux's interface to programs (USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;

/// The processes of a server.
pub(crate) struct Server {
    roots: Vec<u32>,
}

/// CPU ticks used since boot or start of the process.
#[derive(Clone, Copy, Debug)]
struct Ticks {
    server: u64,
    client: u64,
    machine: u64,
    stolen: u64,
}

/// A reading to which a later one is compared.
pub(crate) struct Reading(Ticks);

/// CPU seconds between two readings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// By the server's processes.
    pub server_s: f64,
    /// By this process.
    pub client_s: f64,
    /// By anything else on the machine, the kernel's own threads included.
    pub other_s: f64,
    /// Taken by the hypervisor for others.
    pub stolen_s: f64,
}

impl Server {
    /// A server made of these processes and their descendants.
    pub(crate) fn new(roots: Vec<u32>) -> Self {
        Self { roots }
    }

    /// Makes the peak start again from what is resident now, where the kernel permits.
    pub(crate) fn reset_peak(&self) {
        for pid in self.family() {
            // Refused to other users; then the peak is that since the process began.
            let _refused = fs::write(format!("/proc/{pid}/clear_refs"), "5");
        }
    }

    /// Peak resident memory in 10^6 bytes, summed over the processes; `None` without any.
    pub(crate) fn peak_rss_mb(&self) -> Option<f64> {
        let peaks: Vec<f64> = self.family().into_iter().filter_map(peak_kib).collect();
        (!peaks.is_empty()).then(|| peaks.iter().sum::<f64>() * 1024.0 / 1e6)
    }

    /// Reads all clocks.
    pub(crate) fn read(&self) -> Reading {
        let server = self.family().into_iter().filter_map(process_ticks).sum();
        let client = process_ticks(std::process::id()).unwrap_or(0);
        let (machine, stolen) = machine_ticks();
        Reading(Ticks {
            server,
            client,
            machine,
            stolen,
        })
    }

    /// What was used since `earlier`.
    pub(crate) fn cost_since(&self, earlier: &Reading) -> Cost {
        let Reading(before) = earlier;
        let Reading(now) = self.read();
        let server_s = seconds(before.server, now.server);
        let client_s = seconds(before.client, now.client);
        let other_s = seconds(before.machine, now.machine) - server_s - client_s;
        Cost {
            server_s,
            client_s,
            other_s: other_s.max(0.0),
            stolen_s: seconds(before.stolen, now.stolen),
        }
    }

    fn family(&self) -> Vec<u32> {
        if self.roots.is_empty() {
            return Vec::new();
        }
        let parents: HashMap<u32, u32> = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter_map(|pid| Some((pid, stat_field(pid, 4)?.try_into().ok()?)))
            .collect();
        let mut family = self.roots.clone();
        let mut seen = 0;
        while let Some(&parent) = family.get(seen) {
            for (&child, _) in parents.iter().filter(|(_, of)| **of == parent) {
                if !family.contains(&child) {
                    family.push(child);
                }
            }
            seen += 1;
        }
        family
    }
}

fn seconds(before: u64, now: u64) -> f64 {
    now.saturating_sub(before) as f64 / TICKS_PER_SECOND
}

/// User and system time of a process and of the children it has waited for.
fn process_ticks(pid: u32) -> Option<u64> {
    let stat = stat_fields(pid)?;
    (14..=17).map(|number| field(&stat, number)).sum()
}

/// Busy and stolen time of all cores.
fn machine_ticks() -> (u64, u64) {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|ticks| ticks.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal; guest time is within user time.
    let busy = [0, 1, 2, 5, 6].iter().filter_map(|&at| ticks.get(at)).sum();
    (busy, ticks.get(7).copied().unwrap_or(0))
}

fn peak_kib(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn stat_field(pid: u32, number: usize) -> Option<u64> {
    field(&stat_fields(pid)?, number)
}

/// `/proc/PID/stat` behind the name, which may itself hold spaces and parentheses.
fn stat_fields(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(')')?.1.to_owned())
}

/// A field by its number in proc(5); the text begins with the third.
fn field(stat: &str, number: usize) -> Option<u64> {
    stat.split_whitespace().nth(number - 3)?.parse().ok()
}
