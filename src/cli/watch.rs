//! What a person sees of work that takes long.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use crate::model::progress::Progress;

/// Time between two drawings.
const DRAWN_EVERY: Duration = Duration::from_millis(100);

/// A line that says how far the work is, until it is dropped.
pub(super) struct Watch {
    spinner: ProgressBar,
    drawn: Mutex<Option<Instant>>,
}

impl Watch {
    /// Says it with `spinner`, which may be hidden.
    pub(super) fn new(spinner: ProgressBar) -> Self {
        Self {
            spinner,
            drawn: Mutex::new(None),
        }
    }

    /// Shows how far the work is, unless it was just shown.
    pub(super) fn tell(&self, progress: Progress) {
        if self.spinner.is_hidden() {
            return;
        }
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        if drawn.is_some_and(|drawn| drawn.elapsed() < DRAWN_EVERY) {
            return;
        }
        *drawn = Some(Instant::now());
        self.spinner.set_message(text_of(&progress));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.spinner.finish_and_clear();
    }
}

fn text_of(progress: &Progress) -> String {
    let Progress { step, done, total } = progress;
    match (done, total) {
        (done, Some(total)) => format!("{step}: {done} of {total}"),
        (0, None) => step.to_string(),
        (done, None) => format!("{step}: {done}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_reads_well() {
        let text = |done, total| text_of(&Progress::new("sweeping", done, total));
        assert_eq!(text(0, None), "sweeping");
        assert_eq!(text(7, None), "sweeping: 7");
        assert_eq!(text(0, Some(9)), "sweeping: 0 of 9");
    }
}
