//! The life of a job: what may become of it, decided without a database.
//!
//! ```text
//!              claim              finish
//!   waiting ----------> running ----------> done
//!      ^ \                | | \
//!      |  \  fail, more,  | |  \  last attempt
//!      |   \   release    | |   +---------> failed ----+
//!      |    \<------------+ |                 | cancel | retry
//!      |     \              +-------------> cancelled --+
//!      |      +---------------------------> cancelled   |
//!      +-----------------------------------------------+
//! ```
//!
//! A job with a period is a *schedule*: it never ends, and waits for its next time after every run.
//!
//! A claim begins a *run* and counts it. The number of the run is what a lease is: whoever has a smaller one was
//! overtaken, whatever its clock says. So a lease that seems to last too long or too short, because clocks differ,
//! makes a job late or run twice, and never lets the overtaken run change anything.

use crate::model::clock::Millis;
use crate::model::ids::JobId;

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// It runs when its time has come.
    Waiting,
    /// A node has claimed it. When the lease runs out, another may.
    Running,
    /// It came to its end.
    Done,
    /// No attempt came to its end. It can be retried, and waits for an operator until it is retried or cancelled.
    Failed,
    /// An operator did not want it any more. It can be retried.
    Cancelled,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Waiting,
        Self::Running,
        Self::Done,
        Self::Failed,
        Self::Cancelled,
    ];

    /// Its name, in rows and for operators.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Whether only a retry can make it go on.
    pub fn is_ended(self) -> bool {
        match self {
            Self::Waiting | Self::Running => false,
            Self::Done | Self::Failed | Self::Cancelled => true,
        }
    }
}

/// How far a job has come, in units that its type gives a meaning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Units that are done.
    pub done: u64,
    /// All units, as far as they are known.
    pub total: Option<u64>,
}

/// One job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// Its type: the name of the handler that runs it.
    pub kind: String,
    /// Of the jobs of its type with the same key only one waits or runs.
    pub key: Option<String>,
    /// What it is about, a JSON document.
    pub payload: String,
    /// The time between two runs of a schedule.
    pub period: Option<Millis>,
    /// Where it stands.
    pub state: State,
    /// When it may be claimed: at its turn while it waits, at the end of the lease while it runs; never when it
    /// has ended.
    pub due: Option<Millis>,
    /// How often it was claimed.
    pub run: i64,
    /// The node that runs it, or was the last to do so.
    pub node: Option<i64>,
    /// Attempts since it last came forward.
    pub attempt: u32,
    /// It was asked for again while it ran.
    pub again: bool,
    /// The run is to end, and the job with it; what is asked for from then on begins it anew instead.
    pub cancelling: bool,
    /// Where the next run goes on, a JSON document.
    pub checkpoint: Option<String>,
    /// How far it is.
    pub progress: Progress,
    /// What came of its last run that came to an end, a JSON document.
    pub report: Option<String>,
    /// Why the last attempt failed, when it did.
    pub reason: Option<String>,
    /// When it was made.
    pub created: Millis,
    /// When its last run began.
    pub started: Option<Millis>,
    /// When it ended, or the last run of a schedule did.
    pub ended: Option<Millis>,
}

/// Who wants to run a job, and on which terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claimer {
    /// The node.
    pub node: i64,
    /// The time there.
    pub now: Millis,
    /// How long the lease lasts without a renewal.
    pub lease: Millis,
    /// How many attempts a job of this type has.
    pub attempts_max: u32,
}

/// What became of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claimed {
    /// It is the claimer's to run.
    Yes,
    /// Its time has not come, or another node has it.
    No,
    /// It will not run again: it was to be cancelled, or its last attempt ended with its node.
    Ended,
}

/// Why an operator's wish is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A run is under way.
    #[error("it is running")]
    Running,
    /// There is nothing left to do.
    #[error("it is done")]
    Done,
    /// It has ended already.
    #[error("it has ended already")]
    Ended,
    /// Schedules do not end.
    #[error("it is a schedule, which can be paused by its type and not be cancelled")]
    Schedule,
}

