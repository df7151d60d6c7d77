//! What a response code means for us. The layer is looked at first, then the code: the binding's
//! own names ignore the layer, so that an error of the library reads as one of the TPM (0x70001 as
//! TPM_RC_FAILURE). Nothing here decides to retry; [`Cure`] says what could help.

use keystore::{Error, Kind};
use tss_esapi::constants::response_code::Tss2ResponseCode;

/// Who answered: bits 16 to 23 of a code (TSS 2.0 Overview §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// The TPM itself, or a resource manager in its stead.
    Tpm,
    /// The library's session layer: this context may be unusable from now on.
    Esys,
    /// The way to the TPM.
    Tcti,
    /// Another part of the library; or nobody, if it is no code at all.
    Library,
}

/// A code with its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// Who answered.
    pub layer: Layer,
    /// All 32 bits.
    pub raw: u32,
}

/// What may help against a failed command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cure {
    /// A new context, with primary and keys loaded again: the TPM was reset, or the way to it was
    /// lost.
    Reconnect,
    /// TPM2_Startup: the machine's firmware did not do it.
    Startup,
    /// Fewer of our objects in the TPM.
    Room,
    /// Our session ended or has no place: another one, once others' are gone.
    Session,
    /// No session can be started or saved while one is there that was saved long ago.
    Gap,
    /// The same command again, a moment later: the TPM has not begun with it.
    Wait,
    /// Nothing for this command. But we asked for something that the TPM does not do, and one answer
    /// that was changed on its way is enough for that (a handle): what we believe of it is forgotten.
    Forget,
    /// Nothing that we can do.
    None,
}

/// TPM_RC_INITIALIZE.
const INITIALIZE: u32 = 0x100;
/// TPM_RC_FAILURE: the TPM is in failure mode until it is reset.
const FAILURE: u32 = 0x101;
/// TPM_RC_PCR_CHANGED: since the session was told of them.
const PCR_CHANGED: u32 = 0x128;
/// TPM_RC_AUTH_UNAVAILABLE.
const AUTH_UNAVAILABLE: u32 = 0x12f;
/// TPM_RC_REBOOT: a new start of the machine is needed.
const REBOOT: u32 = 0x130;
/// TPM_RC_COMMAND_CODE: the TPM does not have this command.
const COMMAND_CODE: u32 = 0x143;
/// TPM_RC_CONTEXT_GAP: somebody holds a session that was saved too long ago (Part 1 §30.5). We save
/// none. On a bare TPM we meet it when we start one in the last free place; behind the kernel's resource
/// manager, which saves ours after each command, it comes as an error of the device.
const CONTEXT_GAP: u32 = 0x901;
/// TPM_RC_OBJECT_MEMORY: no slot for one more object.
const OBJECT_MEMORY: u32 = 0x902;
/// TPM_RC_SESSION_MEMORY, TPM_RC_MEMORY, TPM_RC_SESSION_HANDLES.
const SESSION_MEMORY: u32 = 0x903;
const MEMORY: u32 = 0x904;
const SESSION_HANDLES: u32 = 0x905;
/// TPM_RC_OBJECT_HANDLES.
const OBJECT_HANDLES: u32 = 0x906;
/// TPM_RC_REFERENCE_H0 to _H6: a handle is not loaded. TPM_RC_REFERENCE_S0 to _S6: a session.
const REFERENCE_H: std::ops::RangeInclusive<u32> = 0x910..=0x916;
const REFERENCE_S: std::ops::RangeInclusive<u32> = 0x918..=0x91e;
/// TPM_RC_LOCKOUT.
const LOCKOUT: u32 = 0x921;
/// TPM_RC_YIELDED, _CANCELED, _TESTING, _NV_RATE, _RETRY, _NV_UNAVAILABLE: the command was not begun
/// and may be sent again (Part 2 §6.6.3). Of three of them the library sends it again four times,
/// at once; that is over in milliseconds.
const BUSY: [u32; 6] = [0x908, 0x909, 0x90a, 0x920, 0x922, 0x923];

