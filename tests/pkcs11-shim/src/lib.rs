//! A PKCS#11 module for tests. It forwards every call to the real module `P11SHIM_REAL`, counts
//! the calls of some functions in the file `P11SHIM_COUNTS` (shared by all processes that load
//! the shim, so counts survive a crash), and misbehaves as the file `P11SHIM_RULES` says. That
//! file may be replaced at any time; see [`rules`] for its lines. Without the variables it only
//! forwards.
#![allow(unsafe_code, reason = "a PKCS#11 module is a C library")]
#![allow(
    non_snake_case,
    reason = "the functions of PKCS#11 have the names of PKCS#11"
)]

pub mod counts;
pub mod faults;
pub mod functions;
pub mod probe;
pub mod rules;
pub mod which;

use counts::Counts;
use cryptoki_sys::{
    CK_ATTRIBUTE, CK_BBOOL, CK_BYTE, CK_FLAGS, CK_FUNCTION_LIST, CK_INFO, CK_MECHANISM,
    CK_MECHANISM_INFO, CK_MECHANISM_TYPE, CK_NOTIFY, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE,
    CK_SESSION_INFO, CK_SLOT_ID, CK_SLOT_INFO, CK_TOKEN_INFO, CK_ULONG, CK_USER_TYPE, CK_UTF8CHAR,
    CKR_FUNCTION_FAILED, CKR_OK,
};
use faults::Faults;
use functions::Function;
use rules::{Action, Rules};
use std::ffi::c_void;
use std::sync::OnceLock;

/// For tests: where the module is. cargo builds it beside every test that depends on this package.
///
/// # Panics
/// If it is not there.
pub fn module_path() -> std::path::PathBuf {
    const NAME: &str = "libpkcs11_shim.so";
    let exe = std::env::current_exe().expect("a process has a program");
    let directory = exe.parent().expect("a program is in a directory");
    // What lies beside a program that is no test is as old as the last build of this package alone.
    let places = [directory.join("deps").join(NAME), directory.join(NAME)];
    let found = places.iter().find(|path| path.exists());
    found
        .unwrap_or_else(|| panic!("{} is missing", places[0].display()))
        .clone()
}

struct Shim {
    real: CK_FUNCTION_LIST,
    ours: CK_FUNCTION_LIST,
    faults: Faults,
}

// SAFETY: the lists hold a version and function pointers of a module that stays loaded.
unsafe impl Send for Shim {}
// SAFETY: as above; nobody writes to them.
unsafe impl Sync for Shim {}

static SHIM: OnceLock<Option<Shim>> = OnceLock::new();

/// The one symbol a PKCS#11 v2.40 module must export.
///
/// # Safety
/// `out` must be valid for writing a pointer, as PKCS#11 v3.1 §5.4.4 demands.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(out: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    let Some(shim) = SHIM.get_or_init(Shim::load) else {
        return CKR_FUNCTION_FAILED;
    };
    // SAFETY: the caller's promise. The list lives as long as the process; callers only read it.
    unsafe { *out = (&raw const shim.ours).cast_mut() };
    CKR_OK
}

fn variable(name: &str) -> Option<std::path::PathBuf> {
    std::env::var_os(name).map(std::path::PathBuf::from)
}

impl Shim {
    fn load() -> Option<Shim> {
        type GetFunctionList = unsafe extern "C" fn(*mut *mut CK_FUNCTION_LIST) -> CK_RV;
        let path = variable("P11SHIM_REAL")?;
        // SAFETY: loading a PKCS#11 module runs its initialisers; it is the one the test named.
        let library = unsafe { libloading::Library::new(path) }.ok()?;
        let library = Box::leak(Box::new(library)); // never unloaded, so its functions stay
        let mut list = std::ptr::null_mut();
        // SAFETY: the symbol has this type by PKCS#11 v3.1 §5.4.4.
        let answer =
            unsafe { library.get::<GetFunctionList>(b"C_GetFunctionList").ok()?(&raw mut list) };
        if answer != CKR_OK || list.is_null() {
            return None;
        }
        // SAFETY: the module said CKR_OK and gave a list.
        let real = unsafe { *list };
        Some(Shim {
            real,
            ours: replaced(real),
            faults: Faults::new(counts(), variable("P11SHIM_RULES").map(Rules::new)),
        })
    }
}

/// A test that is told where to count and finds nothing there must not pass.
fn counts() -> Option<Counts> {
    let path = variable("P11SHIM_COUNTS")?;
    match Counts::open(&path) {
        Ok(counts) => Some(counts),
        Err(error) => {
            eprintln!("pkcs11-shim: {}: {error}", path.display());
            std::process::abort();
        }
    }
}

fn shim() -> &'static Shim {
    SHIM.get()
        .and_then(Option::as_ref)
        .expect("our functions are in the list that loading made")
}

/// Counts, misbehaves or forwards.
fn run(function: Function, forward: impl FnOnce(&CK_FUNCTION_LIST) -> CK_RV) -> CK_RV {
    let shim = shim();
    shim.faults.call(function, || forward(&shim.real), |_| ())
}

