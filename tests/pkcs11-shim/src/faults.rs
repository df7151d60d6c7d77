//! One call of the module: counted, spoilt as the rules say, or handed on. What the call is stays
//! with the caller; here are the order of things and the one state there is, a device that is dead.

use crate::counts::Counts;
use crate::functions::Function;
use crate::probe;
use crate::rules::{Action, Rules};
use cryptoki_sys::{CK_RV, CKR_OK};
use nix::sys::signal::{Signal, raise};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A process's counts and rules.
pub struct Faults {
    counts: Option<Counts>,
    rules: Option<Mutex<Rules>>,
    /// What every call answers; 0 while the device is alive.
    dead: AtomicU64,
}

/// What applies to one call.
#[derive(Default)]
struct Order {
    before: Duration,
    action: Option<Action>,
    after: Duration,
}

impl Faults {
    /// Without counts nothing is counted, without rules nothing is spoilt.
    pub fn new(counts: Option<Counts>, rules: Option<Rules>) -> Faults {
        Faults {
            counts,
            rules: rules.map(Mutex::new),
            dead: AtomicU64::new(0),
        }
    }

    /// One call. `forward` asks the module, `spoil` takes away what it needs, or changes what it
    /// gave.
    pub fn call(
        &self,
        function: Function,
        forward: impl FnOnce() -> CK_RV,
        spoil: impl FnOnce(Action),
    ) -> CK_RV {
        self.count(Counts::add, function);
        if let Some(code) = self.death(function) {
            self.count(Counts::add_fired, function);
            return code as CK_RV;
        }
        let Some(order) = self.order(function) else {
            return self.forwarded(function, forward);
        };
        let result_only = order.action.filter(|action| action.spoils_result());
        if result_only.is_none() {
            self.count(Counts::add_fired, function); // now, since what comes may be the end of us
        }
        std::thread::sleep(order.before);
        let mut spoil = Some(spoil);
        if let Some(action) = order.action.filter(|action| action.takes_away())
            && let Some(spoil) = spoil.take()
        {
            spoil(action);
        }
        let answer = self.obey(order.action, || self.forwarded(function, forward));
        if let Some(action) = result_only.filter(|_| answer == CKR_OK)
            && let Some(spoil) = spoil
        {
            self.count(Counts::add_fired, function);
            spoil(action);
        }
        std::thread::sleep(order.after);
        answer
    }

    fn count(&self, count: fn(&Counts, Function), function: Function) {
        if let Some(counts) = &self.counts {
            count(counts, function);
        }
    }

    /// What a dead device answers.
    fn death(&self, function: Function) -> Option<u64> {
        let code = self.dead.load(Ordering::SeqCst);
        (code != 0 && function.needs_device()).then_some(code)
    }

    /// Asks the module; one that is finalised has a device that lives.
    fn forwarded(&self, function: Function, forward: impl FnOnce() -> CK_RV) -> CK_RV {
        let answer = forward();
        if function == Function::C_Finalize && answer == CKR_OK {
            self.dead.store(0, Ordering::SeqCst);
        }
        answer
    }

    fn order(&self, function: Function) -> Option<Order> {
        let rules = self.rules.as_ref()?.lock();
        let mut rules = rules.unwrap_or_else(PoisonError::into_inner);
        let actions = rules.next(function, self.counts.as_ref());
        (!actions.is_empty()).then(|| actions.into_iter().fold(Order::default(), Order::with))
    }

    fn obey(&self, action: Option<Action>, forward: impl FnOnce() -> CK_RV) -> CK_RV {
        match action {
            Some(Action::Answer(code)) => code as CK_RV,
            Some(Action::Lie(code)) => {
                forward();
                code as CK_RV
            }
            Some(Action::Die(code)) => {
                self.dead.store(code, Ordering::SeqCst);
                code as CK_RV
            }
            Some(Action::Abort) => std::process::abort(),
            Some(Action::Segfault) => segfault(),
            Some(Action::Exit(status)) => std::process::exit(status),
            Some(Action::Hang) => loop {
                std::thread::sleep(Duration::from_secs(3600));
            },
            Some(Action::Probe) => {
                probe::ordered();
                forward()
            }
            Some(Action::Zeros | Action::Random | Action::Short | Action::Flags(_))
            | Some(Action::Another)
            | Some(Action::Delay(_) | Action::After(_) | Action::Logout | Action::CloseAll)
            | None => forward(),
        }
    }
}

impl Order {
    fn with(mut self, action: Action) -> Order {
        match action {
            Action::Delay(time) => self.before += time,
            Action::After(time) => self.after += time,
            action => self.action = self.action.or(Some(action)),
        }
        self
    }
}

