//! The commands of a TPM that a rule can name, with their codes (TPM 2.0 part 2, table
//! TPM_CC). `*` in a rule means these and all others.

const COMMANDS: &[(&str, u32)] = &[
    ("TPM2_EvictControl", 0x120),
    ("TPM2_HierarchyControl", 0x121),
    ("TPM2_Clear", 0x126),
    ("TPM2_HierarchyChangeAuth", 0x129),
    ("TPM2_CreatePrimary", 0x131),
    ("TPM2_SelfTest", 0x143),
    ("TPM2_Startup", 0x144),
    ("TPM2_Shutdown", 0x145),
    ("TPM2_ActivateCredential", 0x147),
    ("TPM2_Certify", 0x148),
    ("TPM2_CertifyCreation", 0x14a),
    ("TPM2_PolicySecret", 0x151),
    ("TPM2_Create", 0x153),
    ("TPM2_Import", 0x156),
    ("TPM2_Load", 0x157),
    ("TPM2_Quote", 0x158),
    ("TPM2_Sign", 0x15d),
    ("TPM2_ContextLoad", 0x161),
    ("TPM2_ContextSave", 0x162),
    ("TPM2_FlushContext", 0x165),
    ("TPM2_LoadExternal", 0x167),
    ("TPM2_ReadPublic", 0x173),
    ("TPM2_StartAuthSession", 0x176),
    ("TPM2_VerifySignature", 0x177),
    ("TPM2_GetCapability", 0x17a),
    ("TPM2_GetRandom", 0x17b),
    ("TPM2_GetTestResult", 0x17c),
    ("TPM2_Hash", 0x17d),
    ("TPM2_ReadClock", 0x181),
    ("TPM2_TestParms", 0x18a),
    ("TPM2_CreateLoaded", 0x191),
];

/// Which commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All, whether they have a name here or not.
    All,
    /// Those with this code.
    Code(u32),
}

impl Scope {
    /// `*`, or the name of a command.
    pub fn parse(word: &str) -> Option<Scope> {
        let named = || COMMANDS.iter().find(|(name, _)| *name == word);
        match word {
            "*" => Some(Scope::All),
            _ => named().map(|(_, code)| Scope::Code(*code)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tss_esapi::constants::CommandCode;

    #[test]
    fn every_code_is_the_one_that_tpm2_tss_has_for_the_name() {
        for (name, code) in COMMANDS {
            let theirs = CommandCode::try_from(*code).unwrap();
            assert_eq!(*name, format!("TPM2_{theirs:?}"));
            assert_eq!(Scope::parse(name), Some(Scope::Code(*code)));
        }
    }

    #[test]
    fn a_name_with_a_typo_is_none() {
        for name in ["", "TPM2_Sing", "Sign", "tpm2_sign", "0x15d", "**"] {
            assert_eq!(Scope::parse(name), None, "{name}");
        }
    }
}