macro_rules! forwarded {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {
        $(
            unsafe extern "C" fn $name($($argument: $type),*) -> CK_RV {
                run(Function::$name, |real| match real.$name {
                    // SAFETY: the arguments are the caller's, handed on as they are.
                    Some(function) => unsafe { function($($argument),*) },
                    None => CKR_FUNCTION_FAILED,
                })
            }
        )*

        /// The real list with our functions in place of those we count.
        fn replaced(real: CK_FUNCTION_LIST) -> CK_FUNCTION_LIST {
            CK_FUNCTION_LIST {
                C_GetFunctionList: Some(C_GetFunctionList),
                C_GetTokenInfo: Some(C_GetTokenInfo),
                C_Sign: Some(C_Sign),
                C_SignInit: Some(C_SignInit),
                $($name: Some($name),)*
                ..real
            }
        }
    };
}

forwarded! {
    C_Initialize(arguments: *mut c_void);
    C_Finalize(reserved: *mut c_void);
    C_GetInfo(info: *mut CK_INFO);
    C_GetSlotList(present: CK_BBOOL, list: *mut CK_SLOT_ID, count: *mut CK_ULONG);
    C_GetSlotInfo(slot: CK_SLOT_ID, info: *mut CK_SLOT_INFO);
    C_GetMechanismList(slot: CK_SLOT_ID, list: *mut CK_MECHANISM_TYPE, count: *mut CK_ULONG);
    C_GetMechanismInfo(slot: CK_SLOT_ID, mechanism: CK_MECHANISM_TYPE,
        info: *mut CK_MECHANISM_INFO);
    C_InitToken(slot: CK_SLOT_ID, pin: *mut CK_UTF8CHAR, len: CK_ULONG, label: *mut CK_UTF8CHAR);
    C_InitPIN(session: CK_SESSION_HANDLE, pin: *mut CK_UTF8CHAR, len: CK_ULONG);
    C_SetPIN(session: CK_SESSION_HANDLE, old: *mut CK_UTF8CHAR, old_len: CK_ULONG,
        new: *mut CK_UTF8CHAR, new_len: CK_ULONG);
    C_OpenSession(slot: CK_SLOT_ID, flags: CK_FLAGS, application: *mut c_void,
        notify: CK_NOTIFY, session: *mut CK_SESSION_HANDLE);
    C_CloseSession(session: CK_SESSION_HANDLE);
    C_CloseAllSessions(slot: CK_SLOT_ID);
    C_GetSessionInfo(session: CK_SESSION_HANDLE, info: *mut CK_SESSION_INFO);
    C_Login(session: CK_SESSION_HANDLE, user: CK_USER_TYPE, pin: *mut CK_BYTE, len: CK_ULONG);
    C_Logout(session: CK_SESSION_HANDLE);
    C_FindObjectsInit(session: CK_SESSION_HANDLE, template: *mut CK_ATTRIBUTE, count: CK_ULONG);
    C_FindObjects(session: CK_SESSION_HANDLE, objects: *mut CK_OBJECT_HANDLE, most: CK_ULONG,
        count: *mut CK_ULONG);
    C_FindObjectsFinal(session: CK_SESSION_HANDLE);
    C_GetAttributeValue(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE,
        template: *mut CK_ATTRIBUTE, count: CK_ULONG);
    C_SetAttributeValue(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE,
        template: *mut CK_ATTRIBUTE, count: CK_ULONG);
    C_CreateObject(session: CK_SESSION_HANDLE, template: *mut CK_ATTRIBUTE, count: CK_ULONG,
        object: *mut CK_OBJECT_HANDLE);
    C_CopyObject(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE,
        template: *mut CK_ATTRIBUTE, count: CK_ULONG, copy: *mut CK_OBJECT_HANDLE);
    C_GenerateKey(session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM,
        template: *mut CK_ATTRIBUTE, count: CK_ULONG, key: *mut CK_OBJECT_HANDLE);
    C_GenerateKeyPair(session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM,
        public: *mut CK_ATTRIBUTE, public_count: CK_ULONG, private: *mut CK_ATTRIBUTE,
        private_count: CK_ULONG, public_key: *mut CK_OBJECT_HANDLE,
        private_key: *mut CK_OBJECT_HANDLE);
    C_DestroyObject(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE);
    C_UnwrapKey(session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, by: CK_OBJECT_HANDLE,
        wrapped: *mut CK_BYTE, wrapped_len: CK_ULONG, template: *mut CK_ATTRIBUTE,
        count: CK_ULONG, key: *mut CK_OBJECT_HANDLE);
    C_DeriveKey(session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, from: CK_OBJECT_HANDLE,
        template: *mut CK_ATTRIBUTE, count: CK_ULONG, key: *mut CK_OBJECT_HANDLE);
    C_SignUpdate(session: CK_SESSION_HANDLE, part: *mut CK_BYTE, len: CK_ULONG);
    C_SignFinal(session: CK_SESSION_HANDLE, signature: *mut CK_BYTE, len: *mut CK_ULONG);
    C_VerifyInit(session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE);
    C_Verify(session: CK_SESSION_HANDLE, data: *mut CK_BYTE, data_len: CK_ULONG,
        signature: *mut CK_BYTE, signature_len: CK_ULONG);
    C_SeedRandom(session: CK_SESSION_HANDLE, seed: *mut CK_BYTE, len: CK_ULONG);
    C_GenerateRandom(session: CK_SESSION_HANDLE, data: *mut CK_BYTE, len: CK_ULONG);
}