/// The error number of a format-one code: what stands besides it says which handle, parameter or
/// session it is about (TPM 2.0 Part 2 §6.6.3).
fn format_one(raw: u32) -> Option<u32> {
    (raw & 0x80 != 0).then_some(raw & 0x3f)
}

/// Error numbers of format one.
mod one {
    pub const VALUE: u32 = 0x04;
    pub const HIERARCHY: u32 = 0x05;
    pub const HANDLE: u32 = 0x0b;
    pub const AUTH_FAIL: u32 = 0x0e;
    pub const POLICY_FAIL: u32 = 0x1d;
    pub const INTEGRITY: u32 = 0x1f;
    pub const BAD_AUTH: u32 = 0x22;
    /// What a TPM says of algorithms and sizes it does not have: ASYMMETRIC, HASH, VALUE, KEY_SIZE,
    /// MGF, MODE, TYPE, KDF, RANGE, SCHEME, SYMMETRIC, CURVE.
    pub const UNSUPPORTED: [u32; 12] = [
        0x01, 0x03, 0x04, 0x07, 0x08, 0x09, 0x0a, 0x0c, 0x0d, 0x12, 0x16, 0x26,
    ];
}

impl Code {
    /// From the binding's error; `None` if the binding itself did not like a value.
    pub fn of(error: &tss_esapi::Error) -> Option<Code> {
        let tss_esapi::Error::Tss2Error(answer) = error else {
            return None;
        };
        // There is no other way to all 32 bits than the text ("Response code value: 0x…").
        let text = match answer {
            Tss2ResponseCode::Success => return None,
            Tss2ResponseCode::FormatZero(code) => code.to_string(),
            Tss2ResponseCode::FormatOne(code) => code.to_string(),
        };
        let (_, digits) = text.rsplit_once("0x")?;
        u32::from_str_radix(digits, 16).ok().map(Code::new)
    }

    fn new(raw: u32) -> Code {
        // A TPM's own have twelve bits; whatever has others is none.
        let layer = match raw >> 12 {
            0x00 | 0xb0 => Layer::Tpm, // 11: a resource manager that speaks for the TPM
            0x70 => Layer::Esys,
            0xa0 => Layer::Tcti,
            _ => Layer::Library,
        };
        Code { layer, raw }
    }

    /// What may help.
    pub fn cure(self) -> Cure {
        let code = self.raw & 0xffff;
        match (self.layer, code) {
            (Layer::Esys | Layer::Tcti | Layer::Library, _) => Cure::Reconnect,
            (Layer::Tpm, INITIALIZE) => Cure::Startup,
            (Layer::Tpm, OBJECT_MEMORY | OBJECT_HANDLES | MEMORY) => Cure::Room,
            (Layer::Tpm, SESSION_MEMORY | SESSION_HANDLES) => Cure::Session,
            (Layer::Tpm, CONTEXT_GAP) => Cure::Gap,
            (Layer::Tpm, code) if BUSY.contains(&code) => Cure::Wait,
            (Layer::Tpm, code) if REFERENCE_H.contains(&code) => Cure::Reconnect,
            (Layer::Tpm, code) if REFERENCE_S.contains(&code) => Cure::Reconnect,
            (Layer::Tpm, code) if format_one(code) == Some(one::HANDLE) => Cure::Reconnect,
            (Layer::Tpm, _) => Cure::Forget,
        }
    }

    /// Whether no object has the handle that was asked for.
    pub fn is_no_such_handle(self) -> bool {
        self.layer == Layer::Tpm && format_one(self.raw & 0xffff) == Some(one::HANDLE)
    }

    /// Whether the TPM does not know the algorithm, curve, size or scheme.
    pub fn is_unsupported(self) -> bool {
        let number = format_one(self.raw & 0xffff);
        let is_about_a_value = number.is_some_and(|number| one::UNSUPPORTED.contains(&number));
        self.layer == Layer::Tpm && (is_about_a_value || self.raw & 0xffff == COMMAND_CODE)
    }

    /// Whether a value is not the one that the TPM has.
    pub fn is_wrong_value(self) -> bool {
        self.layer == Layer::Tpm && format_one(self.raw & 0xffff) == Some(one::VALUE)
    }

