//! V-QUOTE (standards §4.5): in which state a host was when its TPM stated the rest, and that it was this host's
//! TPM and these statements.

use super::Session;
use super::ak::Vetted;
use super::certify::{Certified, signed, signer};
use super::logs;
use super::state::{self, Stated};
use crate::evidence::attest::{Attest, Attested, Selected};
use crate::evidence::bundle::{Bank, PcrIndex, PcrValue, Pcrs, Quote, Selection};
use crate::evidence::context;
use crate::evidence::policy::QuotePolicy;
use crate::evidence::verdict::{Check, Done, Finding, Report, both};
use std::collections::BTreeMap;

/// Looks at the state of the host, and at what it shares with the statements about keys.
pub fn state(
    session: &Session<'_>,
    vetted: Done<&Vetted>,
    keys: Vec<Certified>,
    report: &mut Report,
) {
    let mut statements: Vec<Done<Stated>> = keys.iter().map(|it| it.stated).collect();
    let about = session.tpm.name.as_str();
    let wanted = session.question.policy.quote.as_ref();
    let quote = report.look(Check::Quote, about, vetted, |_| {
        match (&session.tpm.quote, wanted) {
            (Some(quote), _) => Finding::Passed(Some(quote)),
            (None, Some(_)) => Finding::Failed("there is none".into()),
            (None, None) => Finding::Skipped(None, "the policy asks for none".into()),
        }
    });
    let quote = match quote {
        Ok(Some(quote)) => Ok(quote),
        Ok(None) => return state::compare(session, vetted, statements, report),
        Err(check) => Err(check),
    };
    let signed = report.look(
        Check::QuoteSignature,
        about,
        both(vetted, quote),
        |(vetted, quote)| {
            let right = signed(quote.signature.as_slice(), quote.attest.as_slice(), vetted);
            Finding::of(right.map(|()| quote))
        },
    );
    let statement = report.look(
        Check::QuoteStatement,
        about,
        signed,
        |quote| match Attest::parse(quote.attest.as_slice()) {
            Ok(attest) if matches!(attest.attested, Attested::Quote { .. }) => {
                Finding::Passed(attest)
            }
            Ok(_) => Finding::Failed("the statement is not one about PCRs".into()),
            Err(wrong) => Finding::Failed(format!("the statement {wrong}")),
        },
    );
    let statement = statement.as_ref().map_err(|it| *it);
    let by = both(vetted, statement);
    let _ = report.look(Check::QuoteSigner, about, by, |(vetted, attest)| {
        signer(vetted, attest)
    });
    // One that was changed is named where it stands, not here once more.
    let whole = keys.iter().find_map(|it| it.in_context.err());
    let for_this = both(both(session.nonce, statement), whole.map_or(Ok(()), Err));
    let _ = report.look(
        Check::QuoteContext,
        about,
        for_this,
        |(((), attest), ())| in_context(session, attest),
    );
    let selected = report.look(Check::QuoteSelection, about, statement, |attest| {
        selection(attest, wanted)
    });
    let values = both(both(vetted, quote), both(statement, selected));
    let values = report.look(
        Check::QuoteValues,
        about,
        values,
        |((vetted, quote), (attest, of))| quoted(vetted, quote, attest, of),
    );
    let _ = report.look(Check::PcrReference, about, values, |values| {
        reference(values, wanted)
    });
    logs::logs(session, values, report);
    statements.push(statement.map(|attest| Stated {
        clock: attest.clock,
        firmware: attest.firmware_version,
    }));
    state::compare(session, vetted, statements, report);
}

fn in_context(session: &Session<'_>, attest: &Attest) -> Finding<()> {
    let statements = session.tpm.keys.iter().map(|key| key.attest.as_slice());
    let statements = context::statements(statements);
    let (nonce, host) = (session.question.nonce, &session.bundle.host);
    match attest.extra_data == context::quote(nonce, host, &statements) {
        true => Finding::Passed(()),
        false => Finding::Failed(format!(
            "it was made for another nonce, another host than {host} or with other statements \
             about keys"
        )),
    }
}

