//! The functions that are counted and can be told to misbehave.

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
    C_GetSlotList,
    C_GetTokenInfo,
    C_OpenSession,
    C_CloseSession,
    C_GetSessionInfo,
    C_Login,
    C_Logout,
    C_FindObjectsInit,
    C_FindObjects,
    C_GetAttributeValue,
    C_GenerateKeyPair,
    C_DestroyObject,
    C_SignInit,
    C_SignLength, // C_Sign with a null pointer, which only asks for the length
    C_Sign,
}

impl Function {
    /// The function of that name.
    pub fn named(name: &str) -> Option<Function> {
        Function::ALL
            .iter()
            .copied()
            .find(|function| function.name() == name)
    }
}
