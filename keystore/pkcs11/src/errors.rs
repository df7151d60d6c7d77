//! What a module's return value means for us. The match over CKR_* is exhaustive on purpose: a
//! new one must be thought about. Nothing here decides to retry.

use cryptoki::context::Function;
use cryptoki::error::{Error as Pkcs11Error, RvError};
use keystore::{Error, Kind};

/// An error of the binding as one of ours: who (`place`), doing what, what came back, what helps.
pub fn explain(place: &str, doing: &str, error: &Pkcs11Error) -> Error {
    let (kind, answer) = match error {
        Pkcs11Error::Pkcs11(rv, function) => (
            kind_in(rv, *function),
            format!("C_{function:?} answered {}", name_of(rv)),
        ),
        other => (
            Kind::Internal,
            format!("the module's answer cannot be used ({other})"),
        ),
    };
    let remedy = match error {
        Pkcs11Error::Pkcs11(rv, function) if kind_in(rv, *function) == kind_of(rv) => remedy_of(rv),
        Pkcs11Error::Pkcs11(..) => CHECK,
        _ => "check the module's version",
    };
    Error::new(kind, format!("{place}: {doing}: {answer}; {remedy}"))
}

/// A failed C_Login as one of ours. A wrong PIN is tried once (P9), and a module may answer anything
/// to one: only where the token or the session was gone before the PIN was looked at has it cost
/// nothing for certain. Whatever tells nothing about the PIN may pass, and [`crate::pinmemory`] counts.
pub fn explain_login(place: &str, error: &Pkcs11Error) -> (Spent, Error) {
    let explained = explain(place, "logging in with the user PIN", error);
    match (error, explained.kind()) {
        (Pkcs11Error::Pkcs11(rv, _), _) if gone_before_the_pin(rv) => (Spent::No, explained),
        (_, Kind::BadPin) => (Spent::Yes, explained),
        (_, Kind::Locked) => (Spent::No, explained),
        _ => {
            let unclear = Error::new(Kind::Unavailable, explained.to_string());
            (Spent::Perhaps, unclear)
        }
    }
}

/// Whether a failed login has cost one of the PIN's tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// The token looked at the PIN and refused it.
    Yes,
    /// It failed with something that tells nothing about the PIN.
    Perhaps,
    /// It went away before, or says that nothing is tried.
    No,
}

fn gone_before_the_pin(rv: &RvError) -> bool {
    use RvError::*;
    matches!(
        rv,
        TokenNotPresent
            | TokenNotRecognized
            | DeviceRemoved
            | SlotIdInvalid
            | SessionHandleInvalid
            | SessionClosed
    )
}

/// Whose fault an error is, which decides what happens to the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The session or a handle in it has died.
    Session,
    /// The login, or the token it was for, is gone: no handle means anything any more, and another
    /// session would fail as well.
    Login,
    /// The token, the key or the request: another session would fail as well, but this one may
    /// have something left open.
    Other,
    /// No call failed; what was found is not what was wanted. The session is sound.
    Nobody,
}

/// Whom to blame for a failed call.
pub fn blame(error: &Pkcs11Error) -> Blame {
    match error {
        Pkcs11Error::Pkcs11(
            RvError::SessionHandleInvalid
            | RvError::SessionClosed
            | RvError::ObjectHandleInvalid
            | RvError::KeyHandleInvalid
            | RvError::OperationActive
            | RvError::OperationNotInitialized,
            _,
        ) => Blame::Session,
        Pkcs11Error::Pkcs11(
            RvError::UserNotLoggedIn
            | RvError::CryptokiNotInitialized
            | RvError::TokenNotPresent
            | RvError::TokenNotRecognized
            | RvError::DeviceRemoved
            | RvError::SlotIdInvalid,
            _,
        ) => Blame::Login,
        _ => Blame::Other,
    }
}

/// What can be done about what a function answered. That a PIN is wrong or locked means something only
/// where one was shown: from any other function it is a module that is not itself.
fn kind_in(rv: &RvError, function: Function) -> Kind {
    match kind_of(rv) {
        Kind::BadPin | Kind::Locked if !matches!(function, Function::Login) => Kind::Unavailable,
        kind => kind,
    }
}