fn selection<'a>(attest: &'a Attest, wanted: Option<&QuotePolicy>) -> Finding<&'a Selected> {
    let Attested::Quote { selection, .. } = &attest.attested else {
        return Finding::Failed("the statement is not one about PCRs".into());
    };
    let banks = || selection.0.iter().map(|(bank, _)| *bank);
    if banks().all(|bank| !bank.is_strong()) {
        return Finding::Failed("it is over the SHA-1 bank alone, or over nothing".into());
    }
    let Some(wanted) = wanted else {
        let reason = "the policy names no PCRs";
        return Finding::Skipped(selection, reason.into());
    };
    let found: Selection = selection.0.iter().cloned().collect();
    let differs = |it: &Selection| it.iter().filter(|(_, of)| !of.is_empty()).count();
    let is_it = differs(&wanted.select) == found.len()
        && found
            .iter()
            .all(|(bank, of)| wanted.select.get(bank) == Some(of));
    match is_it {
        true => Finding::Passed(selection),
        false => Finding::Failed(format!(
            "it is over {}, and the policy wants {}",
            shown(&found),
            shown(&wanted.select)
        )),
    }
}

/// `sha256:0,1,7 sha384:0`
fn shown(selection: &Selection) -> String {
    let bank = |(bank, indices): (&Bank, &std::collections::BTreeSet<PcrIndex>)| {
        let indices: Vec<String> = indices.iter().map(ToString::to_string).collect();
        format!("{bank}:{}", indices.join(","))
    };
    selection.iter().map(bank).collect::<Vec<_>>().join(" ")
}

/// Whether the values that are shown are those that were quoted: these and no others.
fn quoted<'a>(
    vetted: &Vetted,
    quote: &'a Quote,
    attest: &Attest,
    of: &Selected,
) -> Finding<&'a Pcrs> {
    let Attested::Quote { digest, .. } = &attest.attested else {
        return Finding::Failed("the statement is not one about PCRs".into());
    };
    let Some(scheme) = vetted.ak.scheme else {
        return Finding::Failed("the attestation key has no hash".into());
    };
    let none = BTreeMap::<PcrIndex, PcrValue>::new();
    let mut parts: Vec<&[u8]> = Vec::new();
    for (bank, indices) in &of.0 {
        let values = quote.pcrs.get(bank).unwrap_or(&none);
        if !values.keys().eq(indices) {
            return Finding::Failed(format!(
                "the values of {bank} are not those of what was quoted"
            ));
        }
        if values
            .values()
            .any(|it| it.as_slice().len() != bank.digest_len())
        {
            return Finding::Failed(format!("a value of {bank} is not as long as its hash"));
        }
        parts.extend(values.values().map(PcrValue::as_slice));
    }
    let shown = quote
        .pcrs
        .iter()
        .filter(|(_, values)| !values.is_empty())
        .count();
    if shown != of.0.len() {
        return Finding::Failed("there are values of a bank that was not quoted".into());
    }
    match scheme.hash.of(&parts) == *digest {
        true => Finding::Passed(&quote.pcrs),
        false => Finding::Failed("the values are others than were quoted".into()),
    }
}

fn reference(values: &Pcrs, wanted: Option<&QuotePolicy>) -> Finding<()> {
    let wanted = wanted.map(|it| &it.values).filter(|it| !it.is_empty());
    let Some(wanted) = wanted else {
        return Finding::Skipped((), "the policy knows no values".into());
    };
    for (bank, of_bank) in wanted {
        for (pcr, known) in of_bank {
            let found = values.get(bank).and_then(|it| it.get(pcr));
            if !found.is_some_and(|it| known.contains(it)) {
                let found = found.map_or("not quoted".into(), ToString::to_string);
                let reason =
                    format!("PCR {pcr} of {bank} is {found}, which the policy does not know");
                return Finding::Failed(reason);
            }
        }
    }
    Finding::Passed(())
}
