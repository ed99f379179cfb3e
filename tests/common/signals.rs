//! Ctrl-C as a terminal sends it, at moments that do not depend on how fast the machine is.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Ctrl-C. A program that has ended takes it without a word as long as nobody waited for it.
pub fn interrupt(child: &Child) {
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    assert!(sent.success());
}

/// Waits until the program has a handler for Ctrl-C: where the system does not tell, as long as a slow machine takes to set one.
#[allow(dead_code, reason = "where a program shows its progress that is enough")]
pub fn until_caught(child: &Child) {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let Ok(status) = std::fs::read_to_string(format!("/proc/{}/status", child.id())) else {
            std::thread::sleep(Duration::from_secs(1));
            return;
        };
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        // SIGINT is number 2, the second bit.
        if caught.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & 2 != 0)) {
            return;
        }
        assert!(Instant::now() < end, "no handler for Ctrl-C: {status}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