/// Rust's handler takes the first for a stack overflow that was none, steps back and returns.
fn segfault() -> ! {
    for _ in 0..2 {
        let _ = raise(Signal::SIGSEGV); // it cannot fail, and if it did, the next line ends us
    }
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    const DEVICE_ERROR: CK_RV = 0x30;
    const OTHER: CK_RV = 0x31;

    struct Place {
        dir: tempfile::TempDir,
        counts: Counts,
    }

    impl Place {
        fn with(rules: &str) -> (Place, Faults) {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("rules"), rules).unwrap();
            let counts = || Counts::open(&dir.path().join("counts")).unwrap();
            let faults = Faults::new(Some(counts()), Some(Rules::new(dir.path().join("rules"))));
            let counts = counts();
            (Place { dir, counts }, faults)
        }

        fn fired(&self, function: Function) -> (u64, u64) {
            (self.counts.of(function), self.counts.fired(function))
        }
    }

    fn call(faults: &Faults, function: Function) -> CK_RV {
        faults.call(function, || CKR_OK, |_| ())
    }

    #[test]
    fn a_dead_device_answers_nothing_else_until_the_library_was_finalised() {
        let (place, faults) = Place::with("C_Sign 2 dead:0x30\n");
        assert_eq!(call(&faults, Function::C_Sign), CKR_OK);
        assert_eq!(call(&faults, Function::C_Sign), DEVICE_ERROR);
        std::fs::remove_file(place.dir.path().join("rules")).unwrap();
        assert_eq!(call(&faults, Function::C_OpenSession), DEVICE_ERROR);
        assert_eq!(call(&faults, Function::C_GetSlotList), DEVICE_ERROR);
        assert_eq!(call(&faults, Function::C_Initialize), CKR_OK);
        assert_eq!(call(&faults, Function::C_Sign), DEVICE_ERROR);
        let failed = faults.call(Function::C_Finalize, || OTHER, |_| ());
        assert_eq!(failed, OTHER);
        assert_eq!(call(&faults, Function::C_Sign), DEVICE_ERROR);
        assert_eq!(call(&faults, Function::C_Finalize), CKR_OK);
        assert_eq!(call(&faults, Function::C_Sign), CKR_OK);
        assert_eq!(place.fired(Function::C_Sign), (5, 3));
        assert_eq!(place.fired(Function::C_OpenSession), (1, 1));
        assert_eq!(place.fired(Function::C_Finalize), (2, 0));
    }

    #[test]
    fn what_fired_is_counted_and_the_rest_is_not() {
        let (place, faults) =
            Place::with("C_Login 2 ckr:0x31\nC_Sign 1+ random\nC_Logout * lie:0x31\n");
        assert_eq!(call(&faults, Function::C_Login), CKR_OK);
        assert_eq!(place.fired(Function::C_Login), (1, 0));
        let unasked = || unreachable!("the module is not asked");
        assert_eq!(faults.call(Function::C_Login, unasked, |_| ()), OTHER);
        assert_eq!(place.fired(Function::C_Login), (2, 1));
        let mut asked = false;
        let forward = || {
            asked = true;
            CKR_OK
        };
        assert_eq!(faults.call(Function::C_Logout, forward, |_| ()), OTHER);
        assert!(asked);
        // There is nothing to spoil where the module itself failed.
        let unspoilt = |_| unreachable!("there is no signature");
        let failed = faults.call(Function::C_Sign, || DEVICE_ERROR, unspoilt);
        assert_eq!(failed, DEVICE_ERROR);
        assert_eq!(place.fired(Function::C_Sign), (1, 0));
        let mut spoilt = None;
        let forward = || CKR_OK;
        faults.call(Function::C_Sign, forward, |action| spoilt = Some(action));
        assert_eq!(spoilt, Some(Action::Random));
        assert_eq!(place.fired(Function::C_Sign), (2, 1));
        assert_eq!(place.counts.fired_any(), 3);
    }

    #[test]
    fn what_a_call_needs_is_taken_away_before_it() {
        let (place, faults) = Place::with("C_SignInit 2 logout\n");
        let order = std::cell::RefCell::new(Vec::new());
        for _ in 0..2 {
            let forward = || {
                order.borrow_mut().push(None);
                OTHER
            };
            let lose = |action| order.borrow_mut().push(Some(action));
            assert_eq!(faults.call(Function::C_SignInit, forward, lose), OTHER);
        }
        assert_eq!(order.into_inner(), [None, Some(Action::Logout), None]);
        assert_eq!(place.fired(Function::C_SignInit), (2, 1));
    }

    #[test]
    fn delays_are_before_the_call_and_after_it() {
        const MS: u64 = 60;
        let rules = format!("C_Sign * delay:{MS}\nC_Sign * after:{MS}\nC_Sign * delay:{MS}\n");
        let (place, faults) = Place::with(&rules);
        let began = Instant::now();
        let mut asked = began;
        let forward = || {
            asked = Instant::now();
            CKR_OK
        };
        assert_eq!(faults.call(Function::C_Sign, forward, |_| ()), CKR_OK);
        assert!(asked - began >= Duration::from_millis(2 * MS));
        assert!(asked.elapsed() >= Duration::from_millis(MS));
        assert_eq!(place.fired(Function::C_Sign), (1, 1));
    }
}