/// Like the others, but `flags:` adds token flags to the answer, and `another` changes its serial.
unsafe extern "C" fn C_GetTokenInfo(slot: CK_SLOT_ID, info: *mut CK_TOKEN_INFO) -> CK_RV {
    let shim = shim();
    let forward = || match shim.real.C_GetTokenInfo {
        // SAFETY: the arguments are the caller's, handed on as they are.
        Some(function) => unsafe { function(slot, info) },
        None => CKR_FUNCTION_FAILED,
    };
    let spoil = |action| match action {
        // SAFETY: the real module has just written here and said CKR_OK.
        Action::Flags(flags) => unsafe { (*info).flags |= flags as CK_FLAGS },
        // SAFETY: as above.
        Action::Another => unsafe { (*info).serialNumber = *b"another one     " },
        _ => {}
    };
    shim.faults.call(Function::C_GetTokenInfo, forward, spoil)
}

/// Like the others, but `logout` and `close-all` take the login or the sessions away first, as the
/// token itself or another part of this process might.
unsafe extern "C" fn C_SignInit(
    session: CK_SESSION_HANDLE,
    mechanism: *mut CK_MECHANISM,
    key: CK_OBJECT_HANDLE,
) -> CK_RV {
    let shim = shim();
    let forward = || match shim.real.C_SignInit {
        // SAFETY: the arguments are the caller's, handed on as they are.
        Some(function) => unsafe { function(session, mechanism, key) },
        None => CKR_FUNCTION_FAILED,
    };
    let take_away = |action| match action {
        Action::Logout => logout(&shim.real, session),
        Action::CloseAll => close_all(&shim.real, session),
        _ => {}
    };
    shim.faults.call(Function::C_SignInit, forward, take_away)
}

/// If the module says no, what was to be taken away is gone already.
fn logout(real: &CK_FUNCTION_LIST, session: CK_SESSION_HANDLE) {
    if let Some(logout) = real.C_Logout {
        // SAFETY: any number may be asked about; the module knows which are sessions.
        unsafe { logout(session) };
    }
}

/// Likewise.
fn close_all(real: &CK_FUNCTION_LIST, session: CK_SESSION_HANDLE) {
    let (Some(info), Some(close_all)) = (real.C_GetSessionInfo, real.C_CloseAllSessions) else {
        return;
    };
    let mut found = CK_SESSION_INFO {
        slotID: 0,
        state: 0,
        flags: 0,
        ulDeviceError: 0,
    };
    // SAFETY: the module writes one such structure here.
    if unsafe { info(session, &raw mut found) } == CKR_OK {
        // SAFETY: the slot is the session's.
        unsafe { close_all(found.slotID) };
    }
}

/// Like the others, but a call that only asks for the length is counted as
/// [`Function::C_SignLength`], and `zeros`, `random` and `short` spoil the signature.
unsafe extern "C" fn C_Sign(
    session: CK_SESSION_HANDLE,
    data: *mut CK_BYTE,
    data_len: CK_ULONG,
    signature: *mut CK_BYTE,
    signature_len: *mut CK_ULONG,
) -> CK_RV {
    let shim = shim();
    let function = match signature.is_null() {
        true => Function::C_SignLength,
        false => Function::C_Sign,
    };
    let forward = || match shim.real.C_Sign {
        // SAFETY: the arguments are the caller's, handed on as they are.
        Some(real) => unsafe { real(session, data, data_len, signature, signature_len) },
        None => CKR_FUNCTION_FAILED,
    };
    // Only rules for C_Sign itself spoil, so there is a signature.
    let spoil = |action| {
        // SAFETY: the real module has just written the length, and that many bytes, and said
        // CKR_OK.
        let bytes = unsafe { std::slice::from_raw_parts_mut(signature, *signature_len as usize) };
        match action {
            Action::Zeros => bytes.fill(0),
            Action::Random => scramble(bytes),
            // SAFETY: as above; no signature is empty.
            Action::Short => unsafe { *signature_len -= 1 },
            _ => {}
        }
    };
    shim.faults.call(function, forward, spoil)
}

/// Bytes that look like a signature and are none: the same each time, so that a test fails alike
/// each time.
fn scramble(bytes: &mut [u8]) {
    let mut next = 0x5au8;
    for byte in bytes {
        next = next.wrapping_mul(167).wrapping_add(91);
        *byte = next;
    }
}
