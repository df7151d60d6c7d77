//! The one unsafe expression of this crate: C_Initialize's `pReserved`, which NSS softokn and a
//! few vendors read as a C string (PKCS#11 v3.1 §5.4.4 leaves its meaning to the library).
#![expect(unsafe_code, reason = "pReserved is a raw pointer by definition")]

use cryptoki::context::{CInitializeArgs, CInitializeFlags};
use std::ffi::CString;
use std::ptr::NonNull;

/// Arguments for C_Initialize with `text` behind `pReserved`. The text is never freed: modules
/// may keep the pointer, and a process initialises its module a handful of times in its life.
pub fn initialize_args(flags: CInitializeFlags, text: CString) -> CInitializeArgs {
    let text: &'static std::ffi::CStr = Box::leak(text.into_boxed_c_str());
    let pointer = NonNull::from(text).cast();
    // SAFETY: the pointer is to a NUL-terminated string that lives as long as the process. That
    // the module takes pReserved for a string is what the operator states by writing `init_args`.
    unsafe { CInitializeArgs::new_with_reserved(flags, pointer) }
}
