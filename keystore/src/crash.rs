//! A panic ends the process, in whatever profile it was built: half a request must never go on,
//! and a new process is better than one whose state nobody can vouch for. Not an option of the
//! build alone, because tests run other builds than users do.

/// From here on a panic in any thread is reported as usual and then ends the process by SIGABRT.
pub fn on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}
