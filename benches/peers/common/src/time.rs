//! Repeating and reporting, by the rule of `radiograd bench`: at most `runs`, and no run starts after `seconds` once
//! there are three; where the first run alone takes longer, it stays at one.

use std::time::Instant;

/// Runs after the first that are not timed.
const WARM_UP: usize = 2;

#[derive(Clone, Copy)]
pub struct Budget {
    pub runs: usize,
    pub seconds: f64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { runs: 30, seconds: 5.0 }
    }
}

/// What is measured, and since when the program works on it.
pub struct Clock {
    framework: String,
    version: &'static str,
    name: String,
    budget: Budget,
    start: Instant,
}

/// All runs in seconds, and the first, which is not one of them.
pub struct Times {
    framework: String,
    version: &'static str,
    name: String,
    first: f64,
    seconds: Vec<f64>,
}

impl Clock {
    pub fn start(framework: String, version: &'static str, name: &str, budget: Budget) -> Self {
        Self { framework, version, name: name.into(), budget, start: Instant::now() }
    }

    /// Times `f`.
    ///
    /// # Errors
    /// The first of `f`.
    pub fn measure(&self, mut f: impl FnMut() -> Result<(), String>) -> Result<Times, String> {
        self.measure_after(|| Ok(()), |()| f())
    }

    /// Times `f` on what `prepare` gives; `prepare` itself is not timed, except before the first run.
    ///
    /// # Errors
    /// The first of either.
    pub fn measure_after<T>(
        &self,
        mut prepare: impl FnMut() -> Result<T, String>,
        mut f: impl FnMut(T) -> Result<(), String>,
    ) -> Result<Times, String> {
        let value = prepare()?;
        f(value)?;
        let first = self.start.elapsed().as_secs_f64();
        // Tuning and the search for fusions go on in the next runs.
        for _ in 0..WARM_UP {
            let value = prepare()?;
            f(value)?;
        }
        let mut seconds = Vec::new();
        let start = Instant::now();
        loop {
            let value = prepare()?;
            let run = Instant::now();
            f(value)?;
            seconds.push(run.elapsed().as_secs_f64());
            let spent = start.elapsed().as_secs_f64() >= self.budget.seconds;
            if seconds.len() >= self.budget.runs || spent && (seconds.len() >= 3 || seconds.len() == 1) {
                break;
            }
        }
        Ok(Times { framework: self.framework.clone(), version: self.version, name: self.name.clone(), first, seconds })
    }
}

impl Times {
    /// Prints one line. `check` is the loss, or the mean of the result: it shows that something was computed.
    pub fn report(&self, direction: &str, check: f32) {
        let check = if check.is_finite() { format!("{check:e}") } else { "null".into() };
        println!(
            r#"{{"framework":"{}","version":"{}","name":"{}","direction":"{direction}","first":{},"seconds":{:?},"check":{check}}}"#,
            self.framework, self.version, self.name, self.first, self.seconds,
        );
    }
}
