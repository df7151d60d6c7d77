//! The three unsafe expressions of this crate: C_Initialize's `pReserved`, which NSS softokn and a
//! few vendors read as a C string (PKCS#11 v3.1 §5.4.4 leaves its meaning to the library), mlock(2),
//! and sched_setscheduler(2). Decides nothing (docs/decisions/0006).
#![expect(
    unsafe_code,
    reason = "pReserved is a raw pointer by definition, and no crate we have locks pages or chooses SCHED_BATCH safely"
)]

use cryptoki::context::{CInitializeArgs, CInitializeFlags};
use nix::errno::Errno;
use nix::libc;
use std::ffi::{CStr, CString};
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

/// Texts that modules were given. They are never freed, since a module may keep the pointer, and a
/// process may initialise its module many times, with the same text.
static GIVEN: Mutex<Vec<&'static CStr>> = Mutex::new(Vec::new());

fn for_ever(text: CString) -> &'static CStr {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = given.iter().find(|known| ***known == *text) {
        return known;
    }
    let text: &'static CStr = Box::leak(text.into_boxed_c_str());
    given.push(text);
    text
}

/// Arguments for C_Initialize with `text` behind `pReserved`.
pub fn initialize_args(flags: CInitializeFlags, text: CString) -> CInitializeArgs {
    let text = for_ever(text);
    let pointer = NonNull::from(text).cast();
    // SAFETY: the pointer is to a NUL-terminated string that lives as long as the process. That
    // the module takes pReserved for a string is what the operator states by writing `init_args`.
    unsafe { CInitializeArgs::new_with_reserved(flags, pointer) }
}

/// Keeps the pages in which these bytes lie out of swap, for as long as they are mapped: their
/// neighbours on the page stay locked too, which does no harm.
///
/// # Errors
/// mlock(2): `EPERM` if nothing may be locked, `ENOMEM` if the limit is reached.
pub fn lock_pages(bytes: &[u8]) -> Result<(), Errno> {
    // SAFETY: the range is a slice's, so it is mapped; locking it changes no byte of it.
    unsafe { nix::sys::mman::mlock(NonNull::from(bytes).cast(), bytes.len()) }
}

/// The calling thread displaces no other when it wakes up (SCHED_BATCH, sched(7)), for as long as it lives.
/// Where the system refuses, it goes on as before.
pub fn step_back() {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel reads one structure, which is ours and whole; 0 is the calling thread.
    let _ = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) };
}
