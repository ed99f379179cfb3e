//! Ctrl-C as a terminal sends it, at moments that do not depend on how fast the machine is.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Ctrl-C. A program that has ended takes it without a word as long as nobody waited for it.
pub fn interrupt(child: &Child) {
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    assert!(sent.success());
}

/// Waits until the program has a handler for Ctrl-C and has computed for half a second; where the system does not tell, two seconds.
#[allow(dead_code, reason = "where a program shows its progress that is enough")]
pub fn until_at_work(child: &Child) {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", child.id()));
        let (Ok(status), Ok(stat)) = (read("status"), read("stat")) else {
            std::thread::sleep(Duration::from_secs(2));
            return;
        };
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        // SIGINT is number 2, the second bit.
        let caught = caught.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & 2 != 0));
        // Behind the name, which may hold anything: hundredths of a second in the program and in the system are fields 12 and 13.
        let fields = stat.rsplit(')').next().expect("fields").split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum();
        if caught && ticks >= 50 {
            return;
        }
        assert!(Instant::now() < end, "not at work, {ticks} ticks: {status}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