impl Job {
    /// Begins a run.
    pub fn claim(&mut self, claimer: &Claimer) -> Claimed {
        if self.due.is_none_or(|due| due > claimer.now) {
            return Claimed::No;
        }
        if self.cancelling {
            self.end_cancelled(claimer.now);
            if self.state.is_ended() {
                return Claimed::Ended;
            }
        }
        if self.state == State::Running
            && self.period.is_none()
            && self.attempt >= claimer.attempts_max
        {
            self.reason = Some(format!(
                "the last attempt ended with its node, {}",
                self.node.unwrap_or_default()
            ));
            if !self.again {
                self.end(State::Failed, claimer.now);
                return Claimed::Ended;
            }
            self.begin_anew();
        }
        self.state = State::Running;
        self.due = Some(claimer.now.saturating_add(claimer.lease));
        self.run += 1;
        self.node = Some(claimer.node);
        self.attempt = self.attempt.saturating_add(1);
        // Whoever asked has committed: a run from the start sees what it asked for.
        self.again &= self.checkpoint.is_some();
        self.started = Some(claimer.now);
        Claimed::Yes
    }

    /// Remembers where the next run goes on. It came forward, so the attempts count anew.
    pub fn advance(&mut self, checkpoint: String, progress: Progress) {
        self.checkpoint = Some(checkpoint);
        self.progress = progress;
        self.attempt = self.attempt.min(1);
    }

    /// Remembers how far it is, and nothing else: who is cut begins anew, and the attempts go on counting.
    pub fn record(&mut self, progress: Progress) {
        self.progress = progress;
    }

    /// The run came to the job's end. A schedule waits for `pause`, which is about its period.
    pub fn finish(&mut self, now: Millis, report: Option<String>, pause: Millis) {
        self.report = report;
        self.reason = None;
        self.attempt = 0;
        if self.again {
            self.begin_anew();
            self.wait(now, 0);
        } else if self.period.is_some() {
            self.begin_anew();
            self.ended = Some(now);
            self.wait(now, pause);
        } else {
            self.end(State::Done, now);
        }
    }

    /// The run came to an end of its own and the job did not: it goes on after `pause`.
    pub fn go_on(&mut self, now: Millis, pause: Millis) {
        if self.cancelling {
            return self.end_cancelled(now);
        }
        self.attempt = 0;
        self.reason = None;
        self.wait(now, pause);
    }

    /// The run was stopped by the node, which is no attempt that failed: any node may go on at once.
    pub fn release(&mut self, now: Millis) {
        if self.cancelling {
            return self.end_cancelled(now);
        }
        self.attempt = self.attempt.saturating_sub(1);
        self.wait(now, 0);
    }

    /// The attempt failed. The next one comes after `pause`, unless this was the last.
    pub fn fail(&mut self, now: Millis, reason: String, pause: Millis, attempts_max: u32) {
        self.reason = Some(reason);
        if self.cancelling {
            return self.end_cancelled(now);
        }
        if let Some(period) = self.period {
            self.ended = Some(now);
            return self.wait(now, pause.min(period));
        }
        if self.attempt < attempts_max {
            self.wait(now, pause);
        } else if self.again {
            // What was asked for meanwhile has had no attempt yet.
            self.begin_anew();
            self.wait(now, pause);
        } else {
            self.end(State::Failed, now);
        }
    }

    /// An operator wants it to run now: from a time on that has come by any node's clock.
    pub fn retry(&mut self, now: Millis) -> Result<(), Refusal> {
        match self.state {
            State::Running => return Err(Refusal::Running),
            State::Done => return Err(Refusal::Done),
            State::Waiting => {
                self.due = self.due.map(|due| due.min(now).min(self.created));
            }
            State::Failed | State::Cancelled => {
                self.attempt = 0;
                self.ended = None;
                self.wait(now.min(self.created), 0);
            }
        }
        Ok(())
    }