/// What can be done about a return value.
pub fn kind_of(rv: &RvError) -> Kind {
    use RvError::*;
    match rv {
        // The token, its driver or our login is not there now.
        HostMemory
        | SlotIdInvalid
        | GeneralError
        | FunctionFailed
        | DeviceError
        | DeviceMemory
        | DeviceRemoved
        | Cancel
        | FunctionCanceled
        | KeyHandleInvalid
        | ObjectHandleInvalid
        | OperationActive
        | OperationNotInitialized
        | SessionClosed
        | SessionCount
        | SessionHandleInvalid
        | SessionExists
        | SessionReadOnlyExists
        | SessionReadWriteSoExists
        | TokenNotPresent
        | TokenNotRecognized
        | UserNotLoggedIn
        | UserAnotherAlreadyLoggedIn
        | UserTooManyTypes
        | CryptokiNotInitialized
        | MutexBad
        | MutexNotLocked
        | ExceededMaxIterations
        | FipsSelfTestFailed
        | LibraryLoadFailed
        | NoEvent
        // From anything but C_Initialize, after which it is no error: a module that is not itself.
        | CryptokiAlreadyInitialized
        // What only the vendor knows: most of these say that the device or the network is away.
        | VendorDefined(_)
        | UnknownErrorCode(_) => Kind::Unavailable,

        // An operator acts.
        PinLocked | PinExpired | UserPinNotInitialized | NewPinMode | NextOtp => Kind::Locked,
        PinIncorrect | PinInvalid | PinLenRange | PinTooWeak => Kind::BadPin,

        // The object is not what it should be.
        KeyFunctionNotPermitted
        | KeyTypeInconsistent
        | KeyChanged
        | PublicKeyInvalid
        | SignatureInvalid
        | SignatureLenRange => Kind::Mismatch,

        // The token cannot or will not do this.
        FunctionNotSupported
        | CurveNotSupported
        | MechanismInvalid
        | MechanismParamInvalid
        | KeySizeRange
        | DomainParamsInvalid
        | FunctionNotParallel
        | SessionParallelNotSupported
        | SessionReadOnly
        | TokenWriteProtected
        | CantLock
        | NeedToCreateThreads
        | ActionProhibited
        | FunctionRejected
        | RandomSeedNotSupported
        | RandomNoRng
        | AttributeTypeInvalid
        | AttributeValueInvalid
        | AttributeReadOnly
        | TemplateInconsistent
        | TemplateIncomplete => Kind::Unsupported,

        // We asked wrongly, or the module answers what it may not answer to such a call.
        ArgumentsBad
        | AttributeSensitive
        | DataInvalid
        | DataLenRange
        | EncryptedDataInvalid
        | EncryptedDataLenRange
        | KeyNotNeeded
        | KeyNeeded
        | KeyIndigestible
        | KeyNotWrappable
        | KeyUnextractable
        | UnwrappingKeyHandleInvalid
        | UnwrappingKeySizeRange
        | UnwrappingKeyTypeInconsistent
        | UserAlreadyLoggedIn
        | UserTypeInvalid
        | WrappedKeyInvalid
        | WrappedKeyLenRange
        | WrappingKeyHandleInvalid
        | WrappingKeySizeRange
        | WrappingKeyTypeInconsistent
        | BufferTooSmall
        | SavedStateInvalid
        | InformationSensitive
        | StateUnsaveable => Kind::Internal,
    }
}

const CHECK: &str = "check the token and the log of its vendor's module";

/// What a person does about a return value.
fn remedy_of(rv: &RvError) -> &'static str {
    use RvError::*;
    match rv {
        PinLocked => "unlock the user PIN with the SO PIN, then restart the keystore",
        PinExpired | NewPinMode | NextOtp => "set a new user PIN, then restart the keystore",
        UserPinNotInitialized => "set the user PIN with the SO PIN, then restart the keystore",
        PinIncorrect | PinInvalid | PinLenRange | PinTooWeak => {
            "it will not be tried again by itself; correct the PIN, then restart the keystore"
        }
        TokenNotPresent | DeviceRemoved | TokenNotRecognized | SlotIdInvalid => {
            "put the token back"
        }
        UserNotLoggedIn | CryptokiNotInitialized => "the login is lost, and is made again",
        SessionCount => "close other programs that use the token, or lower `signers`",
        HostMemory => "give the keystore more memory",
        DeviceMemory => "the token is full; destroy objects that are no longer needed",
        TokenWriteProtected | SessionReadOnly => "the token is write-protected",
        ObjectHandleInvalid | KeyHandleInvalid => "check that the key is still in the token",
        KeyFunctionNotPermitted => "the key may not sign any more; check who changed it",
        MechanismInvalid | CurveNotSupported | KeySizeRange | DomainParamsInvalid => {
            "choose an algorithm that the token has"
        }
        _ => CHECK,
    }
}