    /// Whether a session has not come to what the key's policy wants.
    pub fn is_policy_not_met(self) -> bool {
        self.layer == Layer::Tpm && format_one(self.raw & 0xffff) == Some(one::POLICY_FAIL)
    }

    /// Whether a PCR has changed since a session was told of it.
    pub fn is_pcr_changed(self) -> bool {
        self.layer == Layer::Tpm && self.raw & 0xffff == PCR_CHANGED
    }

    fn kind(self) -> Kind {
        let code = self.raw & 0xffff;
        match self.layer {
            Layer::Tcti => return Kind::Absent,
            // What came from the TPM made no sense, and may the next time.
            Layer::Esys | Layer::Library => return Kind::Unavailable,
            Layer::Tpm => {}
        }
        match (code, format_one(code)) {
            (LOCKOUT | AUTH_UNAVAILABLE, _) => Kind::Locked,
            (_, Some(one::AUTH_FAIL | one::BAD_AUTH)) => Kind::BadPin,
            (_, Some(one::INTEGRITY)) => Kind::Mismatch,
            (_, Some(one::HIERARCHY)) => Kind::Refused,
            (COMMAND_CODE, _) => Kind::Unsupported,
            _ if self.is_unsupported() => Kind::Unsupported,
            _ if self.cure() != Cure::Forget => Kind::Unavailable,
            (0x900..=0x9ff | FAILURE | REBOOT, _) => Kind::Unavailable, // warnings pass
            _ => Kind::Internal,
        }
    }

    fn remedy(self) -> &'static str {
        let code = self.raw & 0xffff;
        match self.layer {
            Layer::Tcti => {
                return "the TPM cannot be reached; check that the device is there and that our \
                        user may open it (group tss), or that swtpm runs";
            }
            Layer::Esys => return "the connection to the TPM broke off; it is opened anew",
            Layer::Library => {
                return "what the TPM answered makes no sense; the connection is opened anew; if \
                        that does not help, check the version of tpm2-tss";
            }
            Layer::Tpm => {}
        }
        match (code, format_one(code)) {
            (INITIALIZE, _) => "the TPM was not started; the firmware, or swtpm, should do that",
            (FAILURE, _) => "the TPM is in failure mode; power the machine off and on",
            (REBOOT, _) => "the TPM asks for a new start of the machine",
            (COMMAND_CODE, _) => "this TPM does not have the command; see its data sheet",
            (LOCKOUT, _) => {
                "others have locked the TPM by wrong auth values; our keys are not subject to \
                 that; wait, or run `tpm2_dictionarylockout --clear-lockout`"
            }
            (CONTEXT_GAP, _) => {
                "another program holds a session that it saved long ago, and until it is gone no \
                 session can be started; end that program, or run `tpm2_flushcontext \
                 --saved-session`"
            }
            (OBJECT_MEMORY | OBJECT_HANDLES | MEMORY, _) => {
                "the TPM has no room for one more object; end programs that use it, or run \
                 `tpm2_flushcontext --transient-object`"
            }
            (SESSION_MEMORY | SESSION_HANDLES, _) => {
                "the TPM has no room for one more session; end programs that use it, or run \
                 `tpm2_flushcontext --loaded-session`"
            }
            (_, Some(one::AUTH_FAIL | one::BAD_AUTH)) => {
                "the auth value is wrong: the secret that `auth` names is not the one the key was \
                 made with; bring that one back and restart the keystore"
            }
            (_, Some(one::INTEGRITY)) => {
                "it was made by another TPM or before the TPM was cleared, or the file was changed"
            }
            (_, Some(one::HIERARCHY)) => {
                "the owner hierarchy is disabled; enable it in the firmware"
            }
            (code, _) if REFERENCE_H.contains(&code) || REFERENCE_S.contains(&code) => {
                "the TPM was reset; what was loaded is loaded again"
            }
            (0x900..=0x9ff, _) => "the TPM is busy; the request may be repeated",
            _ => "see the code in TPM 2.0 Part 2, or run `tpm2_rc_decode`",
        }
    }
}