    /// An operator does not want it any more, nor what was asked for until now. A run that is under way is told, and
    /// ends it.
    pub fn cancel(&mut self, now: Millis) -> Result<(), Refusal> {
        if self.period.is_some() {
            return Err(Refusal::Schedule);
        }
        match self.state {
            State::Waiting => self.end(State::Cancelled, now),
            State::Running => {
                self.cancelling = true;
                self.again = false;
            }
            // Nobody is to look at it any more.
            State::Failed => self.end(State::Cancelled, now),
            State::Done | State::Cancelled => return Err(Refusal::Ended),
        }
        Ok(())
    }

    /// A run that was to end has ended. Whoever asked after that was told that this job does the work: it does.
    fn end_cancelled(&mut self, now: Millis) {
        if self.again {
            self.begin_anew();
            self.wait(now, 0);
        } else {
            self.end(State::Cancelled, now);
        }
    }

    fn wait(&mut self, now: Millis, pause: Millis) {
        self.state = State::Waiting;
        self.due = Some(now.saturating_add(pause));
    }

    fn begin_anew(&mut self) {
        self.again = false;
        self.cancelling = false;
        self.attempt = 0;
        self.checkpoint = None;
        self.progress = Progress::default();
    }

    fn end(&mut self, state: State, now: Millis) {
        self.state = state;
        self.due = None;
        self.again = false;
        self.cancelling = false;
        self.ended = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Millis = 1_000;
    const ATTEMPTS_MAX: u32 = 3;

    fn job(period: Option<Millis>) -> Job {
        Job {
            id: JobId(1),
            kind: "test".to_owned(),
            key: None,
            payload: "{}".to_owned(),
            period,
            state: State::Waiting,
            due: Some(NOW),
            run: 0,
            node: None,
            attempt: 0,
            again: false,
            cancelling: false,
            checkpoint: None,
            progress: Progress::default(),
            report: None,
            reason: None,
            created: NOW,
            started: None,
            ended: None,
        }
    }

    fn claimer(now: Millis) -> Claimer {
        Claimer {
            node: 7,
            now,
            lease: 100,
            attempts_max: ATTEMPTS_MAX,
        }
    }

    fn running(period: Option<Millis>) -> Job {
        let mut job = job(period);
        assert_eq!(job.claim(&claimer(NOW)), Claimed::Yes);
        job
    }

    #[test]
    fn a_job_is_claimed_once_at_its_turn_and_again_after_its_lease() {
        let mut job = job(None);
        assert_eq!(job.claim(&claimer(NOW - 1)), Claimed::No);
        assert_eq!(job.claim(&claimer(NOW)), Claimed::Yes);
        assert_eq!((job.run, job.attempt, job.node), (1, 1, Some(7)));
        assert_eq!(job.claim(&claimer(NOW + 99)), Claimed::No);
        assert_eq!(job.claim(&claimer(NOW + 100)), Claimed::Yes);
        assert_eq!((job.run, job.attempt), (2, 2));
    }

    #[test]
    fn a_job_that_takes_its_nodes_along_fails_in_the_end_and_a_schedule_goes_on() {
        for (period, expected) in [(None, Claimed::Ended), (Some(50), Claimed::Yes)] {
            let mut job = job(period);
            for round in 0..ATTEMPTS_MAX {
                let now = NOW + 100 * Millis::from(round);
                assert_eq!(job.claim(&claimer(now)), Claimed::Yes);
            }
            assert_eq!(job.claim(&claimer(NOW + 1000)), expected);
            assert_eq!(job.reason.is_some(), expected == Claimed::Ended);
        }
    }

    #[test]
    fn attempts_are_counted_from_the_last_checkpoint_and_stops_are_none() {
        let mut job = running(None);
        job.fail(NOW, "first".to_owned(), 0, ATTEMPTS_MAX);
        job.claim(&claimer(NOW));
        job.advance("1".to_owned(), Progress::default());
        for _ in 0..10 {
            job.release(NOW);
            assert_eq!(job.claim(&claimer(NOW)), Claimed::Yes);
        }
        assert_eq!(job.attempt, 1);
        for expected in [State::Waiting, State::Waiting, State::Failed] {
            job.fail(NOW, "again".to_owned(), 0, ATTEMPTS_MAX);
            assert_eq!(job.state, expected);
            job.claim(&claimer(NOW));
        }
        assert_eq!(job.reason.as_deref(), Some("again"));
        assert_eq!(job.checkpoint.as_deref(), Some("1"));
        job.retry(NOW).unwrap();
        assert_eq!((job.state, job.attempt), (State::Waiting, 0));
    }

    #[test]
    fn what_is_asked_for_while_a_job_runs_is_done_after_it() {
        let mut job = running(None);
        job.again = true;
        job.finish(NOW, None, 0);
        assert_eq!((job.state, job.due), (State::Waiting, Some(NOW)));
        job.claim(&claimer(NOW));
        assert!(!job.again);
        // A run that goes on in the middle may have passed it.
        job.advance("half".to_owned(), Progress::default());
        job.again = true;
        job.release(NOW);
        job.claim(&claimer(NOW));
        assert!(job.again);
        job.finish(NOW, None, 0);
        assert_eq!(
            (job.state, job.checkpoint.as_deref()),
            (State::Waiting, None)
        );
        // The last attempt of the work before is not that of the work after.
        job.claim(&claimer(NOW));
        (job.attempt, job.again) = (ATTEMPTS_MAX, true);
        job.fail(NOW, "broken".to_owned(), 0, ATTEMPTS_MAX);
        assert_eq!((job.state, job.attempt), (State::Waiting, 0));
    }

    #[test]
    fn a_cancelled_run_ends_with_its_job_unless_it_came_to_the_end_first() {
        type End = fn(&mut Job);
        let ends: [(End, State); 4] = [
            (|job| job.release(NOW), State::Cancelled),
            (|job| job.go_on(NOW, 0), State::Cancelled),
            (|job| job.fail(NOW, String::new(), 0, 9), State::Cancelled),
            (|job| job.finish(NOW, None, 0), State::Done),
        ];
        for (end, expected) in ends {
            let mut job = running(None);
            job.cancel(NOW).unwrap();
            assert_eq!(job.state, State::Running);
            end(&mut job);
            assert_eq!(job.state, expected);
        }
        let mut job = running(None);
        job.cancel(NOW).unwrap();
        assert_eq!(job.claim(&claimer(NOW + 100)), Claimed::Ended);
        assert_eq!(job.state, State::Cancelled);
    }

    #[test]
    fn what_is_asked_for_after_a_cancellation_is_done_all_the_same() {
        type End = fn(&mut Job);
        let ends: [End; 4] = [
            |job| job.release(NOW),
            |job| job.go_on(NOW, 7),
            |job| job.fail(NOW, String::new(), 7, 1),
            |job| job.finish(NOW, None, 0),
        ];
        for end in ends {
            let mut job = running(None);
            job.advance("half".to_owned(), Progress::default());
            // Asked for before: that is what is not wanted any more.
            job.again = true;
            job.cancel(NOW).unwrap();
            assert!(!job.again);
            job.again = true;
            end(&mut job);
            assert_eq!((job.state, job.due), (State::Waiting, Some(NOW)));
            assert_eq!((job.checkpoint.as_deref(), job.attempt), (None, 0));
            assert!(!job.again && !job.cancelling);
        }
        // Its node was killed meanwhile.
        let mut job = running(None);
        job.cancel(NOW).unwrap();
        job.again = true;
        assert_eq!(job.claim(&claimer(NOW + 100)), Claimed::Yes);
        assert!(!job.again && !job.cancelling);
        assert_eq!((job.state, job.attempt), (State::Running, 1));
    }

    #[test]
    fn a_failed_job_can_be_cancelled_and_keeps_its_reason() {
        let mut job = running(None);
        job.fail(NOW, "broken".to_owned(), 0, 1);
        assert_eq!(job.state, State::Failed);
        job.cancel(NOW + 1).unwrap();
        assert_eq!((job.state, job.ended), (State::Cancelled, Some(NOW + 1)));
        assert_eq!(job.reason.as_deref(), Some("broken"));
    }

    #[test]
    fn wishes_that_make_no_sense_are_refused() {
        let mut job = running(None);
        assert_eq!(job.retry(NOW), Err(Refusal::Running));
        job.finish(NOW, None, 0);
        assert_eq!(job.retry(NOW), Err(Refusal::Done));
        assert_eq!(job.cancel(NOW), Err(Refusal::Ended));
        assert_eq!(running(Some(5)).cancel(NOW), Err(Refusal::Schedule));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Claim,
        Advance,
        Finish,
        GoOn,
        Release,
        Fail,
        Retry,
        Cancel,
        AskAgain,
        Wait(Millis),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Claim),
            1 => Just(Step::Advance),
            1 => Just(Step::Finish),
            1 => Just(Step::GoOn),
            1 => Just(Step::Release),
            2 => Just(Step::Fail),
            1 => Just(Step::Retry),
            1 => Just(Step::Cancel),
            1 => Just(Step::AskAgain),
            2 => (0..200i64).prop_map(Step::Wait),
        ]
    }

    proptest! {
        #[test]
        fn a_job_is_never_stuck_and_ends_only_once(
            period in prop::option::of(1..50i64),
            steps in prop::collection::vec(step(), 1..60),
        ) {
            let mut job = job(period);
            let mut now = NOW;
            // Somebody asked for work that no run from the start has seen since, and nobody cancelled.
            let mut is_wanted = false;
            for step in steps {
                let before = job.clone();
                // What a run does is done under its lease alone.
                match (step, job.state) {
                    (Step::Claim, _) => {
                        let is_claimed = job.claim(&claimer(now)) == Claimed::Yes;
                        is_wanted &= !is_claimed || job.checkpoint.is_some();
                    }
                    (Step::Advance, State::Running) => {
                        job.advance("x".to_owned(), Progress::default());
                    }
                    (Step::Finish, State::Running) => job.finish(now, None, 10),
                    (Step::GoOn, State::Running) => job.go_on(now, 10),
                    (Step::Release, State::Running) => job.release(now),
                    (Step::Fail, State::Running) => {
                        job.fail(now, "no".to_owned(), 10, ATTEMPTS_MAX);
                    }
                    (Step::Retry, _) => { let _ = job.retry(now); }
                    (Step::Cancel, _) => is_wanted &= job.cancel(now).is_err(),
                    (Step::AskAgain, State::Waiting | State::Running) => {
                        job.again = true;
                        is_wanted = true;
                    }
                    (Step::Wait(millis), _) => now += millis,
                    _ => {}
                }
                prop_assert_eq!(job.due.is_none(), job.state.is_ended());
                prop_assert!(!(job.state.is_ended() && (job.cancelling || job.again)));
                prop_assert!(job.run >= before.run);
                prop_assert!(period.is_none() || !job.state.is_ended());
                prop_assert!(!(is_wanted && job.state.is_ended()));
                if before.cancelling && job.state != State::Running {
                    prop_assert_eq!(job.state.is_ended(), !is_wanted);
                }
                if job.state == State::Failed {
                    prop_assert!(job.reason.is_some());
                }
                let is_settled = (before.state, job.state) == (State::Failed, State::Cancelled);
                if before.state.is_ended() && job.state != before.state && !is_settled {
                    prop_assert_eq!(job.state, State::Waiting);
                    prop_assert_eq!(job.attempt, 0);
                }
                if job.run != before.run {
                    prop_assert_eq!(job.run, before.run + 1);
                    prop_assert!(before.due <= Some(now));
                    prop_assert_eq!(job.state, State::Running);
                }
            }
        }
    }
}
