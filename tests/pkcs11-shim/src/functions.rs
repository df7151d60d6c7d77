//! The functions that are counted and can be told to misbehave: all that concern a slot, a token,
//! a session, an object, a key or a signature. Only streams of encryption and digests are not.

macro_rules! functions {
    ($($name:ident),* $(,)?) => {
        /// A function of PKCS#11.
        #[allow(non_camel_case_types, missing_docs)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Function { $($name),* }

        impl Function {
            /// All, in the order of their counters.
            pub const ALL: &'static [Function] = &[$(Function::$name),*];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self { $(Function::$name => stringify!($name)),* }
            }
        }
    };
}

functions! {
    C_Initialize,
    C_Finalize,
    C_GetInfo,
    C_GetSlotList,
    C_GetSlotInfo,
    C_GetTokenInfo,
    C_GetMechanismList,
    C_GetMechanismInfo,
    C_InitToken,
    C_InitPIN,
    C_SetPIN,
    C_OpenSession,
    C_CloseSession,
    C_CloseAllSessions,
    C_GetSessionInfo,
    C_Login,
    C_Logout,
    C_CreateObject,
    C_CopyObject,
    C_DestroyObject,
    C_GetAttributeValue,
    C_SetAttributeValue,
    C_FindObjectsInit,
    C_FindObjects,
    C_FindObjectsFinal,
    C_SignInit,
    C_SignLength, // C_Sign with a null pointer, which only asks for the length
    C_Sign,
    C_SignUpdate,
    C_SignFinal,
    C_VerifyInit,
    C_Verify,
    C_GenerateKey,
    C_GenerateKeyPair,
    C_UnwrapKey,
    C_DeriveKey,
    C_SeedRandom,
    C_GenerateRandom,
}

impl Function {
    /// What makes, changes or destroys an object, a PIN or a token. The sum of their counts is the
    /// same before and after what must change nothing.
    pub const CHANGING: &'static [Function] = &[
        Function::C_InitToken,
        Function::C_InitPIN,
        Function::C_SetPIN,
        Function::C_CreateObject,
        Function::C_CopyObject,
        Function::C_DestroyObject,
        Function::C_SetAttributeValue,
        Function::C_GenerateKey,
        Function::C_GenerateKeyPair,
        Function::C_UnwrapKey,
        Function::C_DeriveKey,
    ];

    /// The function of that name.
    pub fn named(name: &str) -> Option<Function> {
        Function::ALL
            .iter()
            .copied()
            .find(|function| function.name() == name)
    }

    /// Whether a rule for `*` means it: a device that fails fails in these. The other two begin and
    /// end the use of the library, which is there without a device.
    pub fn needs_device(self) -> bool {
        !matches!(self, Function::C_Initialize | Function::C_Finalize)
    }
}