/// The name people find in the standard: `DeviceError` → `CKR_DEVICE_ERROR`.
fn name_of(rv: &RvError) -> String {
    if let RvError::VendorDefined(code) | RvError::UnknownErrorCode(code) = rv {
        return format!("CKR 0x{code:x}");
    }
    let mut name = String::from("CKR");
    for letter in format!("{rv:?}").chars() {
        if letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_return_value_is_shown_by_the_name_in_the_standard() {
        assert_eq!(name_of(&RvError::DeviceError), "CKR_DEVICE_ERROR");
        assert_eq!(
            name_of(&RvError::VendorDefined(0x8000_0001)),
            "CKR 0x80000001"
        );
    }

    #[test]
    fn a_pin_error_is_never_one_that_may_be_retried() {
        for rv in [
            RvError::PinIncorrect,
            RvError::PinInvalid,
            RvError::PinLenRange,
            RvError::PinExpired,
            RvError::PinLocked,
            RvError::UserPinNotInitialized,
        ] {
            assert_ne!(kind_of(&rv), Kind::Unavailable, "{rv:?}");
            assert_eq!(
                blame(&Pkcs11Error::Pkcs11(rv, Function::Login)),
                Blame::Other
            );
        }
    }

    #[test]
    fn a_failed_login_says_whether_it_may_have_cost_a_try() {
        let spent = |rv| explain_login("token", &Pkcs11Error::Pkcs11(rv, Function::Login)).0;
        for rv in [
            RvError::GeneralError,
            RvError::FunctionFailed,
            RvError::DeviceError,
            RvError::HostMemory,
            RvError::CryptokiNotInitialized,
            RvError::ArgumentsBad,
            RvError::MechanismInvalid,
            RvError::VendorDefined(0x8000_0001),
            RvError::UnknownErrorCode(0x4711),
        ] {
            let error = Pkcs11Error::Pkcs11(rv, Function::Login);
            let kind = explain_login("token", &error).1.kind();
            assert_eq!(kind, Kind::Unavailable, "{rv:?}");
            assert_eq!(spent(rv), Spent::Perhaps, "{rv:?}");
        }
        for rv in [
            RvError::PinIncorrect,
            RvError::PinInvalid,
            RvError::PinLenRange,
        ] {
            assert_eq!(spent(rv), Spent::Yes, "{rv:?}");
        }
        for rv in [
            RvError::PinLocked,
            RvError::TokenNotPresent,
            RvError::TokenNotRecognized,
            RvError::DeviceRemoved,
            RvError::SlotIdInvalid,
            RvError::SessionHandleInvalid,
            RvError::SessionClosed,
        ] {
            assert_eq!(spent(rv), Spent::No, "{rv:?}");
        }
    }

    #[test]
    fn a_pin_is_wrong_only_where_one_was_shown() {
        let explained = |function| {
            let error = Pkcs11Error::Pkcs11(RvError::PinIncorrect, function);
            explain("token", "calling it", &error)
        };
        assert_eq!(explained(Function::Login).kind(), Kind::BadPin);
        let strange = explained(Function::SignInit);
        assert_eq!(strange.kind(), Kind::Unavailable);
        assert!(!strange.to_string().contains("PIN,"), "{strange}");
    }

    #[test]
    fn a_message_names_the_token_the_call_and_the_remedy() {
        let error = Pkcs11Error::Pkcs11(RvError::DeviceRemoved, Function::SignInit);
        let shown = explain("token \"edge\" (slot 3)", "signing", &error).to_string();
        assert_eq!(
            shown,
            "token \"edge\" (slot 3): signing: C_SignInit answered CKR_DEVICE_REMOVED; \
             put the token back"
        );
    }
}