/// An error of the binding as one of ours: where (`place`), doing what, what came back, what helps.
pub fn explain(place: &str, doing: &str, error: &tss_esapi::Error) -> Error {
    let Some(code) = Code::of(error) else {
        let text = format!(
            "{place}: {doing}: what the TPM answered cannot be used ({error}); the connection is \
             opened anew; if that does not help, check the version of tpm2-tss"
        );
        return Error::new(Kind::Unavailable, text);
    };
    let who = match code.layer {
        Layer::Tpm => "the TPM",
        Layer::Esys | Layer::Library => "the library",
        Layer::Tcti => "the way to the TPM",
    };
    let (raw, remedy) = (code.raw, code.remedy());
    let text = format!("{place}: {doing}: {who} answered {raw:#x}; {remedy}");
    Error::new(code.kind(), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layer_is_looked_at_before_the_code() {
        for (raw, layer, kind, cure) in [
            (0x0000_0101, Layer::Tpm, Kind::Unavailable, Cure::Forget),
            (0x0007_0001, Layer::Esys, Kind::Unavailable, Cure::Reconnect),
            (0x0007_0007, Layer::Esys, Kind::Unavailable, Cure::Reconnect),
            (0x000a_000a, Layer::Tcti, Kind::Absent, Cure::Reconnect),
            (0x0000_0100, Layer::Tpm, Kind::Unavailable, Cure::Startup),
            (0x0000_0902, Layer::Tpm, Kind::Unavailable, Cure::Room),
            (0x0000_0903, Layer::Tpm, Kind::Unavailable, Cure::Session),
            (0x0000_0901, Layer::Tpm, Kind::Unavailable, Cure::Gap),
            (0x0000_0910, Layer::Tpm, Kind::Unavailable, Cure::Reconnect),
            (0x0000_0918, Layer::Tpm, Kind::Unavailable, Cure::Reconnect),
            (0x0000_018b, Layer::Tpm, Kind::Unavailable, Cure::Reconnect),
            (0x0000_0921, Layer::Tpm, Kind::Locked, Cure::Forget),
            (0x0000_0908, Layer::Tpm, Kind::Unavailable, Cure::Wait),
            (0x0000_090a, Layer::Tpm, Kind::Unavailable, Cure::Wait),
            (0x0000_0920, Layer::Tpm, Kind::Unavailable, Cure::Wait),
            (0x0000_0922, Layer::Tpm, Kind::Unavailable, Cure::Wait),
            (0x0000_0923, Layer::Tpm, Kind::Unavailable, Cure::Wait),
            (0x0000_098e, Layer::Tpm, Kind::BadPin, Cure::Forget),
            (0x0000_09a2, Layer::Tpm, Kind::BadPin, Cure::Forget),
            (0x0000_01df, Layer::Tpm, Kind::Mismatch, Cure::Forget),
            (0x000b_0143, Layer::Tpm, Kind::Unsupported, Cure::Forget),
            (0x0000_0143, Layer::Tpm, Kind::Unsupported, Cure::Forget),
            (
                0x0008_0006,
                Layer::Library,
                Kind::Unavailable,
                Cure::Reconnect,
            ),
            (
                0x0009_000b,
                Layer::Library,
                Kind::Unavailable,
                Cure::Reconnect,
            ),
        ] {
            let code = Code::new(raw);
            let verdict = (code.layer, code.kind(), code.cure());
            assert_eq!(verdict, (layer, kind, cure), "{raw:#x}");
        }
    }

    #[test]
    fn what_a_tpm_cannot_do_is_told_from_what_it_will_not_do() {
        // The TPM's answers to a curve, a key size and a scheme it does not have.
        for raw in [0x02d2, 0x01d2, 0x02c4, 0x01c4, 0x02e6, 0x02c7, 0x0143] {
            assert!(Code::new(raw).is_unsupported(), "{raw:#x}");
        }
        for raw in [0x0902, 0x09a2, 0x01df, 0x0921, 0x000a_000a, 0x0007_0004] {
            assert!(!Code::new(raw).is_unsupported(), "{raw:#x}");
        }
    }
}
